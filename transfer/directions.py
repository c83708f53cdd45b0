"""Direction: along which rows of features differ most."""

from __future__ import annotations

import numpy as np

_MOST = 4096  # rows that directions are found from
_WIDEST = 2048  # columns; beyond, the products of fewer rows are taken instead of those of columns


def principal_directions(X: np.ndarray, k: int) -> np.ndarray:
    """Return (d, k') orthonormal directions, strongest first, k' at most k: principal components of up to 4,096 rows.

    Rows are taken at even distances, so that the price does not grow with their number. They are not centred here.

    >>> X = np.array([[3.0, 0.0], [-3.0, 0.0], [0.0, 1.0], [0.0, -1.0]])
    >>> abs(principal_directions(X, 1)).round(6).tolist()
    [[1.0], [0.0]]
    """
    is_wide = X.shape[1] > _WIDEST
    most = _WIDEST if is_wide else _MOST
    some = np.asarray(X[:: -(-len(X) // most)], np.float64)
    if not is_wide:
        found = _strongest(some.T @ some, k)[1]
    else:
        energy, left = _strongest(some @ some.T, k)
        found = some.T @ (left / np.sqrt(energy))
    signs = np.sign(found[np.abs(found).argmax(axis=0), np.arange(found.shape[1])])
    return found * signs  # which way a direction points is chance otherwise


def _strongest(products: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    from scipy.linalg import eigh

    n = len(products)
    energy, vectors = eigh(products, subset_by_index=[max(0, n - k), n - 1], check_finite=False)
    kept = np.flatnonzero(energy > max(energy[-1], 0) * 1e-9)[::-1]
    return energy[kept], vectors[:, kept]
