"""Linear head: an affine map from features to class scores, which is what every kind of head comes to."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from transfer.errors import UsageError
from transfer.heads.losses import softmax
from transfer.heads.scaling import unit_rows


@dataclass(frozen=True, eq=False)
class LinearHead:
    """An affine map from raw features to class scores, with the temperature that calibrates them.

    Attributes
    ----------
    weight : (C, d) float32
    bias : (C,) float32
    temperature : scores are divided by it before the softmax
    row_norm : None, or 'l2' when each row of features is brought to unit length first (then the head does not fold)

    Examples
    --------
    >>> head = LinearHead(np.array([[1.0, 0.0], [0.0, 1.0]]), np.array([0.0, 0.5]))
    >>> head.predict(np.array([[2.0, 1.0], [2.0, 1.8]])).tolist()
    [0, 1]
    """

    weight: np.ndarray
    bias: np.ndarray
    temperature: float = 1.0
    row_norm: str | None = None

    @property
    def folds(self) -> bool:
        """Whether one `nn.Linear` on the raw features gives the same probabilities."""
        return self.row_norm is None

    def scores(self, X: np.ndarray) -> np.ndarray:
        """Return (n, C) float32 scores of raw features (n, d), not divided by the temperature."""
        if X.ndim != 2 or X.shape[1] != self.weight.shape[1]:
            raise UsageError(
                f"Features of shape {X.shape} do not fit a head for {self.weight.shape[1]} dimensions: "
                "use the backbone and tap that the head was fitted on."
            )
        X = np.asarray(X, np.float32)
        if self.row_norm == "l2":
            X = unit_rows(X)
        return X @ self.weight.T.astype(np.float32) + self.bias.astype(np.float32)

    def probabilities(self, X: np.ndarray) -> np.ndarray:
        """Return (n, C) calibrated probabilities, float64."""
        return softmax(self.scores(X).astype(np.float64) / self.temperature)

    def predict(self, X: np.ndarray) -> np.ndarray:
        """Return (n,) class indices."""
        return self.scores(X).argmax(axis=1)

    def folded(self) -> tuple[np.ndarray, np.ndarray]:
        """Return weight and bias of the one `nn.Linear` whose softmax gives the calibrated probabilities.

        Raises
        ------
        UsageError
            The head normalises rows, which no linear layer does.
        """
        if not self.folds:
            raise UsageError("A head with row-wise L2 does not fold into one layer. Fit with scaling='global'.")
        return (self.weight / self.temperature).astype(np.float32), (self.bias / self.temperature).astype(np.float32)
