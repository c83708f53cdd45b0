"""Network: an architecture with random weights and without its classifier."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import nn

from transfer.backbones.handmade import HANDMADE
from transfer.backbones.names import TORCHVISION, bare_name, default_preprocessing, full_name


def build(name: str) -> nn.Module:
    """Return the network with random weights and without its classifier.

    Raises
    ------
    UsageError
        There is no such network; the message names the nearest.
    """
    name = full_name(name)
    if name in HANDMADE:
        return HANDMADE[name].build()
    if name.startswith(TORCHVISION):
        return without_classifier(build_whole(name), bare_name(name))
    import timm

    return timm.create_model(name, pretrained=False, num_classes=0)


def build_with_classifier(name: str, n_classes: int | None = None) -> nn.Module:
    """Return the network with random weights and a classifier of `n_classes`, by default as many as its weights have.

    Parameters
    ----------
    name
        A full name.
    """
    settings: dict[str, Any] = {} if n_classes is None else {"num_classes": n_classes}
    if name.startswith(TORCHVISION):
        return build_whole(name, **settings)
    import timm

    return timm.create_model(name, pretrained=False, **settings)


def build_whole(name: str, **settings: Any) -> nn.Module:
    """Return a torchvision network with random weights and its own classifier."""
    import torchvision

    bare = bare_name(name)
    if bare in ("inception_v3", "googlenet"):  # a slow initialisation, and a warning about it
        settings["init_weights"] = False
    if bare.startswith("vit_"):  # it takes one image size, which is that of the weights
        settings["image_size"] = default_preprocessing(name).input_size
    return torchvision.models.get_model(bare, weights=None, **settings)


def without_classifier(model: Any, name: str) -> nn.Module:
    """Replace the classifier of a torchvision network by nothing, so that it returns the classifier's input."""
    if name.startswith("squeezenet"):  # its classifier is a convolution, then a pool
        model.classifier = nn.Sequential(nn.AdaptiveAvgPool2d(1))
        return model
    set_submodule(model, last_linear(model), nn.Identity())
    if getattr(model, "aux_logits", False):
        model.aux_logits = False
        for branch in ("AuxLogits", "aux1", "aux2"):
            if hasattr(model, branch):
                setattr(model, branch, None)
    return model


def feature_width(shape: Sequence[int]) -> int:
    """Return the length of a row of features from the shape of a network's output: rows, tokens or maps of channels.

    Tokens and maps come from encoders that leave averaging to others.
    """
    return shape[2] if len(shape) == 3 else shape[1]


def last_linear(model: nn.Module) -> str:
    """Return the path of the last linear layer that is not on a side branch: torchvision's classifier."""
    names = [name for name, module in model.named_modules() if isinstance(module, nn.Linear)]
    main = [name for name in names if not name.lower().startswith("aux")]
    return main[-1]


def set_submodule(model: nn.Module, path: str, module: nn.Module) -> None:
    """Put `module` at a dotted path of `model`."""
    parent, _, name = path.rpartition(".")
    setattr(model.get_submodule(parent), name, module)
