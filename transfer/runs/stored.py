"""Stored: what a run folder has to hold; it may come from a stranger."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from transfer.dataset import Source
from transfer.errors import ArtefactError
from transfer.files import sha256

FORMAT = "transfer run 3"
COMPLETE = "complete"


class _StoredModel(BaseModel):
    head: str
    timm: bool
    why_not_timm: str
    sha256: str


class _StoredHead(BaseModel):
    form: dict[str, Any]


class _StoredNovelty(BaseModel):
    n_val: int
    sha256: str


class Stored(BaseModel):
    """What run.json must have for its model to be read; it may come from a stranger. The rest is for pages."""

    model_config = ConfigDict(strict=True)
    classes: list[str] = Field(min_length=1)
    backbone: str
    model: _StoredModel
    head: _StoredHead
    representation: dict[str, Any]
    preprocessing: dict[str, Any]
    novelty: _StoredNovelty | None = None
    sha256: dict[str, str] = {}  # of tables and settings; runs of earlier versions have none


def read_json(path: Path) -> Any:
    """Return what a JSON file of a run has.

    Raises
    ------
    ArtefactError
        It is missing, or no JSON.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise ArtefactError(f"Cannot read {path}: {error}. Fit again.") from error


def require_unchanged(path: Path, info: dict[str, Any]) -> None:
    """Compare the tables and settings of a run with their checksums, which runs of earlier versions lack.

    Raises
    ------
    ArtefactError
        A file is missing or has changed.
    """
    for name, checksum in info.get("sha256", {}).items():
        if Path(name).name != name or not (path / name).is_file() or sha256(path / name) != checksum:
            raise ArtefactError(f"{path / name} is missing or has changed since the run was written. Fit again.")


def require_as_written(source: Source | None) -> None:
    """Where a table lies in a run folder, such as its split.csv, compare it with its checksum there.

    Raises
    ------
    ArtefactError
        It has changed.
    """
    if not isinstance(source, (str, os.PathLike)) or not Path(source).is_file():
        return
    try:
        known = read_json(Path(source).parent / "run.json")["sha256"][Path(source).name]
    except (ArtefactError, LookupError, TypeError):
        return  # no run lies there, or one of an earlier version
    if sha256(source) != known:
        raise ArtefactError(f"{source} has changed since its run was written. To use it so, copy it elsewhere.")
