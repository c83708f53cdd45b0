"""Record: what of a run a report reads. It is the face of `runs.Run`, which lies above."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Protocol

from transfer.backbones import Backbone
from transfer.choice import Choice
from transfer.errors import ArtefactError
from transfer.features import Representation
from transfer.heads import Head
from transfer.recipe import Recipe

_NEEDED = {"backbone", "data", "head", "machine", "model", "seconds", "strategy", "versions", "weights"}


class Record(Protocol):
    """A complete run: its folder and its settings and numbers as read."""

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
        """The head."""

    @property
    def representation(self) -> Representation:
        """What of an image the head reads."""


def require_complete(run: Record, *more: str) -> None:
    """Refuse a run that lacks what a page or a card shows of it, `more` included.

    Raises
    ------
    ArtefactError
        It was written by another version, or changed.
    """
    if lacking := _NEEDED.union(more) - run.info.keys() or {"test"} - run.metrics.keys():
        raise ArtefactError(f"{run.path} lacks {min(lacking)!r}, which a run of this version has. Fit again.")
