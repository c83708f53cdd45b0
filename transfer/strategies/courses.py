"""Course: what a fine-tuning decides before its first step, and must not decide anew when it goes on."""

from __future__ import annotations

import math
import shutil
import time
from dataclasses import asdict, dataclass
from typing import Any

from transfer import cuts, machine
from transfer.files import cache_folder, existing_folder, readable_bytes
from transfer.strategies.cutting import cut_shape
from transfer.strategies.jobs import Job
from transfer.training import Pace, Trainee, TrainingSettings, choose_pace

_VIEWS = 4  # of each image that are cached where disk, time and recipe allow
_DISK_SHARE = 0.5  # of the free space that the cache may take
_TIME_SHARE = 0.3  # of the time left that making views may take
_VAL_COST = 1 / 3  # a forward pass, as a share of a training step


@dataclass(frozen=True)
class Course:
    """How long and how a training goes."""

    cut: str
    n_epochs: int
    views: int  # cached of each image; 0: what is left of the cut runs in every epoch
    dtype: str
    channels_last: bool
    is_folded: bool
    seconds_per_image: float

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
        )

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for a checkpoint and for `run.json`."""
        return asdict(self)


def choose_course(job: Job, trainee: Trainee, at: str) -> Course:
    """Measure a step, and choose epochs and views that fit into the time and onto the disk."""
    recipe, backbone = job.recipe, job.backbone
    n_train, n_val = _n_images(job)
    what = [backbone.weights_hash, at, f"{len(job.dataset.classes)} classes"]
    shape = cut_shape(backbone, at)
    pace = choose_pace(trainee, shape, machine.pick_device(recipe.device), recipe.exact, what)
    left = job.clock.deadline - time.perf_counter() - _end_seconds(job)
    views = _n_views(job, at, left)
    if math.isfinite(left):
        left -= (views * n_train + n_val) * job.seconds_per_image if views else 0.0
    steps = math.ceil(n_train / recipe.train.batch_size)
    n_epochs = max(recipe.train.epochs, math.ceil(recipe.train.min_steps / steps))
    if math.isfinite(left):
        n_epochs = max(1, min(n_epochs, int(left / _epoch_seconds(job, at, views, pace.seconds_per_image))))
    return Course(at, n_epochs, views, pace.dtype, pace.channels_last, pace.is_folded, pace.seconds_per_image)


def describe_course(job: Job, trainee: Trainee, course: Course) -> list[str]:
    """Say in a few lines what will be done, before it is."""
    n_train, n_val = _n_images(job)
    n_all = sum(parameter.numel() for parameter in job.backbone.model.parameters())
    n_right = sum(parameter.numel() for parameter in trainee.suffix.parameters())
    lines = [
        f"Cut at {course.cut!r}: {n_right / 1e6:.2f} M parameters are trained, {(n_all - n_right) / 1e6:.2f} M stay "
        "frozen; the head starts solved."
    ]
    if course.views:
        size = readable_bytes((course.views * n_train + n_val) * _row_bytes(job, course.cut))
        views = f"{course.views} view{'s' * (course.views > 1)}"
        lines.append(f"Cached on disk: {views} of each training image at the cut, {size}.")
    elif course.cut != cuts.PIXELS:
        lines.append("There is no room for one view of each image: the frozen part runs in every epoch.")
    seconds = course.n_epochs * _epoch_seconds(job, course.cut, course.views, course.seconds_per_image)
    lines.append(
        f"{course.n_epochs} epochs of {n_train} images, about {max(1, round(seconds))} s of training in {course.dtype}."
    )
    return lines


def _n_images(job: Job) -> tuple[int, int]:
    return len(job.split.indices("train")), len(job.split.indices("val"))


def _n_views(job: Job, at: str, left: float) -> int:
    if at == cuts.PIXELS:
        return 0
    wanted = 1 if job.recipe.train.augment == "none" else job.recipe.train.views or _VIEWS
    n_train, n_val = _n_images(job)
    row = _row_bytes(job, at)
    budget = _DISK_SHARE * shutil.disk_usage(existing_folder(cache_folder())).free
    by_disk = int((budget - n_val * row) // (n_train * row))
    if job.recipe.train.views is None and math.isfinite(left) and job.seconds_per_image:
        wanted = max(1, min(wanted, int(_TIME_SHARE * left / (n_train * job.seconds_per_image))))
    return max(0, min(wanted, by_disk))


def _row_bytes(job: Job, at: str) -> int:
    return (4 if job.recipe.exact else 2) * math.prod(cut_shape(job.backbone, at))


def _epoch_seconds(job: Job, at: str, views: int, seconds_per_image: float) -> float:
    n_train, n_val = _n_images(job)
    live = 0.0 if views else job.seconds_per_image  # decoding, or the frozen part as well
    if at == cuts.PIXELS:
        live *= 0.5
    return n_train * (seconds_per_image + live) + n_val * (_VAL_COST * seconds_per_image + live)


def _end_seconds(job: Job) -> float:
    """Return about how long the features of val and test, and the report, take after training."""
    n_images = sum(len(job.split.indices(part)) for part in ("val", "test"))
    return n_images * job.seconds_per_image + 2.0
