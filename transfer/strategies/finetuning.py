"""Fine-tuning: the layers right of a cut learn too, starting from the solved head (LP-FT, Kumar et al., ICLR 2022).

Epoch 0 is that head on the frozen network; the best epoch on val is kept. So training layers can only add, and where it
did not, the result is the linear strategy's.
"""

from __future__ import annotations

import dataclasses
import hashlib
import math
import shutil
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from transfer import cuts, machine, metrics
from transfer.backbones import Backbone, fingerprint
from transfer.dataset import Dataset
from transfer.errors import DataError, UsageError
from transfer.features import Plans, Runner, extract
from transfer.files import cache_folder, readable_bytes
from transfer.heads import FittedHead, LinearHead, fit_temperature
from transfer.images import RandomView, find_augmentation
from transfer.strategies.jobs import Job, Trained
from transfer.strategies.linear import fit_linear, fit_on
from transfer.training import (
    CachedExamples,
    Checkpoints,
    Examples,
    LiveExamples,
    LivePrefixExamples,
    Outcome,
    Pace,
    Trainee,
    TrainingSettings,
    choose_pace,
    parameter_groups,
    train,
)

_STAGES = 2  # that `partial` trains where the recipe names no cut
_VIEWS = 4  # of each image that are cached where disk and recipe allow
_HEAD = "logistic"  # whose loss is the one that training goes on with
_DISK_SHARE = 0.5  # of the free space that a cache may take


def fine_tune(job: Job) -> Trained:
    """Train the layers right of the recipe's cut.

    Raises
    ------
    UsageError
        There is no such cut.
    DataError
        There are no validation images to choose an epoch on.
    """
    recipe, backbone, split = job.recipe, job.backbone, job.split
    if not len(split.indices("val")):
        raise DataError("Fine-tuning chooses its epoch on validation images, and there are none. Give it a val part.")
    at = find_cut(job)
    with job.clock.time("head"):
        start = _solve_head(job)
    _, suffix = cuts.cut(backbone.model, at, backbone.input_shape)
    trainee = Trainee(backbone, suffix, _layer(start.head), freeze_batchnorm=recipe.train.batchnorm == "frozen")
    pace = _pace(job, trainee, at)
    views = _n_views(job, at)
    settings = _settings(job, pace)
    for line in _describe(job, trainee, at, views, settings, pace):
        job.progress.say(line)
    with job.clock.time("views"):
        examples, val = _examples(job, at, views)
    with job.clock.time("training"):
        outcome = _train(job, trainee, examples, val, settings, pace, start)
    about = {
        "cut": at,
        "n_epochs": settings.n_epochs,
        "best_epoch": outcome.best_epoch,
        "stopped": outcome.stopped,
        "was_resumed": outcome.was_resumed,
        "views": views,
        "dtype": pace.dtype,
        "channels_last": pace.channels_last,
    }
    history = [dataclasses.asdict(row) for row in outcome.history]
    if outcome.best_epoch == 0:
        return _nothing_added(job, outcome, history, about)
    return _tuned(job, trainee, outcome, start, history, about)


def find_cut(job: Job) -> str:
    """Return the cut of the recipe, or the usual one of its strategy."""
    recipe, backbone = job.recipe, job.backbone
    if recipe.tap != cuts.FEATURES:
        raise UsageError(f"Fine-tuning trains up to the features, not to the tap {recipe.tap!r}. Leave out tap.")
    if recipe.head.scaling == "l2":
        raise UsageError("Fine-tuning needs a head that is one linear layer. Leave out head.scaling=l2.")
    if recipe.strategy == "full":
        if recipe.cut not in (None, cuts.PIXELS):
            raise UsageError(f"`full` cuts at the pixels, not at {recipe.cut!r}. Use --recipe partial.")
        return cuts.PIXELS
    if recipe.cut is not None:
        cuts.cut(backbone.model, recipe.cut, backbone.input_shape)  # says what there is instead
        return recipe.cut
    stages = cuts.stage_cuts(backbone.model, backbone.input_shape)
    return stages[max(0, len(stages) - 1 - _STAGES)] if stages else cuts.PIXELS


