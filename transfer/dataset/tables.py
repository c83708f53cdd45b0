"""Table: a CSV file with a row per image, in the usual dialects."""

from __future__ import annotations

import contextlib
import csv
import io
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from transfer.dataset.names import count, display
from transfer.errors import DataError, UsageError

PATH_AND_LABEL = {"path": ("path", "file_name", "filename", "image"), "label": ("label", "class")}
ALL_COLUMNS = {**PATH_AND_LABEL, "part": ("split", "part")}
_KNOWN = {**ALL_COLUMNS, "content": ("sha256",)}


class Row(NamedTuple):
    """What a table says about one image; empty where it has no such column."""

    line: int
    path: str
    label: str
    part: str
    content: str


def read_table(table: str, wanted: Mapping[str, tuple[str, ...]] = PATH_AND_LABEL) -> list[Row]:
    """Read a table whose header has a column for each of `wanted`; comma, semicolon, tab or bar between columns."""
    with _explained(table):
        reader, columns, position = _open(table)
        if wanted.keys() <= position.keys():
            return [_row(cells, reader.line_num, position, table) for cells in reader if cells]
    expected = " and ".join("|".join(names) for names in wanted.values())
    found = ", ".join(display(column) for column in columns if column) or "none"
    raise DataError(f"'{display(table)}' has the columns {found}; expected {expected} in its first row.")


def has_labels(table: str) -> bool:
    """Say whether the first row of the file has a column of paths and one of labels."""
    with _explained(table):
        return PATH_AND_LABEL.keys() <= _open(table)[2].keys()


def _open(table: str) -> tuple[Any, list[str], dict[str, int]]:
    """Return a reader behind the first row, that row, and the position of each known column, for the best delimiter."""
    text = _decode(Path(table).read_bytes())
    opened = []
    for delimiter in ",;\t|":
        reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter)
        columns = [column.strip() for column in next(reader, [])]
        lowered = [column.casefold() for column in columns]
        position = {
            kind: next(lowered.index(name) for name in names if name in lowered)
            for kind, names in _KNOWN.items()
            if not set(names).isdisjoint(lowered)
        }
        opened.append((reader, columns, position))
    return max(opened, key=lambda found: (len(found[2]), len(found[1])))


@contextlib.contextmanager
def _explained(table: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise UsageError(f"Cannot read '{display(table)}': {error.strerror or error}.") from error
    except csv.Error as error:
        raise DataError(f"'{display(table)}' is not a CSV file that can be read: {error}.") from error


def _row(cells: list[str], line: int, position: dict[str, int], table: str) -> Row:
    if len(cells) <= max(at for kind, at in position.items() if kind in ALL_COLUMNS):
        n = count(len(cells), "column")
        raise DataError(f"'{display(table)}', line {line}: {n}, fewer than its first row has.")
    return Row(line, *(cells[position[kind]] if position.get(kind, len(cells)) < len(cells) else "" for kind in _KNOWN))


def _decode(data: bytes) -> str:
    if data[:2] in (b"\xff\xfe", b"\xfe\xff"):  # Excel's "Unicode text"
        return data.decode("utf-16", "replace")
    return data.decode("utf-8-sig", "surrogateescape")  # as the file system's names, which need not be UTF-8
