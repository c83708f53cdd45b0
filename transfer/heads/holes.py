"""Holes: copies of features with some numbers at zero, to learn from: dropout on the features (DeCAF, 2014)."""

from __future__ import annotations

import numpy as np

from transfer.heads.blocks import row_blocks

COPIES = 4  # of each row, with other holes each


def with_holes(rows: np.ndarray, share: float, seed: int) -> np.ndarray:
    """Return (n · COPIES, d) copies of rows (n, d), the copies of a row together, with about `share` at zero.

    Donahue et al. drop half of the numbers anew whenever a row comes round, and halve them all at test. A convex solver
    sees all its rows at once; so it gets a few draws of each.
    """
    rng = np.random.default_rng(seed)
    copies = np.repeat(rows, COPIES, axis=0)
    for some in row_blocks(*copies.shape):
        copies[some] *= rng.random(copies[some].shape, dtype=np.float32) >= share
    return copies
