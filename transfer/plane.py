"""Plane: rows of features as points that can be drawn."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from transfer.directions import principal_directions

_MOST_UMAP = 3000  # images: 2,527 took 8 s on one core, 5,000 took 45 s; the first use in a process 20 s more


@dataclass(frozen=True)
class Plane:
    """Points (n, 2) and how they were found, in words; `share` is that of the variance, None where it has none."""

    points: np.ndarray
    method: str
    share: float | None


def project(X: np.ndarray, seed: int = 0) -> Plane:
    """Put features (n, d) onto a plane, by principal components or by UMAP.

    UMAP where the package `umap-learn` is installed and there are no more than 3,000 images; else the two strongest
    principal components, found from up to 4,096 images.
    """
    umap = _load_umap() if 16 <= len(X) <= _MOST_UMAP else None
    if umap:
        points = umap(random_state=seed, n_jobs=1).fit_transform(np.asarray(X, np.float32))
        return Plane(np.asarray(points, float), "UMAP", None)
    rows = np.asarray(X, np.float32)
    centred = rows - rows.mean(axis=0)
    directions = principal_directions(centred, 2).astype(np.float32)  # else all rows would become float64
    points = np.zeros((len(X), 2))
    points[:, : directions.shape[1]] = centred @ directions
    total = float(np.einsum("ij,ij->i", centred, centred).sum(dtype=np.float64))
    share = float((points**2).sum()) / total if total else None
    return Plane(points, "the two strongest principal components", share)


def _load_umap() -> Any:
    """Return the class, or None without the package or with one that cannot be loaded."""
    try:
        from umap import UMAP
    except ImportError:
        return None
    return UMAP
