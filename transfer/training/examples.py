"""Examples: what the trainee sees in an epoch, from activations on disk or from images decoded as they are needed."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Protocol

import numpy as np
import torch

from transfer import machine
from transfer.cache import ActivationCache
from transfer.errors import DataError
from transfer.features import Runner
from transfer.images import (
    MAX_PIXELS,
    Augmentation,
    Preprocessing,
    RandomView,
    UnreadableImage,
    decode,
    normalise,
    random_view,
    stack,
)

_AHEAD = 2  # batches that are made ready while one is trained on


class Examples(Protocol):
    """Labelled images as inputs of the trainee."""

    labels: np.ndarray

    def batches(self, order: Sequence[np.ndarray], epoch: int) -> Iterator[torch.Tensor]:
        """Yield the inputs (B, ...) in float32 of each row of positions in `order`, as epoch number `epoch` sees them.

        What an image looks like in an epoch depends on the seed, the epoch and the image alone.
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
        drawn = np.random.default_rng([self.seed, epoch]).integers(len(self.views), size=len(self.contents))

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

        return _ahead(gather, order, n_threads=1)


class LiveExamples:
    """Images decoded, augmented and normalised as they are needed, on all cores."""

    def __init__(
        self,
        paths: Sequence[str],
        contents: Sequence[str],
        labels: np.ndarray,
        preprocessing: Preprocessing,
        augmentation: Augmentation,
        seed: int,
        max_pixels: int = MAX_PIXELS,
    ) -> None:
        self.paths, self.contents, self.labels = paths, contents, labels
        self.preprocessing, self.augmentation = preprocessing, augmentation
        self.seed, self.max_pixels = seed, max_pixels

    def batches(self, order: Sequence[np.ndarray], epoch: int) -> Iterator[torch.Tensor]:
        def look(positions: np.ndarray) -> torch.Tensor:
            views = stack([self._view(int(position), epoch) for position in positions])
            return normalise(views, self.preprocessing, torch.float32, torch.channels_last)

        return _ahead(look, order, n_threads=machine.count_cores())

    def _view(self, position: int, epoch: int) -> torch.Tensor:
        try:
            pixels = decode(self.paths[position], max_pixels=self.max_pixels, content=self.contents[position])
        except UnreadableImage as error:  # it could be read when its features were computed
            raise DataError(f"{error} It could be read at the start.") from error
        return random_view(pixels, self.preprocessing, self.augmentation, view_rng(self.seed, epoch, position))


class LivePrefixExamples:
    """Activations at the cut that are computed when they are needed, where there is no room to keep them.

    The frozen part runs as it does for the cache, so the rows are the same to the bit.
    """

    def __init__(self, runner: Runner, labels: np.ndarray, augmentation: Augmentation, seed: int) -> None:
        self.runner, self.labels, self.augmentation, self.seed = runner, labels, augmentation, seed

    def batches(self, order: Sequence[np.ndarray], epoch: int) -> Iterator[torch.Tensor]:
        is_random = self.augmentation != Augmentation()
        self.runner.random_view = RandomView(self.augmentation, self.seed, epoch) if is_random else None
        for positions in order:
            batches = list(self.runner.run(positions.tolist()))
            if bad := [reason for batch in batches for reason in batch.bad]:
                raise DataError(f"{self.runner.sources[bad[0][0]]} cannot be read any more: {bad[0][1]}.")
            yield torch.from_numpy(np.concatenate([rows for batch in batches for rows in batch.rows.values()]))


def view_rng(*what_for: int) -> np.random.Generator:
    """Return the generator of one view, which depends on nothing but what the view is for."""
    return np.random.default_rng(what_for)


def _ahead(
    make: Callable[[np.ndarray], torch.Tensor], order: Sequence[np.ndarray], n_threads: int
) -> Iterator[torch.Tensor]:
    """Yield `make(positions)` in order, a few made ahead by threads."""
    with ThreadPoolExecutor(n_threads) as threads:
        waiting: deque[Future[torch.Tensor]] = deque()
        try:
            for positions in order:
                waiting.append(threads.submit(make, positions))
                if len(waiting) > _AHEAD:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()
