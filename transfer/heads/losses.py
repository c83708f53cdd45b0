"""Losses: the softmax, and how steep each loss is where a score stands."""

from __future__ import annotations

import numpy as np


def softmax(scores: np.ndarray) -> np.ndarray:
    """Return probabilities along the last axis."""
    exponentials = np.exp(scores - scores.max(axis=-1, keepdims=True))
    return exponentials / exponentials.sum(axis=-1, keepdims=True)


def softmax_slope(scores: np.ndarray, one_hot: np.ndarray) -> np.ndarray:
    """Return the derivative of the log loss."""
    return softmax(scores) - one_hot


def hinge_slope(scores: np.ndarray, signs: np.ndarray) -> np.ndarray:
    """Return the derivative of ½ max(0, 1 - sign · score)²."""
    return -signs * np.maximum(1 - signs * scores, 0)
