"""Fine-tuning: the layers right of a cut learn too, starting from the solved head (LP-FT, Kumar et al., ICLR 2022).

Epoch 0 is that head on the frozen network; a later epoch is kept only where val finds it better. Where it finds none,
the result is the linear strategy's.
"""

from __future__ import annotations

import dataclasses
import hashlib
import math
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from transfer import cuts, machine, metrics
from transfer.backbones import Backbone, fingerprint
from transfer.errors import DataError
from transfer.features import extract
from transfer.files import cache_folder
from transfer.heads import FittedHead, LinearHead, fit_temperature
from transfer.strategies.courses import Course, choose_course, describe_course, find_costs
from transfer.strategies.jobs import Job, Trained
from transfer.strategies.linear import fit_linear, fit_on
from transfer.strategies.looking import find_examples, require_all
from transfer.training import Checkpoints, Outcome, Trainee, open_log, parameter_groups, train

_HEAD = "logistic"  # whose loss is the one that training goes on with


def fine_tune(job: Job) -> Trained:
    """Train the layers right of the job's cut.

    Raises
    ------
    DataError
        There are no validation images to choose an epoch on.
    """
    if not len(job.split.indices("val")):
        raise DataError("Fine-tuning chooses its epoch on validation images, and there are none. Give it a val part.")
    assert job.cut is not None
    machine.keep_memory()
    with job.clock.time("head"):
        start = _solve_head(job)
    _, suffix = cuts.cut(job.backbone.model, job.cut, job.backbone.input_shape)
    freeze_batchnorm = job.recipe.train.batchnorm == "frozen"
    trainee = Trainee(
        job.backbone, suffix, _layer(start.head, job.recipe.train.start), freeze_batchnorm=freeze_batchnorm
    )
    checkpoints = Checkpoints(cache_folder() / "training" / _key(job), resume=job.resume)
    known = checkpoints.load_about()
    costs = find_costs(job, job.cut)
    course = Course(**known) if known else choose_course(job, trainee, job.cut, costs)
    checkpoints.about = course.to_dict()
    if job.resume and not known:
        job.progress.say("No checkpoint of this very training: starting anew.")
    for line in describe_course(job, trainee, course, costs):
        job.progress.say(line)
    outcome = _train(job, trainee, course, checkpoints, start)
    about = {
        **course.to_dict(),
        "best_epoch": outcome.best_epoch,
        "stopped": outcome.stopped,
        "was_resumed": outcome.was_resumed,
    }
    finish = _tuned if outcome.best_epoch else _nothing_added
    trained = finish(job, trainee, outcome, start)
    history = [dataclasses.asdict(row) for row in outcome.history]
    return dataclasses.replace(trained, history=history, about=about, checkpoints=checkpoints)


def _solve_head(job: Job) -> FittedHead:
    """Fit the head that training starts from, on train alone: val judges every epoch, the first one included."""
    images = job.split.indices("train")
    labels, groups = job.dataset.labels[images], np.array(job.dataset.hashes)[images]
    return fit_on(job.recipe, job.X[images], labels, groups, len(job.dataset.classes), kind=_HEAD)


def _layer(head: LinearHead, start: str) -> nn.Linear:
    weight, bias = (torch.from_numpy(array) for array in head.folded())
    layer = nn.utils.skip_init(nn.Linear, weight.shape[1], weight.shape[0])
    layer.weight.data, layer.bias.data = weight, bias
    if start == "zero":
        layer.weight.data.zero_()
        layer.bias.data.zero_()
    return layer


