"""Ridge: least squares on ±1 targets in closed form, and each image's scores without it, exact."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from transfer.heads.blocks import row_blocks
from transfer.heads.checking import check_images
from transfer.heads.groups import number_groups, shared_groups
from transfer.heads.rotation import rotate
from transfer.heads.tasks import Task


def ridge_leave_one_out(
    X: np.ndarray, y: np.ndarray, n_classes: int, alphas: Sequence[float], groups: np.ndarray | None = None
) -> np.ndarray:
    """Return (len(alphas), n, C) scores of every image by the ridge that was fitted on ±1 targets without it.

    Exact, all strengths from one eigendecomposition; the intercept is not penalised. Rows of one group are left out
    together. The features are taken as they are (`scaling='none'`).
    """
    X, y = check_images(X, y, n_classes, "training")
    weights = np.ones(len(y))
    members = np.arange(len(y)) if groups is None else number_groups(groups)
    return leave_out(Task("ridge", rotate(X, weights, "none"), y, n_classes, weights, members, seed=0), alphas)


def solve_ridge(task: Task, strengths: Sequence[float]) -> np.ndarray:
    """Return (D, L, C) coefficients."""
    Z, targets = task.rotated.Z, task.signs
    moments = np.zeros((Z.shape[1], task.n_classes))
    for rows in row_blocks(*Z.shape):
        moments += Z[rows].T.astype(np.float64) @ (task.weights[rows, None] * targets[rows])
    return moments[:, None, :] * _inverse(task, strengths)[:, :, None]


def leave_out(task: Task, strengths: Sequence[float]) -> np.ndarray:
    """Return (L, n, C) scores of each image without its group: target - (1 - H_gg)⁻¹ residual_g."""
    Z, targets, inverse = task.rotated.Z, task.signs, _inverse(task, strengths)
    coefficients = solve_ridge(task, strengths)
    scores = np.empty((len(strengths), len(Z), task.n_classes), np.float32)
    for rows in row_blocks(len(Z), max(coefficients.shape[0], len(strengths) * task.n_classes)):
        block = Z[rows].astype(np.float64)
        residual = _residuals(block, targets[rows], coefficients)
        leverage = (block**2 @ inverse) * task.weights[rows, None]
        scores[:, rows] = (targets[rows, None] - residual / np.maximum(1 - leverage, 1e-9)[:, :, None]).swapaxes(0, 1)
    for group in shared_groups(task.groups):
        block = Z[group].astype(np.float64)
        residual = _residuals(block, targets[group], coefficients)
        for s in range(len(strengths)):
            rest = np.eye(len(group)) - (block * inverse[:, s]) @ block.T * task.weights[group]
            scores[s, group] = targets[group] - np.linalg.lstsq(rest, residual[:, s], rcond=1e-9)[0]
    return scores


def _inverse(task: Task, strengths: Sequence[float]) -> np.ndarray:
    """Return (D, L): the diagonal of (ZᵀWZ + λ)⁻¹; the intercept carries no λ."""
    return 1 / (task.rotated.energy[:, None] + task.rotated.penalised[:, None] * np.asarray(strengths, np.float64))


def _residuals(block: np.ndarray, targets: np.ndarray, coefficients: np.ndarray) -> np.ndarray:
    """Return (m, L, C) targets less scores of some rows, float64."""
    _, n_strengths, n_classes = coefficients.shape
    scores = (block @ coefficients.reshape(len(coefficients), -1)).reshape(len(block), n_strengths, n_classes)
    return targets[:, None] - scores
