"""Trace: a backbone's graph with its cut points and taps, found once and remembered."""

from __future__ import annotations

import math
import weakref
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import fx, nn

from transfer.cuts.papers import paper_taps
from transfer.cuts.places import Place, find_places
from transfer.cuts.points import FEATURES, IMAGENET_SIZE, PIXELS, CutPoint, InputSize
from transfer.cuts.survey import Fact, survey, survey_whole
from transfer.cuts.tracing import OpaqueError, Record, first_line, in_mode, record
from transfer.errors import UsageError


@dataclass
class Trace:
    """A backbone's graph and its cut points, as `trace` found them at one image size.

    Attributes
    ----------
    points : list of CutPoint
        In order from the pixels to the features.
    why_opaque : str
        Empty, or why the backbone could not be traced (then only ``pixels`` and ``features`` are offered).
    """

    points: list[CutPoint]
    why_opaque: str = ""
    record: Record | None = None
    facts: dict[fx.Node, Fact] = field(default_factory=dict)
    places: dict[str, Place] = field(default_factory=dict)  # by every name that the cut answers to
    taps: dict[str, fx.Node] = field(default_factory=dict)

    @property
    def overwritten(self) -> set[fx.Node]:
        """The nodes into whose value a later node writes."""
        return {node for node, fact in self.facts.items() if fact.overwritten}


_traces: weakref.WeakKeyDictionary[nn.Module, dict[InputSize, tuple[Any, Trace]]] = weakref.WeakKeyDictionary()


def trace(model: nn.Module, input_size: InputSize = IMAGENET_SIZE) -> Trace:
    """Trace `model` once and find its cuts; a second call with the same model and size returns the same `Trace`.

    It is traced again when its modules were exchanged. The weights are not looked at, except in backbones that
    cannot run on the ``meta`` device. The model's train/eval mode is left as it was.

    Raises
    ------
    UsageError
        If the backbone does not accept images of that size.
    """
    input_size = (input_size[0], input_size[1], input_size[2])  # a list will do
    structure = tuple((name, id(module)) for name, module in model.named_modules())
    known = _traces.setdefault(model, {})
    if input_size not in known or known[input_size][0] != structure:
        # Tensors made in inference mode do not say when they are overwritten.
        with torch.inference_mode(False), in_mode(model, training=False):
            known[input_size] = (structure, _trace(model, input_size))
    return known[input_size][1]


def cut_points(model: nn.Module, input_size: InputSize = IMAGENET_SIZE) -> list[CutPoint]:
    """Return where `model` can be cut, in order from ``pixels`` to ``features``.

    Parameters
    ----------
    model : nn.Module
        A backbone without its classifier: images (N, 3, H, W) to features (N, d).
    input_size : tuple of int
        Channels, height and width of one image.

    Raises
    ------
    UsageError
        If the backbone does not accept images of that size.
    """
    return list(trace(model, input_size).points)


def tap_names(model: nn.Module, input_size: InputSize = IMAGENET_SIZE) -> list[str]:
    """Return every layer whose output can be read as a feature, in order; the last is ``features``.

    All the modules that tracing saw, before and after activations, whether or not the backbone can be cut there. A
    module that runs twice has the names ``relu`` and ``relu_1``. AlexNet's layers have the names of the papers too:
    ``pool5``, ``fc6``, ``fc7``. Every name may have ``.pre`` behind it, see `read_taps`.
    """
    return list(trace(model, input_size).taps) or [FEATURES]


def _trace(model: nn.Module, input_size: InputSize) -> Trace:
    try:
        found = record(model)
        facts = survey(model, found, input_size)
        places = find_places(model, found, facts)
    except OpaqueError as error:
        return _opaque_trace(model, input_size, str(error))
    # A module named `features` in the middle of a network answers to its last layer's name only.
    paths = {path: node for path, node in found.outputs.items() if path not in (PIXELS, FEATURES)}
    by_name = {path: places[node] for path, node in paths.items() if node in places}
    by_name[FEATURES] = places[found.features]
    taps = {path: node for path, node in paths.items() if isinstance(facts[node].values[0], torch.Tensor)}
    taps |= {name: taps[path] for name, path in paper_taps(model).items() if path in taps}
    taps[FEATURES] = found.features
    cost = sum(fact.multiply_adds for fact in facts.values())
    points = [_pixels_point(model, input_size, cost), *(place.point for place in places.values())]
    return Trace(points, "", found, facts, by_name, taps)


def _opaque_trace(model: nn.Module, input_size: InputSize, reason: str) -> Trace:
    """Return what can be said of a backbone that only runs as a whole."""
    try:
        shape, cost = survey_whole(model, input_size)
    except Exception as error:
        size = "×".join(str(side) for side in input_size)
        problem = f"{type(model).__name__} does not run on images of {size} ({first_line(error)})"
        raise UsageError(f"{problem}. Give the size that it was built for.") from error
    pixels = _pixels_point(model, input_size, cost)
    features = CutPoint(FEATURES, shape, pixels.parameters_right, 0, cost, 0, None, 2 * math.prod(shape))
    return Trace([pixels, features], reason)


def _pixels_point(model: nn.Module, input_size: InputSize, cost: int) -> CutPoint:
    n_parameters = sum(parameter.numel() for parameter in model.parameters())
    return CutPoint(PIXELS, input_size, 0, n_parameters, 0, cost, 1, math.prod(input_size))
