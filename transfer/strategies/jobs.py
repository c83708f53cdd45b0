"""Job: everything that a strategy works on, and what it hands back."""

from __future__ import annotations

import contextlib
import dataclasses
import math
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from transfer.backbones import Backbone
from transfer.dataset import Dataset, Split
from transfer.features import Extraction, Representation
from transfer.heads import FittedHead
from transfer.novelty import NoveltyDetector, choose_references
from transfer.progress import Progress
from transfer.recipe import Recipe
from transfer.strategies.tapping import TapChoice
from transfer.training import Checkpoints


class Clock:
    """Remembers how long each step took, and when it all has to be over."""

    def __init__(self, minutes: float | None = None) -> None:
        self.seconds: dict[str, float] = {}
        self.deadline = time.perf_counter() + 60 * minutes if minutes else math.inf

    @contextlib.contextmanager
    def time(self, step: str) -> Iterator[None]:
        """Add the time that the block takes to that of `step`."""
        started = time.perf_counter()
        yield
        self.seconds[step] = round(self.seconds.get(step, 0.0) + time.perf_counter() - started, 3)

    def aside(self, seconds: float) -> Clock:
        """Return a clock that ends in so many seconds, if not before, for work whose steps are not remembered here."""
        clock = Clock()
        clock.deadline = min(self.deadline, time.perf_counter() + seconds)
        return clock


@dataclasses.dataclass(frozen=True)
class Job:
    """A dataset whose images can all be read, split, with the features of the frozen network."""

    recipe: Recipe
    dataset: Dataset
    split: Split
    backbone: Backbone
    representation: Representation
    X: np.ndarray  # (N, d) or (N, views, d): what the head reads of image i of the dataset
    progress: Progress
    clock: Clock
    cut: str | None = None  # None: the whole network stays frozen
    seconds_per_image: float = 0.0  # of the frozen network, decoding included; 0: not known
    extraction: Extraction | None = None  # of these images and perhaps others, where other taps can be read too
    taps: TapChoice | None = None  # how the taps were found, where they were searched for
    is_chosen: bool = False  # by the labels of train and val: a cross-validation over them would be flattered
    n_put_aside: int = 0  # images of test that were taken out, for which the end still needs time
    resume: bool = False
    log: str | None = None  # also write the history as `training.LOGS` names it ...
    log_folder: Path = Path()  # ... into this folder

    @property
    def computed_in(self) -> str | None:
        """The type in which the network computed what the head reads; None where that is not known."""
        return self.extraction.computed_in if self.extraction else None

    def references(self, width: int) -> np.ndarray:
        """Return the training images that are remembered to tell what is unknown, where features have this width."""
        train = self.split.indices("train")
        return train[choose_references(self.dataset.labels[train], width, self.recipe.seed)]

    def with_head(self, recipe: Recipe) -> Job:
        """Return the job with the recipe of another head, which may read other taps that have been computed."""
        if recipe.taps == self.representation.taps:
            return dataclasses.replace(self, recipe=recipe)
        assert self.extraction is not None
        read = Representation.from_settings(recipe.taps, recipe.features)
        X = self.extraction.represent(read, self.dataset.hashes)
        return dataclasses.replace(self, recipe=recipe, representation=read, X=X)


@dataclasses.dataclass(frozen=True)
class Trained:
    """A network with its head, before it is reported on."""

    backbone: Backbone
    fitted: FittedHead
    X_test: np.ndarray  # what the head sees of the test images
    scores: dict[str, Any]  # on val, and where it helps by cross-validation
    detector: NoveltyDetector | None  # of images unlike the training images; None: too few to tell
    computed_in: str | None = None  # the type of the network's numbers when X_test was computed; None: not known
    history: list[dict[str, Any]] = dataclasses.field(default_factory=list)  # one line per epoch
    about: dict[str, Any] = dataclasses.field(default_factory=dict)  # for run.json
    checkpoints: list[Checkpoints] = dataclasses.field(default_factory=list)  # to be cleared when the run is written
