"""Classifier: the linear layer of C classes on a backbone's features, at the place where its own library has it.

Behind a hand-made backbone, which no library has, it is the second of two layers.
"""

from __future__ import annotations

import functools
from collections import OrderedDict
from typing import Any

import torch
from torch import nn

from transfer.backbones.handmade import HANDMADE
from transfer.backbones.loading import Backbone
from transfer.backbones.names import TORCHVISION, timm_config
from transfer.backbones.networks import build, build_whole, build_with_classifier, last_linear, set_submodule
from transfer.backbones.weights import load_weights
from transfer.errors import ArtefactError


def with_head(backbone: Backbone, weight: torch.Tensor, bias: torch.Tensor) -> nn.Module:
    """Return the network with a linear classifier of C classes on its features, as its own library builds it.

    Parameters
    ----------
    weight, bias
        Of shape (C, n_features) and (C,).

    Raises
    ------
    ArtefactError
        The architecture has no single linear classifier on the features that this backbone returns.
    """
    n_classes = len(bias)
    model, head = classifier_network(backbone.name, n_classes, backbone.n_features)
    tensors = {**backbone.model.state_dict(), f"{head}.weight": weight, f"{head}.bias": bias}
    load_weights(model, tensors, f"head of {n_classes} classes")
    return model.eval()


def classifier_network(name: str, n_classes: int, n_features: int) -> tuple[nn.Module, str]:
    """Build the network with a classifier of `n_classes` and random weights; return it with the classifier's name."""
    model: Any
    if name in HANDMADE:
        return nn.Sequential(OrderedDict(features=build(name), head=nn.Linear(n_features, n_classes))), "head"
    if name.startswith(TORCHVISION):
        model = build(name)
        head = "classifier.2" if "squeezenet" in name else _last_linear_of(name)
        if "squeezenet" in name:
            model.classifier = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(1), nn.Linear(n_features, n_classes))
        else:
            set_submodule(model, head, nn.Linear(n_features, n_classes))
        return model, head
    import timm

    model = timm.create_model(name, pretrained=False, num_classes=n_classes)
    head = model.pretrained_cfg.get("classifier")
    if not isinstance(head, str) or not isinstance(module := _submodule(model, head), nn.Linear):
        raise ArtefactError(f"{name} has no single linear classifier; the run keeps its head beside the network.")
    if module.in_features != n_features:
        raise ArtefactError(
            f"The classifier of {name} takes {module.in_features} features, the backbone gives {n_features}."
        )
    return model, head


def classifier_path(name: str) -> str:
    """Return the path of the layer that gives the class scores, where the network's own library has it; or empty."""
    if name.startswith(TORCHVISION):
        return "classifier.1" if "squeezenet" in name else _last_linear_of(name)
    path = (timm_config(name) or {}).get("classifier") or ""
    return str(path if isinstance(path, str) else path[0])  # distilled networks have two


def own_classifier(name: str) -> dict[str, Any] | None:
    """Describe the classifier that the pretrained weights of `name` have and a backbone lacks.

    Returns
    -------
    dict or None
        name, classes, parameters and multiply_adds of the linear layer; None where it is something else or missing.
    """
    path = classifier_path(name)
    try:
        with torch.device("meta"):
            layer = _submodule(build_with_classifier(name), path) if path else None
    except NotImplementedError:  # some networks compute their own widths with tensors
        return None
    if not isinstance(layer, nn.Linear):
        return None
    return {
        "name": path,
        "classes": layer.out_features,
        "parameters": sum(parameter.numel() for parameter in layer.parameters()),
        "multiply_adds": layer.in_features * layer.out_features,
    }


@functools.cache
def _last_linear_of(name: str) -> str:
    return last_linear(build_whole(name))


def _submodule(model: nn.Module, path: str) -> nn.Module | None:
    try:
        return model.get_submodule(path)
    except AttributeError:
        return None
