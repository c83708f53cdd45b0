"""Choice: the strongest regularisation that is nearly the best on images that were left out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from transfer.heads.grids import Grid, beyond, first_grid
from transfer.heads.judging import Judge, find_hits
from transfer.heads.strengths import to_setting
from transfer.heads.tasks import Task


@dataclass(frozen=True, eq=False)
class Choice:
    """The strength that was chosen, the judge's scores at it, and how it came about."""

    strength: float
    scores: np.ndarray  # (m, C)
    table: list[dict[str, Any]]
    rule: str


def choose(task: Task, judge: Judge, given: Sequence[float] | None) -> Choice:
    """Try settings and take the strongest one within one standard error of the best."""
    grid = first_grid(task, judge, given)
    tried, hits = _try(task, judge, grid)
    accuracy = hits.sum(axis=1)
    best = int(np.flatnonzero(accuracy == accuracy.max())[-1])
    gap = _standard_error(hits - hits[best])
    strength = tried[one_standard_error(accuracy, gap)]
    table: list[dict[str, Any]] = [
        {
            **to_setting(task, each),
            "accuracy": float(a),
            "standard_error": float(error),
            "gap_standard_error": float(gap_error),
            "chosen": each == strength,
        }
        for each, a, error, gap_error in zip(tried, accuracy, _standard_error(hits), gap, strict=True)
    ]
    # Solved to the end this time: a weak setting's scores still grow after its ranking has settled (on 60 images the
    # temperature of the loose solution was 0.10 instead of 0.40, and the test log loss 2.2 instead of 1.0)
    scores = judge.scores([strength], True)[0]
    return Choice(strength, scores, table, _rule(task, judge, grid, strength, len(tried)))


def one_standard_error(accuracy: np.ndarray, gap_standard_error: np.ndarray) -> int:
    """Return the index of the strongest setting (the last) whose accuracy is within one standard error of the best.

    The error is that of the *difference* to the best, image by image: both are judged on the same images. The error of
    the accuracy itself is larger and cost linear-svm and logistic another 0.2 to 0.3 points on the shared sets.

    >>> one_standard_error(np.array([0.80, 0.90, 0.89, 0.85]), np.array([0.02, 0.0, 0.015, 0.02]))
    2
    """
    within = accuracy >= accuracy.max() - gap_standard_error - 1e-12
    return int(np.flatnonzero(within)[-1])


def _try(task: Task, judge: Judge, grid: Grid) -> tuple[list[float], np.ndarray]:
    """Return the strengths tried, ascending, with their hits; a grid with a centre grows while its edge wins."""
    tried = grid.strengths
    hits = find_hits(task, judge, tried)
    while grid.centred and (further := beyond(task, tried, hits.sum(axis=1))):
        more = find_hits(task, judge, further)
        weaker = further[0] < tried[0]
        tried = further + tried if weaker else tried + further
        hits = np.concatenate([more, hits] if weaker else [hits, more])
    return tried, hits


def _standard_error(contributions: np.ndarray) -> np.ndarray:
    """Return the standard error of each row's sum, over images (columns)."""
    return contributions.std(axis=1) * np.sqrt(contributions.shape[1])


def _rule(task: Task, judge: Judge, grid: Grid, strength: float, n_tried: int) -> str:
    """Return one sentence on how the strength was chosen."""
    ((name, value),) = to_setting(task, strength).items()
    if grid.only:
        return f"{name} = {value:.3g}, {grid.only}."
    around = " around the best of ridge's leave-one-out" if grid.centred else ""
    return (
        f"{name} = {value:.3g}, the strongest regularisation of {n_tried} tried{around} that is within one "
        f"standard error (image by image) of the best accuracy on {judge.name}."
    )
