"""Folds: which images are left out together in cross-validation."""

from __future__ import annotations

import numpy as np

from transfer.heads.groups import groups_per_class, number_groups, rows_per_group


def assign_folds(y: np.ndarray, groups: np.ndarray, n_folds: int, seed: int) -> np.ndarray:
    """Return (n,) fold numbers: classes spread evenly, a group never divided, -1 for the only group of its class.

    A class with fewer groups than folds is missing from some held-out parts, never from a training part. So one rare
    class does not cut the number of folds for the rest.
    """
    members = number_groups(groups)
    rows_of = rows_per_group(members)
    n_groups = groups_per_class(y, members)
    order = np.random.default_rng(seed).permutation(len(rows_of))
    # Large groups first: they fit less easily
    order = order[np.argsort([-len(rows_of[group]) for group in order], kind="stable")]
    per_class = np.zeros((int(y.max()) + 1, n_folds), int)
    placed = np.zeros_like(per_class)  # groups instead of images
    totals = np.zeros(n_folds, int)
    fold = np.full(len(y), -1)
    for group in order:
        rows = rows_of[group]
        if np.any(n_groups[y[rows]] == 1):
            continue
        classes = np.unique(y[rows])
        takes_all = (placed[classes] == n_groups[classes, None] - 1).any(axis=0)  # of a class: none left to train on
        chosen = int(np.lexsort((totals, per_class[y[rows[0]]], takes_all))[0])
        fold[rows] = chosen
        totals[chosen] += len(rows)
        np.add.at(per_class[:, chosen], y[rows], 1)
        placed[classes, chosen] += 1
    return fold
