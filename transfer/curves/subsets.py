"""Subset: fewer and fewer images to learn from, each among those of the next larger subset."""

from __future__ import annotations

import numpy as np

_HALVINGS = 4  # sizes n, n/2, … n/16
_FEWEST = 2  # images of each class, where it has them
_STEP = 0.75  # a subset that has more than this share of the next larger one says nothing new


def shares_of(y: np.ndarray) -> list[float]:
    """Return the shares of the images with labels `y` that are learned from, ascending, the last one 1.

    Sizes are left out at which the typical class has fewer than two images.
    """
    of_class = np.unique(y, return_counts=True)[1]
    shares = [1.0]
    for k in range(1, _HALVINGS + 1):
        is_smaller = _quotas(of_class, 0.5**k).sum() <= _STEP * _quotas(of_class, shares[0]).sum()
        if np.median(of_class) * 0.5**k >= _FEWEST and is_smaller:
            shares.insert(0, 0.5**k)
    return shares


def draw_nested(y: np.ndarray, groups: np.ndarray, shares: list[float], seed: list[int]) -> list[np.ndarray]:
    """Return the rows of one subset for each share, drawn by class, each a part of the next; groups are not divided."""
    _, firsts, members, sizes = np.unique(groups, return_index=True, return_inverse=True, return_counts=True)
    members = members.ravel()
    order = np.random.default_rng(seed).permutation(len(firsts))
    label = y[firsts]  # a group with two labels counts as its first image's
    before = np.empty(len(firsts), int)  # images of its class that are drawn before a group is
    for c in np.unique(label):
        of_class = order[label[order] == c]
        before[of_class] = np.cumsum(sizes[of_class]) - sizes[of_class]
    n_of_class = np.bincount(label, sizes).astype(int)
    return [np.flatnonzero((before < _quotas(n_of_class, share)[label])[members]) for share in shares]


def _quotas(of_class: np.ndarray, share: float) -> np.ndarray:
    return np.minimum(of_class, np.maximum(_FEWEST, np.round(of_class * share).astype(int)))
