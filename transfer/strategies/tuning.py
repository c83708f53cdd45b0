"""Tuning: one training of deeper layers, from the solved head to the weights that are kept."""

from __future__ import annotations

import dataclasses
import hashlib
import math
import tempfile
import time
from collections.abc import Callable

import numpy as np
import torch
from torch import nn

from transfer import cuts, machine, metrics
from transfer.backbones import Backbone, fingerprint
from transfer.cache import TRAINING
from transfer.dataset.names import count
from transfer.errors import ResourceError
from transfer.features import extract
from transfer.files import cache_folder, scratch_folder
from transfer.heads import FittedHead, Head, LinearHead, fit_temperature
from transfer.novelty import NoveltyDetector, fit_detector
from transfer.progress import Progress
from transfer.strategies.courses import (
    Course,
    choose_course,
    describe_course,
    find_costs,
    learned_from,
    usual_epochs,
    usual_seconds,
)
from transfer.strategies.jobs import Job
from transfer.strategies.linear import fit_on
from transfer.strategies.looking import Looks, require_all
from transfer.training import (
    Checkpoints,
    Epoch,
    Examples,
    Outcome,
    Trainee,
    TrainingSettings,
    blend,
    open_log,
    parameter_groups,
    train,
)

HEAD = "logistic"  # whose loss is the one that training goes on with
# shares of the way from the start, of which val may choose one; below half of it much is lost far from ImageNet
# (`bench/blends.py`)
_SHORTER = (0.75, 0.5)
_REFITTED = "Then trained again up to that epoch on train and val together; val was scored before."
_ONWARDS = "Then trained for {} more on train and val together; val was scored before."
_ONWARDS_RATE = 0.3  # of the rates that it had, with which a finished training goes on (`docs/defaults.md`)


