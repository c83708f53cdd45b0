"""Record: what of a run is exported. It is the face of `runs.Run`, which lies above."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

from transfer.predictions import Predictions
from transfer.report import records


class Record(records.Record, Protocol):
    """A complete run that a report can read, and that classifies images."""

    def predict(
        self, images: Sequence[Any] | str | Path, *, device: str, exact: bool | None, unknown: bool, max_pixels: int
    ) -> Predictions:
        """Classify images."""


def rounded_in(run: Record) -> str | None:
    """Return the type in which the run's numbers were measured, where that is not the float32 of every export."""
    kind: str | None = run.info.get("computed_in")
    return None if kind == "float32" else kind
