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

    strength: float | np.ndarray  # one for each class where the rule is average precision
    scores: np.ndarray  # (m, C)
    table: list[dict[str, Any]]
    rule: str


def choose(
    task: Task,
    judge: Judge,
    given: Sequence[float] | None,
    rule: str = "one-standard-error",
    search: str = "all",
) -> Choice:
    """Try settings and take the strongest one within one standard error of the best, or another `rule`.

    Parameters
    ----------
    rule
        ``one-standard-error``; ``best`` (the middle one of ties); ``average-precision`` (the best for each class).
    search
        Of the settings that are given: ``all``, or ``halving`` (every so many first, then nearer to the best).
    """
    grid = first_grid(task, judge, given)
    if rule == "average-precision":
        return _choose_per_class(task, judge, grid)
    tried, hits = _halve(task, judge, grid.strengths) if search == "halving" else _try(task, judge, grid)
    accuracy = hits.sum(axis=1)
    best = int(np.flatnonzero(accuracy == accuracy.max())[-1])
    gap = _standard_error(hits - hits[best])
    strength = tried[_middle_of_best(accuracy) if rule == "best" else one_standard_error(accuracy, gap)]
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
    return Choice(strength, scores, table, _in_words(task, judge, grid, strength, len(tried), rule))


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


def _middle_of_best(accuracy: np.ndarray) -> int:
    """Return the middle one of all that are best: on a small val many are, and the outermost is the oddest of them."""
    ties = np.flatnonzero(accuracy >= accuracy.max() - 1e-12)
    return int(ties[len(ties) // 2])


def _halve(task: Task, judge: Judge, strengths: list[float]) -> tuple[list[float], np.ndarray]:
    """Try seven settings at even distances, then ever nearer to the best (Radford et al., ICML 2021, appendix A.3)."""
    step = 2 ** max(0, int(np.log2(max(1, (len(strengths) - 1) / 6))))
    wanted = range(0, len(strengths), step)
    hits: dict[int, np.ndarray] = {}
    while wanted:
        hits |= dict(zip(wanted, find_hits(task, judge, [strengths[i] for i in wanted]), strict=True))
        step //= 2
        seen = sorted(hits)
        peak = seen[_middle_of_best(np.array([hits[i].sum() for i in seen]))]
        around = (peak - step, peak + step) if step else ()
        wanted = [i for i in around if 0 <= i < len(strengths) and i not in hits]  # type: ignore[assignment]
    return [strengths[i] for i in sorted(hits)], np.stack([hits[i] for i in sorted(hits)])


def _choose_per_class(task: Task, judge: Judge, grid: Grid) -> Choice:
    """Take for each class the setting whose scores rank its images best, as VISSL's linear SVM does."""
    from sklearn.metrics import average_precision_score

    scores = judge.scores(grid.strengths, False)
    known = ~np.isnan(scores[0, :, 0])
    is_class = np.eye(task.n_classes, dtype=bool)[judge.codes[known]]
    ranked = np.flatnonzero(is_class.any(axis=0))  # a class whose only image is always learned from cannot be
    precision = np.array(
        [[average_precision_score(is_class[:, c], of_one[known, c]) for c in ranked] for of_one in scores]
    ).reshape(len(scores), len(ranked))
    best = np.full(task.n_classes, _middle_of_best(precision.mean(axis=1) if len(ranked) else np.zeros(len(scores))))
    best[ranked] = len(precision) - 1 - precision[::-1].argmax(axis=0)  # the strongest one of ties
    strengths = np.array(grid.strengths)[best]
    table: list[dict[str, Any]] = [
        {
            **to_setting(task, each),
            "average_precision": float(row.mean()) if len(row) else None,
            "n_classes_chosen": int((best == i).sum()),
        }
        for i, (each, row) in enumerate(zip(grid.strengths, precision, strict=True))
    ]
    used = sorted(set(best.tolist()))  # solved to the end, as in `choose`
    final = judge.scores([grid.strengths[i] for i in used], True)
    chosen = final[[used.index(i) for i in best], :, np.arange(task.n_classes)].T
    words = f"C for each class by its average precision on {judge.name}, of {len(grid.strengths)} tried."
    return Choice(strengths, chosen, table, words)


def _standard_error(contributions: np.ndarray) -> np.ndarray:
    """Return the standard error of each row's sum, over images (columns)."""
    return contributions.std(axis=1) * np.sqrt(contributions.shape[1])


def _in_words(task: Task, judge: Judge, grid: Grid, strength: float, n_tried: int, rule: str) -> str:
    """Return one sentence on how the strength was chosen."""
    ((name, value),) = to_setting(task, strength).items()
    if grid.only:
        return f"{name} = {value:.3g}, {grid.only}."
    around = " around the best of ridge's leave-one-out" if grid.centred else ""
    if rule == "best":
        return f"{name} = {value:.3g}, the best of {n_tried} tried{around} by accuracy on {judge.name}."
    return (
        f"{name} = {value:.3g}, the strongest regularisation of {n_tried} tried{around} that is within one "
        f"standard error (image by image) of the best accuracy on {judge.name}."
    )
