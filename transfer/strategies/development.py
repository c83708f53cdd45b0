"""Development: the images on which choices are made. Those that are reported on are not in it, and cannot get in.

A selector takes a `Development`, which is made by `put_test_aside`: a job with test images is another type, and mypy
refuses it where choices are made. At run time there is nothing to leak either: paths, labels and features of the test
part have been left out, of the extraction too.
"""

from __future__ import annotations

import dataclasses
from typing import NewType

import numpy as np

from transfer.dataset import Split
from transfer.heads import assign_folds
from transfer.strategies.jobs import Job

Development = NewType("Development", Job)


def put_test_aside(job: Job) -> Development:
    """Return the job without the images of test: nothing of them can be chosen on."""
    kept = job.split.development
    dataset = job.dataset.subset(kept)
    split = Split(job.split.parts[kept], job.split.reason, job.split.cross_validate)
    extraction = job.extraction and dataclasses.replace(job.extraction, dataset=dataset)
    n_aside = len(job.dataset) - len(kept)
    return Development(
        dataclasses.replace(
            job, dataset=dataset, split=split, extraction=extraction, X=job.X[kept], n_put_aside=n_aside
        )
    )


def groups_of(development: Development) -> np.ndarray:
    """Return what exact copies of an image have in common."""
    return np.array(development.dataset.hashes)


def other_val(development: Development, number: int) -> Development | None:
    """Return the same images with others of them as val, as many as before; None where all have had their turn.

    Parameters
    ----------
    number
        0 is the split as it is; the images that serve as val under two numbers are different ones.
    """
    if number == 0:
        return development
    train, val = development.split.indices("train"), development.split.indices("val")
    n_folds = len(train) // max(1, len(val))
    if number > n_folds or n_folds < 2:
        return None
    labels, groups = development.dataset.labels[train], groups_of(development)[train]
    fold_of = assign_folds(labels, groups, n_folds, development.recipe.seed)
    parts = np.full(len(development.dataset), "train", dtype="<U5")
    parts[train[fold_of == number - 1]] = "val"
    split = Split(parts, development.split.reason, development.split.cross_validate)
    return Development(dataclasses.replace(development, split=split))
