"""Activations: one row of the same shape and type for each image."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from transfer.cache.shards import Shards


class ActivationCache(Shards):
    """Rows of activations in one folder, keyed by the SHA-256 of the image's content."""

    def append(self, contents: Sequence[str], rows: np.ndarray, note: str = "") -> None:
        """Write one shard: row i belongs to the image with content i; the `note` says how they were computed."""
        self._write(contents, rows, note=note)

    def rows(self, contents: Sequence[str]) -> np.ndarray:
        """Return the rows of these contents, in their order, as one array (len(contents), ...)."""
        first = self._shards[self._where[contents[0]][0]]
        out = np.empty((len(contents), *first.shape[1:]), first.dtype)
        where = np.array([self._where[content] for content in contents])
        for shard in np.unique(where[:, 0]):
            here = np.flatnonzero(where[:, 0] == shard)
            out[here] = self._shards[shard][where[here, 1]]
        return out

    def chunks(self, contents: Sequence[str], n_rows: int = 1024) -> Iterator[np.ndarray]:
        """Yield the rows of these contents in their order, `n_rows` at a time."""
        for start in range(0, len(contents), n_rows):
            yield self.rows(contents[start : start + n_rows])
