"""Novelty: is an image unlike all that a network was trained on?

The distance of its features to the nearest of some training images, 1 - cosine (deep nearest neighbours: Sun et al.,
ICML 2022), beyond that of most validation images. It tells images of another kind; an unknown class that looks like the
known ones lies where they lie, and mostly passes (`bench/novelty.py`, `docs/faq.md`).
"""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np

KEPT = 0.95  # share of the validation images that count as known
_MOST = 1000  # training images that are remembered: all of them tell no more
_MOST_BYTES = 16_000_000
_FEWEST = 21  # validation images, below which their 95th percentile is the largest and says nothing
_BLOCK = 1024  # rows that are compared at once


@dataclasses.dataclass(frozen=True)
class NoveltyDetector:
    """Remembers training images, and how far from them is too far.

    Attributes
    ----------
    references
        (M, d) float16, rows of unit length.
    threshold
        The largest distance, from 0 to 2, that counts as known.
    n_val
        Validation images that it was set on.
    """

    references: np.ndarray
    threshold: float
    n_val: int

    def distances(self, rows: np.ndarray) -> np.ndarray:
        """Return how far features (N, d), or (N, V, d) of several views, are from the nearest reference: (N,)."""
        references = self.references.astype(np.float32).T
        units = _units(rows)
        blocks = [units[i : i + _BLOCK] @ references for i in range(0, len(units), _BLOCK)]
        return 1 - np.concatenate([block.max(1) for block in blocks]) if blocks else np.zeros(0, np.float32)

    def with_references(self, train: np.ndarray) -> NoveltyDetector:
        """Return the detector for another network of the same training, the threshold as it was."""
        return dataclasses.replace(self, references=_units(train).astype(np.float16))

    def is_unknown(self, rows: np.ndarray) -> np.ndarray:
        """Say of each row whether it is too far away: (N,) of bool."""
        return self.distances(rows) > self.threshold


def fit_detector(train: np.ndarray, val: np.ndarray) -> NoveltyDetector | None:
    """Remember features of training images, and set the threshold so that 95 % of the validation images are kept.

    Parameters
    ----------
    train, val
        (N, d), or (N, V, d) of several views, of which the mean counts; `train` as `choose_references` picks them.

    Returns
    -------
    NoveltyDetector or None
        None where the validation images are too few for a threshold.
    """
    if len(val) < _FEWEST or not len(train):
        return None
    detector = NoveltyDetector(_units(train).astype(np.float16), 0.0, len(val))
    threshold = float(np.quantile(detector.distances(val), KEPT, method="higher"))
    return dataclasses.replace(detector, threshold=threshold)


def choose_references(labels: np.ndarray, width: int, seed: int) -> np.ndarray:
    """Return positions of the training images to remember, spread evenly over the classes."""
    rng = np.random.default_rng(seed)
    order = rng.permutation(len(labels))
    rank = np.empty(len(labels), np.int64)  # of an image among those of its class
    for label in np.unique(labels):
        members = order[labels[order] == label]
        rank[members] = np.arange(len(members))
    most = min(_MOST, _MOST_BYTES // (2 * max(width, 1)))
    return np.sort(np.lexsort((order, rank))[:most])


def detector_to_arrays(detector: NoveltyDetector) -> dict[str, np.ndarray]:
    """Return the detector as arrays, for a file."""
    return {"references": detector.references, "threshold": np.float64(detector.threshold).reshape(1)}


def detector_from_arrays(arrays: dict[str, Any], n_val: int) -> NoveltyDetector:
    """Make a detector from arrays."""
    return NoveltyDetector(arrays["references"], float(arrays["threshold"][0]), n_val)


def _units(rows: np.ndarray) -> np.ndarray:
    flat = np.asarray(rows, np.float32)
    flat = flat.mean(axis=1) if flat.ndim == 3 else flat
    return flat / np.maximum(np.linalg.norm(flat, axis=1, keepdims=True), 1e-12)
