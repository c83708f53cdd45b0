"""Likeness: images of different parts that look nearly the same, by the cosine of their features."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from transfer.directions import principal_directions

# Of images saved anew as JPEG (quality 85) 61 % lie as near to the original, and 0.7 % of all have a different one as
# near: means over five sets. At 0.9 these are 72 % and 5.7 % (bench/likeness.py)
NEAR = 0.95
_DIRECTIONS = 128  # of the shortened rows
_BLOCK = 1024  # rows on either side of one product
_ROUNDING = 1e-3  # of products in float32
_MANY = 0.01  # of a block: from here on its whole product is quicker than picking


@dataclass(frozen=True)
class Pair:
    """Two rows of features and the cosine between them; `row` belongs to a later part than `other`."""

    row: int
    other: int
    cosine: float


def find_pairs(X: np.ndarray, stages: np.ndarray, contents: np.ndarray, near: float = NEAR) -> list[Pair]:
    """Return for each image the most similar one of the earlier parts, where their cosine is `near` or more.

    The cosines are of centred features, since raw ones, which are positive, lie above 0.9 for many different images of
    one set. They are exact, at a fraction of the price of all products: rows are shortened to their strongest
    directions and the length of what is left, so that the product of two is at least their cosine, and only pairs that
    pass are computed in full.

    Parameters
    ----------
    X
        (n, d) features, finite.
    stages
        (n,) integers: 0 for train, 1 for val, 2 for test. Images of stage 0 are compared with none.
    contents
        (n,) SHA-256 or the like; images of one content are exact copies and no pairs.

    Returns
    -------
    list of Pair
        Later parts first, then the most similar first.
    """
    codes = np.unique(contents, return_inverse=True)[1].ravel()
    rows = _unit(X, np.asarray(X, np.float32).mean(axis=0))
    short = _shortened(rows)
    pairs = []
    for stage in sorted(set(stages.tolist()), reverse=True):
        asked, earlier = np.flatnonzero(stages == stage), np.flatnonzero(stages < stage)
        pairs += sorted(_nearest(rows, short, codes, asked, earlier, near), key=lambda pair: (-pair.cosine, pair.row))
    return pairs


def _nearest(
    rows: np.ndarray, short: np.ndarray, codes: np.ndarray, asked: np.ndarray, earlier: np.ndarray, near: float
) -> Iterator[Pair]:
    """Yield a pair for each of the rows `asked` that has one."""
    for some in _blocks(asked):
        best, other = np.full(len(some), -np.inf, np.float32), np.full(len(some), -1)
        for others in _blocks(earlier):
            products = short[some] @ short[others].T
            i, j = np.divmod(np.flatnonzero(products >= near - _ROUNDING), len(others))
            differ = codes[some[i]] != codes[others[j]]  # asked of few: most are not near
            i, j = i[differ], j[differ]
            if len(i) > _MANY * products.size:
                may = np.zeros(products.shape, bool)
                may[i, j] = True
                cosines = np.where(may, rows[some] @ rows[others].T, -np.inf)
                i, j = np.arange(len(some)), cosines.argmax(axis=1)
                exact = cosines[i, j]
            else:
                exact = np.einsum("ij,ij->i", rows[some[i]], rows[others[j]])
            order = np.lexsort((exact, i))
            order = (
                order[np.append(i[order][1:] != i[order][:-1], True)] if len(order) else order
            )  # the largest of each
            better = order[exact[order] > best[i[order]]]
            best[i[better]], other[i[better]] = exact[better], others[j[better]]
        for k in np.flatnonzero(best >= near):
            yield Pair(int(some[k]), int(other[k]), float(best[k]))


def _unit(X: np.ndarray, mean: np.ndarray) -> np.ndarray:
    rows = np.asarray(X, np.float32) - mean
    rows /= np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12)
    return rows


def _shortened(rows: np.ndarray) -> np.ndarray:
    """Return (n, k + 1): the coordinates in k orthonormal directions, and the length of what is left.

    By Cauchy and Schwarz the product of two such rows is no less than that of the two whole ones.
    """
    if rows.shape[1] <= 2 * _DIRECTIONS:
        return rows
    kept = rows @ principal_directions(rows, _DIRECTIONS).astype(np.float32)
    left = np.sqrt(np.maximum(0, (rows**2).sum(axis=1) - (kept**2).sum(axis=1)))
    return np.column_stack([kept, left])


def _blocks(positions: np.ndarray) -> Iterator[np.ndarray]:
    for start in range(0, len(positions), _BLOCK):
        yield positions[start : start + _BLOCK]
