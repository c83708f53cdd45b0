"""Judge: scores of images that were left out, by folds, by leave-one-out, or on val."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from transfer.errors import DataError
from transfer.heads.blocks import BLOCK
from transfer.heads.checking import check_images
from transfer.heads.folds import assign_folds
from transfer.heads.groups import groups_per_class
from transfer.heads.ridge import leave_out
from transfer.heads.solving import solve
from transfer.heads.tasks import Task

_VAL_JUDGES_ABOVE = 20_000  # training images; below, cross-validation is affordable and leaves val unseen


@dataclass(frozen=True, eq=False)
class Judge:
    """Scores of unseen images for each strength, and the labels and weights of those images."""

    scores: Callable[[Sequence[float], bool], np.ndarray]  # (strengths, final) -> (L, m, C), NaN: never held out
    codes: np.ndarray
    weights: np.ndarray
    name: str
    is_val: bool = False
    start: Callable[[float], np.ndarray | None] = lambda strength: None  # (D, C) near the solution of all folds


def find_judge(
    task: Task,
    folds: int,
    X_val: np.ndarray | None,
    y_val: np.ndarray | None,
    present: np.ndarray,
    n_classes: int,
    wanted: str = "auto",
) -> Judge:
    """Return val as the judge where it is wanted or the better one, else leave-one-out for ridge and folds for others.

    Of val, only images of the classes that are present in training count.
    """
    if task.kind == "ridge" and wanted == "auto":
        return leave_one_out(task)
    if X_val is not None and y_val is not None:
        X_val, y_val = check_images(X_val, y_val, n_classes, "validation")
        known = np.isin(y_val, present)
        n, n_val = len(task.codes) // task.n_rows, int(known.sum())
        if (n_val and wanted == "val") or n_val > n or (n > _VAL_JUDGES_ABOVE and n_val >= n / 20):
            return _val(task, X_val[known], np.searchsorted(present, y_val[known]))
    if wanted == "val":
        raise DataError("The setting is to be chosen on validation images, and there are none. Give it a val part.")
    return _cross_validation(task, folds)


def leave_one_out(task: Task) -> Judge:
    """Return ridge's judge: exact, at the price of one fit."""
    codes, weights = task.of_images(task.codes), task.of_images(task.weights)
    alone = groups_per_class(task.codes, task.groups)[codes] == 1

    def left_out(strengths: Sequence[float], final: bool) -> np.ndarray:
        scores = per_image(leave_out(task, strengths), task.n_rows)
        scores[:, alone] = np.nan
        return scores

    return Judge(left_out, codes, weights, "leave-one-out scores")


def _cross_validation(task: Task, folds: int) -> Judge:
    codes = task.of_images(task.codes)
    n_folds, fold = folds_of(task, folds)
    learned = np.repeat(fold, task.n_rows)
    judged = np.repeat(fold, task.n_judged)
    known: dict[float, np.ndarray] = {}  # (D, folds, C) of each strength: where its solution to the end starts

    def out_of_fold(strengths: Sequence[float], final: bool) -> np.ndarray:
        problems = [(k, s) for k in range(n_folds) for s in range(len(strengths))]
        weights = task.weights[:, None] * (learned[:, None] != np.array([k for k, _ in problems]))
        start = None
        if final and all(strength in known for strength in strengths):
            start = np.stack([known[strength] for strength in strengths], axis=2)
            start = start.reshape(len(start), len(problems), -1)
        W = solve(task, [strengths[s] for _, s in problems], weights, final=final, start=start)
        if W.size <= BLOCK:
            by_strength = W.reshape(len(W), n_folds, len(strengths), -1)
            known.update({strength: by_strength[:, :, s] for s, strength in enumerate(strengths)})
        W = W.reshape(len(W), n_folds, -1)
        scores = np.full((len(strengths), len(fold), task.n_classes), np.nan, np.float32)
        for k in range(n_folds):
            found = task.judged[judged == k] @ W[:, k]
            found = found.reshape(len(found), len(strengths), task.n_classes).transpose(1, 0, 2)
            scores[:, fold == k] = per_image(found, task.n_judged)
        return scores

    def average(strength: float) -> np.ndarray | None:
        return known[strength].mean(axis=1) if strength in known else None

    name = f"out-of-fold scores ({n_folds} folds)"
    return Judge(out_of_fold, codes, task.of_images(task.weights), name, start=average)


def folds_of(task: Task, wanted: int) -> tuple[int, np.ndarray]:
    """Return how many folds the images are divided into, no more than any class can fill, and the fold of each."""
    n_folds = max(2, min(wanted, int(groups_per_class(task.codes, task.groups).max())))
    return n_folds, assign_folds(task.of_images(task.codes), task.of_images(task.groups), n_folds, task.seed)


def per_image(scores: np.ndarray, n_rows: int) -> np.ndarray:
    """Return (L, n, C), the average over the rows of each image, from (L, n · rows, C)."""
    return scores.reshape(len(scores), -1, n_rows, scores.shape[2]).mean(axis=2) if n_rows > 1 else scores


def _val(task: Task, X_val: np.ndarray, codes: np.ndarray) -> Judge:
    n_views = X_val[0].size // X_val.shape[-1]
    Z = task.rotated.rotate_others(task.kept * X_val.reshape(-1, X_val.shape[-1]))
    weight_of = np.zeros(task.n_classes)
    weight_of[task.codes] = task.weights

    def on_val(strengths: Sequence[float], final: bool) -> np.ndarray:
        W = solve(task, strengths, np.repeat(task.weights[:, None], len(strengths), axis=1), final=final)
        return per_image(np.stack([Z @ W[:, s] for s in range(len(strengths))]), n_views)

    return Judge(on_val, codes, weight_of[codes], "the validation images", is_val=True)


def find_hits(task: Task, judge: Judge, strengths: Sequence[float]) -> np.ndarray:
    """Return (L, m): each unseen image's share in the weighted accuracy of each setting, 0 where it was wrong."""
    rows = max(len(task.codes), 5 * task.rotated.Z.shape[1])
    # Scores of thousands of classes are not kept for all settings
    at_once = max(1, 10 * BLOCK // (rows * task.n_classes))
    hits = np.empty((len(strengths), len(judge.codes)))
    for start in range(0, len(strengths), at_once):
        scores = judge.scores(strengths[start : start + at_once], False)
        share = np.where(np.isnan(scores[0, :, 0]), 0.0, judge.weights)
        correct = np.nan_to_num(scores, nan=0.0).argmax(axis=2) == judge.codes
        hits[start : start + at_once] = correct * (share / max(share.sum(), 1e-300))
    return hits
