"""Confusion: images of one class that were taken for another."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

MOST_CLASSES = 30  # of a matrix that a person can read


def matrix_rows(confusion: Sequence[Sequence[int]], classes: Sequence[str]) -> list[dict[str, Any]]:
    """Return a row for each true class: its name, and for each predicted one the count and its share of the row."""
    return [
        {
            "name": name,
            "cells": [{"n": n, "share": n / max(1, sum(row)), "is_right": i == j} for j, n in enumerate(row)],
        }
        for i, (name, row) in enumerate(zip(classes, confusion, strict=True))
    ]


def top_confusions(confusion: Sequence[Sequence[int]], classes: Sequence[str], n: int = 30) -> list[dict[str, Any]]:
    """Return the `n` most frequent confusions: true and predicted class, the count and its share of the true class.

    Of many classes the metrics have no matrix but [true, predicted, count] wherever images are.
    """
    counts = np.asarray(confusion)
    if counts.shape == (len(classes), len(classes)):
        true, predicted = np.nonzero(counts)
        counts = counts[true, predicted]
    else:
        true, predicted, counts = counts.T
    n_true = np.bincount(true, weights=counts)
    wrong = np.flatnonzero(true != predicted)
    order = wrong[np.argsort(-counts[wrong], kind="stable")][:n]
    return [
        {
            "label": classes[true[k]],
            "predicted": classes[predicted[k]],
            "n": int(counts[k]),
            "share": float(counts[k] / n_true[true[k]]),
        }
        for k in order.tolist()
    ]
