"""Look: how the trainee sees the training and the validation images, from a cache, behind the frozen part, or live."""

from __future__ import annotations

import time

import numpy as np

from transfer import cuts
from transfer.dataset import Dataset
from transfer.errors import DataError
from transfer.features import Plans, Runner, extract
from transfer.images import RandomView, find_augmentation
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


def find_examples(job: Job, at: str, n_views: int) -> tuple[Examples, Examples]:
    """Return the training images and the validation images as a trainee behind the cut `at` sees them.

    Parameters
    ----------
    n_views
        That are kept on disk of each training image; at the pixels the decoded image counts as one. 0: none.
    """
    train, val = (job.dataset.subset(job.split.indices(part)) for part in ("train", "val"))
    if at == cuts.PIXELS:
        return (
            _at_pixels(job, n_views, train, job.recipe.train.augment, "Decoding training images"),
            _at_pixels(job, n_views, val, "none", "Decoding validation images"),
        )
    if not n_views:
        return _behind_prefix(job, at, train, job.recipe.train.augment), _behind_prefix(job, at, val, "none")
    return _cached(job, at, n_views, train, val)


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


def _at_pixels(job: Job, n_views: int, part: Dataset, augment: str, label: str) -> Examples:
    decoded = pixels_of(job, part, augment)
    pixels = keep_pixels(decoded, label, job.progress) if n_views else decoded
    augmentation = find_augmentation(augment)
    return PixelExamples(pixels, part.labels, job.backbone.preprocessing, augmentation, job.recipe.seed)


def _behind_prefix(job: Job, at: str, part: Dataset, augment: str) -> Examples:
    runner = _runner(job, at, part)
    return LivePrefixExamples(runner, part.labels, find_augmentation(augment), job.recipe.seed, _dtype(job))


def measure_network(job: Job) -> float:
    """Return the seconds that the whole frozen network takes for an image, decoding included, from a few of them."""
    some = job.dataset.subset(np.arange(min(_SAMPLE, len(job.dataset))))
    runner = _runner(job, cuts.FEATURES, some)
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


def _cached(job: Job, at: str, n_views: int, train: Dataset, val: Dataset) -> tuple[Examples, Examples]:
    recipe = job.recipe
    augmentation = find_augmentation(recipe.train.augment)
    is_random = recipe.train.augment != "none"
    caches = []
    computed_in = None
    for k in range(n_views + 1):
        is_val = k == n_views
        part = val if is_val else train
        extraction = extract(
            part,
            job.backbone,
            (at,),
            pool="none",
            dtype=_dtype(job),
            exact=recipe.exact,
            device=recipe.device,
            max_pixels=recipe.data.max_pixels,
            random_view=RandomView(augmentation, recipe.seed, k) if is_random and not is_val else None,
            computed_in=computed_in,
            label=f"Validation images at {at}" if is_val else f"View {k + 1} of {n_views} at {at}",
            progress=job.progress,
        )
        require_all(extraction.dataset, part)
        computed_in = extraction.computed_in  # all views of a training in one type
        caches.append(extraction.caches[at])
    return (
        CachedExamples(caches[:-1], train.hashes, train.labels, recipe.seed),
        CachedExamples(caches[-1:], val.hashes, val.labels, recipe.seed),
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
