"""Strategies: what is trained and how. Today's four freeze the whole network and differ in the head."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from transfer import metrics
from transfer.backbones import load_backbone
from transfer.dataset import Dataset, Source, Split, describe, draw_split, read_split, scan, stop_on_bad
from transfer.errors import UsageError
from transfer.features import decode_all, extract
from transfer.heads import FittedHead, assign_folds, fit_head
from transfer.images import MAX_PIXELS
from transfer.progress import Progress
from transfer.recipe import Recipe, load_recipe
from transfer.runs import Run, check_head, reserve, write_run


def fit(
    data: Source,
    recipe: str | Path | Recipe | None = None,
    *,
    out: str | Path | None = None,
    split: str | Path | None = None,
    settings: Sequence[str] = (),
    quiet: bool = False,
    **changes: Any,
) -> Run:
    """Train a classifier on a folder of images and write a run folder.

    Parameters
    ----------
    data
        A folder of class folders, of train/val/test folders of class folders, a CSV file, a pair of lists (paths,
        labels), or a scanned dataset.
    recipe
        A named recipe, a YAML file, or a `Recipe`.
    out
        The run folder; ``runs/DATA-STRATEGY`` by default. An existing one is never touched.
    split
        A `split.csv` of an earlier run, to use the very same parts.
    settings, changes
        Changes to the recipe, as text (``head.folds=3``) or by name (``backbone="resnet18"``).

    Returns
    -------
    Run
        Its ``metrics["test"]`` come from images that took part in no choice.

    Raises
    ------
    TransferError
        One of its kinds, with one line that says what is wrong and what to do.
    """
    progress = Progress(quiet)
    clock = _Clock()
    if isinstance(recipe, Recipe) and (settings or changes):
        raise UsageError("Give a Recipe as it is, or the name of one with changes, not both.")
    chosen = recipe if isinstance(recipe, Recipe) else load_recipe(recipe, settings, **changes)
    with clock.time("scan"):
        dataset = scan(data)
    folder = reserve(data, chosen.strategy, out)
    if split is not None:
        read_split(split, dataset, seed=chosen.seed, before_decoding=True)  # before the slow part
    with clock.time("load backbone"):
        backbone = load_backbone(chosen.backbone, chosen.weights, seed=chosen.seed)
    with clock.time("features"):
        extraction = extract(
            dataset,
            backbone,
            (chosen.tap,),
            exact=chosen.exact,
            device=chosen.device,
            max_pixels=chosen.data.max_pixels,
            progress=progress,
        )
    dataset = extraction.dataset
    stop_on_bad(dataset, chosen.data.on_bad, chosen.data.max_bad_share)
    parts = (
        read_split(split, dataset, seed=chosen.seed)
        if split is not None
        else draw_split(dataset, seed=chosen.seed, test_share=chosen.data.test_share, val_share=chosen.data.val_share)
    )
    for line in [*dataset.notes, *describe_plan(chosen, dataset, parts)]:
        progress.say(line)
    X, y = extraction.rows(chosen.tap), dataset.labels
    with clock.time("head"):
        fitted, scores = fit_linear(chosen, X, dataset, parts)
    progress.say(fitted.rule)
    with clock.time("evaluate"):
        test = parts.indices("test")
        probabilities = fitted.head.probabilities(X[test])
        scores["test"] = metrics.evaluate(probabilities, y[test], dataset.classes)
        if parts.cross_validate:
            scores["cross_validation"] = cross_validate(chosen, X, dataset)
            scores["trust"] = "cross_validation"  # the test part is small, and this reading covers every image
    run = write_run(
        folder,
        recipe=chosen,
        dataset=dataset,
        split=parts,
        backbone=backbone,
        fitted=fitted,
        scores=scores,
        test_probabilities=probabilities,
        seconds=clock.seconds,
    )
    check_head(run, fitted.head, X[test])
    return run


def inspect(
    data: Source,
    recipe: str | Path | Recipe | None = None,
    *,
    seed: int = 0,
    max_pixels: int = MAX_PIXELS,
    quiet: bool = False,
) -> dict[str, Any]:
    """Look at a dataset before anything is trained: every image is decoded, nothing is written.

    Parameters
    ----------
    data
        As in `fit`.
    recipe
        With which ``plan`` says what `fit` would do.
    seed
        Of the split that would be drawn.

    Returns
    -------
    dict
        What `dataset.describe` says of classes, parts, broken files and duplicates, and ``pixels`` and ``plan``.
    """
    chosen = recipe if isinstance(recipe, Recipe) else load_recipe(recipe)
    dataset = scan(data)
    with Progress(quiet).task("Decoding every image", len(dataset)) as advance:
        pixels, bad = decode_all(dataset.paths, max_pixels, advance)
    dataset = dataset.without(bad)
    split = draw_split(dataset, seed=seed)
    return {**describe(dataset, split), "pixels": pixels, "plan": describe_plan(chosen, dataset, split)}


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
    fitted = _fit(recipe, X[train], y[train], groups[train], len(dataset.classes))
    scores: dict[str, Any] = {}
    if len(val):
        scores["val"] = metrics.evaluate(fitted.head.probabilities(X[val]), y[val], dataset.classes)
        if recipe.head.refit:
            both = np.sort(np.concatenate([train, val]))
            fitted = _fit(recipe, X[both], y[both], groups[both], len(dataset.classes))
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
        fitted = _fit(recipe, X[rest], y[rest], groups[rest], len(dataset.classes))
        probabilities[held] = fitted.head.probabilities(X[held])
    scored = fold_of >= 0
    return metrics.evaluate(probabilities[scored], y[scored], dataset.classes)


def describe_plan(recipe: Recipe, dataset: Dataset, split: Split) -> list[str]:
    """Say in a few lines what `fit` will do with this dataset."""
    counts = {part: len(split.indices(part)) for part in ("train", "val", "test")}
    return [
        f"{recipe.strategy}: {recipe.backbone} frozen up to {recipe.tap!r}, a linear head of {len(dataset.classes)} "
        f"classes on {counts['train']} images; {counts['val']} check it, {counts['test']} are reported on.",
        *split.reason,
    ]


def _fit(recipe: Recipe, X: np.ndarray, y: np.ndarray, groups: np.ndarray, n_classes: int) -> FittedHead:
    settings = recipe.head
    return fit_head(
        recipe.strategy,
        X,
        y,
        n_classes,
        groups=groups,
        scaling=settings.scaling,
        class_weight=None if settings.class_weight == "none" else settings.class_weight,
        folds=settings.folds,
        grid=settings.grid,
        seed=recipe.seed,
    )


class _Clock:
    """Remembers how long each step took."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    @contextmanager
    def time(self, step: str) -> Iterator[None]:
        started = time.perf_counter()
        yield
        self.seconds[step] = round(time.perf_counter() - started, 3)
