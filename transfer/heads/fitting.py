"""Fit: from features and labels to a head, and an account of how it came about."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from transfer.heads.calibration import fit_temperature
from transfer.heads.checking import check_arguments
from transfer.heads.choosing import choose
from transfer.heads.classes import ABSENT, spread, weigh_classes, weigh_images
from transfer.heads.groups import number_groups
from transfer.heads.judging import find_judge
from transfer.heads.linear import LinearHead
from transfer.heads.rotation import rotate
from transfer.heads.solving import solve_to_keep
from transfer.heads.strengths import to_setting
from transfer.heads.tasks import Task


@dataclass(frozen=True, eq=False)
class FittedHead:
    """A head and how it came about.

    Attributes
    ----------
    kind : one of `HEADS`
    chosen : the setting, in the unit of its library: {'C': …} as in `LinearSVC` and `LogisticRegression`,
        {'alpha': …} as in `Ridge`, {'weight_decay': …} on the mean loss. All hold on the *scaled* features
    table : one row per setting tried, weakest regularisation first: the setting, `accuracy` and its `standard_error`,
        `gap_standard_error` (of the difference to the best, image by image) and `chosen`. Class weights count here
    class_weights : {class index: weight of its images}, or None
    rule : one sentence on how the setting and the temperature were chosen
    out_of_fold : (n, C) scores of each training image by a head that did not see it (nor its group), or None.
        Rows of images that were in every fold's training part (the only one of their class) are NaN
    """

    head: LinearHead
    kind: str
    chosen: dict[str, float]
    table: list[dict[str, Any]]
    class_weights: dict[int, float] | None
    seconds: float
    rule: str
    out_of_fold: np.ndarray | None


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
    folds: int = 5,
    grid: Sequence[float] | None = None,
    seed: int = 0,
) -> FittedHead:
    """Fit a linear head on features; choose its regularisation and its temperature on images it did not see.

    Settings and temperature come from cross-validation inside `X` (ridge: exact leave-one-out). `X_val` judges instead
    only where it is the better judge: it has more images than `X`, or `X` has so many (over 20,000) that five fits cost
    more than they tell. In all other cases it stays unseen, so that strategies can be compared on it.

    Parameters
    ----------
    kind : one of `HEADS`
    X : (n, d) raw features
    y : (n,) class indices below `n_classes`
    groups : (n,) labels of any type; rows of one group (exact duplicates) are always left out together
    scaling : 'global' (centred, divided by one number), 'standard' (per dimension), 'l2' (rows to unit length; does
        not fold), 'none', or 'auto'
    class_weight : 'balanced', None, or 'auto': balanced when the largest class is over 3 times the smallest. Weights
        count in the loss and in the accuracy that chooses, not in the calibration
    grid : settings to try instead of the default ones, in the unit of `FittedHead.chosen`; one value is taken as it is
    seed : the same seed gives the same head

    Raises
    ------
    DataError
        One class only, features that are not finite (the rows are named), shapes or labels that do not fit.
    UsageError
        Unknown kind, scaling or class weight, or a grid that is not positive.
    """
    started = time.perf_counter()
    X, y = check_arguments(
        kind, X, y, n_classes, groups=groups, scaling=scaling, class_weight=class_weight, folds=folds, grid=grid
    )
    present, codes = np.unique(y, return_inverse=True)
    class_weights = weigh_classes(class_weight, present, codes)
    weights = weigh_images(class_weights, present, codes)
    members = np.arange(len(y)) if groups is None else number_groups(groups)
    task = Task(kind, rotate(X, weights, scaling), codes, len(present), weights, members, seed)

    judge = find_judge(task, folds, X_val, y_val, present, n_classes)
    choice = choose(task, judge, grid)
    weight, bias = task.rotated.affine(solve_to_keep(task, choice.strength))
    scores = choice.scores
    if len(present) == 2 and kind in ("linear-svm", "ridge"):
        # The two one-vs-rest rows mirror each other. Halved, their difference is the library's decision function
        weight, bias, scores = weight / 2, bias / 2, scores / 2

    held_out = ~np.isnan(scores[:, 0])
    temperature = fit_temperature(scores[held_out], judge.codes[held_out]) if held_out.any() else 1.0
    calibration = f"Temperature on {judge.name}." if held_out.any() else "Not calibrated: no image to spare."
    absent = ABSENT * temperature
    head = LinearHead(
        spread(weight.T, present, n_classes, 0.0).T.astype(np.float32),
        spread(bias[None], present, n_classes, absent)[0].astype(np.float32),
        temperature,
        task.rotated.row_norm,
    )
    return FittedHead(
        head=head,
        kind=kind,
        chosen=to_setting(task, choice.strength),
        table=choice.table,
        class_weights=class_weights,
        seconds=time.perf_counter() - started,
        rule=f"{choice.rule} {calibration}",
        out_of_fold=None if judge.is_val else spread(scores, present, n_classes, absent),
    )
