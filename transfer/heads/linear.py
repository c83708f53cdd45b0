"""Linear head: an affine map from features to class scores, which is what every kind of head comes to."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from transfer.errors import UsageError
from transfer.heads.calibration import calibrated


@dataclass(frozen=True, eq=False)
class LinearHead:
    """An affine map from features to class scores, with the temperature that calibrates them.

    Attributes
    ----------
    weight : (C, d) float32
    bias : (C,) float32
    temperature : scores are divided by it before the softmax

    Examples
    --------
    >>> head = LinearHead(np.array([[1.0, 0.0], [0.0, 1.0]]), np.array([0.0, 0.5]))
    >>> head.predict(np.array([[2.0, 1.0], [2.0, 1.8]])).tolist()
    [0, 1]
    """

    weight: np.ndarray
    bias: np.ndarray
    temperature: float = 1.0

    def scores(self, X: np.ndarray) -> np.ndarray:
        """Return (n, C) float32 scores of features (n, d), or (n, views, d), not divided by the temperature."""
        return score_views(self._score, X, self.weight.shape[1])

    def _score(self, X: np.ndarray) -> np.ndarray:
        return X @ self.weight.T.astype(np.float32) + self.bias.astype(np.float32)

    def probabilities(self, X: np.ndarray) -> np.ndarray:
        """Return (n, C) calibrated probabilities, float64."""
        return calibrated(self.scores(X), self.temperature)

    def predict(self, X: np.ndarray) -> np.ndarray:
        """Return (n,) class indices."""
        return self.scores(X).argmax(axis=1)

    def folded(self) -> tuple[np.ndarray, np.ndarray]:
        """Return weight and bias of the one `nn.Linear` whose softmax gives the calibrated probabilities."""
        return (self.weight / self.temperature).astype(np.float32), (self.bias / self.temperature).astype(np.float32)


def score_views(score: Callable[[np.ndarray], np.ndarray], X: np.ndarray, d: int) -> np.ndarray:
    """Return (n, C): what `score` says of rows (n, d), or the average of what it says of the views (n, views, d).

    Averaged or summed makes no difference to which class wins; the paper's sum (Razavian et al., 2014) has the
    temperature in it.

    Raises
    ------
    UsageError
        Rows of another length than the head was fitted on.
    """
    if X.ndim not in (2, 3) or X.shape[-1] != d:
        raise UsageError(
            f"Features of shape {X.shape} do not fit a head for {d} dimensions: use the backbone and tap that the "
            "head was fitted on."
        )
    scores = score(np.asarray(X, np.float32).reshape(-1, d))
    return scores if X.ndim == 2 else scores.reshape(len(X), X.shape[1], -1).mean(axis=1)
