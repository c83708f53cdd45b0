"""Loading: from a name and perhaps a weights file to a backbone, ready to turn images into features."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import torch
from torch import nn

from transfer.backbones.handmade import HANDMADE
from transfer.backbones.hub import Question, ask_ahead, load_from_hub
from transfer.backbones.names import DEFAULT, architecture, default_preprocessing, full_name
from transfer.backbones.networks import build, feature_width
from transfer.backbones.packages import EMBEDDED, embedded_file, read_embedded
from transfer.backbones.weights import fingerprint, load_weights, read_weights
from transfer.errors import ArtefactError, UsageError
from transfer.files import sha256
from transfer.images import Preprocessing
from transfer.machine import torch_threads

_MODEL_FILE = "model.safetensors"


@dataclasses.dataclass(frozen=True)
class Backbone:
    """What turns images (N, 3, H, W) into features (N, n_features): a pretrained network in eval mode, or hand-made."""

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

    @property
    def is_handmade(self) -> bool:
        """Whether it has no weights: nothing to train, and float32 is the only type that it computes in."""
        return self.name in HANDMADE

    @property
    def is_map_last(self) -> bool:
        """Whether its maps are (N, H, W, C), as Swin's are."""
        return getattr(self.model, "output_fmt", "") == "NHWC" or type(self.model).__name__ == "SwinTransformer"


def load_backbone(
    name: str | None = DEFAULT,
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
        timm has no such network, ``torchvision/resnet18`` always. ``pixels`` and ``hog-color`` are made by hand and
        have no weights. None is the network of the run folder in `weights`, or the default one.
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
        There is no such network, or it is hand-made and weights or a preprocessing are given.
    ArtefactError
        The weights are damaged or do not fit the network, or the run folder has another network.
    ResourceError
        The weights are not on this machine and the network does not answer.
    """
    run = _run_info(Path(weights)) if weights is not None and weights != "random" else None
    name = name or (run["backbone"] if run else DEFAULT)
    for handmade in (run["backbone"] if run else "", name):
        if handmade in HANDMADE:
            return _load_handmade(handmade, weights, preprocessing)
    embedded = embedded_file(name) if weights is None else None
    question = ask_ahead(name) if weights is None and embedded is None else None
    name = full_name(name)
    if run and architecture(run["backbone"]) != architecture(name):
        raise ArtefactError(
            f"The run {weights} has the network {run['backbone']}, not {name}: use `--backbone {run['backbone']}`."
        )
    if run:
        name = run["backbone"]  # with its tag, which may say how large an image it takes
    found = Preprocessing.from_dict(run["preprocessing"]) if run else default_preprocessing(name)
    with torch.random.fork_rng(devices=[]):  # what is drawn here does not change what the caller draws next
        torch.manual_seed(seed)
        model, source = _load(name, weights, embedded, question)
    return finish(name, model, preprocessing or found, source)


def _load_handmade(name: str, weights: str | Path | None, preprocessing: Preprocessing | None) -> Backbone:
    if weights is not None:
        raise UsageError(f"{name} is made by hand and has no weights. Leave out weights={str(weights)!r} (--weights).")
    if preprocessing is not None:
        raise UsageError(f"{name} is made by hand, and its preprocessing is part of it. Leave out preprocessing.")
    return finish(name, build(name), default_preprocessing(name), "hand-made, no weights")


def finish(name: str, model: nn.Module, preprocessing: Preprocessing, source: str) -> Backbone:
    """Put a loaded network into eval mode, measure its width and fingerprint its weights."""
    model.eval()
    n_features = _measure_width(name, model, preprocessing)
    return Backbone(name, model, preprocessing, n_features, source, fingerprint(model))


def see(backbone: Backbone, preprocessing: Preprocessing) -> Backbone:
    """Return the backbone as one that sees images in another way.

    Raises
    ------
    UsageError
        The network does not take images of that size, as some take one size alone.
    """
    n_features = _measure_width(backbone.name, backbone.model, preprocessing)
    return dataclasses.replace(backbone, preprocessing=preprocessing, n_features=n_features)


def _measure_width(name: str, model: nn.Module, preprocessing: Preprocessing) -> int:
    size = preprocessing.input_size
    with torch.inference_mode(), torch_threads(1):
        try:
            return feature_width(model(torch.zeros(1, 3, size, size)).shape)
        except (RuntimeError, AssertionError, ValueError) as error:
            why = " ".join(str(error).split())
            raise UsageError(f"{name} does not take images of {size}x{size} pixels: {why}") from error


def _load(
    name: str, weights: str | Path | None, embedded: Path | None, question: Question | None
) -> tuple[nn.Module, str]:
    """Return the network with its weights, and where they came from, in words."""
    if weights is None and embedded is None:
        return load_from_hub(name, question)
    model = build(name)
    if embedded is not None:
        load_weights(model, read_embedded(name, embedded), embedded.name)
        return model, f"package {EMBEDDED[name].replace('_', '-')}, {embedded.name}"
    if weights == "random":
        return model, "random weights"
    path = Path(str(weights))
    load_weights(model, read_weights(path / _MODEL_FILE if path.is_dir() else path), str(weights))
    return model, str(weights)


def _run_info(folder: Path) -> dict[str, Any] | None:
    """Return what a run folder says of its network; None where there is no run.

    Raises
    ------
    ArtefactError
        It is a run, but damaged.
    """
    path = folder / "run.json"
    if not path.exists():
        return None
    try:
        info = json.loads(path.read_text(encoding="utf-8"))
        network = {key: info[key] for key in ("backbone", "preprocessing")}
        checksum = info["model"]["sha256"]
        Preprocessing.from_dict(network["preprocessing"])
        full_name(network["backbone"])
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ArtefactError(f"{path} does not say which network the run has. Fit again.") from error
    except UsageError as error:  # nobody asked for it: the file did
        raise ArtefactError(f"{path}: {error}") from error
    model_file = folder / _MODEL_FILE
    if not model_file.is_file() or sha256(model_file) != checksum:
        raise ArtefactError(f"{model_file} is missing or has changed since the run was written. Fit again.")
    return network
