"""Measurement: how accurate heads are on held-out images when they learn from more and more images."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from transfer.curves.learning import CurvePoint, LearningCurve, foretell
from transfer.curves.subsets import draw_nested, shares_of
from transfer.errors import DataError
from transfer.heads import assign_folds, fit_head
from transfer.progress import Progress

_FOLDS = 5
_ENOUGH_HELD_OUT = 2500  # images: with them the 95 % interval of an accuracy is within 2 points
_FITTED_ONCE = 8000  # images to learn from; from here on draws differ by less than held-out images tell


class _Fold(NamedTuple):
    """The images of one fold that are held out, and where they were recognised."""

    held: np.ndarray  # (m,) rows
    hits: list[np.ndarray]  # for each size (draws, m)
    n_learned: list[float]  # for each size


def measure_curve(
    X: np.ndarray,
    y: np.ndarray,
    n_classes: int,
    *,
    groups: np.ndarray | None = None,
    seed: int = 0,
    kind: str = "ridge",
    n_draws: int = 3,
    progress: Progress | None = None,
) -> LearningCurve:
    """Measure how the accuracy of a head on frozen features grows with the number of images, and fit a power law.

    Every image is held out once, in five folds; heads are fitted on nested subsets of the other images, a sixteenth
    of them to all, drawn by class. Of many images only as many folds are held out as 2,500 images need, and subsets of
    8,000 and more are drawn once.

    Parameters
    ----------
    X, y
        Features (n, d) or (n, views, d) and class indices below `n_classes` of images that may be chosen on: train and
        val. Never pass test images: what is decided on the curve would be decided on them.
    groups
        Labels of any type; images of one group (exact duplicates) are learned from together or held out together.
    seed
        Of folds and draws. The same seed gives the same curve.
    kind
        Of the head, one of `heads.HEADS`. Ridge takes seconds, others minutes.
    n_draws
        Subsets of each size and fold.

    Returns
    -------
    LearningCurve
        Its points, and the law where there are three sizes or more.

    Raises
    ------
    DataError
        Fewer than two classes, no class with two different images, or features that cannot be used.
    """
    X, y = np.asarray(X), np.asarray(y)
    if len(X) != len(y) or not len(y):
        raise DataError(f"{len(X)} rows of features do not fit {len(y)} labels: give one row per image.")
    present, codes = np.unique(y, return_inverse=True)
    if len(present) < 2:
        raise DataError(f"All {len(y)} images are of one class: a learning curve needs at least two.")
    members = np.arange(len(y)) if groups is None else np.unique(np.asarray(groups), return_inverse=True)[1].ravel()
    pairs = np.unique(np.stack([codes, members]), axis=1)
    n_folds = int(np.clip(np.bincount(pairs[0]).max(), 2, _FOLDS))
    fold_of = assign_folds(codes, members, n_folds, seed)
    if not (fold_of >= 0).any():
        raise DataError("No class has two different images: none can be held out. Add images.")
    n_used = min(n_folds, math.ceil(_ENOUGH_HELD_OUT * n_folds / len(y)))
    shares = shares_of(codes[fold_of != 0])
    draws = [n_draws if share < 1 and share * len(y) < _FITTED_ONCE else 1 for share in shares]
    found = []
    used = [fold for fold in range(n_folds) if (fold_of == fold).any()][:n_used]
    with (progress or Progress(quiet=True)).task("Fitting heads", len(used) * sum(draws), "heads") as advance:
        for fold in used:
            rest, held = np.flatnonzero(fold_of != fold), np.flatnonzero(fold_of == fold)
            hits = [np.zeros((n, len(held)), bool) for n in draws]
            n_of = np.zeros(len(shares))
            for draw in range(max(draws)):
                subsets = draw_nested(codes[rest], members[rest], shares, [seed, fold, draw])
                for s, subset in enumerate(subsets):
                    if draw >= draws[s]:
                        continue
                    rows = rest[subset]
                    fitted = fit_head(kind, X[rows], y[rows], n_classes, groups=members[rows], rule="best", seed=seed)
                    hits[s][draw] = fitted.head.scores(X[held]).argmax(axis=1) == y[held]
                    n_of[s] += len(rows) / draws[s]
                    advance(1)
            found.append(_Fold(held, hits, n_of.tolist()))
    n_learned = np.mean([fold.n_learned for fold in found], axis=0).tolist()
    covariance = _covariance(found, members, shares, n_learned)
    points = [
        CurvePoint(
            images_per_class=n / len(present),
            n=n,
            accuracy=float(np.concatenate([fold.hits[s].mean(axis=0) for fold in found]).mean()),
            standard_error=math.sqrt(covariance[s, s]),
            n_draws=draws[s],
        )
        for s, n in enumerate(n_learned)
    ]
    notes = []
    if n_used < n_folds:
        n_held = sum(len(fold.held) for fold in found)
        notes.append(f"{n_held} of {len(y)} images were held out, {n_used} of {n_folds} folds: enough to judge on.")
    if any(n < n_draws for share, n in zip(shares, draws, strict=True) if share < 1):
        notes.append(f"Subsets of {_FITTED_ONCE:,} images and more were drawn once, smaller ones {n_draws} times.")
    return foretell(points, covariance, n_images=len(y), n_classes=len(present), kind=kind, seed=seed, notes=notes)


def _covariance(found: list[_Fold], members: np.ndarray, shares: list[float], n: list[float]) -> np.ndarray:
    """Return how far the accuracies (sizes) would go, and go together, with other images held out and learned from.

    All sizes are judged on the same images, so that most of the first goes together. The second is what draws differ by
    beyond the flips of single images, which the first has already; it falls as 1/n, and all images are a draw too, of
    those that there could be.
    """
    held = np.concatenate([fold.held for fold in found])
    average = np.stack([np.concatenate([fold.hits[s].mean(axis=0) for fold in found]) for s in range(len(n))])
    residuals = average - average.mean(axis=1, keepdims=True)
    _, group = np.unique(members[held], return_inverse=True)
    sums = np.stack([np.bincount(group.ravel(), row) for row in residuals])
    covariance = sums @ sums.T / len(held) ** 2
    n_draws = [len(hits) for hits in found[0].hits]
    per_image = [
        np.mean([_beyond_flips(fold.hits[s]) for fold in found]) * n[s] / (1 - shares[s])
        for s in range(len(n))
        if n_draws[s] > 1
    ]
    drawn = max(0.0, float(np.mean(per_image))) if per_image else 0.0
    between = [
        drawn / n[s] * ((1 - shares[s]) / (n_draws[s] * len(found)) + shares[s])  # of draws, and of all images
        for s in range(len(n))
    ]
    at_least = 1 / len(held) ** 2  # one image: where all are recognised, the next one need not be
    return covariance + np.diag(between + np.maximum(0, at_least - np.diag(covariance)))


def _beyond_flips(hits: np.ndarray) -> float:
    """Return the variance of accuracy (draws, m) between draws, less what images that flip by themselves make."""
    return float(hits.mean(axis=1).var(ddof=1) - hits.var(axis=0, ddof=1).mean() / hits.shape[1])
