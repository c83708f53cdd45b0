"""Cache: the folders in which timm's and torchvision's hubs leave the weights that they have fetched."""

from __future__ import annotations

import contextlib
from pathlib import Path

import torch

from transfer.backbones.names import TORCHVISION, timm_config, torchvision_weights
from transfer.errors import UsageError


def cached_file(name: str) -> Path | None:
    """Return the file in the local hub caches that holds the pretrained weights of `name`."""
    if name.startswith(TORCHVISION):
        with contextlib.suppress(UsageError, ValueError):
            return _checkpoint(torchvision_weights(name).url)
        return None
    config = timm_config(name) or {}
    if repository := config.get("hf_hub_id"):
        from huggingface_hub import try_to_load_from_cache

        for file in ("model.safetensors", "pytorch_model.bin"):
            cached = try_to_load_from_cache(repository, file)
            if isinstance(cached, str):
                return Path(cached)
    return _checkpoint(config["url"]) if config.get("url") else None


def _checkpoint(url: str) -> Path | None:
    path = Path(torch.hub.get_dir()) / "checkpoints" / Path(url).name
    return path if path.is_file() else None
