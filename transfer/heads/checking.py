"""Checks: what cannot be meant or fitted, said before the slow part."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from transfer.errors import DataError, UsageError, did_you_mean
from transfer.heads.blocks import row_blocks
from transfer.heads.scaling import SCALINGS
from transfer.heads.tasks import HEADS
from transfer.recipe import find_clash


def check_arguments(
    kind: str,
    X: np.ndarray,
    y: np.ndarray,
    n_classes: int,
    *,
    groups: np.ndarray | None,
    scaling: str,
    class_weight: str | None,
    folds: int,
    grid: Sequence[float] | None,
    multiclass: str = "rest",
    dropout: float = 0.0,
    positive_weight: float = 1.0,
    judge: str = "auto",
    rule: str = "one-standard-error",
    search: str = "all",
) -> tuple[np.ndarray, np.ndarray]:
    """Return features in float32 and labels in int64, if a head can be fitted on them in the way that is asked."""
    for what, value, known in (
        ("way to many classes", multiclass, ("rest", "pairs")),
        ("judge", judge, ("auto", "val")),
        ("rule", rule, ("one-standard-error", "best", "average-precision")),
        ("search", search, ("all", "halving")),
    ):
        _require_known(what, value, known)
    if not 0 <= dropout < 1:
        raise UsageError(f"Dropout of {dropout} on the features: give a share below 1.")
    if positive_weight <= 0:
        raise UsageError(f"A weight of {positive_weight} for images of the class: give a positive number.")
    clash = find_clash(
        kind,
        multiclass=multiclass,
        dropout=dropout,
        positive_weight=positive_weight,
        judge=judge,
        rule=rule,
        search=search,
    )
    if clash:
        raise UsageError(f"{clash}.")
    if kind == "knn" and grid is not None and not all(k >= 1 and k == int(k) for k in grid):
        raise UsageError(f"Numbers of neighbours are whole, not {list(grid)}.")
    _require_known("head", kind, HEADS)
    _require_known("scaling", scaling, SCALINGS)
    X, y = check_images(X, y, n_classes, "training")
    if groups is not None and len(groups) != len(y):
        raise DataError(f"{len(groups)} groups for {len(y)} training images: give one per image.")
    if grid is not None and not (len(grid) and all(np.isfinite(s) and s > 0 for s in grid)):
        raise UsageError(f"A grid of settings must be positive numbers, not {list(grid)}.")
    if folds < 2:
        raise UsageError(f"Cross-validation needs at least 2 folds, not {folds}.")
    if y.min() == y.max():
        raise DataError(f"All {len(y)} training images are of one class ({y[0]}): a classifier needs at least two.")
    if class_weight not in ("auto", "balanced", None):
        raise UsageError(f"Unknown class weight {class_weight!r}: use 'auto', 'balanced' or None.")
    return X, y


def check_images(X: np.ndarray, y: np.ndarray, n_classes: int, part: str) -> tuple[np.ndarray, np.ndarray]:
    """Return features in float32 and labels in int64, if they fit together and are finite."""
    X, y = np.asarray(X, np.float32), np.asarray(y)
    if X.ndim not in (2, 3) or y.shape != (len(X),) or not X.size:
        raise DataError(
            f"The {part} features {X.shape} and labels {y.shape} must be (images, dimensions) or (images, views, "
            "dimensions), and (images,)."
        )
    if not np.issubdtype(y.dtype, np.integer) or y.min() < 0 or y.max() >= n_classes:
        raise DataError(
            f"The {part} labels must be class indices from 0 to {n_classes - 1}, not {y.min()} to {y.max()}."
        )
    broken = [
        int(row)
        for rows in row_blocks(len(X), X[0].size)
        for row in rows.start + np.flatnonzero(~np.isfinite(X[rows]).reshape(len(X[rows]), -1).all(axis=1))
    ]
    if broken:
        named = ", ".join(map(str, broken[:5])) + (", …" if len(broken) > 5 else "")
        raise DataError(
            f"The {part} features are NaN or infinite in {len(broken)} of {len(X)} rows ({named}): "
            "extract them again (with --exact if they were computed in 16 bits)."
        )
    return X, y.astype(np.int64)


def _require_known(what: str, name: str, known: Sequence[str]) -> None:
    if name not in known:
        raise UsageError(f"Unknown {what} {name!r}: use {', '.join(known)}.{did_you_mean(str(name), known)}")
