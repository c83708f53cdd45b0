"""Task: everything that is to be fitted, and as which kind of head."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from transfer.heads.rotation import Rotated

HEADS = ("linear-svm", "logistic", "ridge", "frozen")


@dataclass(frozen=True, eq=False)
class Task:
    """Rotated features with their labels. What is solved: λ/2 |w|² + Σ weight · loss, with a free intercept."""

    kind: str
    rotated: Rotated
    codes: np.ndarray  # (n,) labels among the classes that are present
    n_classes: int  # that are present
    weights: np.ndarray  # (n,)
    groups: np.ndarray  # (n,) integers
    seed: int

    @property
    def one_hot(self) -> np.ndarray:
        return np.eye(self.n_classes, dtype=np.float32)[self.codes]

    @property
    def signs(self) -> np.ndarray:
        """Targets of one-vs-rest: 1 for the image's class, -1 for the others."""
        return 2 * self.one_hot - 1