def _solve_head(job: Job) -> FittedHead:
    """Fit the head that training starts from, on train alone: val judges every epoch, the first one included."""
    train_images = job.split.indices("train")
    labels, groups = job.dataset.labels, np.array(job.dataset.hashes)
    return fit_on(
        job.recipe,
        job.X[train_images],
        labels[train_images],
        groups[train_images],
        len(job.dataset.classes),
        kind=_HEAD,
    )


def _layer(head: LinearHead) -> nn.Linear:
    weight, bias = head.folded()
    layer = nn.Linear(weight.shape[1], weight.shape[0])
    layer.weight.data, layer.bias.data = torch.from_numpy(weight), torch.from_numpy(bias)
    return layer


def _pace(job: Job, trainee: Trainee, at: str) -> Pace:
    recipe, backbone = job.recipe, job.backbone
    machine.keep_memory()
    points = {point.name: point for point in cuts.cut_points(backbone.model, backbone.input_shape)}
    shape = points[at].shape if at in points else backbone.input_shape
    what = [backbone.weights_hash, at, f"{len(job.dataset.classes)} classes"]
    return choose_pace(trainee, shape, machine.pick_device(recipe.device), recipe.exact, what)


def _settings(job: Job, pace: Pace) -> TrainingSettings:
    """Return the loop's settings: enough epochs for a small set, no more than there is time for."""
    settings, n_train = job.recipe.train, len(job.split.indices("train"))
    steps = math.ceil(n_train / settings.batch_size)
    n_epochs = max(settings.epochs, math.ceil(settings.min_steps / steps))
    left = job.clock.deadline - time.perf_counter()
    if math.isfinite(left):
        epoch_seconds = pace.seconds_per_image * (n_train + len(job.split.indices("val")) / 3)
        n_epochs = max(1, min(n_epochs, int(0.8 * left / epoch_seconds)))  # the rest: views, and the report
    return TrainingSettings(
        n_epochs=n_epochs,
        batch_size=settings.batch_size,
        warmup=settings.warmup,
        clip=settings.clip,
        label_smoothing=settings.label_smoothing,
        mixup=settings.mixup,
        cutmix=settings.cutmix,
        ema=settings.ema,
        patience=settings.patience or n_epochs,
        seed=job.recipe.seed,
    )


