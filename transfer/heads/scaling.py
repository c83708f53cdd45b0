"""Scaling: how long the rows of features are made before a head is fitted on them."""

from __future__ import annotations

import numpy as np

# 'auto' is 'global'. `bench/scaling.py` on EfficientNet-Lite0 features of six sets, 10, 25 and 100 images per class,
# two draws each: mean test accuracy in %, with the standard error of the difference to 'global':
#            linear-svm   logistic     ridge
#   global   82.3         82.5         82.5         centred, one scale: folds
#   standard 81.0 ± 0.4   81.2 ± 0.3   80.9 ± 0.3   per dimension: folds, but lifts the noise of dead channels
SCALINGS = ("auto", "global", "standard", "whiten", "none")
_LEAST_SHARE = 1e-4  # of the largest variance, which is added to each before whitening: the last directions are noise


def scale_factors(squares: np.ndarray, scaling: str) -> np.ndarray:
    """Return the factor(s) on centred features, given the mean square of each dimension."""
    if scaling == "none":
        return np.ones(1)
    if scaling == "standard":
        live = squares > squares.max() * 1e-12
        return np.where(live, 1 / np.sqrt(np.where(live, squares, 1) * max(live.sum(), 1)), 0.0)
    length = np.sqrt(squares.sum())
    # Rows of unit length (root mean square): a good C is then near 1 whatever the backbone's width and scale
    return np.array([1 / length if length > 0 else 1.0])


def whitening_factors(energy: np.ndarray) -> np.ndarray:
    """Return the factors that give all principal directions the same variance, given the sum of squares of each.

    Together they have rows of unit mean square length, as other scalings do.
    """
    largest = energy.max(initial=0.0)
    return np.sqrt(energy.sum() / max(len(energy), 1)) / np.sqrt(energy + _LEAST_SHARE * largest)
