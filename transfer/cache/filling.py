"""Filling: rows are collected until they make a shard of a good size."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Generic, TypeVar

T = TypeVar("T")

_SHARD_BYTES = 64 << 20
_SHARD_ROWS = 2048
_SHARD_SECONDS = 20.0  # a killed process loses no more than this


class Filling(Generic[T]):
    """Collects pieces, and hands them over to `write` when they are many, large or late, and at the end of the block.

    Also where the block ends by an error or an interrupt: what has been computed stays.
    """

    def __init__(self, write: Callable[[list[T]], None]) -> None:
        self._write = write
        self._clear()

    def __enter__(self) -> Filling[T]:
        return self

    def __exit__(self, *_: object) -> None:
        self.flush()

    def add(self, piece: T, n_rows: int, n_bytes: int) -> None:
        """Take one piece, whole: an interrupt must not part rows from their images."""
        self._pieces.append(piece)
        self._n_rows += n_rows
        self._n_bytes += n_bytes
        is_late = time.perf_counter() - self._started > _SHARD_SECONDS
        if self._n_bytes >= _SHARD_BYTES or self._n_rows >= _SHARD_ROWS or is_late:
            self.flush()

    def flush(self) -> None:
        """Write what has been collected."""
        if self._pieces:
            self._write(self._pieces)
        self._clear()

    def _clear(self) -> None:
        self._pieces: list[T] = []
        self._n_rows = self._n_bytes = 0
        self._started = time.perf_counter()
