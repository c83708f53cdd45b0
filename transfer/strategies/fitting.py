"""Fit: from a folder of images to a run."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from transfer import metrics
from transfer.backbones import Backbone, load_backbone
from transfer.dataset import (
    Dataset,
    Source,
    Split,
    add_few,
    draw_few,
    draw_split,
    join_domains,
    read_split,
    scan,
    stop_on_bad,
    thin_out,
)
from transfer.errors import UsageError
from transfer.features import FEATURES, Extraction, Representation, extract
from transfer.progress import Progress
from transfer.recipe import Recipe, load_recipe
from transfer.runs import Run, check_head, reserve, write_run
from transfer.strategies.cutting import cut_shape, find_cut
from transfer.strategies.finetuning import fine_tune
from transfer.strategies.inspecting import describe_plan
from transfer.strategies.jobs import Clock, Job
from transfer.strategies.linear import fit_frozen
from transfer.strategies.protocols import describe_protocol, seen_as
from transfer.strategies.tapping import SEARCH, TapChoice, candidates, choose_taps
from transfer.training import LOGS, require_log

_NOT_NEEDED = "more than is trained on"
_ENOUGH = 128  # images whose features tell the speed of the network


def fit(
    data: Source,
    recipe: str | Path | Recipe | None = None,
    *,
    test: Source | None = None,
    few_target: int = 0,
    out: str | Path | None = None,
    split: str | Path | None = None,
    settings: Sequence[str] = (),
    resume: bool = False,
    log: str | None = None,
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
    test
        Images of another domain to report on; `data` is then the source, and only trained on. Classes are matched by
        name. Where these images have a test part, that is reported on, otherwise all of them.
    few_target
        So many images of each class of `test` are drawn, trained on, and not reported on.
    out
        The run folder; ``runs/DATA-STRATEGY`` by default. An existing one is never touched.
    split
        A `split.csv` of an earlier run, to use the very same parts.
    settings, changes
        Changes to the recipe, as text (``head.folds=3``) or by name (``backbone="resnet18"``).
    resume
        Go on from the last checkpoint of the very same training, if one was interrupted.
    log
        ``tensorboard`` writes the history of training as event files too, while it goes on, into the folder
        ``tensorboard`` beside the run.

    Returns
    -------
    Run
        Its ``metrics["test"]`` come from images that took part in no choice.

    Raises
    ------
    TransferError
        One of its kinds, with one line that says what is wrong and what to do.
    """
    if isinstance(recipe, Recipe) and (settings or changes):
        raise UsageError("Give a Recipe as it is, or the name of one with changes, not both.")
    chosen = recipe if isinstance(recipe, Recipe) else load_recipe(recipe, settings, **changes)
    _require_log(log, chosen)
    _require_one_report(test, few_target, split)
    # networks are built with random weights before theirs are loaded: not from the caller's draws
    with torch.random.fork_rng(devices=[]):
        job, folder = _prepare(data, test, few_target, chosen, out, split, Progress(quiet))
        job = dataclasses.replace(job, resume=resume, log=log, log_folder=folder.parent / "tensorboard" / folder.name)
        return _carry_out(job, folder)


def _require_log(kind: str | None, recipe: Recipe) -> None:
    if kind is None:
        return
    if kind not in LOGS:
        raise UsageError(f"Unknown log {kind!r}. Use {' or '.join(LOGS)}.")
    if not recipe.is_fine_tuning:
        raise UsageError(f"--log goes with --recipe partial or full: {recipe.strategy} has no epochs.")
    require_log(kind)


def _require_one_report(test: Source | None, few_target: int, split: str | Path | None) -> None:
    if test is None and few_target:
        raise UsageError(f"--few-target {few_target} goes with --test: it draws from the images that are reported on.")
    if test is not None and split is not None:
        raise UsageError(
            "--split and --test both say what is reported on: give one. The split.csv of a run made with --test names "
            "its images in full, so that `transfer fit RUN/split.csv` uses the very same parts."
        )


def _carry_out(job: Job, folder: Path) -> Run:
    """Train, report on test, once, and write the run."""
    trained = fine_tune(job) if job.cut else fit_frozen(job)
    job.progress.say(trained.fitted.rule)
    with job.clock.time("evaluate"):
        labels = job.dataset.labels[job.split.indices("test")]
        probabilities = trained.fitted.head.probabilities(trained.X_test)
        test_scores = metrics.evaluate(probabilities, labels, job.dataset.classes)
    run = write_run(
        folder,
        recipe=job.recipe,
        dataset=job.dataset,
        split=job.split,
        backbone=trained.backbone,
        representation=job.representation,
        fitted=trained.fitted,
        scores={**trained.scores, "test": test_scores},
        test_probabilities=probabilities,
        taps=job.taps._asdict() if job.taps else None,
        history=trained.history,
        training=trained.about,
        seconds=job.clock.seconds,
    )
    check_head(run, trained.fitted.head, trained.X_test)
    if trained.checkpoints:
        trained.checkpoints.clear()
    return run


