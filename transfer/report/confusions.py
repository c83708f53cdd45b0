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
    """Return the `n` most frequent confusions: true and predicted class, the count and its share of the true class."""
    counts = np.asarray(confusion)
    n_true = counts.sum(axis=1)
    wrong = counts * ~np.eye(len(counts), dtype=bool)
    flat = np.argsort(-wrong, axis=None, kind="stable")[:n]
    cells = [divmod(int(cell), len(counts)) for cell in flat]
    return [
        {"label": classes[i], "predicted": classes[j], "n": int(wrong[i, j]), "share": float(wrong[i, j] / n_true[i])}
        for i, j in cells
        if wrong[i, j]
    ]
