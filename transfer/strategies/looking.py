"""Look: how the trainee sees images: from a cache, behind the frozen part, or decoded."""

from __future__ import annotations

import time
from collections.abc import Sequence

import numpy as np

from transfer import cuts
from transfer.cache import ActivationCache
from transfer.dataset import Dataset
from transfer.errors import DataError
from transfer.features import Plans, Runner, extract
from transfer.images import STANDARD, RandomView, View, find_augmentation
from transfer.strategies.jobs import Job
from transfer.training import (
    CachedExamples,
    DecodedPixels,
    Examples,
    LivePrefixExamples,
    PixelExamples,
    keep_pixels,
)

_SAMPLE = 32  # images that tell the speed of the network


class Looks:
    """How a trainee behind the cut `at` sees images.

    Parameters
    ----------
    n_views
        That are kept on disk of each training image; at the pixels the decoded image counts as one. 0: none.
    """

    def __init__(self, job: Job, at: str, n_views: int) -> None:
        self._job, self._at, self._n_views = job, at, n_views
        self._computed_in: str | None = None  # all rows of a training in one type

    def training(self, images: np.ndarray, what: str = "training images") -> Examples:
        """Return images of the dataset, augmented as the recipe says."""
        return self._examples(images, self._job.recipe.train.augment, what)

    def validation(self) -> Examples:
        """Return the validation images, in the standard view."""
        return self._examples(self._job.split.indices("val"), "none", "validation images")

    def _examples(self, images: np.ndarray, augment: str, what: str) -> Examples:
        part = self._job.dataset.subset(images)
        if self._at == cuts.PIXELS:
            return self._at_pixels(part, augment, what)
        if not self._n_views:
            return self._behind_prefix(part, augment)
        return self._cached(part, augment, what)

    def _at_pixels(self, part: Dataset, augment: str, what: str) -> Examples:
        job, decoded = self._job, pixels_of(self._job, part, augment)
        pixels = keep_pixels(decoded, f"Decoding {what}", job.progress) if self._n_views else decoded
        augmentation = find_augmentation(augment)
        return PixelExamples(pixels, part.labels, job.backbone.preprocessing, augmentation, job.recipe.seed)

    def _behind_prefix(self, part: Dataset, augment: str) -> Examples:
        job, runner = self._job, _runner(self._job, self._at, part)
        return LivePrefixExamples(runner, part.labels, find_augmentation(augment), job.recipe.seed, _dtype(job))

    def _cached(self, part: Dataset, augment: str, what: str) -> Examples:
        seed, n_views = self._job.recipe.seed, 1 if augment == "none" else self._n_views
        views = [
            STANDARD if augment == "none" else RandomView(find_augmentation(augment), seed, k) for k in range(n_views)
        ]
        which = f", {n_views} views" if n_views > 1 else ""
        caches = self._rows(part, views, f"{what.capitalize()} at {self._at}{which}")
        return CachedExamples(caches, part.hashes, part.labels, seed)

    def _rows(self, part: Dataset, views: Sequence[View], label: str) -> list[ActivationCache]:
        recipe = self._job.recipe
        extraction = extract(
            part,
            self._job.backbone,
            (self._at,),
            pool="none",
            dtype=_dtype(self._job),
            exact=recipe.exact,
            device=recipe.device,
            max_pixels=recipe.data.max_pixels,
            views=views,
            computed_in=self._computed_in,
            label=label,
            progress=self._job.progress,
        )
        require_all(extraction.dataset, part)
        self._computed_in = extraction.computed_in
        return [caches[self._at] for caches in extraction.views]


def pixels_of(job: Job, part: Dataset, augment: str) -> DecodedPixels:
    """Return the images of a part as training at the pixels starts from them."""
    return DecodedPixels(
        part.paths,
        part.hashes,
        job.backbone.preprocessing,
        find_augmentation(augment),
        max_pixels=job.recipe.data.max_pixels,
        exact=job.recipe.exact,
    )


def measure_network(job: Job) -> float:
    """Return the seconds that the whole frozen network takes for an image, decoding included, from a few of them."""
    some = job.dataset.subset(np.arange(min(_SAMPLE, len(job.dataset))))
    runner = _runner(job, cuts.FEATURES, some)
    list(runner.run())  # the first time, the network is built
    started = time.perf_counter()
    list(runner.run())
    return (time.perf_counter() - started) / len(some)


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


def require_all(found: Dataset, wanted: Dataset) -> None:
    """Stop where an image that could be read at the start cannot be read any more.

    Raises
    ------
    DataError
        It names the image.
    """
    if len(found) < len(wanted):
        lost = found.unreadable[0]
        raise DataError(f"{lost.path} cannot be read any more ({lost.reason}). Run again when nothing changes.")


def _dtype(job: Job) -> str:
    return "float32" if job.recipe.exact else "float16"
