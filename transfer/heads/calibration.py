"""Calibration: the temperature that makes probabilities of scores."""

from __future__ import annotations

import numpy as np

from transfer.heads.losses import softmax


def calibrated(scores: np.ndarray, temperature: float, present: np.ndarray | None = None) -> np.ndarray:
    """Return (n, C) probabilities of scores, float64; 0 of a class that is not among those `present`."""
    scaled = scores.astype(np.float64) / temperature
    if present is not None:
        scaled[:, np.setdiff1d(np.arange(scaled.shape[1]), present)] = -np.inf
    return softmax(scaled)


def fit_temperature(scores: np.ndarray, y: np.ndarray) -> float:
    """Return the T for which softmax(scores / T) has the least log loss on labels `y` (Guo et al., ICML 2017).

    One image's worth of labels is spread over all classes, as Platt does it: perfectly separated scores then get a
    finite T, the smaller the more images support it. `scores` must come from images that the head was not fitted on.

    >>> fit_temperature(np.array([[2.0, 0.0]] * 3 + [[0.0, 2.0]]), np.array([0, 0, 1, 1])) > 1
    True
    """
    from scipy.optimize import minimize_scalar

    if len(scores) == 0:
        return 1.0
    scores = np.asarray(scores, np.float64)
    scores = scores - scores.max(axis=1, keepdims=True)
    size = float(np.sqrt(np.mean(scores**2)))
    if size == 0:
        return 1.0
    scores /= size
    spread = 1 / (len(scores) + 1)
    target = (1 - spread) * scores[np.arange(len(y)), y].mean() + spread * scores.mean()

    def log_loss(log_t: float) -> float:
        scaled = scores * np.exp(-log_t)
        return float(np.log(np.exp(scaled).sum(axis=1)).mean() - target * np.exp(-log_t))

    best = minimize_scalar(log_loss, bounds=(-7.0, 7.0), method="bounded", options={"xatol": 1e-5})
    return float(np.exp(best.x)) * size
