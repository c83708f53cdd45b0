"""Loading: from a name and perhaps a weights file to a backbone, ready to turn images into features."""

from __future__ import annotations

import contextlib
import dataclasses
import json
from pathlib import Path

import torch
from torch import nn

from transfer.backbones.hub import load_from_hub
from transfer.backbones.names import DEFAULT, default_preprocessing, full_name
from transfer.backbones.networks import build
from transfer.backbones.packages import EMBEDDED, embedded_file, in_order_of
from transfer.backbones.weights import fingerprint, load_weights, read_weights
from transfer.errors import UsageError
from transfer.images import Preprocessing
from transfer.machine import torch_threads


@dataclasses.dataclass(frozen=True)
class Backbone:
    """A pretrained network that turns images (N, 3, H, W) into features (N, n_features), in eval mode."""

    name: str
    model: nn.Module
    preprocessing: Preprocessing
    n_features: int
    source: str  # where the weights came from, in words
    weights_hash: str  # of the tensors, whatever file they came in

    @property
    def input_shape(self) -> tuple[int, int, int]:
        """The shape of one image as the network takes it."""
        return (3, self.preprocessing.input_size, self.preprocessing.input_size)


def load_backbone(
    name: str = DEFAULT,
    weights: str | Path | None = None,
    preprocessing: Preprocessing | None = None,
    *,
    seed: int = 0,
) -> Backbone:
    """Load a pretrained network without its classifier.

    Parameters
    ----------
    name
        A timm name (``resnet18``, ``vit_small_patch14_dinov2.lvd142m``), or a torchvision name: ``alexnet`` where
        timm has no such network, ``torchvision/resnet18`` always.
    weights
        A ``.safetensors`` file, a ``.pth`` file (read with ``weights_only=True`` and no other way) or a run folder;
        ``random`` for random weights, the control. By default the pretrained weights are looked for.
    preprocessing
        Instead of the one that belongs to the weights.
    seed
        Of random weights.

    Raises
    ------
    UsageError
        There is no such network.
    ArtefactError
        The weights are damaged or do not fit the network.
    ResourceError
        The weights are not on this machine and the network does not answer.
    """
    name = full_name(name)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = build(name)
    found = default_preprocessing(name)
    if weights == "random":
        source = "random weights"
    elif weights is not None:
        path = Path(weights)
        if path.is_dir():
            found = _run_preprocessing(path) or found
        load_weights(model, read_weights(path / "model.safetensors" if path.is_dir() else path), str(weights))
        source = str(weights)
    elif (embedded := embedded_file(name)) is not None:
        load_weights(model, in_order_of(name, read_weights(embedded)), embedded.name)
        source = f"package {EMBEDDED[name].replace('_', '-')}, {embedded.name}"
    else:
        model, source = load_from_hub(name)
    return finish(name, model, preprocessing or found, source)


def finish(name: str, model: nn.Module, preprocessing: Preprocessing, source: str) -> Backbone:
    """Put a loaded network into eval mode, measure its width and fingerprint its weights."""
    model.eval()
    with torch.inference_mode(), torch_threads(1):
        size = preprocessing.input_size
        try:
            n_features = model(torch.zeros(1, 3, size, size)).shape[1]
        except (RuntimeError, AssertionError, ValueError) as error:
            raise UsageError(f"{name} does not take images of {size}x{size} pixels: {error}") from error
    return Backbone(name, model, preprocessing, n_features, source, fingerprint(model))


def _run_preprocessing(run: Path) -> Preprocessing | None:
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
        return Preprocessing.from_dict(json.loads((run / "run.json").read_text())["preprocessing"])
    return None