class Tuning:
    """One fine-tuning on its way: what is trained, on what course, and where it is saved.

    Attributes
    ----------
    seconds
        That the training would take if time did not bind, with the views before it and the training again after it.
    is_begun
        Whether it was stopped before, and goes on.
    share
        Of the way from the start, that the weights lie.
    n_onwards
        Epochs that it went on for with the images of val.
    """

    def __init__(self, job: Job) -> None:
        assert job.cut is not None
        self.job = job
        self.was_refitted = False
        self.n_onwards = 0
        self.share = 1.0 if job.recipe.train.blend == "val" else job.recipe.train.blend
        _, suffix = cuts.cut(job.backbone.model, job.cut, job.backbone.input_shape)
        # its weights are those of a solved head, before the first step
        head = nn.utils.skip_init(nn.Linear, job.backbone.n_features, len(job.dataset.classes))
        self.trainee = Trainee(job.backbone, suffix, head, freeze_batchnorm=job.recipe.train.batchnorm == "frozen")
        self._pretrained = self._start = self._end = self.trainee.state()  # the last two: of the way that training goes
        self.checkpoints = Checkpoints(cache_folder() / TRAINING / _key(job), resume=job.resume)
        known = self.checkpoints.load_about()
        costs = self._costs = find_costs(job, job.cut)
        self.course = Course(**known) if known else choose_course(job, self.trainee, job.cut, costs)
        self.checkpoints.about = self.course.to_dict()
        self.seconds = usual_seconds(job, self.course, costs)
        self.is_begun = known is not None
        self._is_new = job.resume and not known
        self._looks = Looks(job, self.course.cut, self.course.views)

    def run(self) -> Outcome:
        """Train on train; val judges every epoch, the first one included, which is why its head has not seen val.

        Where the last epoch is kept whatever it is, train on val too.
        """
        if self._is_new:
            self.job.progress.say("No checkpoint of this very training: starting anew.")
        for line in describe_course(self.job, self.trainee, self.course, self._costs):
            self.job.progress.say(line)
        images = learned_from(self.job.recipe, self.job.split)
        with self.job.clock.time("views"):
            examples = self._looks.training(images)
            val = None if self.job.recipe.train.learns_from_val else self._looks.validation()
        with open_log(self.job.log, self.job.log_folder) as after_epoch:
            settings = self.course.settings(self.job)
            self._solve("training", images)
            outcome = self._train("training", len(images), examples, val, settings, self.checkpoints, after_epoch)
        if outcome.stopped:
            self.job.progress.say(f"Training ended early: {outcome.stopped}.")
        return outcome

    def calibrate(self, outcome: Outcome) -> tuple[FittedHead, np.ndarray]:
        """Return the trained head, with the temperature that val gives it, and its probabilities (n, C) on val.

        With `train.blend=val` they are those of the last epoch, which first go back so far towards the start that val's
        log loss is least: that tells more of few images than how many are right.
        """
        job, labels = self.job, self.job.dataset.labels[self.job.split.indices("val")]
        judged, way = self._on_val(job.progress), ""
        self._end = self.trainee.state()
        if job.recipe.train.blend == "val":
            ways = {1.0: judged}
            for share in _SHORTER:
                self._blend(share)
                ways[share] = self._on_val(Progress(quiet=True))
            self.share = min(ways, key=lambda share: metrics.log_loss(ways[share][1], labels))
            self._blend(self.share)
            judged = ways[self.share]
            way = f" Weights {self.share:g} of the way there from the solved head, by log loss on val."
        head, probabilities, self._X_val = judged
        first, kept_epoch = outcome.history[0], outcome.history[outcome.best_epoch]
        which = "the last" if way else "the last within one standard error of the best on val"
        rule = (
            f"Epoch {outcome.best_epoch} of {len(outcome.history) - 1}, {which}: {kept_epoch.val_accuracy:.1%} of val, "
            f"before any step {first.val_accuracy:.1%}.{way} Temperature on val. Val chose the "
            f"{'way' if way else 'epoch'}: its score flatters."
        )
        seconds = outcome.history[-1].seconds
        chosen: dict[str, float] = {"epoch": outcome.best_epoch, **({"blend": self.share} if way else {})}
        fitted = FittedHead(head, job.recipe.strategy, chosen, [], self._class_weights, seconds, rule, None)
        return fitted, probabilities

    def _blend(self, share: float) -> None:
        """Put the weights so far on the way from the start to where training led."""
        self.trainee.load_state_dict(blend(self._start, self._end, share) if share < 1 else self._end)

    def _on_val(self, progress: Progress) -> tuple[LinearHead, np.ndarray, np.ndarray]:
        """Return the head as it now is, with the temperature that val gives it, and its probabilities (n, C) on val.

        The features (n, d) of val come last.
        """
        val, head = self.job.split.indices("val"), self.head
        X_val, _ = self.features(val, "Features of val", progress)
        head = dataclasses.replace(head, temperature=fit_temperature(head.scores(X_val), self.job.dataset.labels[val]))
        return head, head.probabilities(X_val), X_val

    def last_head(self, outcome: Outcome) -> FittedHead:
        """Return the trained head of a training in which nothing was chosen, and nothing is left to calibrate it on."""
        share = self.share
        last = f"where training ended early: {outcome.stopped}" if outcome.stopped else "the last"
        blended = f", weights {share:g} of the way there from the solved head on the frozen network" * (share < 1)
        rule = (
            f"Epoch {outcome.best_epoch}, {last}{blended}. Nothing was chosen, and val was learned from. Not "
            "calibrated: no image was left for it."
        )
        chosen: dict[str, float] = {"epoch": outcome.best_epoch}
        seconds = outcome.history[-1].seconds
        name = self.job.recipe.strategy
        return FittedHead(self.head, name, chosen, [], self._class_weights, seconds, rule, None, is_calibrated=False)

    def detect_novelty(self) -> NoveltyDetector | None:
        """Return what tells images that are unlike train; after `calibrate`, before val is learned from."""
        known = self.job.references(self.job.backbone.n_features)
        rows, _ = self.features(known, "Features of train")
        return fit_detector(rows, self._X_val)

    def refit(self, outcome: Outcome) -> bool:
        """Go through the training again up to the chosen epoch, with the images of val among the others.

        Or, with `train.refit=continue`, go on for fewer epochs from the epoch that val has chosen. Either way the
        weights then go as far of the way as val chose. Return False, with everything as it was, where the time does not
        suffice.
        """
        job, start = self.job, self._start
        images, goes_on = job.split.development, self.course.goes_on
        n_epochs = max(1, round(self.course.again * outcome.best_epoch))
        try:
            with job.clock.time("views again"):
                examples = self._looks.training(images, "train and val")
        except ResourceError as error:  # what val chose is there already
            job.progress.say(f"Not trained on train and val together: {error}")
            return False
        speed = outcome.history[outcome.best_epoch].images_per_second or math.inf
        n_known = len(job.references(job.backbone.n_features))
        end = self._costs.end_seconds(n_known + len(job.split.indices("test")))
        if time.perf_counter() + n_epochs * len(images) / speed + end > job.clock.deadline:
            job.progress.say("No time is left to train on train and val together.")
            return False
        settings = dataclasses.replace(self.course.settings(job), last_epoch=n_epochs, patience=math.inf)
        if goes_on:
            label, rate, settings = "training with val", _ONWARDS_RATE, dataclasses.replace(settings, n_epochs=n_epochs)
            self._blend(1)
        else:
            label, rate = "training again", 1.0
            self.undo()
            self._solve(label, images)
        about = {**self.course.to_dict(), "last_epoch": n_epochs, "from_epoch": outcome.best_epoch if goes_on else 0}
        checkpoints = Checkpoints(self.checkpoints.folder / "again", resume=job.resume, about=about)
        if checkpoints.load_about() != about:  # of an earlier fit with another budget
            checkpoints = Checkpoints(checkpoints.folder, resume=False, about=about)
        again = self._train(label, len(images), examples, None, settings, checkpoints, rate=rate)
        self.was_refitted = not again.stopped
        if self.was_refitted:
            self.n_onwards = n_epochs if goes_on else 0
            self._end = self.trainee.state()
        else:
            job.progress.say(f"{label.capitalize()} ended early: {again.stopped}. What val chose is kept.")
            self._start = start
        self._blend(self.share)
        return self.was_refitted

    @property
    def refit_in_words(self) -> str:
        """How it was trained on train and val together, where it was."""
        return _ONWARDS.format(count(self.n_onwards, "epoch")) if self.n_onwards else _REFITTED

    @property
    def is_shortened(self) -> bool:
        """Whether it has fewer epochs than usual, for want of time."""
        return self.course.n_epochs < usual_epochs(self.job)

    def undo(self) -> None:
        """Put the backbone back as it was before."""
        self.trainee.load_state_dict(self._pretrained)

    def backbone(self) -> Backbone:
        """Return the backbone as it is now trained."""
        backbone = self.job.backbone
        source = f"{backbone.source}, trained right of {self.job.cut}"
        return dataclasses.replace(backbone, weights_hash=fingerprint(backbone.model), source=source)

    @property
    def head(self) -> LinearHead:
        """The head as it now is, not calibrated."""
        layer = self.trainee.head
        weight, bias = (parameter.detach().cpu().numpy().copy() for parameter in (layer.weight, layer.bias))
        return LinearHead(weight, bias)

    def features(
        self, images: np.ndarray, label: str, progress: Progress | None = None
    ) -> tuple[np.ndarray, str | None]:
        """Return the features (n, d) of some images by the network as it now is, and the type they were computed in.

        Nobody else will ask for those of this network: they are not kept in the user's cache.
        """
        job, backbone = self.job, self.backbone()
        if not len(images):
            return np.empty((0, backbone.n_features), np.float32), None
        recipe, part = job.recipe, job.dataset.subset(images)
        with scratch_folder(tempfile.gettempdir()) as folder:
            extraction = extract(
                part,
                backbone,
                exact=recipe.exact,
                device=recipe.device,
                max_pixels=recipe.data.max_pixels,
                label=label,
                progress=progress or job.progress,
                cache=folder,
            )
            require_all(extraction.dataset, part)
            return extraction.rows(), extraction.computed_in

    def _solve(self, label: str, images: np.ndarray) -> None:
        """Start from the head that is solved on these images."""
        job = self.job
        with job.clock.time(f"head for {label}"):
            start = _solve_head(job, images)
        _start_head(self.trainee.head, start.head, job.recipe.train.start)
        head = {name: tensor for name, tensor in self.trainee.state().items() if name.startswith("head.")}
        self._start = {**self._pretrained, **head}
        self._class_weights = start.class_weights

    def _train(
        self,
        label: str,
        n_images: int,
        examples: Examples,
        val: Examples | None,
        settings: TrainingSettings,
        checkpoints: Checkpoints,
        after_epoch: Callable[[Epoch], None] = lambda row: None,
        *,
        rate: float = 1.0,
    ) -> Outcome:
        """Train from where the trainee is, at a share of the recipe's rates."""
        job, recipe = self.job, self.job.recipe.train
        weights = None
        if self._class_weights is not None:
            weights = torch.tensor([self._class_weights.get(c, 0.0) for c in range(len(job.dataset.classes))])
        groups = parameter_groups(
            self.trainee.suffix.named_parameters(),
            self.trainee.head.parameters(),
            cuts.parameter_depths(job.backbone.model, job.backbone.input_shape),
            lr=rate * recipe.lr,
            backbone_share=recipe.backbone_lr,
            layer_decay=recipe.layer_decay,
            weight_decay=recipe.weight_decay,
        )
        n_steps = (settings.last_epoch or settings.n_epochs) * math.ceil(n_images / settings.batch_size)
        with job.clock.time(label), job.progress.task(label.capitalize(), n_steps, "steps") as advance:
            outcome = train(
                self.trainee,
                groups,
                examples,
                val,
                settings,
                self.course.pace(job),
                class_weights=weights,
                checkpoints=checkpoints,
                deadline=job.clock.deadline,
                say=job.progress.say,
                after_step=lambda _: advance(1),
                after_epoch=after_epoch,
            )
        self.trainee.to("cpu").to(memory_format=torch.contiguous_format)
        return outcome


