"""Prediction: what a run said of one test image, read back from predictions.csv."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from transfer.errors import ArtefactError
from transfer.report.files import names_in_tables
from transfer.report.records import Record
from transfer.report.tables import read_rows


@dataclasses.dataclass(frozen=True)
class Prediction:
    """One test image: where it was, what it is, what it was taken for, and with which probability."""

    path: str
    label: str
    predicted: str
    probability: float
    label_probability: float | None  # None in runs of earlier versions, as below
    uncalibrated: float | None  # probability of the predicted class before the temperature
    content: str | None  # SHA-256 when it was scanned

    @property
    def is_right(self) -> bool:
        """Whether it was taken for what it is."""
        return self.label == self.predicted


def read_predictions(run: Record) -> list[Prediction]:
    """Return the predictions of a run for its test images, in their order.

    Raises
    ------
    ArtefactError
        The tables of the run are missing or damaged.
    """
    stored = names_in_tables(run.classes)
    try:
        contents = {row["path"]: row["sha256"] for row in read_rows(run.path / "split.csv") if row["split"] == "test"}
        return [
            Prediction(
                row["path"],
                stored.get(row["label"], row["label"]),
                stored.get(row["predicted"], row["predicted"]),
                float(row["probability"]),
                _number(row.get("label_probability")),
                _number(row.get("uncalibrated_probability")),
                contents.get(row["path"]) or None,
            )
            for row in read_rows(run.path / "predictions.csv")
        ]
    except (KeyError, TypeError, ValueError) as error:
        raise ArtefactError(f"The tables in {run.path} lack what a run has ({error}). Fit again.") from error


def surest_mistakes(predictions: Sequence[Prediction], n: int) -> list[Prediction]:
    """Return the `n` wrong predictions of the highest probability, surest first."""
    return sorted((p for p in predictions if not p.is_right), key=lambda p: (-p.probability, p.path))[:n]


def least_sure(predictions: Sequence[Prediction], n: int) -> list[Prediction]:
    """Return the `n` predictions of the lowest probability, least sure first, right or wrong."""
    return sorted(predictions, key=lambda p: (p.probability, p.path))[:n]


def _number(text: str | None) -> float | None:
    return float(text) if text else None
