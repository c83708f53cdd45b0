"""Weights: the tensors of a network, read from a file, loaded by name, fingerprinted."""

from __future__ import annotations

import hashlib
from pathlib import Path

import torch
from torch import nn

from transfer.errors import ArtefactError


def read_weights(path: Path) -> dict[str, torch.Tensor]:
    """Read tensors from a .safetensors file, or a .pth file without running anything that is in it.

    Raises
    ------
    ArtefactError
        The file is missing, damaged, or holds something else than tensors.
    """
    if not path.is_file():
        raise ArtefactError(f"No weights file {path}. Name a .safetensors or .pth file, or a run folder.")
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            return load_file(path)
        loaded = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch, pickle, zip and safetensors each raise their own; none says which file
        reason = str(error).strip().splitlines()[0][:120] if str(error).strip() else type(error).__name__
        raise ArtefactError(f"Cannot read weights from {path}: {reason} Only plain tensors are accepted.") from error
    for key in ("state_dict", "model", "state_dict_ema"):
        if isinstance(loaded, dict) and isinstance(loaded.get(key), dict):
            loaded = loaded[key]
    if not isinstance(loaded, dict) or not all(isinstance(value, torch.Tensor) for value in loaded.values()):
        raise ArtefactError(f"{path} does not hold a dictionary of tensors. Save model.state_dict() as .safetensors.")
    return loaded


def load_weights(model: nn.Module, tensors: dict[str, torch.Tensor], source: str) -> None:
    """Load tensors by name, all of them; those of another classifier may be left over.

    Raises
    ------
    ArtefactError
        A tensor of the network is missing or has another shape.
    """
    wanted = model.state_dict()
    missing = [name for name in wanted if name not in tensors and not name.endswith("num_batches_tracked")]
    misfits = [name for name in wanted if name in tensors and tensors[name].shape != wanted[name].shape]
    if missing or misfits:
        first = (misfits or missing)[0]
        got = tuple(tensors[first].shape) if first in tensors else "nothing"
        raise ArtefactError(
            f"Weights {source} do not fit the network: {len(missing)} tensors missing, {len(misfits)} of another "
            f"shape; {first} should be {tuple(wanted[first].shape)}, got {got}. Is it the right architecture?"
        )
    model.load_state_dict({name: tensors[name] for name in wanted if name in tensors}, strict=False)


def fingerprint(model: nn.Module) -> str:
    """Return the SHA-256 over the names, shapes and bytes of all tensors of a network.

    A hand-made backbone has none: what makes it that and no other is its `definition`.
    """
    digest = hashlib.sha256(getattr(model, "definition", "").encode())
    for name, tensor in sorted(model.state_dict().items()):
        if name.endswith("num_batches_tracked"):
            continue
        digest.update(f"{name}{tuple(tensor.shape)}{tensor.dtype}".encode())
        digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy())
    return digest.hexdigest()
