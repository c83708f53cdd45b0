"""Grid: the strengths that are tried."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from transfer.heads.groups import groups_per_class
from transfer.heads.judging import Judge, find_hits, leave_one_out
from transfer.heads.strengths import STRONGEST, UNIT, WEAKEST, at_half_decade, from_setting
from transfer.heads.tasks import Task

_FEW_PER_CLASS = 5  # below, choosing picks noise ("validation-set illusion", arXiv 2603.00478): a fixed setting
# Where each loss has its best λ, seen from ridge's (30 measurements as those behind `SCALINGS`, in half-decades):
# the squared hinge, at the median, where ridge has it (8 in 10 between -3 and +1); softmax, which curves less, lower
# by one.
_OFFSET = {"linear-svm": 0, "logistic": -1, "frozen": -1}
_REACH = {"linear-svm": 2, "logistic": 2, "frozen": 1}  # to either side of that; minibatches are the slow ones


@dataclass(frozen=True)
class Grid:
    """Strengths, and how they were found."""

    strengths: list[float]  # ascending
    centred: bool = False  # on ridge's best one; then the grid is widened where its edge wins
    only: str = ""  # why there is only one


def first_grid(task: Task, judge: Judge, given: Sequence[float] | None) -> Grid:
    """Return what is tried first: the settings that are given, one that is fixed, or those that are likely."""
    if given is not None:
        strengths = sorted(from_setting(task, setting) for setting in given)
        return Grid(strengths, only="as given" if len(strengths) == 1 else "")
    typical = int(np.median(groups_per_class(task.codes, task.groups)))
    if typical < _FEW_PER_CLASS and not judge.is_val:
        why = f"fixed: with about {typical} images per class a choice would pick noise"
        return Grid([at_half_decade(task, _fixed(task))], only=why)
    if task.kind == "ridge":
        return Grid(_half_decades(task, WEAKEST, STRONGEST))
    reach = _REACH[task.kind]
    centre = int(np.clip(_ridge_centre(task) + _OFFSET[task.kind], WEAKEST + reach, STRONGEST - reach))
    return Grid(_half_decades(task, centre - reach, centre + reach), centred=True)


def _fixed(task: Task) -> int:
    """Return the half-decade for where nothing is chosen: 0, and less for a softmax over more than ten classes.

    Before it has learned anything, softmax curves by about 1/C in each class's scores, while one class against the rest
    does not depend on C: with a thousand classes the same λ would hold them at zero.
    """
    if task.kind not in ("logistic", "frozen"):
        return 0
    return max(WEAKEST, -max(0, round(2 * np.log10(task.n_classes / 10))))


def beyond(task: Task, tried: list[float], accuracy: np.ndarray) -> list[float]:
    """Return two more strengths past the edge that is strictly the best, or none; ties do not push outward."""
    rest = accuracy[1:-1].max()
    weakest, strongest = (round(2 * np.log10(s / UNIT[task.kind])) for s in (tried[0], tried[-1]))
    if accuracy[-1] > max(rest, accuracy[0]) and strongest < STRONGEST:
        return _half_decades(task, strongest + 1, min(strongest + 2, STRONGEST))
    if accuracy[0] > max(rest, accuracy[-1]) and weakest > WEAKEST:
        return _half_decades(task, max(weakest - 2, WEAKEST), weakest - 1)
    return []


def _ridge_centre(task: Task) -> int:
    """Return the half-decade at which ridge's leave-one-out is most accurate (the middle one of ties)."""
    ridge = replace(task, kind="ridge")
    accuracy = find_hits(ridge, leave_one_out(ridge), _half_decades(ridge, WEAKEST, STRONGEST)).sum(axis=1)
    ties = np.flatnonzero(accuracy >= accuracy.max() - 1e-12)
    return WEAKEST + int(ties[len(ties) // 2])


def _half_decades(task: Task, first: int, last: int) -> list[float]:
    return [at_half_decade(task, exponent) for exponent in range(first, last + 1)]
