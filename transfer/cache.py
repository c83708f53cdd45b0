"""Cache: activations of images on disk, found again by the content of the image.

One folder holds one kind of row: these weights, this tap, this view, this type. It fills with shards, each written
whole under the checksum of its own content and never changed. So a killed process loses at most the rows in flight,
processes that share a folder cannot disturb each other, an image that is added or renamed costs one row or none, and a
flipped bit is noticed: the shard is dropped and its rows are computed again.
"""

from __future__ import annotations

import atexit
import contextlib
import functools
import hashlib
import json
import logging
import mmap
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from transfer.errors import ResourceError
from transfer.files import cache_folder, require_writable, sweep, write_bytes, write_json

_FORMAT = 1  # raise it when rows of the same key would come out differently
_SUFFIX = ".safetensors"
_ROWS = "rows"
log = logging.getLogger(__name__)


def open_cache(about: dict[str, Any], folder: Path | None = None) -> ActivationCache:
    """Open the cache for rows that `about` describes completely; create it where there is none.

    Where the user's cache folder cannot be written, a temporary one serves, and a warning says so.
    """
    about = {**about, "format": _FORMAT}
    key = hashlib.sha256(json.dumps(about, sort_keys=True).encode()).hexdigest()[:24]
    place = (folder or cache_folder()) / "activations" / key
    try:
        require_writable(place)
    except ResourceError as error:
        place = _temporary_folder() / key
        require_writable(place)
        log.warning("%s Activations of this run are kept in %s.", error, place)
    if not (place / "about.json").exists():
        write_json(place / "about.json", about)
    sweep(place)
    return ActivationCache(place)


@functools.cache
def _temporary_folder() -> Path:
    """Return one folder for this process, which goes when it ends."""
    folder = Path(tempfile.mkdtemp(prefix="transfer-cache-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


class ActivationCache:
    """Rows of activations in one folder, keyed by the SHA-256 of the image's content."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._shards: list[np.ndarray] = []
        self._where: dict[str, tuple[int, int]] = {}
        for path in sorted(folder.glob(f"*{_SUFFIX}")):
            self._open(path)

    def __contains__(self, content: str) -> bool:
        return content in self._where

    def missing(self, contents: Sequence[str]) -> list[int]:
        """Return the positions of the contents that have no row yet, each content once."""
        first: dict[str, int] = {}
        for position, content in enumerate(contents):
            if content not in self._where:
                first.setdefault(content, position)
        return list(first.values())

    def append(self, contents: Sequence[str], rows: np.ndarray) -> None:
        """Write one shard: row i belongs to the image with content i."""
        from safetensors.numpy import save

        data = save({_ROWS: np.ascontiguousarray(rows)}, metadata={"contents": json.dumps(list(contents))})
        path = self.folder / f"{hashlib.sha256(data).hexdigest()}{_SUFFIX}"
        write_bytes(path, data)
        self._open(path, verified=True)

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

    def _open(self, path: Path, verified: bool = False) -> None:
        try:
            with open(path, "rb") as source:
                data = mmap.mmap(source.fileno(), 0, access=mmap.ACCESS_READ)
            if not verified and hashlib.sha256(data).hexdigest() != path.name.removesuffix(_SUFFIX):
                raise ValueError("its checksum does not fit")
            header_bytes = int.from_bytes(data[:8], "little")
            header = json.loads(data[8 : 8 + header_bytes])
            contents = json.loads(header["__metadata__"]["contents"])
            tensor = header[_ROWS]
            dtype = {"F32": np.float32, "F16": np.float16, "U8": np.uint8}[tensor["dtype"]]
            rows = np.frombuffer(data, dtype, int(np.prod(tensor["shape"])), 8 + header_bytes).reshape(tensor["shape"])
        except (OSError, ValueError, KeyError, TypeError) as error:
            log.warning("Cached activations in %s are damaged (%s); computing them again.", path.name, error)
            with contextlib.suppress(OSError):
                path.unlink()
            return
        self._shards.append(rows)
        self._where.update((content, (len(self._shards) - 1, row)) for row, content in enumerate(contents))
