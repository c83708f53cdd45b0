"""Memo: what was measured on this machine, remembered between processes."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path
from typing import Any

from transfer.errors import ResourceError
from transfer.files import cache_folder, make_folder, write_json


class Memo:
    """A JSON file of values by key, in the cache folder or another one.

    Nothing depends on it: a file that is lost or damaged is one more measurement, and one that cannot be written is no
    reason to stop.
    """

    def __init__(self, name: str, folder: Path | None = None) -> None:
        self.path = (folder or cache_folder()) / f"{name}.json"

    def read(self, key: str) -> Any:
        """Return what was written under `key`, None where nothing was."""
        return self._read_all().get(key)

    def write(self, key: str, value: Any) -> None:
        """Remember a JSON value under `key`."""
        with contextlib.suppress(ResourceError):
            make_folder(self.path.parent)
            write_json(self.path, {**self._read_all(), key: value})

    def _read_all(self) -> dict[str, Any]:
        try:
            known = json.loads(self.path.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return {}
        return known if isinstance(known, dict) else {}
