"""Record: what of a run is exported. It is the face of `runs.Run`, which lies above."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

from transfer.backbones import Backbone
from transfer.choice import Choice
from transfer.features import Representation
from transfer.heads import Head
from transfer.predictions import Predictions
from transfer.recipe import Recipe


class Record(Protocol):
    """A complete run: its folder, its settings and numbers, and its model."""

    path: Path
    info: dict[str, Any]
    classes: tuple[str, ...]
    metrics: dict[str, Any]

    @property
    def recipe(self) -> Recipe:
        """The settings with every default."""

    @property
    def choice(self) -> Choice | None:
        """Which strategy was chosen and why, where the recipe was `auto`."""

    @property
    def backbone(self) -> Backbone:
        """The network without its head."""

    @property
    def head(self) -> Head:
        """The head; where it is linear, the temperature is in its weights."""

    @property
    def representation(self) -> Representation:
        """What of an image the head reads."""

    def predict(
        self, images: Sequence[Any] | str | Path, *, device: str, exact: bool | None, unknown: bool, max_pixels: int
    ) -> Predictions:
        """Classify images."""
