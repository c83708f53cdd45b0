"""Split table: a split on disk, a row per image."""

from __future__ import annotations

import os
from collections import deque
from dataclasses import replace

import numpy as np

from transfer.dataset.names import display, few, relative, storable
from transfer.dataset.parts import check_parts, standard_parts
from transfer.dataset.records import Dataset
from transfer.dataset.splitting import Split, complete
from transfer.dataset.tables import ALL_COLUMNS, Row, read_table
from transfer.errors import DataError
from transfer.files import neutral_cell, write_csv


def write_split(path: str | os.PathLike[str], dataset: Dataset, split: Split) -> None:
    """Write a CSV file with one row (path below the root, class name, part, SHA-256 of the content) per image."""
    rows = (
        (dataset.relative(i), dataset.classes[dataset.labels[i]], str(split.parts[i]), dataset.hashes[i])
        for i in range(len(dataset))
    )
    write_csv(path, ("path", "label", "split", "sha256"), rows)


def read_split(
    path: str | os.PathLike[str], dataset: Dataset, *, seed: int = 0, before_decoding: bool = False
) -> Split:
    """Read what `write_split` wrote, or a table like it, for the same images in any order.

    Rows for images that are unreadable now are passed over. Parts that the file lacks are drawn as `draw_split` does.
    Hashes are not compared: columns other than path, label and split may be missing or say anything.

    Parameters
    ----------
    before_decoding
        Let the file lack images, which may prove unreadable; until then they count as train.

    Raises
    ------
    UsageError
        The file cannot be read.
    DataError
        It lacks an image of the dataset, has one that the dataset lacks, or gives it another label.
    """
    table = os.fspath(path)
    where = f"'{display(table)}'"
    rows = read_table(table, ALL_COLUMNS)
    given = standard_parts([row.part.strip() for row in rows], f"the split column of {where}")
    parts, extra = _placed(dataset, rows, given, where)
    if before_decoding and (parts != "").any():
        parts[parts == ""] = "train"
    lacking = [dataset.relative(i) for i in np.flatnonzero(parts == "").tolist()]
    wrong = [f"lacks {few(lacking, 3)}"] * bool(lacking) + [f"lists {few(extra, 3)}, not in the data"] * bool(extra)
    if wrong:
        raise DataError(f"{where} does not fit the data: it {' and '.join(wrong)}. Draw a new split.")
    check_parts(dataset.classes, dataset.labels, parts, where)
    split = complete(dataset, parts, seed=seed)
    return replace(split, reason=[f"Read from {where}.", *split.reason])


def _placed(dataset: Dataset, rows: list[Row], given: list[str], where: str) -> tuple[np.ndarray, list[str]]:
    """Return the parts of the images, empty where no row is about one, and the paths of rows without an image."""
    waiting: dict[str, deque[int]] = {}  # lists may repeat a path
    for i in range(len(dataset)):
        waiting.setdefault(_as_read(dataset.relative(i)), deque()).append(i)
    passed_over = {_as_read(relative(skipped.path, dataset.root)) for skipped in dataset.unreadable}
    parts = np.full(len(dataset), "", dtype="<U5")
    extra = []
    for row, part in zip(rows, given, strict=True):
        # A person's own table has no apostrophe before a name such as "=1.jpg".
        key = next((key for key in (row.path, _as_read(row.path)) if waiting.get(key)), None)
        if key is None:
            if passed_over.isdisjoint((row.path, _as_read(row.path))):
                extra.append(row.path)
            continue
        i = waiting[key].popleft()
        name = dataset.classes[dataset.labels[i]]
        if row.label not in (name, _as_read(name)):
            raise DataError(
                f"{where}, line {row.line}: '{display(row.path)}' has the label '{display(row.label)}', "
                f"in the data it is '{display(name)}'. Was the split made for other data?"
            )
        parts[i] = part
    return parts, extra


def _as_read(text: str) -> str:
    """Return `text` as a reader finds it after `write_split`: formulas with an apostrophe, odd bytes escaped."""
    return storable(neutral_cell(text))
