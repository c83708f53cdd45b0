"""Evidence: what heads on the frozen network show in seconds, before any layer is trained on trial."""

from __future__ import annotations

import time
from dataclasses import dataclass

import numpy as np

from transfer.curves import LearningCurve, measure_curve
from transfer.features import FEATURES, Representation
from transfer.heads import FittedHead
from transfer.recipe import Recipe
from transfer.strategies.development import Development, groups_of
from transfer.strategies.linear import fit_on
from transfer.strategies.readings import Gap, Reading, gap
from transfer.strategies.tapping import TapChoice, candidates, choose_taps

FIRST = "linear-svm"  # the cheapest way, against which the others have to win
_MANY = 5000  # images, beyond which the slower heads cost more than they tell


@dataclass(frozen=True)
class LinearArm:
    """A head on the frozen network, and what it got right of the images that it had not learned from."""

    name: str
    recipe: Recipe
    reading: Reading
    seconds: float
    gap: Gap | None = None  # to the best of the arms before it


@dataclass(frozen=True)
class Evidence:
    """All linear arms, cheapest first, and the one that was taken."""

    arms: list[LinearArm]
    best: LinearArm
    taps: TapChoice | None
    curve: LearningCurve | None

    @property
    def headroom(self) -> float:
        """The share of images that the best linear head gets wrong: all that deeper layers could gain."""
        return 1 - self.best.reading.accuracy


def gather(development: Development, *, is_few: bool) -> Evidence:
    """Read the linear arms by cross-validation on train and val together.

    A dearer arm is taken where it wins by more than one standard error, image by image.

    Parameters
    ----------
    is_few
        There are too few images to choose on: only the first arm is read.
    """
    with development.clock.time("linear heads"):
        arms = [_read(development, FIRST, development.recipe.with_strategy(FIRST))]
    best, taps = arms[0], None
    if is_few:
        return Evidence(arms, best, None, None)
    others: list[tuple[str, Recipe]] = []
    if len(development.dataset) <= _MANY:
        others.append(("frozen", development.recipe.with_strategy("frozen")))
        if not development.backbone.is_handmade:
            with development.clock.time("taps"):
                taps = _search(development)
            if len(taps.taps) > 1 or taps.taps[0] != FEATURES:
                recipe = development.recipe.with_strategy(FIRST, tap=list(taps.taps))
                others.append((f"{FIRST} at {' and '.join(taps.taps)}", recipe))
    for name, recipe in others:
        with development.clock.time("linear heads"):
            arm = _read(development, name, recipe, best.reading)
        arms.append(arm)
        if arm.gap is not None and arm.gap.is_won:
            best = arm
    with development.clock.time("learning curve"):
        curve = measure_curve(
            development.X,
            development.dataset.labels,
            len(development.dataset.classes),
            groups=groups_of(development),
            seed=development.recipe.seed,
            n_draws=1,
        )
    return Evidence(arms, best, taps, curve)


def read_on_val(development: Development, recipe: Recipe) -> Reading:
    """Fit a linear head on train and judge it on val."""
    train, val = development.split.indices("train"), development.split.indices("val")
    X, labels = rows_of(development, recipe), development.dataset.labels
    n_classes = len(development.dataset.classes)
    fitted = fit_on(recipe, X[train], labels[train], groups_of(development)[train], n_classes)
    return Reading(val, fitted.head.probabilities(X[val]).argmax(axis=1) == labels[val])


def rows_of(development: Development, recipe: Recipe) -> np.ndarray:
    """Return what the head of a recipe reads of every image."""
    if recipe.taps == development.recipe.taps:
        return development.X
    return development.rows(Representation.from_settings(recipe.taps, recipe.features))


def _read(development: Development, name: str, recipe: Recipe, best: Reading | None = None) -> LinearArm:
    started = time.perf_counter()
    X, labels = rows_of(development, recipe), development.dataset.labels
    fitted = fit_on(recipe, X, labels, groups_of(development), len(development.dataset.classes))
    reading = _out_of_fold(fitted, labels)
    seconds = time.perf_counter() - started
    return LinearArm(name, recipe, reading, seconds, None if best is None else gap(reading, best))


def _out_of_fold(fitted: FittedHead, labels: np.ndarray) -> Reading:
    """Return which images were right while they were left out; the only image of a class never is, and is not read."""
    assert fitted.out_of_fold is not None
    read = np.flatnonzero(~np.isnan(fitted.out_of_fold[:, 0]))
    return Reading(read, fitted.out_of_fold[read].argmax(axis=1) == labels[read])


def _search(development: Development) -> TapChoice:
    def rows(some: tuple[str, ...]) -> np.ndarray:
        return development.rows(Representation.from_settings(some, development.recipe.features))

    return choose_taps(
        candidates(development.backbone),
        rows,
        development.dataset.labels,
        len(development.dataset.classes),
        groups_of(development),
        development.recipe.seed,
    )
