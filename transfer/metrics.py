"""Metrics: numbers from predictions."""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import NormalDist
from typing import Any, NamedTuple

import numpy as np

from transfer.errors import DataError

_N_RESAMPLES = 1000
_N_BINS = 15  # of the calibration error, as in Guo et al. (ICML 2017)
_BLOCK = 4_000_000  # resampled counts held at once
_MATRIX = 100  # classes; with more, the confusion matrix is mostly zeros, and with 10,000 it has 800 MB


def evaluate(
    probabilities: np.ndarray, labels: np.ndarray, classes: Sequence[str], confidence: float = 0.95, seed: int = 0
) -> dict[str, Any]:
    """Return what one says about a classifier on labelled images, ready for JSON (None where a number is undefined).

    Parameters
    ----------
    probabilities : (n, C), rows that add up to 1
    labels : (n,) class indices
    classes : C names
    confidence : of the intervals: Wilson's for accuracy and recalls, the percentile bootstrap over images (seeded) for
        balanced accuracy and macro-F1

    Returns
    -------
    dict with `n`, `confidence`, `classes`; `accuracy`, `balanced_accuracy`, `macro_f1`, each with `…_interval`
    [low, high]; `top5_accuracy` (more than 5 classes); `log_loss` (natural logarithm), `brier` (sum over classes, 0 to
    2), `calibration_error` (expected, 15 equal bins); `per_class` (name, n, precision, recall, recall_interval, f1);
    `confusion` [true][predicted], of more than 100 classes only the counts that are not zero, as [true, predicted, n].
    Balanced accuracy and macro-F1 average over the classes that occur in `labels`.

    Raises
    ------
    DataError
        No images, shapes that do not fit, labels outside the classes, rows that are no probabilities.

    Examples
    --------
    >>> result = evaluate(np.array([[0.9, 0.1], [0.2, 0.8], [0.6, 0.4]]), np.array([0, 1, 1]), ["ant", "bee"])
    >>> round(result["accuracy"], 3), [round(x, 3) for x in result["accuracy_interval"]], result["confusion"]
    (0.667, [0.208, 0.939], [[1, 0], [1, 1]])
    """
    probabilities, labels = _checked(probabilities, labels, classes)
    n, n_classes = probabilities.shape
    predicted = probabilities.argmax(axis=1)
    cells = _count_cells(labels, predicted, n_classes)
    right = labels[labels == predicted]
    n_hits, n_true, n_predicted = (np.bincount(of, minlength=n_classes) for of in (right, labels, predicted))
    n_correct = len(right)
    balanced, macro_f1 = _class_means(n_hits, n_true, n_predicted)
    balanced_interval, macro_f1_interval = _bootstrap(cells, n_classes, confidence, seed)
    result: dict[str, Any] = {
        "n": n,
        "confidence": confidence,
        "classes": [str(name) for name in classes],
        "accuracy": n_correct / n,
        "accuracy_interval": list(wilson(n_correct, n, confidence)),
        "balanced_accuracy": float(balanced),
        "balanced_accuracy_interval": balanced_interval,
        "macro_f1": float(macro_f1),
        "macro_f1_interval": macro_f1_interval,
        "log_loss": log_loss(probabilities, labels),
        "brier": _brier(probabilities, labels),
        "calibration_error": calibration_error(probabilities.max(axis=1), predicted == labels),
        "per_class": _per_class(n_hits, n_true, n_predicted, classes, confidence),
        "confusion": _confusion(cells, n_classes),
    }
    if n_classes > 5:
        result["top5_accuracy"] = _top_accuracy(probabilities, labels, 5)
    return result


def wilson(k: float, n: float, confidence: float = 0.95) -> tuple[float, float]:
    """Return Wilson's score interval for a share of k out of n (Wilson 1927); (0, 1) when n is 0.

    Neither needs to be whole: images that were scored several times may count as fewer.

    >>> [round(bound, 4) for bound in wilson(9, 10)]
    [0.5958, 0.9821]
    """
    if n == 0:
        return 0.0, 1.0
    z = NormalDist().inv_cdf((1 + confidence) / 2)
    share, spread = k / n, z * z / n
    middle = (share + spread / 2) / (1 + spread)
    half = z / (1 + spread) * math.sqrt(share * (1 - share) / n + spread / (4 * n))
    # Rounding must not push the bound past the share itself: it is exactly 0 or 1 at the ends
    return (0.0 if k == 0 else max(0.0, middle - half)), (1.0 if k == n else min(1.0, middle + half))


