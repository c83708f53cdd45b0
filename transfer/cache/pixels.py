"""Pixels: decoded images, each of its own size."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate
from typing import Any

import numpy as np

from transfer.cache.shards import Shards


class PixelCache(Shards):
    """Decoded images in one folder, keyed by the SHA-256 of the file's content."""

    def append(self, contents: Sequence[str], images: Sequence[np.ndarray]) -> None:
        """Write one shard: images uint8 (height, width, 3), image i belongs to the file with content i."""
        flat = np.concatenate([image.reshape(-1) for image in images])
        self._write(contents, flat, sizes=[list(image.shape[:2]) for image in images])

    def image(self, content: str) -> np.ndarray:
        """Return a copy of the image of that content, uint8 (height, width, 3)."""
        shard, (start, height, width) = self._where[content]
        return np.array(self._shards[shard][start : start + 3 * height * width]).reshape(height, width, 3)

    def _places(self, about: dict[str, Any]) -> Sequence[Any]:
        sizes = about["sizes"]
        starts = accumulate((3 * height * width for height, width in sizes), initial=0)
        return [(start, height, width) for start, (height, width) in zip(starts, sizes, strict=False)]
