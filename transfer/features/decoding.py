"""Decoding: every image once, without a network, to know their sizes and which cannot be read."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

from transfer import machine
from transfer.dataset import Dataset, Skipped, display, require_faultless
from transfer.dataset.names import count
from transfer.images import LONGEST_ASPECT, MAX_PIXELS, UnreadableImage, decode
from transfer.progress import Advance, Progress

_TINY = 10  # pixels of the shorter side, below which Ultralytics refuses an image


class Decoded(NamedTuple):
    """What decoding every image says of a dataset."""

    pixels: dict[str, str]  # the smallest, median and largest size, by area, as ``width x height``
    notes: list[str]  # about images that are tiny or of an odd shape
    unreadable: list[Skipped]


def decode_all(dataset: Dataset, max_pixels: int = MAX_PIXELS, advance: Advance = lambda n: None) -> Decoded:
    """Decode every image in full, as an extraction would."""

    def size_of(path: str) -> tuple[int, int] | Skipped:
        try:
            height, width, _ = decode(path, max_pixels=max_pixels).shape
            return width, height
        except UnreadableImage as error:
            return Skipped(path, error.reason)

    sizes: list[tuple[int, int]] = []
    bad: list[Skipped] = []
    tiny: list[str] = []
    long: list[str] = []
    with ThreadPoolExecutor(machine.count_cores()) as pool:
        for i, found in enumerate(pool.map(size_of, dataset.paths)):
            advance(1)
            if isinstance(found, Skipped):
                bad.append(found)
                continue
            sizes.append(found)
            for odd, of_this_kind in ((min(found) < _TINY, tiny), (max(found) > LONGEST_ASPECT * min(found), long)):
                if odd:
                    of_this_kind.append(f"'{display(dataset.relative(i))}' ({_shown(found)})")
    kinds = ((f"with a side under {_TINY} pixels", tiny), (f"more than {LONGEST_ASPECT} times as long as wide", long))
    notes = [f"{count(len(odd), 'image')} {what}, such as {odd[0]}." for what, odd in kinds if odd]
    sizes.sort(key=lambda size: size[0] * size[1])
    picks = {"smallest": 0, "median": len(sizes) // 2, "largest": -1} if sizes else {}
    return Decoded({name: _shown(sizes[i]) for name, i in picks.items()}, notes, bad)


def require_strictly(dataset: Dataset, max_pixels: int, progress: Progress) -> None:
    """Refuse a dataset with any fault, before anything is made of it; every image is decoded to know.

    Raises
    ------
    DataError
        It says what is wrong.
    """
    with progress.task("Decoding every image", len(dataset)) as advance:
        unreadable = decode_all(dataset, max_pixels, advance).unreadable
    require_faultless(dataset.without(unreadable))


def _shown(size: tuple[int, int]) -> str:
    return f"{size[0]} x {size[1]}"
