"""Parity: whether a written model says of real images what its run says."""

from __future__ import annotations

import dataclasses
import os
import random
from collections.abc import Callable, Iterator, Sequence

import numpy as np

from transfer.dataset import display, find_images
from transfer.errors import ArtefactError, DataError
from transfer.exporting.records import Record
from transfer.files import sha256
from transfer.report.files import file_of
from transfer.report.tables import read_rows

N_IMAGES = 32
_BATCH = 7
# Largest difference of a probability. The same pixels give the same numbers but for the order of float32 sums (1e-6);
# another library's resizing moves them by a few thousandths of a grey level, and some by several levels.
SAME_PIXELS, OTHER_RESIZING = 1e-3, 0.05


@dataclasses.dataclass(frozen=True)
class Parity:
    """How far a written model and its run agree.

    Attributes
    ----------
    n_images
        That both were shown.
    n_agree
        On whose most probable class they agree.
    largest_difference
        Of a probability.
    tolerance
        That it had to stay within.
    """

    n_images: int
    n_agree: int
    largest_difference: float
    tolerance: float

    def describe(self) -> str:
        """Return one line for people."""
        n = self.n_images
        return (
            f"the most probable class is the same for {self.n_agree} of {n} {'image' if n == 1 else 'images'}, "
            f"probabilities differ by at most {self.largest_difference:.2g}"
        )


def find_examples(run: Record, images: str | os.PathLike[str] | None = None) -> list[str]:
    """Return up to 32 image files: those in `images`, or of the run's test part, and where that is smaller of val too.

    Raises
    ------
    DataError
        Those of the run are gone or have changed; the message says how to name others.
    """
    if images is not None:
        found = find_images([images])
        return random.Random(0).sample(found, min(N_IMAGES, len(found)))
    files: list[str] = []
    for file, content in _files_of(run):
        if len(files) < N_IMAGES and os.path.isfile(file) and sha256(file) == content:  # noqa: PTH113 (as named)
            files.append(file)
    if not files:
        root = run.info["data"]["root"]
        where = f" in {display(root)}" if root else ""
        raise DataError(
            f"No export without a check on real images, and those of the run are gone or changed{where}. Name others: "
            "--images FOLDER."
        )
    return files


def compare(
    run: Record, files: Sequence[str], classify: Callable[[Sequence[str]], np.ndarray], tolerance: float
) -> Parity:
    """Compare what `classify` says of image files, (N, C) probabilities, with what the run says in float32.

    Raises
    ------
    DataError
        None of the images can be read.
    ArtefactError
        They disagree.
    """
    expected = run.predict(files, device="cpu", exact=True, unknown=False, max_pixels=run.recipe.data.max_pixels)
    if not len(expected):
        raise DataError(
            f"None of the {len(files)} images for the check can be read ({expected.unreadable[0][1]}). Name others: "
            "--images FOLDER."
        )
    # several at once, and an odd rest: the size of the batch is not the one that the model was made with
    batches = [expected.paths[start : start + _BATCH] for start in range(0, len(expected), _BATCH)]
    return judge(expected.probabilities, np.concatenate([classify(batch) for batch in batches]), tolerance)


def judge(expected: np.ndarray, found: np.ndarray, tolerance: float) -> Parity:
    """Return how far two tables of probabilities (N, C) agree.

    Raises
    ------
    ArtefactError
        A probability is off by more than `tolerance`, or another class is the most probable one. Where the two best
        are closer to each other than `tolerance` in `expected`, either may be.
    """
    if found.shape != expected.shape:
        raise ArtefactError(
            f"The exported model gives {found.shape[1:]} numbers, the run {expected.shape[1:]} classes."
        )
    difference = float(np.abs(found - expected).max())
    best = found.argmax(1)
    agrees = best == expected.argmax(1)
    is_tie = expected.max(1) - expected[np.arange(len(best)), best] <= tolerance
    parity = Parity(len(found), int(agrees.sum()), difference, tolerance)
    if not difference <= tolerance or not (agrees | is_tie).all():  # `not <=`: NaN fails too
        raise ArtefactError(
            f"The exported model does not say what the run says: {parity.describe()}; allowed are {tolerance:g}. "
            "Nothing was written. Please report this."
        )
    return parity


def _files_of(run: Record) -> Iterator[tuple[str, str]]:
    """Yield the files of test in a random order, the same each time, then those of val, with their contents."""
    root = run.info["data"]["root"]
    rows = read_rows(run.path / "split.csv")
    for part in ("test", "val"):
        some = [row for row in rows if row.get("split") == part]
        for row in random.Random(0).sample(some, len(some)):
            yield file_of(row["path"], root), row["sha256"]
