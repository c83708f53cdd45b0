"""Pixels: what augmentation starts from, decoded in every epoch or kept decoded on disk.

Images come no larger than the smallest random crop needs them, and the standard view comes finished, so that decoding
anew and keeping give the same to the bit.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from transfer import machine
from transfer.cache import PIXELS, Filling, PixelCache, claim, open_pixels
from transfer.errors import DataError
from transfer.files import require_space
from transfer.images import MAX_PIXELS, Augmentation, Preprocessing, UnreadableImage, decode, shrink, view
from transfer.progress import Progress

_AHEAD = 8  # images per core that are decoded ahead
_SAMPLE = 8  # images that tell the size and the time of the others


class Pixels(Protocol):
    """Images of a dataset by their position in it."""

    are_views: bool  # the standard view already: nothing is left to draw

    def read(self, position: int) -> np.ndarray:
        """Return one image, uint8 (height, width, 3)."""
        ...


class DecodedPixels:
    """Images read from their files each time.

    Parameters
    ----------
    contents
        SHA-256 that the files had when they were scanned.
    exact
        Decode JPEGs in full, where otherwise a fraction of a large one is enough.
    """

    def __init__(
        self,
        paths: Sequence[str],
        contents: Sequence[str],
        preprocessing: Preprocessing,
        augmentation: Augmentation,
        *,
        max_pixels: int = MAX_PIXELS,
        exact: bool = False,
    ) -> None:
        self.paths, self.contents, self.preprocessing = paths, contents, preprocessing
        self.max_pixels, self.exact = max_pixels, exact
        self.are_views = augmentation == Augmentation()
        self.side = augmentation.needed_side(preprocessing)

    def read(self, position: int) -> np.ndarray:
        try:
            pixels = decode(
                self.paths[position],
                max_pixels=self.max_pixels,
                at_least=None if self.exact else self.side,
                content=self.contents[position],
            )
        except UnreadableImage as error:  # it could be read when its features were computed
            raise DataError(f"{error} It could be read at the start.") from error
        if self.are_views:
            return view(pixels, self.preprocessing).permute(1, 2, 0).numpy()
        return shrink(pixels, self.side, self.preprocessing.interpolation)

    def about(self) -> dict[str, object]:
        """Return what the key of a cache of these images must say."""
        return {
            "view": self.preprocessing.fingerprint(),  # and the version of decoding
            "side": None if self.are_views else self.side,
            "exact": self.exact,
            "max_pixels": self.max_pixels,
        }


class KeptPixels:
    """Images read from a cache that has them all."""

    def __init__(self, cache: PixelCache, contents: Sequence[str], are_views: bool) -> None:
        self.cache, self.contents, self.are_views = cache, contents, are_views

    def read(self, position: int) -> np.ndarray:
        return self.cache.image(self.contents[position])


@dataclass(frozen=True)
class PixelCost:
    """What keeping an image decoded takes, on average over a sample."""

    n_bytes: float
    seconds: float  # to decode it on one core


def measure_pixels(pixels: DecodedPixels) -> PixelCost:
    """Decode a few of the images, spread over all, and say what one costs."""
    positions = np.unique(np.linspace(0, len(pixels.paths) - 1, _SAMPLE).round().astype(int))
    started = time.perf_counter()
    n_bytes = sum(pixels.read(int(position)).nbytes for position in positions)
    return PixelCost(n_bytes / len(positions), (time.perf_counter() - started) / len(positions))


def keep_pixels(pixels: DecodedPixels, label: str, progress: Progress) -> KeptPixels:
    """Decode once, on all cores, what the user's cache does not have yet.

    Raises
    ------
    DataError
        An image cannot be read any more, or has changed.
    ResourceError
        There is no room for the images.
    """
    cache = open_pixels(pixels.about())
    kept = KeptPixels(cache, pixels.contents, pixels.are_views)

    def look() -> KeptPixels | None:
        cache.refresh()
        return None if cache.missing(pixels.contents) else kept

    with claim(PIXELS, pixels.about(), None, pixels.contents, look, progress.say) as complete:
        if not complete:
            missing = cache.missing(pixels.contents)
            require_space(cache.folder, int(measure_pixels(pixels).n_bytes * len(missing)))
            _decode_into(cache, pixels, missing, label, progress)
    return kept


def _decode_into(cache: PixelCache, pixels: DecodedPixels, missing: list[int], label: str, progress: Progress) -> None:
    def write(pieces: list[tuple[str, np.ndarray]]) -> None:
        cache.append([content for content, _ in pieces], [image for _, image in pieces])

    n_workers = machine.count_cores()
    images = machine.work_ahead(pixels.read, missing, n_workers=n_workers, n_ahead=_AHEAD * n_workers)
    with progress.task(label, len(missing)) as advance, Filling(write) as filling:
        for position, image in zip(missing, images, strict=True):
            filling.add((pixels.contents[position], image), 1, image.nbytes)
            advance(1)
