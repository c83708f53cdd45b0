"""Pairs: a linear SVM for each pair of classes, which vote: one-vs-one, as in libsvm and Razavian et al. (2014)."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from transfer.errors import UsageError
from transfer.heads.calibration import calibrated
from transfer.heads.judging import Judge, folds_of, per_image
from transfer.heads.linear import score_views
from transfer.heads.strengths import to_setting
from transfer.heads.tasks import Task

_TOLERANCE = 1e-4
_MOST_ROWS = 15_000  # whose products fit in 2 GB


@dataclass(frozen=True, eq=False)
class PairwiseHead:
    """One affine map for each pair of classes; the class that wins most pairs is the answer.

    Attributes
    ----------
    weight : (P, d) float32, of the pairs (0, 1), (0, 2), … (C - 2, C - 1); positive where the first class wins
    bias : (P,) float32
    present : (C',) indices of the classes that the pairs are of, among all C
    n_classes : C
    temperature : scores are divided by it before the softmax
    """

    weight: np.ndarray
    bias: np.ndarray
    present: np.ndarray
    n_classes: int
    temperature: float = 1.0

    def scores(self, X: np.ndarray) -> np.ndarray:
        """Return (n, C) float32 votes of features (n, d) or (n, views, d), averaged over the views.

        Less than a third of a vote comes from how clearly a class won and lost, so that ties are decided.
        """
        return score_views(self._score, X, self.weight.shape[1])

    def _score(self, X: np.ndarray) -> np.ndarray:
        scores = np.full((len(X), self.n_classes), -1.0, np.float32)  # fewer than the last of those that are present
        scores[:, self.present] = count_votes(X @ self.weight.T + self.bias, len(self.present))
        return scores

    def probabilities(self, X: np.ndarray) -> np.ndarray:
        """Return (n, C) calibrated probabilities, float64; 0 of a class without training images."""
        return calibrated(self.scores(X), self.temperature, self.present)

    def predict(self, X: np.ndarray) -> np.ndarray:
        """Return (n,) class indices."""
        return self.scores(X).argmax(axis=1)


def count_votes(decisions: np.ndarray, n_classes: int) -> np.ndarray:
    """Return (n, C) votes from decisions (n, P), positive where the first class of a pair wins.

    As scikit-learn counts them: the sums of decisions, squeezed below a third, decide ties.

    >>> count_votes(np.array([[1.0, 1.0, -1.0]]), 3).round(1).tolist()
    [[2.2, -0.2, 1.0]]
    """
    first, second = np.triu_indices(n_classes, 1)
    votes, sums = np.zeros((2, len(decisions), n_classes))
    for pair, (i, j) in enumerate(zip(first, second, strict=True)):
        wins = decisions[:, pair] > 0
        votes[:, i] += wins
        votes[:, j] += ~wins
        sums[:, i] += decisions[:, pair]
        sums[:, j] -= decisions[:, pair]
    return (votes + sums / (3 * (np.abs(sums) + 1))).astype(np.float32)


def judge_pairs(task: Task, folds: int) -> Judge:
    """Return the votes of pairs that were fitted without an image, by folds, from one matrix of products."""
    codes = task.of_images(task.codes)
    n_folds, fold = folds_of(task, folds)
    of_row = np.repeat(fold, task.n_rows)

    if len(of_row) > _MOST_ROWS:
        raise UsageError(
            f"An SVM for every two classes keeps the products of all rows, and {len(of_row)} are too many: use "
            "head.multiclass=rest, or fewer views."
        )

    @functools.cache
    def products() -> np.ndarray:
        Z = task.rotated.Z[:, :-1].astype(np.float64)
        return Z @ Z.T

    def votes(strengths: Sequence[float], final: bool) -> np.ndarray:
        scores = np.full((len(strengths), len(codes), task.n_classes), np.nan, np.float32)
        for k in range(n_folds):
            learned, held = np.flatnonzero(of_row != k), np.flatnonzero(of_row == k)
            if not len(held):
                continue
            among, between = products()[np.ix_(learned, learned)], products()[np.ix_(held, learned)]
            for s, strength in enumerate(strengths):
                model = _svc(task, strength, kernel="precomputed")
                model.fit(among, task.codes[learned], task.weights[learned])
                found = _decisions(model, between)
                scores[s, fold == k] = per_image(count_votes(found, task.n_classes)[None], task.n_rows)[0]
        return scores

    name = f"out-of-fold votes ({n_folds} folds)"
    return Judge(votes, codes, task.of_images(task.weights), name)


def fit_pairs(task: Task, strength: float) -> tuple[np.ndarray, np.ndarray]:
    """Return weight (P, d) and bias (P,) on raw features, from scikit-learn's libsvm."""
    model = _svc(task, strength, kernel="linear")
    model.fit(task.rotated.Z[:, :-1].astype(np.float64), task.codes, task.weights)
    sign = -1 if task.n_classes == 2 else 1  # of two classes scikit-learn makes the second the positive one
    weight, bias = task.rotated.affine(sign * np.column_stack([model.coef_, model.intercept_]).T)
    return weight.astype(np.float32), bias.astype(np.float32)


def _svc(task: Task, strength: float, kernel: str) -> Any:
    from sklearn.svm import SVC

    C = to_setting(task, strength)["C"]
    return SVC(C=C, kernel=kernel, decision_function_shape="ovo", tol=_TOLERANCE, cache_size=500)


def _decisions(model: Any, rows: np.ndarray) -> np.ndarray:
    found = model.decision_function(rows)
    return -found[:, None] if found.ndim == 1 else found
