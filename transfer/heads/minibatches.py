"""Minibatches: the new last layer as deep learning trains it, with Adam and a cosine learning rate."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from transfer.heads.losses import softmax_slope
from transfer.heads.tasks import Task

_BATCH = 256
_LR, _BETA_1, _BETA_2, _MIN_STEPS = 0.1, 0.9, 0.99, 400  # Adam


def train(task: Task, strengths: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Return (D, P, C) softmax heads, P trained side by side, with weight decay in the loss.

    In numpy: steps are so small that torch's start and its threads' waiting for each other would be most of the time.
    """
    n, n_problems = weights.shape
    batch = min(_BATCH, n)
    n_steps = max(_MIN_STEPS, 10 * -(-n // batch))
    # Adam's steps have a size of their own: rows of unit length, whatever the scaling, let one learning rate fit
    length = np.float32(np.sqrt(task.rotated.energy[:-1].sum() / task.rotated.energy[-1]) or 1.0)
    units = np.where(task.rotated.penalised, length, np.float32(1.0))
    Z, one_hot = task.rotated.Z, task.one_hot
    share = (weights * (n / batch) / weights.sum(axis=0)).astype(np.float32)
    decay = (strengths / length**2 / weights.sum(axis=0) * task.rotated.penalised[:, None]).astype(np.float32)

    W: np.ndarray = np.zeros((Z.shape[1], n_problems, task.n_classes), np.float32)
    mean, square = np.zeros_like(W), np.zeros_like(W)
    for step, rows in enumerate(_shuffled(n, batch, n_steps, task.seed), start=1):
        seen = Z[rows] / units
        scores = (seen @ W.reshape(len(W), -1)).reshape(batch, n_problems, -1)
        change = softmax_slope(scores, one_hot[rows, None, :]) * share[rows, :, None]
        slope = (seen.T @ change.reshape(batch, -1)).reshape(W.shape) + decay[:, :, None] * W
        mean += (1 - _BETA_1) * (slope - mean)
        square += (1 - _BETA_2) * (slope * slope - square)
        lr = 0.5 * _LR * (1 + np.cos(np.pi * (step - 1) / n_steps)) / (1 - _BETA_1**step)
        W -= np.float32(lr) * mean / (np.sqrt(square / np.float32(1 - _BETA_2**step)) + np.float32(1e-8))
    return W / units[:, None, None]


def _shuffled(n: int, batch: int, n_steps: int, seed: int) -> Iterator[np.ndarray]:
    """Yield the rows of each step's batch: one shuffle after the other, none cut short."""
    shuffle, queue = np.random.default_rng(seed), np.empty(0, int)
    for _ in range(n_steps):
        if len(queue) < batch:
            queue = np.concatenate([queue, shuffle.permutation(n)])
        rows, queue = queue[:batch], queue[batch:]
        yield rows
