"""Look: where in an image the model looks, for a few test images."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np

from transfer import predictions
from transfer.errors import TransferError
from transfer.heads import LinearHead, NeighbourHead
from transfer.images import MAX_PIXELS, decode, shrink, view
from transfer.report.files import file_of
from transfer.report.predictions import Prediction, surest_mistakes
from transfer.report.records import Record
from transfer.report.thumbnails import picture
from transfer.saliency import draw_saliency, gradient_map, has_gradient_maps, occlusion_map

_N_MISTAKES, _N_RIGHT = 4, 4
_SIDE = 176  # pixels


@dataclasses.dataclass(frozen=True)
class Look:
    """One image, and the same with what does not speak for the predicted class dimmed, as data URIs."""

    prediction: Prediction
    seen: str
    map: str


@dataclasses.dataclass(frozen=True)
class Looks:
    """Some of them and how they were made, or why there are none."""

    looks: list[Look]
    is_gradient: bool = False
    why_none: str = ""


def look(run: Record, told: Sequence[Prediction]) -> Looks:
    """Show where the model looks in the surest mistakes, and in the surest right answers of different classes."""
    try:
        if run.backbone.is_handmade:
            return Looks([], why_none=f"{run.backbone.name} is made by hand: no network looks at the image.")
        if isinstance(run.head, NeighbourHead):
            return Looks([], why_none="The head compares whole images with those of training: no place has a share.")
        is_gradient = has_gradient_maps(run.backbone, run.representation, run.head)
        # each covered image costs a pass for each view
        n_views = 1 if is_gradient else run.representation.n_views
        chosen = _choose(told, max(1, _N_MISTAKES // n_views), max(1, _N_RIGHT // n_views))
        looks = [shown for p in chosen if (shown := _look(run, p, is_gradient))]
    except (TransferError, RuntimeError, ValueError, TypeError) as error:  # there are networks that torch cannot derive
        return Looks([], why_none=f"The network does not let itself be followed: {' '.join(str(error).split())[:200]}")
    return Looks(looks, is_gradient, "" if looks else "None of the images could be shown.")


def _choose(told: Sequence[Prediction], n_mistakes: int, n_right: int) -> list[Prediction]:
    first_of: dict[str, Prediction] = {}
    for p in sorted((p for p in told if p.is_right), key=lambda p: (-p.probability, p.path)):
        first_of.setdefault(p.label, p)
    return [*surest_mistakes(told, n_mistakes), *list(first_of.values())[:n_right]]


def _look(run: Record, told: Prediction, is_gradient: bool) -> Look | None:
    preprocessing, label = run.backbone.preprocessing, run.classes.index(told.predicted)
    try:
        pixels = decode(
            file_of(told.path, run.info["data"]["root"]),
            max_pixels=min(run.recipe.data.max_pixels, MAX_PIXELS),
            at_least=preprocessing.resize_size,
            content=told.content,
        )
    except (TransferError, MemoryError):  # gone, or another one by now
        return None
    if is_gradient:
        assert isinstance(run.head, LinearHead)
        seen = view(pixels, preprocessing)
        shares = gradient_map(run.backbone, run.representation, run.head, seen, label)
        pixels = seen.permute(1, 2, 0).numpy()
    else:
        pixels = shrink(pixels, preprocessing.resize_size, preprocessing.interpolation)
        shares = occlusion_map(pixels, label, lambda images: _probabilities(run, images))
    if shares is None:
        return None
    return Look(told, picture(pixels, _SIDE), picture(draw_saliency(pixels, shares), _SIDE))


def _probabilities(run: Record, images: Sequence[np.ndarray]) -> np.ndarray:
    return predictions.predict(
        run.backbone,
        run.representation,
        run.head.probabilities,
        run.classes,
        images,
        device=run.recipe.device,
        exact=run.recipe.exact,
        max_pixels=MAX_PIXELS,
        quiet=True,
    ).probabilities
