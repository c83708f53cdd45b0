"""Course: what a fine-tuning decides before its first step, and must not decide anew when it goes on."""

from __future__ import annotations

import math
import shutil
import time
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from transfer import cuts, machine
from transfer.dataset import Split
from transfer.dataset.names import count
from transfer.files import cache_folder, existing_folder, folder_bytes, readable_bytes
from transfer.recipe import Recipe
from transfer.strategies.cutting import cut_shape
from transfer.strategies.jobs import Job
from transfer.strategies.looking import measure_network, pixels_of
from transfer.training import Pace, Trainee, TrainingSettings, choose_pace, measure_pixels

STARTS = {"solved": "the head starts solved", "zero": "the head starts at zero"}
_VIEWS = 4  # of each image that are cached where disk, time and recipe allow
_FEW = 2000  # training images, below which those of val are worth another training
_ONWARDS = 0.3  # of the epochs, for which a training goes on with val, where it does
_DISK_SHARE = 0.5  # of the free space that the cache may take
_TIME_SHARE = 0.3  # of the time left that making views may take
_REPORT_SECONDS = 2.0
_VAL_COST = 1 / 3  # a forward pass, as a share of a training step


@dataclass(frozen=True)
class Course:
    """How long and how a training goes."""

    cut: str
    n_epochs: int
    views: int  # kept of each image (at the pixels: the decoded image); 0: what is left of the cut runs in every epoch
    dtype: str
    channels_last: bool
    is_folded: bool
    again: float  # of the training, spent on train and val together after it: 1 as much again, less to go on, 0 nothing
    seconds_per_image: float

    @property
    def goes_on(self) -> bool:
        """Whether the training goes on with the images of val, and does not start anew with them."""
        return 0 < self.again < 1

    def pace(self, job: Job) -> Pace:
        """Return device, type and layout of the computation."""
        device = machine.pick_device(job.recipe.device)
        return Pace(device, self.dtype, self.channels_last, self.is_folded, job.recipe.exact, self.seconds_per_image)

    def settings(self, job: Job) -> TrainingSettings:
        """Return the loop's settings."""
        settings = job.recipe.train
        return TrainingSettings(
            n_epochs=self.n_epochs,
            batch_size=settings.batch_size,
            warmup=settings.warmup,
            clip=settings.clip,
            label_smoothing=settings.label_smoothing,
            mixup=settings.mixup,
            cutmix=settings.cutmix,
            ema=settings.ema,
            patience=settings.patience or math.inf,
            seed=job.recipe.seed,
            optimizer=settings.optimizer,
            schedule=settings.schedule,
            frozen_epochs=settings.frozen_epochs,
            frozen_lr=settings.frozen_lr or settings.lr,
            blend=1.0 if settings.blend == "val" else settings.blend,  # val chooses afterwards
            chooses_epoch=settings.blend != "val",
        )

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for a checkpoint and for `run.json`."""
        return asdict(self)


@dataclass(frozen=True)
class Costs:
    """What one image costs left of the cut, on average."""

    row_bytes: float  # of one view on disk
    row_seconds: float  # to make it
    network_seconds: float  # of the whole frozen network, decoding included

    def end_seconds(self, n_images: int) -> float:
        """Return what comes after the last step: the features of so many images, scores and the run's files."""
        return n_images * self.network_seconds + _REPORT_SECONDS


def find_costs(job: Job, at: str) -> Costs:
    """Tell what an image costs left of the cut; where time counts and nothing has been run yet, measure it."""
    network = job.seconds_per_image
    if not network and math.isfinite(job.clock.deadline):
        network = measure_network(job)
    if at == cuts.PIXELS:
        part = job.dataset.subset(learned_from(job.recipe, job.split))
        cost = measure_pixels(pixels_of(job, part, job.recipe.train.augment))
        return Costs(cost.n_bytes, cost.seconds / machine.count_cores(), network)
    return Costs((4 if job.recipe.exact else 2) * math.prod(cut_shape(job.backbone, at)), network, network)


def choose_course(job: Job, trainee: Trainee, at: str, costs: Costs) -> Course:
    """Measure a step, and choose epochs and views that fit into the time and onto the disk."""
    recipe, backbone = job.recipe, job.backbone
    _, n_val = _n_images(job)
    seen = f"{backbone.preprocessing.input_size} px"
    n_classes, batchnorm = f"{len(job.dataset.classes)} classes", f"BatchNorm {recipe.train.batchnorm}"
    what = [backbone.weights_hash, seen, at, n_classes, batchnorm]
    pace = choose_pace(trainee, cut_shape(backbone, at), machine.pick_device(recipe.device), recipe.exact, what)
    n_test = len(job.split.indices("test")) + job.n_put_aside
    left = (
        job.clock.deadline
        - time.perf_counter()
        - costs.end_seconds(len(job.references(backbone.n_features)) + n_val + n_test)
    )
    views = _n_views(job, at, costs, left)
    if math.isfinite(left) and views:
        left -= _n_rows(job, views) * costs.row_seconds
    again = _again(job)
    course = Course(at, 0, views, pace.dtype, pace.channels_last, pace.is_folded, again, pace.seconds_per_image)
    n_epochs = usual_epochs(job)
    if math.isfinite(left):
        n_epochs = max(1 + recipe.train.frozen_epochs, min(n_epochs, int(left / _epoch_seconds(job, course, costs))))
    return replace(course, n_epochs=n_epochs)