def _prepare(
    data: Source,
    test: Source | None,
    few_target: int,
    recipe: Recipe,
    out: str | Path | None,
    split: str | Path | None,
    progress: Progress,
) -> tuple[Job, Path]:
    """Do what every strategy needs: scan, load the network, compute its features, split; return the run's folder too.

    What can be refused is refused before the slow part.
    """
    clock = Clock(recipe.train.minutes)
    with clock.time("scan"):
        dataset = scan(data)
        if test is not None:
            dataset = join_domains(dataset, scan(test, min_classes=1), few_target)
    folder = reserve(data, recipe.strategy, out, test=test)
    if split is not None:
        read_split(split, dataset, seed=recipe.seed, before_decoding=True)
    with clock.time("load backbone"):
        backbone = load_backbone(recipe.backbone, recipe.weights, seed=recipe.seed)
        seen = seen_as(backbone.preprocessing, recipe.features)
        if backbone.is_handmade and seen != backbone.preprocessing:
            raise UsageError(f"How {backbone.name} sees an image is part of it: leave out features.crop_*.")
        backbone = dataclasses.replace(backbone, preprocessing=seen)
        searched = candidates(backbone) if recipe.taps == (SEARCH,) else []
        representation = _as_it_is(Representation.from_settings(searched or recipe.taps, recipe.features), backbone)
        cut = find_cut(recipe, backbone) if recipe.is_fine_tuning else None
    with clock.time("features"):
        extraction = extract(
            dataset,
            backbone,
            representation.taps,
            pool=representation.pool,
            views=representation.views,
            exact=recipe.exact,
            device=recipe.device,
            max_pixels=recipe.data.max_pixels,
            progress=progress,
        )
    dataset = extraction.dataset
    stop_on_bad(dataset, recipe.data.on_bad, recipe.data.max_bad_share)
    kept, parts = _find_parts(dataset, recipe, split)
    if len(kept) < len(dataset):
        dataset = dataset.keep(kept, _NOT_NEEDED)
    found = None
    if searched:
        with clock.time("taps"):
            found = _search_taps(searched, extraction, dataset, parts, recipe)
        progress.say(found.rule)
        recipe = recipe.model_copy(update={"tap": list(found.taps)})
        representation = _as_it_is(Representation.from_settings(found.taps, recipe.features), backbone)
    X = extraction.represent(representation, dataset.hashes)
    for line in [*dataset.notes, *describe_protocol(recipe, seen), *describe_plan(recipe, dataset, parts)]:
        progress.say(line)
    # of a few images it would be the speed of starting
    speed = extraction.seconds_running / extraction.n_computed if extraction.n_computed >= _ENOUGH else 0.0
    return Job(recipe, dataset, parts, backbone, representation, X, progress, clock, cut, speed, found), folder


def _as_it_is(representation: Representation, backbone: Backbone) -> Representation:
    """Return the representation without a pooling that changes nothing: most networks end in rows, not in maps."""
    is_idle = representation.taps == (FEATURES,) and representation.pool != "average"
    if is_idle and len(cut_shape(backbone, FEATURES)) == 1:
        return dataclasses.replace(representation, pool="average")
    return representation


def _search_taps(
    taps: Sequence[str], extraction: Extraction, dataset: Dataset, parts: Split, recipe: Recipe
) -> TapChoice:
    """Choose taps on the training images."""
    train = parts.indices("train")
    contents = [dataset.hashes[i] for i in train]

    def rows_of(some: tuple[str, ...]) -> np.ndarray:
        return extraction.represent(Representation.from_settings(some, recipe.features), contents)

    labels, n_classes = dataset.labels[train], len(dataset.classes)
    return choose_taps(taps, rows_of, labels, n_classes, np.array(contents), recipe.seed)


def _find_parts(dataset: Dataset, recipe: Recipe, split: str | Path | None) -> tuple[np.ndarray, Split]:
    """Return the positions of the images that take part, sorted, and their split."""
    settings, seed = recipe.data, recipe.seed
    drawn, kept = draw_few(dataset, seed)
    rest = dataset.keep(kept, _NOT_NEEDED)
    if split is not None:
        parts = read_split(split, rest, seed=seed)
    else:
        parts = draw_split(rest, seed=seed, test_share=settings.test_share, val_share=settings.val_share)
    if settings.per_class:
        thinned = thin_out(rest, parts, settings.per_class, seed)
        reason = [*parts.reason, f"At most {settings.per_class} images of each class are trained on, as asked."]
        kept, parts = kept[thinned], Split(parts.parts[thinned], reason, parts.cross_validate)
    if dataset.domains and len(drawn):
        return add_few(kept, parts, drawn, dataset.domains, seed)
    return kept, parts
