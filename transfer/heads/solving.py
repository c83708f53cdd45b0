"""Solvers: which one finds which kind of head, many at a time while choosing and one to be kept."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from transfer.heads.descent import descend
from transfer.heads.minibatches import train
from transfer.heads.ridge import solve_ridge
from transfer.heads.strengths import to_setting
from transfer.heads.tasks import Task

_TO_THE_END = 1e-6  # scores are then within 0.005 of those of the exact solution
_LARGE = 30_000_000  # numbers in Z: liblinear's own copy takes 16 bytes of each, beside one of 8


def solve(
    task: Task,
    strengths: Sequence[float],
    weights: np.ndarray,
    *,
    final: bool = False,
    start: np.ndarray | None = None,
) -> np.ndarray:
    """Return (D, P, C) coefficients of P problems: strength p, image weights[:, p]; from `start` where that helps."""
    if task.kind == "ridge":
        return solve_ridge(task, strengths)
    if task.kind == "frozen":
        return train(task, np.asarray(strengths), weights)
    # 1e-3 already gives the accuracy that 1e-4 gives, to 0.1 points, in half the iterations
    return descend(task, np.asarray(strengths), weights, tolerance=1e-5 if final else 1e-3, start=start)[0]


def solve_to_keep(task: Task, strength: float | np.ndarray, start: np.ndarray | None = None) -> np.ndarray:
    """Return (D, C) coefficients of the head that is kept, to the end.

    Where the batched solver does not come to an end, as with hardly any regularisation, scikit-learn solves the problem
    (if there is room for its copies of the features).

    Parameters
    ----------
    strength
        One, or one for each class of `linear-svm`.
    start
        (D, C) coefficients to start from, such as the average of the folds'.
    """
    is_small = task.rotated.Z.size <= _LARGE and not task.is_only_intercept
    if isinstance(strength, np.ndarray) or task.positive_weight != 1:
        strengths = np.broadcast_to(strength, task.n_classes)
        return (_solve_each_class if is_small else _solve_each_class_large)(task, strengths)
    if task.kind not in ("linear-svm", "logistic"):
        return solve(task, [strength], task.weights[:, None], final=True)[:, 0, :].astype(np.float64)
    begin = None if start is None else start[:, None, :]
    W, is_done = descend(task, np.array([strength]), task.weights[:, None], tolerance=_TO_THE_END, start=begin)
    if is_done or not is_small:
        return W[:, 0, :].astype(np.float64)
    return _solve_with_scikit_learn(task, strength)


def _solve_with_scikit_learn(task: Task, strength: float) -> np.ndarray:
    from sklearn.linear_model import LogisticRegression
    from threadpoolctl import threadpool_limits

    Z, C = task.rotated.Z[:, :-1].astype(np.float64), to_setting(task, strength)["C"]
    is_svm = task.kind == "linear-svm"
    model = _linear_svc(C) if is_svm else LogisticRegression(C=C, tol=1e-5, max_iter=10_000)
    with threadpool_limits(1, user_api="blas"):
        model.fit(Z, task.codes, sample_weight=task.weights)
    rows = np.column_stack([model.coef_, model.intercept_]).T
    return rows if rows.shape[1] > 1 else np.hstack([-rows, rows]) / (1 if task.kind == "linear-svm" else 2)


def _solve_each_class(task: Task, strengths: np.ndarray) -> np.ndarray:
    """Return (D, C) coefficients of each class against the rest, with a strength of its own."""
    from threadpoolctl import threadpool_limits

    Z = task.rotated.Z[:, :-1].astype(np.float64)
    columns = []
    for c, strength in enumerate(strengths):
        is_class = task.codes == c
        model = _linear_svc(to_setting(task, float(strength))["C"])
        with threadpool_limits(1, user_api="blas"):
            model.fit(Z, is_class, sample_weight=task.weights * np.where(is_class, task.positive_weight, 1.0))
        columns.append(np.append(model.coef_[0], model.intercept_))
    return np.column_stack(columns)


def _solve_each_class_large(task: Task, strengths: np.ndarray) -> np.ndarray:
    """Return the same from the batched solver: all classes at each of the strengths, of which each takes its own."""
    tried, own = np.unique(strengths, return_inverse=True)
    W = solve(task, tried.tolist(), np.repeat(task.weights[:, None], len(tried), axis=1), final=True)
    return W[:, own, np.arange(task.n_classes)].astype(np.float64)


def _linear_svc(C: float) -> Any:
    from sklearn.svm import LinearSVC

    # LinearSVC penalises its intercept, the less the larger its scaling
    return LinearSVC(C=C, intercept_scaling=30, dual=False, tol=1e-6, max_iter=10_000, random_state=0)