def paired_p_value(correct_a: np.ndarray, correct_b: np.ndarray) -> float:
    """Return the two-sided p-value that two classifiers err alike, judged on the same images (exact McNemar test).

    Only images on which exactly one of them is right count; without any, the value is 1.

    >>> paired_p_value(np.array([1, 1, 1, 1, 1, 1]), np.array([0, 0, 0, 0, 0, 1]))
    0.0625
    """
    a, b = np.asarray(correct_a, bool), np.asarray(correct_b, bool)
    if a.shape != b.shape or a.ndim != 1:
        raise DataError(f"Two classifiers must be compared on the same images, not on {a.shape} and {b.shape}.")
    only_a, only_b = int((a & ~b).sum()), int((b & ~a).sum())
    n, fewer = only_a + only_b, min(only_a, only_b)
    if only_a == only_b:
        return 1.0
    # In logarithms: 2^-n underflows past n = 1,074
    log_n = math.lgamma(n + 1) - n * math.log(2)
    terms = [math.exp(log_n - math.lgamma(k + 1) - math.lgamma(n - k + 1)) for k in range(fewer + 1)]
    return min(1.0, round(2 * math.fsum(terms), 15))


def calibration_error(confidences: np.ndarray, correct: np.ndarray) -> float:
    """Return the expected calibration error in 15 equal bins (Guo et al., ICML 2017).

    Parameters
    ----------
    confidences : (n,) probabilities of the predicted classes
    correct : (n,) whether each was right
    """
    bins = np.clip(np.ceil(confidences * _N_BINS).astype(int) - 1, 0, _N_BINS - 1)
    gaps = np.bincount(bins, weights=confidences - correct, minlength=_N_BINS)
    return float(np.abs(gaps).sum() / len(correct))


