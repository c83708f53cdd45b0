"""Shards: files of rows in one folder, found again by the content of the image that each row belongs to.

Each shard is written whole under the checksum of its own content and never changed. So a killed process loses at most
the rows in flight, processes that share a folder cannot disturb each other, an image that is added or renamed costs one
row or none, and a flipped bit is noticed: the shard is dropped and its rows are computed again.
"""

from __future__ import annotations

import hashlib
import json
import logging
import mmap
import os
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from transfer.errors import ResourceError
from transfer.files import remove, write_bytes

_SUFFIX = ".safetensors"
_ROWS = "rows"
_TYPES = {"F32": np.float32, "F16": np.float16, "U8": np.uint8}
log = logging.getLogger(__name__)


class Shards:
    """All shards of one folder, memory-mapped; content is the SHA-256 of the image's file."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._shards: list[np.ndarray] = []
        self._where: dict[str, tuple[int, Any]] = {}  # shard, and place in it
        self._notes: list[str] = []  # of each shard
        self._names: set[str] = set()
        self.refresh()

    def refresh(self) -> None:
        """Open the shards that other processes have written since."""
        for path in sorted(self.folder.glob(f"*{_SUFFIX}")):
            if path.name not in self._names:
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

    def by_note(self, contents: Iterable[str]) -> dict[str, list[str]]:
        """Return those of the contents that have a row by the note that their shard was written with, if any."""
        found: dict[str, list[str]] = {}
        for content in contents:
            if (where := self._where.get(content)) and (note := self._notes[where[0]]):
                found.setdefault(note, []).append(content)
        return found

    def _write(self, contents: Sequence[str], rows: np.ndarray, **about: Any) -> None:
        from safetensors.numpy import save

        texts = {name: json.dumps(value) for name, value in {"contents": list(contents), **about}.items()}
        data = save({_ROWS: np.ascontiguousarray(rows)}, metadata=texts)
        path = self.folder / f"{hashlib.sha256(data).hexdigest()}{_SUFFIX}"
        write_bytes(path, data)
        self._open(path, verified=True)

    def _open(self, path: Path, verified: bool = False) -> None:
        try:
            data = _map(path)
        except FileNotFoundError:  # another process has dropped it
            return
        except OSError as error:
            raise ResourceError(f"Cannot open {path}: {error.strerror}. `ulimit -n` tells how many may be.") from error
        try:
            if not verified and hashlib.sha256(data).hexdigest() != path.name.removesuffix(_SUFFIX):
                raise ValueError("its checksum does not fit")
            header_bytes = int.from_bytes(data[:8], "little")
            header = json.loads(data[8 : 8 + header_bytes])
            about = {name: json.loads(text) for name, text in header["__metadata__"].items()}
            shape, dtype = header[_ROWS]["shape"], _TYPES[header[_ROWS]["dtype"]]
            rows = np.frombuffer(data, dtype, int(np.prod(shape)), 8 + header_bytes).reshape(shape)
            places, note = self._places(about), str(about.get("note", ""))
        except (ValueError, KeyError, TypeError) as error:
            log.warning("Cached rows in %s are damaged (%s); computing them again.", path.name, error)
            remove(path)
            return
        self._names.add(path.name)
        self._shards.append(rows)
        self._notes.append(note)
        number = len(self._shards) - 1
        self._where.update((content, (number, place)) for content, place in zip(about["contents"], places, strict=True))

    def _places(self, about: dict[str, Any]) -> Sequence[Any]:
        """Return where in its shard the row of each content lies."""
        return range(len(about["contents"]))


def _map(path: Path) -> mmap.mmap | bytes:
    """Map a file into memory; from Python 3.13 on without keeping it open, of which a process may have few."""
    untracked = {"trackfd": False} if sys.version_info >= (3, 13) else {}
    with open(path, "rb") as source:
        if not os.fstat(source.fileno()).st_size:
            return b""  # nothing to map
        return mmap.mmap(source.fileno(), 0, access=mmap.ACCESS_READ, **untracked)
