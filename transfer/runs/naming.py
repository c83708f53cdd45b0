"""Naming: where a new run goes."""

from __future__ import annotations

import os
from pathlib import Path

from transfer.dataset import Source, display
from transfer.files import require_new


def reserve(data: Source, strategy: str, out: str | Path | None, *, test: Source | None = None) -> Path:
    """Return the folder that a new run will get, after one trial write beside it.

    By default it is named after the data, of both domains where there are two, and the strategy.

    Raises
    ------
    UsageError
        The folder exists and is not empty.
    ResourceError
        It cannot be written.
    """
    if out is not None:
        folder = Path(out)
    else:
        stem = folder_name(data, strategy, test=test)
        taken = (Path("runs") / (f"{stem}-{i}" if i > 1 else stem) for i in range(1, 10_000))
        folder = next(candidate for candidate in taken if not candidate.exists())
    require_new(folder)
    return folder


def folder_name(data: Source, what: str, *, test: Source | None = None) -> str:
    """Return the name of the folder of what is made of some data, or of two domains."""
    name = _name(data) if test is None else f"{_name(data)}-to-{_name(test)}"
    return f"{name}-{what}"


def _name(data: Source) -> str:
    if isinstance(data, (str, os.PathLike)):
        return _harmless(Path(data).absolute().name.removesuffix(".csv") or "data")
    return "lists"


def _harmless(name: str) -> str:
    """Return a folder name made of letters, digits, dot, dash and underscore."""
    return "".join(c if c.isalnum() or c in "._-" else "_" for c in display(name))[:80].lstrip(".-") or "data"
