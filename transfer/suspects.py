"""Suspect: an image whose label is probably wrong, found by confident learning.

Northcutt, Jiang and Chuang, "Confident Learning: Estimating Uncertainty in Dataset Labels" (JAIR 70, 2021): a class's
threshold is the mean probability that images of the class get for it; an image that lies above the threshold of
another class than its own, and there higher than in any other, is counted off the diagonal of the confident joint.
These images are the suspects, ranked by the normalised margin.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from transfer.directions import principal_directions
from transfer.heads import fit_head, softmax

# rows are shortened to their strongest directions where solving would take long, by the product of images and columns,
# or by the cube of columns
_MANY, _SHORT = 8000, 512
_WIDEST, _LESS_WIDE = 4096, 1024


@dataclass(frozen=True)
class Suspect:
    """One row whose label is in doubt.

    Attributes
    ----------
    row : of the probabilities and labels
    given, suggested : class indices
    p_given, p_suggested : their probabilities
    margin : of the given class to the best other one, from -1 (surely wrong) to 1
    """

    row: int
    given: int
    suggested: int
    p_given: float
    p_suggested: float
    margin: float


def find_suspects(probabilities: np.ndarray, labels: np.ndarray) -> list[Suspect]:
    """Return the images off the diagonal of the confident joint, the most suspicious first.

    Parameters
    ----------
    probabilities
        (n, C), of each image by a classifier that was not fitted on it; rows with NaN are passed over.
    labels
        (n,) class indices as given.

    Examples
    --------
    >>> p = np.array([[0.9, 0.1], [0.8, 0.2], [0.1, 0.9], [0.2, 0.8], [0.95, 0.05]])
    >>> [(s.row, s.suggested, round(s.margin, 2)) for s in find_suspects(p, np.array([0, 0, 1, 1, 1]))]
    [(4, 0, -0.9)]
    """
    known = np.flatnonzero(~np.isnan(probabilities).any(axis=1))
    p, y = np.asarray(probabilities, np.float64)[known], np.asarray(labels)[known]
    if not len(y):
        return []
    rows, n_classes = np.arange(len(y)), p.shape[1]
    own = p[rows, y]
    n_of = np.bincount(y, minlength=n_classes)
    # a class without images has no threshold that could be reached
    thresholds = np.where(n_of > 0, np.bincount(y, own, n_classes) / np.maximum(n_of, 1), np.inf)
    confident = np.where(p >= thresholds, p, -1.0)
    suggested = confident.argmax(axis=1)
    others = p.copy()
    others[rows, y] = -1.0
    margin = own - others.max(axis=1)
    # where the own class lies as high, nothing speaks against it
    doubted = np.flatnonzero((confident[rows, suggested] >= 0) & (suggested != y) & (p[rows, suggested] > own))
    order = doubted[np.argsort(margin[doubted], kind="stable")]
    return [
        Suspect(int(known[i]), int(y[i]), int(suggested[i]), float(own[i]), float(p[i, suggested[i]]), float(margin[i]))
        for i in order
    ]


def out_of_fold(X: np.ndarray, y: np.ndarray, n_classes: int, groups: np.ndarray, seed: int = 0) -> np.ndarray:
    """Return probabilities (n, C) of each image by a ridge head that saw neither it nor its exact copies.

    Leave-one-out is exact and takes one decomposition. Ridge found as many wrong labels as logistic regression in five
    folds, in a quarter of the time for 2,000 images (bench/suspects.py). Rows of images that are alone in their class
    are NaN.

    Parameters
    ----------
    X
        (n, d) or (n, views, d). Of more than 4,096 numbers in a row the 1,024 strongest directions are taken, of more
        than 8,000 images the 512 strongest. Of more than 16,000 images some 8,000 choose the penalty.
    y
        (n,) class indices, as given: those that are in doubt are learned from too.
    groups
        (n,) labels of any type; images of one group are left out together.

    Raises
    ------
    DataError
        One class only, or features that are not finite.
    """
    width = X.shape[-1]
    kept = _SHORT if len(X) > _MANY else _LESS_WIDE if width > _WIDEST else width
    if kept < width:
        X = X - X.reshape(-1, width).mean(axis=0)
        X = X @ principal_directions(X.reshape(-1, width), kept).astype(X.dtype)
    strength = None
    if len(X) > 2 * _MANY:  # the best penalty hardly depends on the number of images, and is found from some of them
        one_of_each = np.unique(y, return_index=True)[1]
        some = np.union1d(np.arange(0, len(X), -(-len(X) // _MANY)), one_of_each)
        chosen = fit_head(
            "ridge", X[some], y[some], n_classes, groups=groups[some], class_weight=None, seed=seed
        ).chosen
        strength = list(chosen.values())
    fitted = fit_head("ridge", X, y, n_classes, groups=groups, class_weight=None, grid=strength, seed=seed)
    assert fitted.out_of_fold is not None
    return softmax(fitted.out_of_fold.astype(np.float64) / fitted.head.temperature)
