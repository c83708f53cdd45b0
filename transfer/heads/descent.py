"""Descent: many convex problems at once, by accelerated gradient in the eigenbasis."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from transfer.heads.blocks import row_blocks
from transfer.heads.losses import hinge_slope, softmax_slope
from transfer.heads.tasks import Task


def descend(
    task: Task,
    strengths: np.ndarray,
    weights: np.ndarray,
    tolerance: float,
    max_iterations: int = 3000,
    start: np.ndarray | None = None,
) -> tuple[np.ndarray, bool]:
    """Return (D, P, C) minimisers of P problems, and whether all were reached within `max_iterations`.

    Accelerated gradient with restarts (O'Donoghue & Candès 2015), from `start` or from zero.

    In the eigenbasis the Hessian is at most the diagonal λ + h · energy, so one over that is a step that needs no line
    search, and an iteration is two matrix products for all folds, strengths and classes together. The objective is
    that of scikit-learn's `LinearSVC` (λ = 1 / 2C) or `LogisticRegression` (λ = 1 / C), with a free intercept.
    """
    # the largest second derivative of the loss
    curvature = max(1.0, task.positive_weight) if task.kind == "linear-svm" else 0.5
    if task.kind == "logistic" and task.n_classes == 2:
        strengths = 2 * strengths  # scikit-learn has one row of weights for two classes, twice as long as each of these
    penalty = np.where(task.rotated.penalised[:, None], strengths, 0.0).astype(np.float32)[:, :, None]
    metric = penalty + np.float32(curvature) * task.rotated.energy.astype(np.float32)[:, None, None]
    slope_at = _slope_of(task, penalty, weights.astype(np.float32))

    # A start must not have seen the labels that a fold holds out, as ridge's solution has
    shape = (len(metric), len(strengths), task.n_classes)
    W: np.ndarray = np.zeros(shape, np.float32) if start is None else start.astype(np.float32)
    ahead, momentum = W, np.ones(len(strengths))
    for _ in range(max_iterations):
        slope = slope_at(ahead)
        step = slope / metric
        following = ahead - step
        moved = following - W
        length = np.einsum("dpc,dpc,dp->p", step, step, metric[:, :, 0])
        size = np.einsum("dpc,dpc,dp->p", following, following, metric[:, :, 0])
        uphill = np.einsum("dpc,dpc->p", slope, moved) > 0
        further = (1 + np.sqrt(1 + 4 * momentum**2)) / 2
        pace = np.where(uphill, 0.0, (momentum - 1) / further).astype(np.float32)
        momentum = np.where(uphill, 1.0, further)
        W, ahead = following, following + pace[:, None] * moved
        if np.all(length <= tolerance**2 * size):
            return W, True
    return W, False


def _slope_of(task: Task, penalty: np.ndarray, weights: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
    """Return the function that gives the derivatives of all objectives at W, in its shape (D, P, C)."""
    Z = task.rotated.Z
    hinge = task.kind == "linear-svm"
    loss_slope, targets = (hinge_slope, task.signs) if hinge else (softmax_slope, task.one_hot)
    of_own_class = np.float32(task.positive_weight - 1) * task.one_hot

    def slope_at(W: np.ndarray) -> np.ndarray:
        slope = penalty * W
        for rows in row_blocks(len(Z), W.shape[1] * W.shape[2]):
            scores = (Z[rows] @ W.reshape(len(W), -1)).reshape(-1, *W.shape[1:])
            change = loss_slope(scores, targets[rows, None, :])
            change *= weights[rows, :, None]
            if task.positive_weight != 1:
                change *= 1 + of_own_class[rows, None, :]
            slope += (Z[rows].T @ change.reshape(len(change), -1)).reshape(W.shape)
        return slope

    return slope_at
