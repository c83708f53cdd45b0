"""Blocks: rows a piece at a time, so that temporary arrays do not grow with the number of images."""

from __future__ import annotations

from collections.abc import Iterator

BLOCK = 4_000_000  # numbers per temporary array


def row_blocks(n: int, width: int) -> Iterator[slice]:
    """Yield slices over n rows so that a block of `width` columns stays small."""
    height = max(1, BLOCK // max(width, 1))
    for start in range(0, n, height):
        yield slice(start, min(start + height, n))
