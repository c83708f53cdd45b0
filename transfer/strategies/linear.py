"""Linear strategies: the whole network stays frozen, a head is fitted on its features."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np

from transfer import metrics
from transfer.dataset import Dataset, Split
from transfer.heads import FittedHead, assign_folds, fit_head
from transfer.novelty import NoveltyDetector, fit_detector
from transfer.recipe import Recipe
from transfer.strategies.jobs import Job, Trained


def fit_frozen(job: Job) -> Trained:
    """Fit the recipe's head on the features of the frozen network."""
    with job.clock.time("head"):
        fitted, scores = fit_linear(job.recipe, job.X, job.dataset, job.split)
    # what was chosen with the labels of these very images is not judged on them
    if job.split.cross_validate and job.taps is None and not job.is_chosen:
        with job.clock.time("cross-validation"):
            scores["cross_validation"] = cross_validate(job.recipe, job.X, job.dataset)
            scores["trust"] = "cross_validation"  # the test part is small, and this reading covers nearly every image
    X_test = job.X[job.split.indices("test")]
    return Trained(job.backbone, fitted, X_test, scores, detect_novelty(job), job.computed_in)


def detect_novelty(job: Job) -> NoveltyDetector | None:
    """Return what tells images that are unlike the training images, by the features of the frozen network."""
    with job.clock.time("novelty"):
        return fit_detector(job.X[job.references(job.X.shape[-1])], job.X[job.split.indices("val")])


def fit_linear(recipe: Recipe, X: np.ndarray, dataset: Dataset, split: Split) -> tuple[FittedHead, dict[str, Any]]:
    """Choose and fit a linear head on train and score it on val; then choose and fit once more on train and val.

    Choosing is cross-validation inside what the head is fitted on: val is not used up by it, and all images that are
    not for the report serve in the head that is kept.

    Parameters
    ----------
    X
        Features (N, d), row i for image i of the dataset. Rows of the test part are not looked at.

    Returns
    -------
    tuple
        The head, and ``{"val": metrics}`` of the head that had not seen val.
    """
    y, groups = dataset.labels, np.array(dataset.hashes)
    train, val = split.indices("train"), split.indices("val")
    n_classes = len(dataset.classes)
    chosen_on_val = recipe.head.judge == "val"
    by_val = {"X_val": X[val], "y_val": y[val]} if chosen_on_val and len(val) else {}
    fitted = fit_on(recipe, X[train], y[train], groups[train], n_classes, **by_val)
    scores: dict[str, Any] = {}
    if chosen_on_val:
        fitted = dataclasses.replace(fitted, rule=f"{fitted.rule} Val chose: its score flatters.")
    if len(val):
        scores["val"] = metrics.evaluate(fitted.head.probabilities(X[val]), y[val], dataset.classes)
        if recipe.head.refit:
            both = split.development
            if chosen_on_val:  # the setting stays
                again = fit_on(
                    recipe, X[both], y[both], groups[both], n_classes, judge="auto", grid=[*fitted.chosen.values()]
                )
                rule = f"{fitted.rule} Then fitted on train and val together."
                fitted = dataclasses.replace(again, rule=rule, table=fitted.table)
            else:
                fitted = fit_on(recipe, X[both], y[both], groups[both], n_classes)
                rule = f"{fitted.rule} On train and val together; val was scored by a head made from train alone."
                fitted = dataclasses.replace(fitted, rule=rule)
    return fitted, scores


def cross_validate(recipe: Recipe, X: np.ndarray, dataset: Dataset, n_folds: int = 5) -> dict[str, Any]:
    """Score every image by a head that did not see it; each fold chooses its own settings inside its training images.

    The second reading for small sets: it covers all images where a held-out test part would be a few dozen. The only
    image of a class cannot be scored and is left out.
    """
    y, groups = dataset.labels, np.array(dataset.hashes)
    fold_of = assign_folds(y, groups, n_folds, recipe.seed)
    probabilities = np.zeros((len(y), len(dataset.classes)))
    for fold in range(n_folds):
        rest, held = np.flatnonzero(fold_of != fold), np.flatnonzero(fold_of == fold)
        fitted = fit_on(recipe, X[rest], y[rest], groups[rest], len(dataset.classes), judge="auto")
        probabilities[held] = fitted.head.probabilities(X[held])
    scored = fold_of >= 0
    return metrics.evaluate(probabilities[scored], y[scored], dataset.classes)


def fit_on(
    recipe: Recipe,
    X: np.ndarray,
    y: np.ndarray,
    groups: np.ndarray,
    n_classes: int,
    kind: str | None = None,
    **changes: Any,
) -> FittedHead:
    """Fit a head as the recipe says, of the recipe's kind or another one, with changes to what `fit_head` is given."""
    settings = recipe.head
    options: dict[str, Any] = {
        "groups": groups,
        "scaling": settings.scaling,
        "class_weight": None if settings.class_weight == "none" else settings.class_weight,
        "positive_weight": settings.positive_weight,
        "multiclass": settings.multiclass,
        "dropout": settings.dropout,
        "folds": settings.folds,
        "grid": recipe.grid,
        "search": settings.search,
        "judge": settings.judge,
        "rule": settings.rule,
        "seed": recipe.seed,
    }
    return fit_head(kind or recipe.strategy, X, y, n_classes, **{**options, **changes})
