"""Classes: those that have training images, what their images weigh, and their places among all classes."""

from __future__ import annotations

import numpy as np

ABSENT = -1e4  # calibrated score of a class without training images: probability 0, still finite in float16
_IMBALANCE = 3.0


def weigh_classes(choice: str | None, present: np.ndarray, codes: np.ndarray) -> dict[int, float] | None:
    """Return {class index: weight of its images}, or None where all weigh the same.

    Parameters
    ----------
    choice : 'balanced', None, or 'auto' (balanced when the largest class is over 3 times the smallest)
    present : (C,) indices of the classes that have images
    codes : (n,) places in `present`
    """
    counts = np.bincount(codes)
    if choice is None or (choice == "auto" and counts.max() <= _IMBALANCE * counts.min()):
        return None
    return {int(c): len(codes) / (len(present) * int(k)) for c, k in zip(present, counts, strict=True)}


def weigh_images(class_weights: dict[int, float] | None, present: np.ndarray, codes: np.ndarray) -> np.ndarray:
    """Return (n,) weights, each image's that of its class."""
    if class_weights is None:
        return np.ones(len(codes))
    return np.array([class_weights[int(c)] for c in present])[codes]


def spread(values: np.ndarray, present: np.ndarray, n_classes: int, absent: float) -> np.ndarray:
    """Return (m, n_classes) from (m, present classes), with `absent` for the others."""
    full = np.full((len(values), n_classes), absent, values.dtype)
    full[:, present] = values
    return full
