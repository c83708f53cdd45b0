"""Look: how the trainee sees the training and the validation images, from a cache, behind the frozen part, or live."""

from __future__ import annotations

from transfer import cuts
from transfer.dataset import Dataset
from transfer.errors import DataError
from transfer.features import Plans, Runner, extract
from transfer.images import RandomView, find_augmentation
from transfer.strategies.courses import Course
from transfer.strategies.jobs import Job
from transfer.training import CachedExamples, Examples, LiveExamples, LivePrefixExamples


def find_examples(job: Job, course: Course) -> tuple[Examples, Examples]:
    """Return the training images and the validation images as the trainee sees them."""
    train, val = (job.dataset.subset(job.split.indices(part)) for part in ("train", "val"))
    if course.cut == cuts.PIXELS:
        return _live(job, train, job.recipe.train.augment), _live(job, val, "none")
    if not course.views:
        return _behind_prefix(job, course, train, job.recipe.train.augment), _behind_prefix(job, course, val, "none")
    return _cached(job, course, train, val)


def _live(job: Job, part: Dataset, augment: str) -> Examples:
    recipe = job.recipe
    return LiveExamples(
        part.paths,
        part.hashes,
        part.labels,
        job.backbone.preprocessing,
        find_augmentation(augment),
        recipe.seed,
        max_pixels=recipe.data.max_pixels,
        exact=recipe.exact,
    )


def _behind_prefix(job: Job, course: Course, part: Dataset, augment: str) -> Examples:
    recipe, backbone = job.recipe, job.backbone
    runner = Runner(
        backbone,
        [course.cut],
        Plans(backbone, [course.cut], recipe.device, recipe.exact),
        part.paths,
        contents=part.hashes,
        max_pixels=recipe.data.max_pixels,
        pool="none",
        exact=recipe.exact,
    )
    return LivePrefixExamples(runner, part.labels, find_augmentation(augment), recipe.seed, _dtype(job))


def _cached(job: Job, course: Course, train: Dataset, val: Dataset) -> tuple[Examples, Examples]:
    recipe = job.recipe
    augmentation = find_augmentation(recipe.train.augment)
    is_random = recipe.train.augment != "none"
    caches = []
    computed_in = None
    for k in range(course.views + 1):
        is_val = k == course.views
        part = val if is_val else train
        extraction = extract(
            part,
            job.backbone,
            (course.cut,),
            pool="none",
            dtype=_dtype(job),
            exact=recipe.exact,
            device=recipe.device,
            max_pixels=recipe.data.max_pixels,
            random_view=RandomView(augmentation, recipe.seed, k) if is_random and not is_val else None,
            computed_in=computed_in,
            label=f"Validation images at {course.cut}" if is_val else f"View {k + 1} of {course.views} at {course.cut}",
            progress=job.progress,
        )
        require_all(extraction.dataset, part)
        computed_in = extraction.computed_in  # all views of a training in one type
        caches.append(extraction.caches[course.cut])
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