def _checked(probabilities: np.ndarray, labels: np.ndarray, classes: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    probabilities, labels = np.asarray(probabilities, np.float64), np.asarray(labels)
    if len(labels) == 0:
        raise DataError("There are no images to evaluate on: the part is empty.")
    if probabilities.shape != (len(labels), len(classes)) or labels.ndim != 1:
        raise DataError(
            f"Probabilities of shape {probabilities.shape} do not fit {len(labels)} labels and {len(classes)} classes."
        )
    if not np.issubdtype(labels.dtype, np.integer) or labels.min() < 0 or labels.max() >= len(classes):
        raise DataError(
            f"Labels must be class indices from 0 to {len(classes) - 1}, not {labels.min()} to {labels.max()}."
        )
    sums = probabilities.sum(axis=1)
    wrong = np.flatnonzero(~((np.abs(sums - 1) < 1e-2) & (probabilities >= 0).all(axis=1)))
    if len(wrong):
        raise DataError(
            f"Row {wrong[0]} (of {len(wrong)} such) holds no probabilities: it must be non-negative and add up to 1, "
            f"its sum is {sums[wrong[0]]:.4g}."
        )
    return probabilities, labels.astype(np.int64)


class _Cells(NamedTuple):
    """The cells of a confusion matrix that are not zero, sorted by true class, then by predicted one."""

    true: np.ndarray
    predicted: np.ndarray
    n: np.ndarray


def _count_cells(labels: np.ndarray, predicted: np.ndarray, n_classes: int) -> _Cells:
    cells, n = np.unique(labels * n_classes + predicted, return_counts=True)
    return _Cells(*np.divmod(cells, n_classes), n)


def _confusion(cells: _Cells, n_classes: int) -> list[list[int]]:
    if n_classes > _MATRIX:
        return np.stack(cells, axis=1).tolist()
    matrix = np.zeros((n_classes, n_classes), np.int64)
    matrix[cells.true, cells.predicted] = cells.n
    return matrix.tolist()


def _class_means(hits: np.ndarray, n_true: np.ndarray, n_predicted: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return balanced accuracy and macro-F1 over the classes that occur; counts are (..., C)."""
    occurs = n_true > 0
    n_occurring = np.maximum(occurs.sum(axis=-1), 1)
    recall = np.where(occurs, hits / np.maximum(n_true, 1), 0)
    f1 = np.where(occurs, 2 * hits / np.maximum(n_true + n_predicted, 1), 0)
    return recall.sum(axis=-1) / n_occurring, f1.sum(axis=-1) / n_occurring


def _bootstrap(cells: _Cells, n_classes: int, confidence: float, seed: int) -> tuple[list[float], list[float]]:
    """Return percentile intervals of balanced accuracy and macro-F1 under resampling of images.

    Drawing n images with replacement is one multinomial draw over the cells of the confusion matrix, so the cost does
    not grow with n; empty cells stay empty.
    """
    true, predicted, n = cells
    by_predicted = np.argsort(predicted, kind="stable")
    on_diagonal = np.flatnonzero(true == predicted)
    random = np.random.default_rng(seed)
    balanced, macro_f1 = np.empty(_N_RESAMPLES), np.empty(_N_RESAMPLES)
    at_once = max(1, _BLOCK // max(len(n), n_classes))
    for start in range(0, _N_RESAMPLES, at_once):
        some = slice(start, min(start + at_once, _N_RESAMPLES))
        counts = random.multinomial(n.sum(), n / n.sum(), size=some.stop - some.start)
        hits = np.zeros((len(counts), n_classes), np.int64)
        hits[:, true[on_diagonal]] = counts[:, on_diagonal]
        n_true = _sums(counts, true, n_classes)
        n_predicted = _sums(counts[:, by_predicted], predicted[by_predicted], n_classes)
        balanced[some], macro_f1[some] = _class_means(hits, n_true, n_predicted)
    tails = [(1 - confidence) / 2, (1 + confidence) / 2]
    return np.quantile(balanced, tails).tolist(), np.quantile(macro_f1, tails).tolist()


def _sums(counts: np.ndarray, sorted_groups: np.ndarray, n_groups: int) -> np.ndarray:
    """Return (m, n_groups): sums over runs of equal values in `sorted_groups`, which number the columns."""
    groups, starts = np.unique(sorted_groups, return_index=True)
    sums = np.zeros((len(counts), n_groups), np.int64)
    sums[:, groups] = np.add.reduceat(counts, starts, axis=1)
    return sums


def _per_class(
    n_hits: np.ndarray, n_true: np.ndarray, n_of_predicted: np.ndarray, classes: Sequence[str], confidence: float
) -> list[dict[str, Any]]:
    rows = []
    counts = zip(n_hits.tolist(), n_true.tolist(), n_of_predicted.tolist(), strict=True)
    for name, (hits, n, n_predicted) in zip(classes, counts, strict=True):
        rows.append(
            {
                "name": str(name),
                "n": n,
                "precision": hits / n_predicted if n and n_predicted else None,
                "recall": hits / n if n else None,
                "recall_interval": list(wilson(hits, n, confidence)) if n else None,
                "f1": 2 * hits / (n + n_predicted) if n else None,
            }
        )
    return rows


def log_loss(probabilities: np.ndarray, labels: np.ndarray) -> float:
    """Return the mean of -log of what probabilities (n, C) give to labels (n,), natural logarithm."""
    of_label = probabilities[np.arange(len(labels)), labels]
    # A probability of 0 for what then happens would be an infinite loss, which JSON lacks
    return float(-np.log(np.clip(of_label, 1e-15, 1.0)).mean())


def _brier(probabilities: np.ndarray, labels: np.ndarray) -> float:
    of_label = probabilities[np.arange(len(labels)), labels]
    return float(((probabilities**2).sum(axis=1) - 2 * of_label + 1).mean())


def _top_accuracy(probabilities: np.ndarray, labels: np.ndarray, k: int) -> float:
    """Return the share of images whose label is among the k most probable; of equals, the first classes count."""
    of_label = probabilities[np.arange(len(labels)), labels][:, None]
    equal_before = (probabilities == of_label) & (np.arange(probabilities.shape[1]) < labels[:, None])
    return float((((probabilities > of_label) | equal_before).sum(axis=1) < k).mean())
