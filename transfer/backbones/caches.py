"""Cache: the folders in which timm's and torchvision's hubs leave the weights that they have fetched."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

import torch

from transfer.backbones.names import TORCHVISION, bare_name, timm_config, torchvision_weights
from transfer.errors import UsageError

# timm's names of weights files -> the names under which it prefers them
_SAFER = {"pytorch_model.bin": "model.safetensors", "open_clip_pytorch_model.bin": "open_clip_model.safetensors"}


def cached_file(name: str) -> Path | None:
    """Return the file in the local hub caches that holds the pretrained weights of `name`."""
    if name.startswith(TORCHVISION):
        with contextlib.suppress(UsageError, ValueError):
            return _checkpoint(torchvision_weights(name).url)
        return None
    config = timm_config(name) or {}
    if config.get("hf_hub_id"):
        from huggingface_hub import try_to_load_from_cache

        repository, _, revision = config["hf_hub_id"].partition("@")
        for file in _file_names(config.get("hf_hub_filename")):
            cached = try_to_load_from_cache(repository, file, revision=revision or None)
            if isinstance(cached, str):
                return Path(cached)
    return _checkpoint(config["url"]) if config.get("url") else None


def has_something_like(name: str) -> bool:
    """Say whether the caches hold anything that has the architecture in its name. Quick: timm is not needed for it."""
    from huggingface_hub import constants

    for folder in (Path(constants.HF_HUB_CACHE), _checkpoints()):
        with contextlib.suppress(OSError):
            if any(bare_name(name) in path.name for path in folder.iterdir()):
                return True
    return False


def _file_names(file: str | None) -> Iterator[str]:
    """Yield the names under which timm looks for weights in a repository, in its order."""
    file = file or "pytorch_model.bin"
    if file.endswith(".bin"):
        yield _SAFER.get(file, file.removesuffix(".bin") + ".safetensors")
    yield file


def _checkpoint(url: str) -> Path | None:
    path = _checkpoints() / Path(url).name
    return path if path.is_file() else None


def _checkpoints() -> Path:
    return Path(torch.hub.get_dir()) / "checkpoints"
