"""Cells of a benchmark that goes on where it stopped: a JSON line each, in a file."""

from __future__ import annotations

import json
from pathlib import Path


def read_cells(path: Path) -> list[dict]:
    """Return what earlier calls have measured."""
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def add_cell(path: Path, known: list[dict], row: dict) -> None:
    """Add a row to those that are known and to the file, and print it."""
    known.append(row)
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "a") as out:
        out.write(json.dumps(row) + "\n")
    print(json.dumps(row), flush=True)
