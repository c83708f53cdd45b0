"""Finding: what a second look at a run's images shows: labels in doubt, look-alikes across parts, and a map of all."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np

from transfer.errors import TransferError
from transfer.likeness import find_pairs
from transfer.plane import Plane, project
from transfer.progress import Progress
from transfer.report.predictions import Prediction
from transfer.report.records import Record
from transfer.report.rows import Rows, read_frozen
from transfer.suspects import find_suspects, out_of_fold

_STAGES = {"train": 0, "val": 1, "test": 2}


@dataclasses.dataclass(frozen=True)
class Place:
    """One image among those of the run."""

    path: str
    label: str
    part: str
    content: str | None


@dataclasses.dataclass(frozen=True)
class Doubt:
    """An image whose label is probably wrong, and the class that it looks like."""

    image: Place
    suggested: str
    p_label: float
    p_suggested: float
    margin: float  # p_label less the largest other probability


@dataclasses.dataclass(frozen=True)
class LookAlike:
    """Two images of different parts whose features are nearly the same."""

    later: Place
    earlier: Place
    cosine: float


@dataclasses.dataclass(frozen=True, eq=False)
class Map:
    """All images of a run as points."""

    plane: Plane
    labels: np.ndarray  # (N,)
    mistakes: np.ndarray  # rows of test images with a wrong prediction, the surest first


@dataclasses.dataclass(frozen=True, eq=False)
class Findings:
    """What was found; where the features could not be had, why, and no more than the predictions tell."""

    doubts: list[Doubt]  # the most suspicious first
    look_alikes: list[LookAlike]  # those of test first
    map: Map | None
    n_judged: int = 0  # images of train and val that have out-of-fold probabilities
    accuracy: float | None = None  # of these, out of fold
    why_no_features: str = ""


def find(run: Record, predictions: Sequence[Prediction], progress: Progress) -> Findings:
    """Look at the images of a run once more, by their features before any training."""
    doubts = _doubts_of_test(run, predictions)
    try:
        rows = read_frozen(run, progress)
        judged, probabilities = _judge(run, rows)
    except TransferError as error:
        return Findings(_ranked(doubts), [], None, why_no_features=" ".join(str(error).split()))
    labels = rows.labels[judged]
    doubts += [
        Doubt(_place(run, rows, judged[s.row]), run.classes[s.suggested], s.p_given, s.p_suggested, s.margin)
        for s in find_suspects(probabilities, labels)
    ]
    known = ~np.isnan(probabilities).any(axis=1)
    hits = probabilities[known].argmax(axis=1) == labels[known] if known.any() else np.zeros(0, bool)
    stages = np.array([_STAGES.get(part, 0) for part in rows.parts])
    look_alikes = [
        LookAlike(_place(run, rows, pair.row), _place(run, rows, pair.other), pair.cosine)
        for pair in find_pairs(rows.first_views, stages, rows.contents)
    ]
    return Findings(
        _ranked(doubts),
        look_alikes,
        _map(run, rows, predictions),
        n_judged=int(known.sum()),
        accuracy=float(hits.mean()) if len(hits) else None,
    )


def _judge(run: Record, rows: Rows) -> tuple[np.ndarray, np.ndarray]:
    """Return the rows of train and val, and their out-of-fold probabilities."""
    judged = np.flatnonzero(rows.parts != "test")
    probabilities = out_of_fold(
        rows.X[judged], rows.labels[judged], len(run.classes), rows.contents[judged], run.recipe.seed
    )
    return judged, probabilities


def _doubts_of_test(run: Record, predictions: Sequence[Prediction]) -> list[Doubt]:
    """Return the test images that the model itself doubts, by the two probabilities that the run keeps of each."""
    index = {name: i for i, name in enumerate(run.classes)}
    kept = [p for p in predictions if p.label_probability is not None and {p.label, p.predicted} <= index.keys()]
    labels = np.array([index[p.label] for p in kept], int)
    probabilities = np.zeros((len(kept), len(run.classes)))
    probabilities[np.arange(len(kept)), labels] = [p.label_probability for p in kept]
    probabilities[np.arange(len(kept)), [index[p.predicted] for p in kept]] = [p.probability for p in kept]
    return [
        Doubt(
            Place(kept[s.row].path, kept[s.row].label, "test", kept[s.row].content),
            run.classes[s.suggested],
            s.p_given,
            s.p_suggested,
            s.margin,
        )
        for s in find_suspects(probabilities, labels)
    ]


def _ranked(doubts: Sequence[Doubt]) -> list[Doubt]:
    return sorted(doubts, key=lambda doubt: (doubt.margin, doubt.image.path))


def _place(run: Record, rows: Rows, row: int) -> Place:
    label = run.classes[rows.labels[row]]
    return Place(rows.paths[row], label, str(rows.parts[row]), str(rows.contents[row]))


def _map(run: Record, rows: Rows, predictions: Sequence[Prediction]) -> Map:
    row_of = {path: i for i, path in enumerate(rows.paths) if rows.parts[i] == "test"}
    wrong = sorted((p for p in predictions if not p.is_right), key=lambda p: (-p.probability, p.path))
    mistakes = np.array([row_of[p.path] for p in wrong if p.path in row_of], int)
    return Map(project(rows.first_views, run.recipe.seed), rows.labels, mistakes)
