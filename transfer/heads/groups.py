"""Groups: images that are never parted, such as exact duplicates."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np


def number_groups(groups: np.ndarray) -> np.ndarray:
    """Return (n,) numbers from 0 for labels of any type."""
    return np.unique(np.asarray(groups), return_inverse=True)[1].ravel()


def groups_per_class(y: np.ndarray, groups: np.ndarray) -> np.ndarray:
    """Return, per class, how many different groups it has."""
    pairs = np.unique(np.stack([y, groups]), axis=1)
    return np.bincount(pairs[0], minlength=int(y.max()) + 1)


def rows_per_group(groups: np.ndarray) -> list[np.ndarray]:
    """Return, per number of a group, its rows."""
    return np.split(np.argsort(groups, kind="stable"), np.cumsum(np.bincount(groups))[:-1])


def shared_groups(groups: np.ndarray) -> Iterator[np.ndarray]:
    """Yield the rows of each group that has more than one."""
    sizes = np.bincount(groups)
    ends = np.cumsum(sizes)
    shared = np.flatnonzero(sizes > 1)
    order = np.argsort(groups, kind="stable") if len(shared) else groups
    return (order[ends[k] - sizes[k] : ends[k]] for k in shared)  # of tens of thousands there are few
