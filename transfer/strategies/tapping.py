"""Tap search: which layer, or which two side by side, say most about this dataset.

The lecture's rule for small data unlike ImageNet is to read earlier layers; how much earlier, and whether at all, is
measured here by the exact leave-one-out accuracy of ridge regression, which takes seconds.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from transfer import cuts
from transfer.backbones import Backbone
from transfer.dataset import Dataset, Split
from transfer.features import Extraction, Representation
from transfer.heads import fit_head
from transfer.recipe import Recipe

SEARCH = "search"  # what a recipe's tap says
MANY = 5000  # images, beyond which `auto` leaves out what takes long


class TapChoice(NamedTuple):
    """The taps that were chosen, all that were tried, best first, and the gain over the network's features alone."""

    taps: tuple[str, ...]
    table: list[dict[str, Any]]
    gain: float
    gain_standard_error: float

    @property
    def rule(self) -> str:
        """One or two sentences for people."""
        read = " and ".join(self.taps)
        percent, error = 100 * self.gain, 100 * self.gain_standard_error
        words = f"Taps: {read}, the best of {len(self.table)} by ridge's leave-one-out on train"
        if self.taps == (cuts.FEATURES,):
            return f"{words}: earlier layers add nothing, as where images are like ImageNet's."
        sign = (
            "a sign that these images are unlike ImageNet's (the best of many is flattered a little)"
            if self.gain > 2 * self.gain_standard_error
            else "no more than chance may give"
        )
        return f"{words}: {percent:.1f} ± {error:.1f} points above the features alone, {sign}."


def candidates(backbone: Backbone) -> list[str]:
    """Return the taps that are compared: the output of every stage, and the features."""
    stages = cuts.stage_cuts(backbone.model, backbone.input_shape)
    return [*(tap for tap in stages if tap != cuts.FEATURES), cuts.FEATURES]


def ranks_taps(backbone: Backbone, n_images: int) -> bool:
    """Whether `auto` reads other layers than the last: there are some, and not so many images that it takes long."""
    return not backbone.is_handmade and n_images <= MANY


def search_taps(
    taps: Sequence[str], extraction: Extraction, dataset: Dataset, split: Split, recipe: Recipe
) -> TapChoice:
    """Choose taps on the training images."""
    train = split.indices("train")
    contents = [dataset.hashes[i] for i in train]

    def rows_of(some: tuple[str, ...]) -> np.ndarray:
        return extraction.represent(Representation.from_settings(some, recipe.features), contents)

    labels, n_classes = dataset.labels[train], len(dataset.classes)
    return choose_taps(taps, rows_of, labels, n_classes, np.array(contents), recipe.seed)


def choose_taps(
    taps: Sequence[str],
    rows_of: Callable[[tuple[str, ...]], np.ndarray],
    y: np.ndarray,
    n_classes: int,
    groups: np.ndarray,
    seed: int,
) -> TapChoice:
    """Rank every tap, then the best one and the features beside each other one.

    Parameters
    ----------
    rows_of
        What a head would read of the training images at some taps.
    y, groups
        Of the training images.
    """

    def is_right(some: tuple[str, ...]) -> np.ndarray:
        fitted = fit_head(
            "ridge", rows_of(some), y, n_classes, groups=groups, class_weight=None, rule="best", seed=seed
        )
        assert fitted.out_of_fold is not None
        return np.nan_to_num(fitted.out_of_fold, nan=-np.inf).argmax(axis=1) == y

    right: dict[tuple[str, ...], np.ndarray] = {(tap,): is_right((tap,)) for tap in taps}
    best = _best(right)[0]
    for tap in taps:
        for beside in dict.fromkeys([best, cuts.FEATURES]):
            pair = tuple(sorted({tap, beside}, key=list(taps).index))
            if len(pair) == 2 and pair not in right:
                right[pair] = is_right(pair)
    chosen = _best(right)
    difference = right[chosen].astype(float) - right[(cuts.FEATURES,)]
    table = [
        {"taps": list(some), "accuracy": float(hits.mean()), "chosen": some == chosen}
        for some, hits in sorted(right.items(), key=lambda item: (-item[1].mean(), item[0] != chosen))
    ]
    error = float(difference.std() / np.sqrt(len(difference)))
    return TapChoice(chosen, table, float(difference.mean()), error)


def _best(right: dict[tuple[str, ...], np.ndarray]) -> tuple[str, ...]:
    """Return the taps with the most hits; of ties the fewest, then the deepest."""
    order = list(right)
    return max(order, key=lambda some: (right[some].sum(), -len(some), order.index(some)))
