"""Fit: from features and labels to a head, and an account of how it came about."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from transfer.heads.calibration import fit_temperature
from transfer.heads.checking import check_arguments
from transfer.heads.choosing import choose
from transfer.heads.classes import ABSENT, spread, weigh_classes, weigh_images
from transfer.heads.groups import number_groups
from transfer.heads.holes import with_holes
from transfer.heads.judging import find_judge
from transfer.heads.linear import LinearHead
from transfer.heads.neighbours import NeighbourHead, fit_neighbours
from transfer.heads.pairs import PairwiseHead, fit_pairs, judge_pairs
from transfer.heads.rotation import rotate
from transfer.heads.solving import solve_to_keep
from transfer.heads.strengths import to_setting
from transfer.heads.tasks import Task

Head = LinearHead | PairwiseHead | NeighbourHead


@dataclass(frozen=True, eq=False)
class FittedHead:
    """A head and how it came about.

    Attributes
    ----------
    kind : one of `HEADS`
    chosen : the setting (by average precision a list, one for each class that is present), in the unit of its library:
        {'C': …} as in `LinearSVC` and `LogisticRegression`,
        {'alpha': …} as in `Ridge`, {'weight_decay': …} on the mean loss, {'k': …} neighbours. All but k hold on the
        *scaled* features
    table : one row per setting tried, weakest regularisation first: the setting, `accuracy` and its `standard_error`,
        `gap_standard_error` (of the difference to the best, image by image) and `chosen`. Class weights count here. By
        average precision: the setting, its mean `average_precision` and `n_classes_chosen`
    class_weights : {class index: weight of its images}, or None
    rule : one sentence on how the setting and the temperature were chosen
    out_of_fold : (n, C) scores of each training image by a head that did not see it (nor its group), or None.
        Rows of images that were in every fold's training part (the only one of their class) are NaN
    is_calibrated : whether there were images to fit a temperature on
    """

    head: Head
    kind: str
    chosen: dict[str, Any]
    table: list[dict[str, Any]]
    class_weights: dict[int, float] | None
    seconds: float
    rule: str
    out_of_fold: np.ndarray | None
    is_calibrated: bool = True


def fit_head(
    kind: str,
    X: np.ndarray,
    y: np.ndarray,
    n_classes: int,
    *,
    X_val: np.ndarray | None = None,
    y_val: np.ndarray | None = None,
    groups: np.ndarray | None = None,
    scaling: str = "auto",
    class_weight: str | None = "auto",
    positive_weight: float = 1.0,
    multiclass: str = "rest",
    dropout: float = 0.0,
    folds: int = 5,
    grid: Sequence[float] | None = None,
    search: str = "all",
    judge: str = "auto",
    rule: str = "one-standard-error",
    seed: int = 0,
) -> FittedHead:
    """Fit a head on features; choose its regularisation and its temperature on images it did not see.

    Settings and temperature come from cross-validation inside `X` (ridge: exact leave-one-out). `X_val` judges instead
    only where it is the better judge: it has more images than `X`, or `X` has so many (over 20,000) that five fits cost
    more than they tell. In all other cases it stays unseen, so that strategies can be compared on it.

    Parameters
    ----------
    kind : one of `HEADS`
    X : (n, d) features, or (n, views, d): the head learns from every view, and its scores of an image are the average
    y : (n,) class indices below `n_classes`
    groups : (n,) labels of any type; rows of one group (exact duplicates) are always left out together
    scaling : 'global' (centred, divided by one number), 'standard' (per dimension), 'whiten' (per principal
        direction), 'none' (centred), or 'auto'
    class_weight : 'balanced', None, or 'auto': balanced when the largest class is over 3 times the smallest. Weights
        count in the loss and in the accuracy that chooses, not in the calibration
    positive_weight : of an image in the one-vs-rest problem of its own class, for linear-svm
    multiclass : 'rest' (one class against the rest), or 'pairs' (every two classes, which vote; hinge loss, not
        squared; for linear-svm)
    dropout : share of the numbers of each row that are zero while the head learns (DeCAF)
    grid : settings to try instead of the default ones, in the unit of `FittedHead.chosen`; one value is taken as it is
    search : 'all' of the grid, or 'halving': every so many first, then nearer to the best (CLIP's linear probe)
    judge : 'val' chooses on `X_val` in any case, 'auto' as above
    rule : 'one-standard-error' (the strongest regularisation that close to the best), 'best', or 'average-precision'
        (the best one for each class; for linear-svm)
    seed : the same seed gives the same head

    Raises
    ------
    DataError
        One class only, features that are not finite (the rows are named), shapes or labels that do not fit.
    UsageError
        Unknown kind, scaling or class weight, a grid that is not positive, or what does not go together.
    """
    started = time.perf_counter()
    X, y = check_arguments(
        kind,
        X,
        y,
        n_classes,
        groups=groups,
        scaling=scaling,
        class_weight=class_weight,
        folds=folds,
        grid=grid,
        multiclass=multiclass,
        dropout=dropout,
        positive_weight=positive_weight,
        judge=judge,
        rule=rule,
        search=search,
    )
    members = np.arange(len(y)) if groups is None else number_groups(groups)
    if kind == "knn":
        found = fit_neighbours(X, y, n_classes, members, grid)
        chosen: dict[str, Any] = {"k": found.head.k}
        return FittedHead(found.head, kind, chosen, found.table, None, found.seconds, found.rule, found.out_of_fold)
    present, codes = np.unique(y, return_inverse=True)
    class_weights = weigh_classes(class_weight, present, codes)
    weights = weigh_images(class_weights, present, codes)
    task = _pose(kind, X, codes, weights, members, scaling, dropout, positive_weight, seed)
    if task.is_only_intercept:  # nothing to vote with or to rank by: the shares of the classes are all there is
        multiclass, rule = "rest", "one-standard-error"
    if multiclass == "pairs":
        judging = judge_pairs(task, folds)
    else:
        judging = find_judge(task, folds, X_val, y_val, present, n_classes, judge)
    choice = choose(task, judging, grid, rule, search)

    head: Head
    scores = choice.scores
    if multiclass == "pairs":
        weight, bias = fit_pairs(task, float(choice.strength))
        head = PairwiseHead(weight, bias, present, n_classes)
    else:
        start = None if isinstance(choice.strength, np.ndarray) else judging.start(choice.strength)
        weight, bias = task.rotated.affine(solve_to_keep(task, choice.strength, start))
        weight = (1 - dropout) * weight  # all numbers are there now, in the proportion in which they were
        if len(present) == 2 and kind in ("linear-svm", "ridge"):
            # The two one-vs-rest rows mirror each other (but for weights and settings of one class). Halved, their
            # difference is the library's decision function
            weight, bias, scores = weight / 2, bias / 2, scores / 2
        head = LinearHead(weight, bias)
    held_out = ~np.isnan(scores[:, 0])
    is_calibrated = bool(held_out.any())
    temperature = fit_temperature(scores[held_out], judging.codes[held_out]) if is_calibrated else 1.0
    calibration = f"Temperature on {judging.name}." if is_calibrated else "Not calibrated: no image to spare."
    absent = ABSENT * temperature
    if isinstance(head, LinearHead):
        head = LinearHead(
            spread(head.weight.T, present, n_classes, 0.0).T.astype(np.float32),
            spread(head.bias[None], present, n_classes, absent)[0].astype(np.float32),
        )
    return FittedHead(
        head=replace(head, temperature=temperature),
        kind=kind,
        chosen=_in_its_unit(task, choice.strength),
        table=choice.table,
        class_weights=class_weights,
        seconds=time.perf_counter() - started,
        rule=f"{choice.rule} {calibration}",
        out_of_fold=None if judging.is_val else spread(scores, present, n_classes, absent),
        is_calibrated=is_calibrated,
    )


def _pose(
    kind: str,
    X: np.ndarray,
    codes: np.ndarray,
    weights: np.ndarray,
    members: np.ndarray,
    scaling: str,
    dropout: float,
    positive_weight: float,
    seed: int,
) -> Task:
    """Return what is to be solved: every view of an image, or every copy with holes in it, is a row to learn from."""
    seen = X.reshape(-1, X.shape[-1])
    rows = with_holes(seen, dropout, seed) if dropout else seen
    n_rows = len(rows) // len(X)
    share = len(seen) / len(rows)  # copies count as one row together, views as one each
    codes, weights, members = (np.repeat(values, n_rows) for values in (codes, share * weights, members))
    rotated = rotate(rows, weights, scaling)
    n_classes = int(codes.max()) + 1
    kept = 1 - dropout
    clean = rotated.rotate_others(kept * seen) if dropout else None
    return Task(kind, rotated, codes, n_classes, weights, members, seed, n_rows, clean, kept, positive_weight)


def _in_its_unit(task: Task, strength: float | np.ndarray) -> dict[str, Any]:
    """Return the setting that was chosen, or those of the classes that are present."""
    if isinstance(strength, np.ndarray):
        return {"C": [to_setting(task, float(each))["C"] for each in strength]}
    return dict(to_setting(task, strength))
