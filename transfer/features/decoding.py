"""Decoding: every image once, without a network, to know their sizes and which cannot be read."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

from transfer import machine
from transfer.dataset import Skipped
from transfer.images import MAX_PIXELS, UnreadableImage, decode
from transfer.progress import Advance


def decode_all(
    paths: Sequence[str], max_pixels: int = MAX_PIXELS, advance: Advance = lambda n: None
) -> tuple[dict[str, str], list[Skipped]]:
    """Decode every image in full, as an extraction would.

    Returns
    -------
    tuple
        The smallest, median and largest size, by area, as ``width x height``; and the images that cannot be read.
    """

    def size_of(path: str) -> tuple[int, int] | Skipped:
        try:
            height, width, _ = decode(path, max_pixels=max_pixels).shape
            return height, width
        except UnreadableImage as error:
            return Skipped(path, error.reason)

    sizes: list[tuple[int, int]] = []
    bad: list[Skipped] = []
    with ThreadPoolExecutor(machine.count_cores()) as pool:
        for found in pool.map(size_of, paths):
            bad.append(found) if isinstance(found, Skipped) else sizes.append(found)
            advance(1)
    sizes.sort(key=lambda size: size[0] * size[1])
    picks = {"smallest": 0, "median": len(sizes) // 2, "largest": -1} if sizes else {}
    return {name: f"{sizes[i][1]} x {sizes[i][0]}" for name, i in picks.items()}, bad
