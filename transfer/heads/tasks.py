"""Task: everything that is to be fitted, and as which kind of head."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from transfer.heads.rotation import Rotated

LINEAR_HEADS = ("linear-svm", "logistic", "ridge", "frozen")
HEADS = (*LINEAR_HEADS, "knn")


@dataclass(frozen=True, eq=False)
class Task:
    """Rotated features with their labels. What is solved: λ/2 |w|² + Σ weight · loss, with a free intercept.

    An image has one row to learn from, or several that follow one another: views of it, or copies with holes in them.
    """

    kind: str
    rotated: Rotated
    codes: np.ndarray  # (rows,) labels among the classes that are present
    n_classes: int  # that are present
    weights: np.ndarray  # (rows,)
    groups: np.ndarray  # (rows,) integers; the rows of an image have one
    seed: int
    n_rows: int = 1  # of each image that are learned from
    clean: np.ndarray | None = None  # (n · V, D) rows that are judged; None: those that are learned from
    kept: float = 1.0  # share of its numbers that a row to learn from has; clean rows are multiplied by it
    positive_weight: float = 1.0  # of an image in the one-vs-rest problem of its own class

    @property
    def judged(self) -> np.ndarray:
        """Rows (n · V, D) of which an image's scores are the average."""
        return self.rotated.Z if self.clean is None else self.clean

    @property
    def is_only_intercept(self) -> bool:
        """Whether the features of all images are alike."""
        return self.rotated.Z.shape[1] == 1

    @property
    def n_judged(self) -> int:
        """V: judged rows of each image."""
        return len(self.judged) // (len(self.codes) // self.n_rows)

    def of_images(self, values: np.ndarray) -> np.ndarray:
        """Return one value per image from one per row: `codes`, `weights`, `groups`."""
        return values[:: self.n_rows]

    @property
    def one_hot(self) -> np.ndarray:
        return np.eye(self.n_classes, dtype=np.float32)[self.codes]

    @property
    def signs(self) -> np.ndarray:
        """Targets of one-vs-rest: 1 for the image's class, -1 for the others."""
        return 2 * self.one_hot - 1