def _n_views(job: Job, at: str) -> int:
    """Return how many random views of each image are cached; 0: none, what is left of the cut runs in every epoch."""
    if at == cuts.PIXELS:
        return 0
    wanted = 1 if job.recipe.train.augment == "none" else job.recipe.train.views or _VIEWS
    n_train, n_val = (len(job.split.indices(part)) for part in ("train", "val"))
    row = _row_bytes(job, at)
    budget = _DISK_SHARE * shutil.disk_usage(_existing(cache_folder())).free
    return max(0, min(wanted, int((budget - n_val * row) // (n_train * row))))


def _row_bytes(job: Job, at: str) -> int:
    points = {point.name: point for point in cuts.cut_points(job.backbone.model, job.backbone.input_shape)}
    n_bytes = 4 if job.recipe.exact else 2
    return n_bytes * math.prod(points[at].shape) if at in points else 0


def _existing(folder: Path) -> Path:
    return next(path for path in (folder.absolute(), *folder.absolute().parents) if path.exists())


def _describe(job: Job, trainee: Trainee, at: str, views: int, settings: TrainingSettings, pace: Pace) -> list[str]:
    """Say in a few lines what will be done, before it is."""
    n_train, n_val = (len(job.split.indices(part)) for part in ("train", "val"))
    n_all = sum(parameter.numel() for parameter in job.backbone.model.parameters())
    n_right = sum(parameter.numel() for parameter in trainee.suffix.parameters())
    lines = [
        f"Cut at {at!r}: {n_right / 1e6:.2f} M parameters are trained, {(n_all - n_right) / 1e6:.2f} M stay frozen; "
        f"the head starts solved."
    ]
    if views:
        size = readable_bytes((views * n_train + n_val) * _row_bytes(job, at))
        lines.append(f"Cached on disk: {views} view{'s' * (views > 1)} of each training image at the cut, {size}.")
    elif at != cuts.PIXELS:
        lines.append(
            "Half of the free disk is too little for one view of each image: the frozen part runs every epoch."
        )
    seconds = settings.n_epochs * pace.seconds_per_image * (n_train + n_val / 3)
    lines.append(
        f"{settings.n_epochs} epochs of {n_train} images at most, about {max(1, round(seconds))} s of training in "
        f"{pace.dtype}."
    )
    return lines


def _examples(job: Job, at: str, views: int) -> tuple[Examples, Examples]:
    """Return the training images and the validation images as the trainee sees them."""
    recipe, dataset, backbone = job.recipe, job.dataset, job.backbone
    augmentation = find_augmentation(recipe.train.augment)
    parts = {part: dataset.subset(job.split.indices(part)) for part in ("train", "val")}
    if at == cuts.PIXELS:
        train_set, val_set = (
            LiveExamples(
                part.paths,
                part.hashes,
                part.labels,
                backbone.preprocessing,
                augmentation if name == "train" else find_augmentation("none"),
                recipe.seed,
                recipe.data.max_pixels,
            )
            for name, part in parts.items()
        )
        return train_set, val_set
    if not views:
        return (
            LivePrefixExamples(_runner(job, at, parts["train"]), parts["train"].labels, augmentation, recipe.seed),
            LivePrefixExamples(_runner(job, at, parts["val"]), parts["val"].labels, find_augmentation("none"), 0),
        )
    is_random = recipe.train.augment != "none"
    random_views = [RandomView(augmentation, recipe.seed, k) if is_random else None for k in range(views)]
    labels = [f"View {k + 1} of {views} at {at}" for k in range(views)] + [f"Validation images at {at}"]
    caches = []
    for view, part, label in zip([*random_views, None], [*[parts["train"]] * views, parts["val"]], labels, strict=True):
        extraction = extract(
            part,
            backbone,
            (at,),
            pool="none",
            dtype="float32" if recipe.exact else "float16",
            exact=recipe.exact,
            device=recipe.device,
            max_pixels=recipe.data.max_pixels,
            random_view=view,
            label=label,
            progress=job.progress,
        )
        caches.append(extraction.caches[at])
    return (
        CachedExamples(caches[:-1], parts["train"].hashes, parts["train"].labels, recipe.seed),
        CachedExamples(caches[-1:], parts["val"].hashes, parts["val"].labels, recipe.seed),
    )


def _runner(job: Job, at: str, part: Dataset) -> Runner:
    recipe, backbone = job.recipe, job.backbone
    return Runner(
        backbone,
        [at],
        Plans(backbone, [at], recipe.device, recipe.exact),
        part.paths,
        contents=part.hashes,
        max_pixels=recipe.data.max_pixels,
        pool="none",
        exact=recipe.exact,
    )


def _train(
    job: Job,
    trainee: Trainee,
    examples: Examples,
    val: Examples,
    settings: TrainingSettings,
    pace: Pace,
    start: FittedHead,
) -> Outcome:
    recipe = job.recipe
    groups = parameter_groups(
        trainee.suffix.named_parameters(),
        trainee.head.parameters(),
        cuts.parameter_depths(job.backbone.model, job.backbone.input_shape),
        lr=recipe.train.lr,
        backbone_share=recipe.train.backbone_lr,
        layer_decay=recipe.train.layer_decay,
        weight_decay=recipe.train.weight_decay,
    )
    weights = None
    if start.class_weights is not None:
        weights = torch.tensor([start.class_weights.get(c, 0.0) for c in range(len(job.dataset.classes))])
    checkpoints = Checkpoints(cache_folder() / "training" / _key(job))
    if not job.resume:
        checkpoints.clear()
    n_steps = settings.n_epochs * math.ceil(len(examples.labels) / settings.batch_size)
    with job.progress.task("Training", n_steps, "steps") as advance:
        outcome = train(
            trainee,
            groups,
            examples,
            val,
            settings,
            pace,
            class_weights=weights,
            checkpoints=checkpoints,
            deadline=job.clock.deadline,
            say=job.progress.say,
            after_step=lambda _: advance(1),
        )
    if outcome.stopped:
        job.progress.say(f"Training ended early: {outcome.stopped}.")
    trainee.to("cpu").to(memory_format=torch.contiguous_format)
    return outcome


def _key(job: Job) -> str:
    """Return what a training is known by: with anything else, a checkpoint of another one would be taken."""
    parts = "".join(f"{part}," for part in job.split.parts)
    about = [
        job.recipe.model_dump_json(exclude={"device": True, "train": {"minutes"}}),
        job.dataset.fingerprint,
        parts,
        job.backbone.weights_hash,
        job.backbone.preprocessing.fingerprint(),
        *machine.versions().values(),
    ]
    return hashlib.sha256("\n".join(about).encode()).hexdigest()[:24]


def _nothing_added(job: Job, outcome: Outcome, history: list[dict[str, Any]], about: dict[str, Any]) -> Trained:
    """Return the linear strategy's result: no epoch was better than the head that training started from."""
    recipe = job.recipe.model_copy(update={"strategy": _HEAD})
    fitted, scores = fit_linear(recipe, job.X, job.dataset, job.split)
    rule = (
        f"No epoch of {len(outcome.history) - 1} was better on val than the solved head: the network stays as it was. "
        f"{fitted.rule}"
    )
    X_test = job.X[job.split.indices("test")]
    return Trained(job.backbone, dataclasses.replace(fitted, rule=rule), X_test, scores, history, about)


def _tuned(
    job: Job,
    trainee: Trainee,
    outcome: Outcome,
    start: FittedHead,
    history: list[dict[str, Any]],
    about: dict[str, Any],
) -> Trained:
    """Return the trained network, with the temperature that val gives its probabilities."""
    backbone = dataclasses.replace(
        job.backbone,
        weights_hash=fingerprint(job.backbone.model),
        source=f"{job.backbone.source}, trained right of {about['cut']}",
    )
    val, test = job.split.indices("val"), job.split.indices("test")
    X = _features(job, backbone, np.concatenate([val, test]))
    X_val, X_test = X[: len(val)], X[len(val) :]
    head = LinearHead(trainee.head.weight.detach().numpy().copy(), trainee.head.bias.detach().numpy().copy())
    labels = job.dataset.labels[val]
    head = dataclasses.replace(head, temperature=fit_temperature(head.scores(X_val), labels))
    first, best = outcome.history[0], outcome.history[outcome.best_epoch]
    rule = (
        f"Epoch {outcome.best_epoch} of {len(outcome.history) - 1} was the best on val: {best.val_accuracy:.1%}, the "
        f"solved head {first.val_accuracy:.1%}. Temperature on val. Val chose the epoch: its score flatters."
    )
    fitted = FittedHead(
        head=head,
        kind=job.recipe.strategy,
        chosen={"epoch": outcome.best_epoch},
        table=[],
        class_weights=start.class_weights,
        seconds=outcome.history[-1].seconds,
        rule=rule,
        out_of_fold=None,
    )
    scores = {"val": metrics.evaluate(head.probabilities(X_val), labels, job.dataset.classes)}
    return Trained(backbone, fitted, X_test, scores, history, about)


def _features(job: Job, backbone: Backbone, images: np.ndarray) -> np.ndarray:
    """Return the features of some images by a network that nobody else will ask for: not kept in the user's cache."""
    recipe = job.recipe
    with tempfile.TemporaryDirectory(prefix="transfer-") as folder:
        extraction = extract(
            job.dataset.subset(images),
            backbone,
            exact=recipe.exact,
            device=recipe.device,
            max_pixels=recipe.data.max_pixels,
            label="Features of val and test",
            progress=job.progress,
            cache=Path(folder),
        )
        return extraction.rows()
