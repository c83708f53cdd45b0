"""Table: a CSV file of a run, read back."""

from __future__ import annotations

import csv
from collections import Counter, defaultdict
from dataclasses import dataclass
from pathlib import Path

from transfer.errors import ArtefactError


@dataclass(frozen=True)
class Parts:
    """How many images each part has, and how many are exact copies of another image."""

    n: dict[str, int]
    n_copies: int
    n_across: int  # contents in more than one part


def read_parts(path: Path) -> Parts:
    """Return what a split.csv says of the parts.

    Raises
    ------
    ArtefactError
        The table is missing or damaged.
    """
    rows = read_rows(path)
    if rows and not rows[0].keys() >= {"split", "sha256"}:
        raise ArtefactError(f"{path} lacks what a split has. Fit again.")
    parts_of: dict[str, set[str]] = defaultdict(set)
    for row in rows:
        parts_of[row["sha256"]].add(row["split"])
    return Parts(
        dict(Counter(row["split"] for row in rows)),
        len(rows) - len(parts_of),
        sum(len(parts) > 1 for parts in parts_of.values()),
    )


def read_history(path: Path) -> list[dict[str, float | None]]:
    """Return a row of numbers for each epoch; none where no layers were trained.

    Raises
    ------
    ArtefactError
        The table is damaged.
    """
    if not path.exists():
        return []
    try:
        return [{key: float(value) if value else None for key, value in row.items()} for row in read_rows(path)]
    except (TypeError, ValueError) as error:
        raise ArtefactError(f"{path} holds something else than numbers ({error}). Fit again.") from error


def read_rows(path: Path) -> list[dict[str, str]]:
    """Return the rows of a table by the names of its columns.

    Raises
    ------
    ArtefactError
        The table is missing or damaged.
    """
    try:
        with open(path, encoding="utf-8", newline="") as source:
            return list(csv.DictReader(source))
    except (OSError, ValueError, csv.Error) as error:
        raise ArtefactError(f"Cannot read {path}: {error}. Fit again.") from error
