"""Rotation: features in the eigenbasis of the scaled ones, as orthogonal columns, never more than rows."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from transfer.files import cache_folder, map_new_array
from transfer.heads.blocks import row_blocks
from transfer.heads.scaling import scale_factors, whitening_factors

_IN_MEMORY = 1_000_000_000  # bytes of rotated features
_NEGLIGIBLE = 1e-11  # of the largest eigenvalue; a direction with less is rounding error


@dataclass(frozen=True, eq=False)
class Rotated:
    """Features as Z = (X - shift) @ rotation, last column ones; columns orthogonal under the image weights."""

    Z: np.ndarray  # (n, D) float32
    energy: np.ndarray  # (D,) weighted sum of squares of each column
    rotation: np.ndarray  # (d, D - 1)
    shift: np.ndarray  # (d,)

    @property
    def penalised(self) -> np.ndarray:
        """Whether each column's coefficient is: all but the intercept's."""
        return np.arange(len(self.energy)) < len(self.energy) - 1

    def rotate_others(self, X: np.ndarray) -> np.ndarray:
        """Return (m, D) of images that the rotation was not made from."""
        return _turned(X, self.rotation, self.shift)

    def affine(self, coefficients: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return weight (C, d) and bias (C,) on X that score as coefficients (D, C) do on Z."""
        weight = (self.rotation @ coefficients[:-1]).T
        return weight, coefficients[-1] - weight @ self.shift


def rotate(X: np.ndarray, weights: np.ndarray, scaling: str) -> Rotated:
    """Scale the features and turn them into the eigenbasis of XᵀX or XXᵀ, whichever is smaller."""
    n, d = X.shape
    total = weights.sum()
    shift, squares = np.zeros(d), np.zeros(d)
    for rows in row_blocks(n, d):
        shift += weights[rows] @ X[rows].astype(np.float64) / total
    for rows in row_blocks(n, d):
        squares += weights[rows] @ (X[rows] - shift) ** 2 / total
    scale = scale_factors(squares, scaling)
    root = np.sqrt(weights)[:, None]
    energy, vectors = (_eigenbasis_of_columns if n > d else _eigenbasis_of_rows)(X, shift, scale, root)
    rotation = np.broadcast_to(scale, (d,))[:, None] * vectors
    if scaling == "whiten":
        factors = whitening_factors(energy)
        energy, rotation = energy * factors**2, rotation * factors
    return Rotated(_turned(X, rotation, shift), np.append(energy, total), rotation, shift)


def _eigenbasis_of_columns(
    X: np.ndarray, shift: np.ndarray, scale: np.ndarray, root: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return the energies (D - 1,) and directions (d, D - 1) of the scaled features, from their d × d products."""
    gram = np.zeros((X.shape[1], X.shape[1]))
    for rows in row_blocks(*X.shape):
        block = root[rows] * ((X[rows] - shift) * scale)
        gram += block.T @ block
    energy, vectors = _eigh(gram)
    kept = energy > energy[-1] * _NEGLIGIBLE
    return energy[kept], vectors[:, kept]


def _eigenbasis_of_rows(
    X: np.ndarray, shift: np.ndarray, scale: np.ndarray, root: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return the same from the n × n products."""
    scaled = root * ((X - shift) * scale)
    energy, left = _eigh(scaled @ scaled.T)
    kept = energy > energy[-1] * _NEGLIGIBLE
    return energy[kept], scaled.T @ (left[:, kept] / np.sqrt(energy[kept]))


def _eigh(gram: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return eigenvalues, ascending, and eigenvectors."""
    from scipy.linalg import eigh
    from threadpoolctl import threadpool_limits

    # One thread takes 0.35 s for 1,280 × 1,280 and two take 0.31 s, but on a busy machine two wait for each other: 12 s
    with threadpool_limits(1, user_api="blas"):
        energy, vectors = eigh(gram, driver="evd", overwrite_a=True, check_finite=False)
    return energy, vectors


def _turned(X: np.ndarray, rotation: np.ndarray, shift: np.ndarray) -> np.ndarray:
    Z = _room_for((len(X), rotation.shape[1] + 1))
    for rows in row_blocks(*X.shape):
        Z[rows, :-1] = (X[rows] - shift) @ rotation
        Z[rows, -1] = 1
    return Z


def _room_for(shape: tuple[int, int]) -> np.ndarray:
    """Return an array to fill: in memory, or where it is large in a file that is gone when the array is."""
    if 4 * shape[0] * shape[1] <= _IN_MEMORY:
        return np.empty(shape, np.float32)
    return map_new_array(cache_folder(), shape)