def usual_epochs(job: Job) -> int:
    """Return how many epochs there are where time does not bind."""
    settings, (n_train, _) = job.recipe.train, _n_images(job)
    return max(settings.epochs, math.ceil(settings.min_steps / math.ceil(n_train / settings.batch_size)))


def describe_course(job: Job, trainee: Trainee, course: Course, costs: Costs) -> list[str]:
    """Say in a few lines what will be done, before it is."""
    n_train, n_val = _n_images(job)
    n_all = sum(parameter.numel() for parameter in job.backbone.model.parameters())
    n_right = sum(parameter.numel() for parameter in trainee.suffix.parameters())
    lines = [
        f"Cut at {course.cut!r}: {n_right / 1e6:.2f} M parameters are trained, {(n_all - n_right) / 1e6:.2f} M stay "
        f"frozen; {STARTS[job.recipe.train.start]}."
    ]
    why = "No views are kept, as asked" if job.recipe.train.views == 0 else "There is no room on the disk"
    size = readable_bytes(round(_n_rows(job, course.views) * costs.row_bytes))
    if course.cut == cuts.PIXELS:
        kept = f"Cached on disk: the decoded images, about {size}."
        lines.append(kept if course.views else f"{why}: every epoch decodes the images.")
    elif course.views:
        lines.append(f"Cached on disk: {count(course.views, 'view')} of each training image at the cut, {size}.")
    else:
        lines.append(f"{why}: the frozen part runs in every epoch.")
    seconds = course.n_epochs * _epoch_seconds(job, course, costs)
    again = f", then {'on' if course.goes_on else 'again'} with the {n_val} of val" if course.again else ""
    lines.append(
        f"{course.n_epochs} epochs of {n_train} images{again}: about {max(1, round(seconds))} s of training in "
        f"{course.dtype}."
    )
    return lines


def usual_seconds(job: Job, course: Course, costs: Costs) -> float:
    """Return how long all epochs would take where time does not bind, with the views that are made before them."""
    views = _n_rows(job, course.views) * costs.row_seconds if course.views else 0.0
    return views + usual_epochs(job) * _epoch_seconds(job, course, costs)


def learned_from(recipe: Recipe, split: Split) -> np.ndarray:
    """Return the images that training learns from: those of val too where they judge nothing."""
    return split.development if recipe.train.learns_from_val else split.indices("train")


def _n_images(job: Job) -> tuple[int, int]:
    """Return how many images are learned from, and how many judge."""
    n_learned = len(learned_from(job.recipe, job.split))
    return n_learned, len(job.split.development) - n_learned


def _again(job: Job) -> float:
    """Return how much of a training is spent on train and val together after it."""
    wanted, (n_train, n_val) = job.recipe.train.refit, _n_images(job)
    if not n_val or wanted is False or (wanted is None and n_train >= _FEW):
        return 0.0
    return _ONWARDS if wanted == "continue" else 1.0


def _n_rows(job: Job, n_views: int) -> int:
    """Return how many rows are kept: the views of what is trained on, in the end val included, and val as it is."""
    n_train, n_val = _n_images(job)
    return n_views * (n_train + n_val * bool(_again(job))) + n_val


def _n_views(job: Job, at: str, costs: Costs, left: float) -> int:
    settings = job.recipe.train
    wanted = _VIEWS if settings.views is None else settings.views
    if at == cuts.PIXELS or settings.augment == "none":
        wanted = min(wanted, 1)  # more would be the same
    n_train, n_val = _n_images(job)
    n_viewed = _n_rows(job, 1) - n_val  # images that views are kept of
    # what the cache has already counts as free: the same fit must not find less room the second time
    free = shutil.disk_usage(existing_folder(cache_folder())).free + folder_bytes(cache_folder())
    by_disk = int((_DISK_SHARE * free - n_val * costs.row_bytes) // (n_viewed * costs.row_bytes))
    if settings.views is None and math.isfinite(left) and costs.row_seconds:
        wanted = max(1, min(wanted, int(_TIME_SHARE * left / (n_train * costs.row_seconds))))
    return max(0, min(wanted, by_disk))


def _epoch_seconds(job: Job, course: Course, costs: Costs) -> float:
    """Return how long an epoch takes, with its like in the training on train and val that comes after."""
    n_train, n_val = _n_images(job)
    live = 0.0 if course.views else costs.row_seconds
    step = course.seconds_per_image
    again = course.again * (n_train + n_val) * (step + live)
    return n_train * (step + live) + n_val * (_VAL_COST * step + live) + again
