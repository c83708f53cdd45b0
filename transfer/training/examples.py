"""Examples: what the trainee sees in an epoch, from activations or decoded images."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Protocol

import numpy as np
import torch

from transfer import machine
from transfer.cache import ActivationCache
from transfer.errors import DataError
from transfer.features import Runner
from transfer.images import (
    STANDARD,
    Augmentation,
    Preprocessing,
    RandomView,
    generator_for,
    normalise,
    random_view,
    stack,
)
from transfer.training.pixels import Pixels

_AHEAD = 2  # batches that are made ready while one is trained on


class Examples(Protocol):
    """Labelled images as inputs of the trainee."""

    labels: np.ndarray

    def batches(self, order: Sequence[np.ndarray], epoch: int) -> Iterator[torch.Tensor]:
        """Yield the inputs (B, ...) in float32 of each row of positions in `order`, as epoch number `epoch` sees them.

        What an image looks like in an epoch depends on the seed, the epoch and its position alone.
        """
        ...


class CachedExamples:
    """Activations at the cut, one cache for each view; an epoch draws one view of each image.

    Memory holds the batches in flight, as the caches are memory-mapped.
    """

    def __init__(
        self, views: Sequence[ActivationCache], contents: Sequence[str], labels: np.ndarray, seed: int
    ) -> None:
        self.views, self.contents, self.labels, self.seed = views, contents, labels, seed

    def batches(self, order: Sequence[np.ndarray], epoch: int) -> Iterator[torch.Tensor]:
        drawn = generator_for("which view", self.seed, epoch).integers(len(self.views), size=len(self.contents))

        def gather(positions: np.ndarray) -> torch.Tensor:
            rows: np.ndarray | None = None
            for k in np.unique(drawn[positions]):
                here = np.flatnonzero(drawn[positions] == k)
                found = self.views[k].rows([self.contents[positions[i]] for i in here])
                if rows is None:
                    rows = np.empty((len(positions), *found.shape[1:]), np.float32)
                rows[here] = found
            assert rows is not None
            return torch.from_numpy(rows)

        return machine.work_ahead(gather, order, n_workers=1, n_ahead=_AHEAD)


class PixelExamples:
    """Images at the pixels, augmented and normalised as they are needed, on all cores."""

    def __init__(
        self,
        pixels: Pixels,
        labels: np.ndarray,
        preprocessing: Preprocessing,
        augmentation: Augmentation,
        seed: int,
    ) -> None:
        self.pixels, self.labels = pixels, labels
        self.preprocessing, self.augmentation, self.seed = preprocessing, augmentation, seed

    def batches(self, order: Sequence[np.ndarray], epoch: int) -> Iterator[torch.Tensor]:
        def look(positions: np.ndarray) -> torch.Tensor:
            views = stack([self._view(int(position), epoch) for position in positions])
            return normalise(views, self.preprocessing, torch.float32, torch.channels_last)

        # one torch thread each: they decode beside the training, which has the cores
        return machine.work_ahead(look, order, n_workers=machine.count_cores(), n_ahead=_AHEAD)

    def _view(self, position: int, epoch: int) -> torch.Tensor:
        pixels = self.pixels.read(position)
        if self.pixels.are_views:
            return torch.from_numpy(pixels).permute(2, 0, 1)
        rng = generator_for("live view", self.seed, epoch, position)
        return random_view(pixels, self.preprocessing, self.augmentation, rng)


class LivePrefixExamples:
    """Activations at the cut that are computed when they are needed, where there is no room to keep them.

    The frozen part runs as it does for the cache, and a random view is number `epoch` of those that a cache would hold,
    so that without augmentation the rows are the cached ones to the bit.

    Parameters
    ----------
    dtype
        That a cache would keep the rows in.
    """

    def __init__(
        self, runner: Runner, labels: np.ndarray, augmentation: Augmentation, seed: int, dtype: str = "float32"
    ) -> None:
        self.runner, self.labels, self.augmentation, self.seed = runner, labels, augmentation, seed
        self.dtype = np.dtype(dtype)

    def batches(self, order: Sequence[np.ndarray], epoch: int) -> Iterator[torch.Tensor]:
        is_random = self.augmentation != Augmentation()
        self.runner.views = (RandomView(self.augmentation, self.seed, epoch) if is_random else STANDARD,)
        positions = [int(position) for batch in order for position in batch]
        waiting = np.empty((0,))
        wanted = iter([len(batch) for batch in order])
        size = next(wanted, 0)
        for found in self.runner.run(positions):
            if found.bad:
                position, reason = found.bad[0]
                raise DataError(f"{self.runner.sources[position]} cannot be read any more: {reason}.")
            (rows,) = found.views[0].values()
            waiting = np.concatenate([waiting, rows]) if len(waiting) else rows
            while size and len(waiting) >= size:
                yield torch.from_numpy(waiting[:size].astype(self.dtype).astype(np.float32))
                waiting, size = waiting[size:], next(wanted, 0)
