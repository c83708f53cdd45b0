"""Paper's name: what the literature calls a layer of AlexNet, beside its path in torchvision."""

from __future__ import annotations

from torch import nn

# The paper's name -> the layer with the weights (or the pool), and the layer whose output that name stands for: behind
# the ReLU, as in Caffe and in the papers on transfer (DeCAF, Razavian et al.). The classifier, fc8, is no part of a
# backbone.
_ALEXNET = {
    "conv1": ("features.0", "features.1"),
    "pool1": ("features.2", "features.2"),
    "conv2": ("features.3", "features.4"),
    "pool2": ("features.5", "features.5"),
    "conv3": ("features.6", "features.7"),
    "conv4": ("features.8", "features.9"),
    "conv5": ("features.10", "features.11"),
    "pool5": ("features.12", "features.12"),
    "fc6": ("classifier.1", "classifier.2"),
    "fc7": ("classifier.4", "classifier.5"),
}


def paper_taps(model: nn.Module) -> dict[str, str]:
    """Return for each name that papers use the path of the layer whose output it stands for."""
    return {name: tap for name, (_, tap) in _names(model).items()}


def paper_layers(model: nn.Module) -> dict[str, str]:
    """Return for the path of each layer with weights and of each pool the name that papers use."""
    return {layer: name for name, (layer, _) in _names(model).items()}


def _names(model: nn.Module) -> dict[str, tuple[str, str]]:
    return _ALEXNET if type(model).__name__ == "AlexNet" else {}
