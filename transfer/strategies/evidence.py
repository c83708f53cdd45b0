"""Evidence: what heads on the frozen network show in seconds, before any layer is trained on trial."""

from __future__ import annotations

import time
from dataclasses import dataclass, field

import numpy as np

from transfer.curves import LearningCurve, measure_curve
from transfer.features import FEATURES
from transfer.heads import FittedHead
from transfer.recipe import Recipe
from transfer.strategies.development import Development, groups_of
from transfer.strategies.linear import fit_on
from transfer.strategies.readings import Gap, Reading, gap
from transfer.strategies.tapping import MANY, TapChoice, candidates, search_taps

FIRST = "linear-svm"  # the cheapest way, against which the others have to win


@dataclass
class LinearArm:
    """A head on the frozen network, and what it got right of the images that it had not learned from."""

    name: str
    recipe: Recipe
    reading: Reading
    seconds: float
    gap: Gap | None = None  # to the best of the arms before it


@dataclass
class Evidence:
    """All linear arms, cheapest first, and the one that was taken."""

    arms: list[LinearArm]
    best: LinearArm
    taps: TapChoice | None = None
    curve: LearningCurve | None = None
    bound: list[str] = field(default_factory=list)  # what was left out for want of time, one sentence each

    @property
    def first(self) -> LinearArm:
        """The cheapest: a head on the last features, for which no layers were chosen."""
        return self.arms[0]

    @property
    def headroom(self) -> float:
        """The share of images that the best linear head gets wrong: all that deeper layers could gain."""
        return 1 - self.best.reading.accuracy

    @property
    def most_headroom(self) -> float:
        """The largest share that it may get wrong, by a 95 % interval: of few images it is known badly."""
        return 1 - self.best.reading.interval[0]


def gather(development: Development, *, only_first: bool) -> Evidence:
    """Read the linear arms by cross-validation on train and val together.

    A dearer arm is taken where it wins by more than one standard error, image by image. Layers are ranked on train, so
    the head on the best of them is compared on val alone.

    Parameters
    ----------
    only_first
        Nothing is to be chosen: only the first arm is read.
    """
    clock, recipe = development.clock, development.recipe
    half_way = (time.perf_counter() + clock.deadline) / 2
    with clock.time("linear heads"):
        first = _read(development, FIRST, recipe.with_strategy(FIRST))
    found = Evidence([first], first)
    if only_first:
        return found

    def has_time(what: str) -> bool:
        if time.perf_counter() < half_way:
            return True
        found.bound.append(f"There was no time for {what}.")
        return False

    if len(development.dataset) <= MANY and has_time("a trained softmax layer"):
        with clock.time("linear heads"):
            _compare(found, _read(development, "frozen", recipe.with_strategy("frozen")))
    extraction = development.extraction
    if extraction and len(extraction.caches) > 1 and has_time("other layers"):
        with clock.time("taps"):
            found.taps = search_taps(
                candidates(development.backbone), extraction, development.dataset, development.split, recipe
            )
            if found.taps.taps != (FEATURES,):
                name = f"{FIRST} at {' and '.join(found.taps.taps)}"
                arm = _read(development, name, recipe.with_strategy(FIRST, tap=list(found.taps.taps)))
                _compare(found, arm, development.split.indices("val"))
    if has_time("a learning curve"):
        with clock.time("learning curve"):
            found.curve = measure_curve(
                development.X,
                development.dataset.labels,
                len(development.dataset.classes),
                groups=groups_of(development),
                seed=recipe.seed,
                n_draws=2,
            )
    return found


def _compare(found: Evidence, arm: LinearArm, images: np.ndarray | None = None) -> None:
    """Add an arm, and take it if it wins on these images."""
    best = found.best.reading
    arm.gap = gap(arm.reading, best) if images is None else gap(arm.reading.on(images), best, found.first.reading)
    found.arms.append(arm)
    if arm.gap.is_won:
        found.best = arm


def read_on_val(development: Development, recipe: Recipe) -> Reading:
    """Fit a linear head on train and judge it on val."""
    train, val = development.split.indices("train"), development.split.indices("val")
    X, labels = development.with_head(recipe).X, development.dataset.labels
    n_classes = len(development.dataset.classes)
    fitted = fit_on(recipe, X[train], labels[train], groups_of(development)[train], n_classes)
    return Reading(val, fitted.head.probabilities(X[val]).argmax(axis=1) == labels[val])


def _read(development: Development, name: str, recipe: Recipe) -> LinearArm:
    started = time.perf_counter()
    X, labels = development.with_head(recipe).X, development.dataset.labels
    fitted = fit_on(recipe, X, labels, groups_of(development), len(development.dataset.classes))
    return LinearArm(name, recipe, _out_of_fold(fitted, labels), time.perf_counter() - started)


def _out_of_fold(fitted: FittedHead, labels: np.ndarray) -> Reading:
    """Return which images were right while they were left out; the only image of a class never is, and is not read."""
    assert fitted.out_of_fold is not None
    read = np.flatnonzero(~np.isnan(fitted.out_of_fold).any(axis=1))
    return Reading(read, fitted.out_of_fold[read].argmax(axis=1) == labels[read])