def _train(job: Job, trainee: Trainee, course: Course, checkpoints: Checkpoints, start: FittedHead) -> Outcome:
    settings, recipe = course.settings(job), job.recipe.train
    with job.clock.time("views"):
        examples, val = find_examples(job, course.cut, course.views)
    groups = parameter_groups(
        trainee.suffix.named_parameters(),
        trainee.head.parameters(),
        cuts.parameter_depths(job.backbone.model, job.backbone.input_shape),
        lr=recipe.lr,
        backbone_share=recipe.backbone_lr,
        layer_decay=recipe.layer_decay,
        weight_decay=recipe.weight_decay,
    )
    weights = None
    if start.class_weights is not None:
        weights = torch.tensor([start.class_weights.get(c, 0.0) for c in range(len(job.dataset.classes))])
    n_steps = settings.n_epochs * math.ceil(len(examples.labels) / settings.batch_size)
    with (
        job.clock.time("training"),
        open_log(job.log, job.log_folder) as after_epoch,
        job.progress.task("Training", n_steps, "steps") as advance,
    ):
        outcome = train(
            trainee,
            groups,
            examples,
            val,
            settings,
            course.pace(job),
            class_weights=weights,
            checkpoints=checkpoints,
            deadline=job.clock.deadline,
            say=job.progress.say,
            after_step=lambda _: advance(1),
            after_epoch=after_epoch,
        )
    if outcome.stopped:
        job.progress.say(f"Training ended early: {outcome.stopped}.")
    trainee.to("cpu").to(memory_format=torch.contiguous_format)
    return outcome


def _key(job: Job) -> str:
    """Return what a training is known by: with anything else, a checkpoint of another one would be taken."""
    about = [
        job.recipe.model_dump_json(exclude={"device": True, "train": {"minutes"}}),
        *job.dataset.hashes,
        *map(str, job.dataset.labels.tolist()),
        *map(str, job.split.parts.tolist()),
        job.backbone.weights_hash,
        job.backbone.preprocessing.fingerprint(),
        *machine.versions().values(),
    ]
    return hashlib.sha256("\n".join(about).encode()).hexdigest()[:24]


def _nothing_added(job: Job, trainee: Trainee, outcome: Outcome, start: FittedHead) -> Trained:
    """Return the linear strategy's result: no epoch was better than the head that training started from."""
    recipe = job.recipe.model_copy(update={"strategy": _HEAD})
    fitted, scores = fit_linear(recipe, job.X, job.dataset, job.split)
    rule = (
        f"What {len(outcome.history) - 1} epochs led to was not better on val than the start: the network stays "
        f"as it was. {fitted.rule}"
    )
    X_test = job.X[job.split.indices("test")]
    return Trained(job.backbone, dataclasses.replace(fitted, rule=rule), X_test, scores)


def _tuned(job: Job, trainee: Trainee, outcome: Outcome, start: FittedHead) -> Trained:
    """Return the trained network, with the temperature that val gives its probabilities."""
    backbone = dataclasses.replace(
        job.backbone,
        weights_hash=fingerprint(job.backbone.model),
        source=f"{job.backbone.source}, trained right of {job.cut}",
    )
    val, test = job.split.indices("val"), job.split.indices("test")
    X = _features(job, backbone, np.concatenate([val, test]))
    X_val, X_test = X[: len(val)], X[len(val) :]
    labels = job.dataset.labels[val]
    weight, bias = (parameter.detach().numpy().copy() for parameter in (trainee.head.weight, trainee.head.bias))
    head = LinearHead(weight, bias)
    head = dataclasses.replace(head, temperature=fit_temperature(head.scores(X_val), labels))
    first, kept = outcome.history[0], outcome.history[outcome.best_epoch]
    rule = (
        f"Epoch {outcome.best_epoch} of {len(outcome.history) - 1}, the last within one standard error of the best on "
        f"val: {kept.val_accuracy:.1%}, before any step {first.val_accuracy:.1%}. Temperature on val. Val chose the "
        "epoch: its score flatters."
    )
    chosen: dict[str, Any] = {"epoch": outcome.best_epoch}
    seconds = outcome.history[-1].seconds
    fitted = FittedHead(head, job.recipe.strategy, chosen, [], start.class_weights, seconds, rule, None)
    scores = {"val": metrics.evaluate(head.probabilities(X_val), labels, job.dataset.classes)}
    return Trained(backbone, fitted, X_test, scores)


def _features(job: Job, backbone: Backbone, images: np.ndarray) -> np.ndarray:
    """Return the features of some images by a network that nobody else will ask for: not kept in the user's cache."""
    recipe, part = job.recipe, job.dataset.subset(images)
    with tempfile.TemporaryDirectory(prefix="transfer-") as folder:
        extraction = extract(
            part,
            backbone,
            exact=recipe.exact,
            device=recipe.device,
            max_pixels=recipe.data.max_pixels,
            label="Features of val and test",
            progress=job.progress,
            cache=Path(folder),
        )
        require_all(extraction.dataset, part)
        return extraction.rows()
