"""Neighbours: the classes of the most similar training images, weighted by similarity.

The protocol of DINO and DINOv2 (Caron et al., ICCV 2021, `eval_knn.py`): cosine similarity s, each of the k nearest
votes with exp(s / 0.07). Here k is chosen by leave-one-out among those that they report.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from transfer.heads.blocks import row_blocks
from transfer.heads.calibration import calibrated, fit_temperature
from transfer.heads.linear import score_views

NUMBERS = (10, 20, 100, 200)  # of neighbours that are tried
SHARPNESS = 1 / 0.07
NO_VOTE = 1e-3  # of all votes, given to every class, so that the logarithm of none is finite


@dataclass(frozen=True, eq=False)
class NeighbourHead:
    """The training images themselves; the k most similar ones vote.

    Attributes
    ----------
    rows : (n, d) float32 training features of unit length
    labels : (n,) class indices
    n_classes : C
    k : neighbours that vote
    temperature : scores, which are logarithms of shares of votes, are divided by it before the softmax
    """

    rows: np.ndarray
    labels: np.ndarray
    n_classes: int
    k: int
    temperature: float = 1.0

    def scores(self, X: np.ndarray) -> np.ndarray:
        """Return (n, C) float32 logarithms of the shares of votes, averaged over the views of (n, views, d)."""
        return score_views(self._score, X, self.rows.shape[1])

    def _score(self, X: np.ndarray) -> np.ndarray:
        scores = np.empty((len(X), self.n_classes), np.float32)
        for some in row_blocks(len(X), len(self.rows)):
            similarity = _unit(X[some]) @ self.rows.T
            scores[some] = _count(similarity, self.labels, self.n_classes, [self.k])[0]
        return scores

    def probabilities(self, X: np.ndarray) -> np.ndarray:
        """Return (n, C) calibrated probabilities, float64; 0 of a class without training images."""
        return calibrated(self.scores(X), self.temperature, self.labels)

    def predict(self, X: np.ndarray) -> np.ndarray:
        """Return (n,) class indices."""
        return self.scores(X).argmax(axis=1)


@dataclass(frozen=True, eq=False)
class Neighbourhood:
    """What choosing a number of neighbours gives."""

    head: NeighbourHead
    table: list[dict[str, Any]]
    out_of_fold: np.ndarray  # (n, C)
    rule: str
    seconds: float


def fit_neighbours(
    X: np.ndarray, y: np.ndarray, n_classes: int, groups: np.ndarray, numbers: Sequence[float] | None = None
) -> Neighbourhood:
    """Keep the training images, and choose how many neighbours vote by leave-one-out.

    Parameters
    ----------
    X : (n, d) or (n, views, d); every view is a neighbour of its own
    groups : (n,) numbers; images of one group are not each other's neighbours while k is chosen
    numbers : of neighbours to try; those that are not fewer than the images of all classes are left out
    """
    started = time.perf_counter()
    n_views = 1 if X.ndim == 2 else X.shape[1]
    rows, labels = _unit(X.reshape(-1, X.shape[-1])), np.repeat(y, n_views)
    members = np.repeat(groups, n_views)
    wanted = sorted({int(k) for k in (numbers or NUMBERS)})
    tried = [k for k in wanted if k < len(rows)] or [max(1, min(wanted[0], len(rows) - 1))]
    scores = np.empty((len(tried), len(rows), n_classes), np.float32)
    for some in row_blocks(len(rows), len(rows)):
        similarity = rows[some] @ rows.T
        similarity[members[some, None] == members[None]] = -np.inf
        scores[:, some] = _count(similarity, labels, n_classes, tried)
    left_out = scores.reshape(len(tried), len(y), n_views, n_classes).mean(axis=2)
    accuracy = (left_out.argmax(axis=2) == y).mean(axis=1)
    best = int(accuracy.argmax())
    head = NeighbourHead(rows, labels, n_classes, tried[best])
    table: list[dict[str, Any]] = [
        {"k": k, "accuracy": float(a), "chosen": k == head.k} for k, a in zip(tried, accuracy, strict=True)
    ]
    rule = f"k = {head.k}, the best of {', '.join(map(str, tried))} by leave-one-out. Temperature on the same scores."
    head = replace(head, temperature=fit_temperature(left_out[best], y))
    return Neighbourhood(head, table, left_out[best], rule, time.perf_counter() - started)


def _unit(X: np.ndarray) -> np.ndarray:
    X = np.asarray(X, np.float32)
    return X / np.maximum(np.linalg.norm(X, axis=1, keepdims=True), 1e-12)


def _count(similarity: np.ndarray, labels: np.ndarray, n_classes: int, numbers: Sequence[int]) -> np.ndarray:
    """Return (len(numbers), m, C) logarithms of the shares of votes from similarities (m, n)."""
    largest = min(max(numbers), similarity.shape[1])
    nearest = np.argpartition(-similarity, largest - 1, axis=1)[:, :largest]
    nearest = np.take_along_axis(
        nearest, np.argsort(-np.take_along_axis(similarity, nearest, axis=1), axis=1, kind="stable"), axis=1
    )
    similar = np.take_along_axis(similarity, nearest, axis=1)
    votes = np.exp(SHARPNESS * (similar - similar[:, :1]))  # the nearest has one vote: no overflow
    shares = np.empty((len(numbers), len(similarity), n_classes), np.float32)
    for position, k in enumerate(numbers):
        counted = np.zeros((len(similarity), n_classes))
        np.add.at(counted, (np.arange(len(similarity))[:, None], labels[nearest[:, :k]]), votes[:, :k])
        shares[position] = np.log(counted / counted.sum(axis=1, keepdims=True) + NO_VOTE)
    return shares