def _solve_head(job: Job, images: np.ndarray) -> FittedHead:
    """Fit the head that training starts from."""
    labels, groups = job.dataset.labels[images], np.array(job.dataset.hashes)[images]
    return fit_on(job.recipe, job.X[images], labels, groups, len(job.dataset.classes), kind=HEAD)


def _start_head(layer: nn.Linear, head: Head, start: str) -> None:
    assert isinstance(head, LinearHead)
    weight, bias = (torch.from_numpy(array) for array in head.folded())
    is_zero = start == "zero"
    with torch.no_grad():
        layer.weight.copy_(torch.zeros_like(weight) if is_zero else weight)
        layer.bias.copy_(torch.zeros_like(bias) if is_zero else bias)


def _key(job: Job) -> str:
    """Return what a training is known by: with anything else, a checkpoint of another one would be taken.

    The images of test have no part in it, so that a trial without them and the training after it are the same.
    """
    learned = job.split.development
    about = [
        job.recipe.model_dump_json(exclude={"device": True, "train": {"minutes"}}),
        *(job.dataset.hashes[i] for i in learned),
        *map(str, job.dataset.labels[learned].tolist()),
        *map(str, job.split.parts[learned].tolist()),
        job.backbone.weights_hash,
        job.backbone.preprocessing.fingerprint(),
        *machine.versions().values(),
    ]
    return hashlib.sha256("\n".join(about).encode()).hexdigest()[:24]
