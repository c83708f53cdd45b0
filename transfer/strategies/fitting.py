"""Fit: from a folder of images to a run."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from transfer import metrics
from transfer.choice import Choice
from transfer.dataset import Source
from transfer.errors import UsageError
from transfer.progress import Progress
from transfer.recipe import Recipe, load_recipe
from transfer.runs import Run, check_head, write_run
from transfer.strategies.auto import choose
from transfer.strategies.finetuning import fine_tune
from transfer.strategies.jobs import Job
from transfer.strategies.linear import fit_frozen
from transfer.strategies.pages import write_page
from transfer.strategies.preparing import prepare
from transfer.strategies.protocols import describe_protocol
from transfer.training import LOGS, Checkpoints, require_log

_logger = logging.getLogger(__name__)
_NOTHING_ADDED = "Its training found no epoch better than the solved head: the network stays as it was."


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
    report: bool = True,
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
        Go on from the last checkpoint of the very same training of layers, if one was interrupted.
    log
        ``tensorboard`` writes the history of training as event files too, while it goes on, into the folder
        ``tensorboard`` beside the run.
    report
        Write the run's page, report.html in its folder, as `run.report` does; it holds some pictures. Should that fail,
        a warning says so, and the run is as good.

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
    if resume and not chosen.may_tune:
        raise UsageError(f"--resume goes with --recipe partial, full or auto: {chosen.strategy} trains no layers.")
    _require_log(log, chosen)
    _require_one_report(test, few_target, split)
    # networks are built with random weights before theirs are loaded: not from the caller's draws
    with torch.random.fork_rng(devices=[]):
        job, folder = prepare(data, test, few_target, chosen, out, split, Progress(quiet))
        job = dataclasses.replace(job, resume=resume, log=log, log_folder=folder.parent / "tensorboard" / folder.name)
        choice = None
        trials: list[Checkpoints] = []
        if job.recipe.is_auto:
            job, choice, trials = choose(job)
            for line in describe_protocol(job.recipe, job.backbone.preprocessing)[1:]:
                job.progress.say(line)
        run = _carry_out(job, folder, chosen, choice, trials)
        if report:
            write_page(run, _logger.warning)
        return run


def _require_log(kind: str | None, recipe: Recipe) -> None:
    if kind is None:
        return
    if kind not in LOGS:
        raise UsageError(f"Unknown log {kind!r}. Use {' or '.join(LOGS)}.")
    if not recipe.is_fine_tuning:  # with `auto` a log would be one of trials
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


def _carry_out(job: Job, folder: Path, asked: Recipe, choice: Choice | None, trials: Sequence[Checkpoints]) -> Run:
    """Train, report on test, once, and write the run."""
    trained = fine_tune(job) if job.cut else fit_frozen(job)
    job.progress.say(trained.fitted.rule)
    if choice and not job.recipe.train.learns_from_val and trained.about.get("best_epoch") == 0:
        choice = dataclasses.replace(choice, reason=f"{choice.reason} {_NOTHING_ADDED}")
    with job.clock.time("evaluate"):
        labels = job.dataset.labels[job.split.indices("test")]
        head = trained.fitted.head
        probabilities = head.probabilities(trained.X_test)
        uncalibrated = dataclasses.replace(head, temperature=1.0).probabilities(trained.X_test).max(axis=1)
        test_scores = metrics.evaluate(probabilities, labels, job.dataset.classes)
        test_unknown = trained.detector.is_unknown(trained.X_test) if trained.detector else None
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
        uncalibrated=uncalibrated,
        detector=trained.detector,
        test_unknown=test_unknown,
        computed_in=trained.computed_in,
        taps=job.taps._asdict() if job.taps else None,
        history=trained.history,
        training=trained.about,
        choice=choice,
        asked=asked,
        seconds=job.clock.seconds,
    )
    check_head(run, head, trained.X_test)
    for checkpoints in [*trained.checkpoints, *trials]:
        checkpoints.clear()
    return run
