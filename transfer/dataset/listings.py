"""Listing: files that are named one by one, by tables of labels or from Python."""

# ruff: noqa: PTH114, PTH116, PTH117, PTH118, PTH119, PTH120

from __future__ import annotations

import os
import stat
from collections.abc import Iterable, Mapping
from pathlib import Path

from transfer.dataset.candidates import Candidate, Candidates
from transfer.dataset.names import count, display, is_below, relative, restored
from transfer.dataset.parts import standard_parts
from transfer.dataset.records import Skipped
from transfer.dataset.tables import Row, read_table
from transfer.dataset.walk import Walk
from transfer.errors import DataError
from transfer.files import plain_cell


def list_tables(tables: Mapping[str, str], root: str) -> Candidates:
    """Read tables of labels, each for the part it comes with; where that is empty, their own columns give the parts."""
    words = " and ".join(display(relative(table, Path(root))) for table in tables)
    found = Candidates(Path(root), f"{'table' if len(tables) == 1 else 'tables'} {words}", set())
    seen: dict[str, Row] = {}
    n_rows = 0
    for table, of_table in tables.items():
        rows = read_table(table)
        if not rows:
            raise DataError(f"'{display(table)}' has no rows: list one image per row, with its path and label.")
        n_rows += len(rows)
        parts = [row.part.strip() for row in rows]
        parts = [of_table] * len(rows) if of_table else standard_parts(parts, f"the split column of '{display(table)}'")
        for row, part in zip(rows, parts, strict=True):
            path = _resolve(row, table)
            row = row._replace(label=plain_cell(row.label.strip()), part=part)
            if path in seen:
                _check_repeat(table, row, seen[path])
            else:
                seen[path] = row
                if row.label:
                    add_listed(found, path, row.label, row.part)
                else:
                    found.ignored.append(Skipped(path, "no label in the table"))
    missing = [skipped.path for skipped in found.unreadable if skipped.reason == "file not found"]
    names = " and ".join(f"'{display(table)}'" for table in tables)
    if len(missing) == len(seen):
        raise DataError(
            f"None of the {len(missing)} files that {names} lists exists, not even '{display(missing[0])}': "
            "write paths relative to the table's folder."
        )
    if n_repeated := n_rows - len(seen):
        found.notes.append(f"{count(n_repeated, 'row')} of '{words}' repeat an earlier one.")
    return found


def ignore_unlisted(found: Candidates, tables: Iterable[str], root: str) -> None:
    """Account for every file below `root` that the tables do not list."""
    used = {file.path for file in found.files} | {skipped.path for skipped in found.unreadable + found.ignored}
    links = set()  # folder links on the way to a listed file
    for above in {os.path.dirname(path) for path in used}:
        while is_below(above, root) and above != root and above not in links:
            if os.path.islink(above):
                links.add(above)
            above = os.path.dirname(above)
    found.ignored += [Skipped(table, "the table of labels") for table in tables]
    called = " or ".join(sorted({display(os.path.basename(table)) for table in tables}))
    Walk(root, False, found).ignore(root, f"not listed in {called}", used=used | links | set(tables))


def add_listed(found: Candidates, path: str, label: str, part: str) -> None:
    """Add a file that a person listed: one that is not there is unreadable, not ignored."""
    found.classes.add(label)
    try:
        mode = os.stat(path).st_mode
    except (OSError, ValueError) as error:
        missing = isinstance(error, (FileNotFoundError, NotADirectoryError))
        reason = "file not found" if missing else f"cannot be opened: {getattr(error, 'strerror', None) or error}"
        found.unreadable.append(Skipped(path, reason))
        return
    if stat.S_ISREG(mode):
        found.files.append(Candidate(path, label, part))
    else:
        found.unreadable.append(Skipped(path, "not a regular file"))


def _resolve(row: Row, table: str) -> str:
    """Return the path that a table's cell means; only absolute paths may leave the table's folder."""
    where = f"'{display(table)}', line {row.line}"
    cell, folder = row.path, os.path.dirname(table)
    if not cell.strip():
        raise DataError(f"{where}: the path is empty.")
    if "\0" in cell:
        raise DataError(f"{where}: the path has a zero byte.")
    candidates = [cell, cell.strip(), cell.replace("\\", "/"), cell.strip().replace("\\", "/"), restored(cell)]
    candidates += [plain_cell(cell), restored(plain_cell(cell))]  # as our own tables have it
    paths = [os.path.normpath(os.path.join(folder, candidate)) for candidate in candidates]
    path = next((path for path in paths if os.path.lexists(path)), paths[0])
    if not os.path.isabs(cell.strip()) and not is_below(path, folder):
        raise DataError(f"{where}: '{display(cell)}' leads out of the table's folder. Write such a path in full.")
    return path


def _check_repeat(table: str, row: Row, earlier: Row) -> None:
    for what, value, before in (("labels", row.label, earlier.label), ("splits", row.part, earlier.part)):
        if value != before:
            raise DataError(
                f"'{display(table)}' gives '{display(row.path)}' two {what}: '{display(before)}' on line "
                f"{earlier.line} and '{display(value)}' on line {row.line}. Keep one."
            )
