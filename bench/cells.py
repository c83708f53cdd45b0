"""Cells of a benchmark that goes on where it stopped: a JSON line each, in a file."""

from __future__ import annotations

import argparse
import itertools
import json
from collections.abc import Callable
from pathlib import Path

Measure = Callable[[Path, str, int, list[str]], dict]  # of folder, images per class, seed and settings


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


def measure_grid(about: str, per_class: str, out: Path, measure: Measure) -> list[dict]:
    """Read the command line of a script that measures datasets x images per class x seeds; return all cells.

    Parameters
    ----------
    about
        What the script says of itself.
    per_class, out
        Where the command line does not say.
    """
    parser = argparse.ArgumentParser(description=about, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", nargs="*", type=Path)
    parser.add_argument("--per-class", default=per_class)
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--set", dest="settings", action="append", default=[])
    parser.add_argument("--out", type=Path, default=out)
    parser.add_argument("--show", action="store_true")
    arguments = parser.parse_args()
    known = read_cells(arguments.out)
    grid = itertools.product(arguments.per_class.split(","), range(arguments.seeds), arguments.folders)
    for size, seed, folder in grid if not arguments.show else ():
        cell = [folder.name, size, seed, sorted(arguments.settings)]
        if cell not in [row["cell"] for row in known]:
            add_cell(arguments.out, known, {"cell": cell, **measure(folder, size, seed, arguments.settings)})
    return known
