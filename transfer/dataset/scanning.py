"""Scan: from a folder, a table, lists or names given by hand to the images in them."""

# ruff: noqa: PTH100, PTH110, PTH112, PTH119, PTH120, PTH208

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from transfer.dataset.candidates import Candidates, look_at
from transfer.dataset.layouts import read_folder
from transfer.dataset.listings import add_listed, list_tables
from transfer.dataset.names import display, extension
from transfer.dataset.parts import standard_parts
from transfer.dataset.records import Dataset, checked
from transfer.dataset.sniffing import looks_like_image
from transfer.dataset.walk import ClassFolder, Walk
from transfer.errors import DataError, UsageError, did_you_mean

#: Where labelled images come from: a folder or a table, two lists (paths, labels), or what `scan` returned for them.
Source = str | os.PathLike[str] | tuple[Sequence[str | os.PathLike[str]], Sequence[Any]] | Dataset


def scan(
    source: Source,
    *,
    follow_links: bool = True,
    n_threads: int = 2,
    min_classes: int = 2,
    progress: Callable[[int, int], None] | None = None,
) -> Dataset:
    """Find the labelled images of a folder or a table; nothing is decoded and nothing is written.

    Parameters
    ----------
    source
        A folder of class folders; of train, val|valid|validation|dev and test folders of class folders; with a
        `metadata.csv`, or one in each of those folders; or a CSV file with the columns
        path|file_name|filename|image, label|class and, if wanted, split. A CSV file that is named itself accounts
        for the files it lists, a folder for all files in it. A pair of lists, (paths, labels), goes to `from_lists`;
        a dataset comes back as it is.
    follow_links
        Whether symbolic links are read. Each folder is read once, however many links lead to it.
    n_threads
        Threads that read and hash the files.
    min_classes
        1 lets a single class pass, for evaluation.
    progress
        Called with (files looked at, files to look at) from time to time.

    Raises
    ------
    UsageError
        `source` does not exist or is neither a folder nor a table.
    DataError
        No classes, too few of them, or no readable image.
    """
    if isinstance(source, Dataset):
        return source
    if isinstance(source, tuple):
        return from_lists(*source, n_threads=n_threads, min_classes=min_classes)
    source = os.path.abspath(os.fspath(source))
    if os.path.isdir(source):
        found = read_folder(source, follow_links)
    elif not os.path.exists(source):
        raise UsageError(_no_such(source))
    elif extension(source) in (".csv", ".tsv", ".txt"):
        found = list_tables({source: ""}, os.path.dirname(source))
    else:
        raise UsageError(
            f"'{display(source)}' is a file: give a folder of images or a CSV file with the columns path and label "
            "(unpack archives first)."
        )
    return checked(look_at(found, n_threads=n_threads, min_classes=min_classes, progress=progress))


def from_lists(
    paths: Sequence[str | os.PathLike[str]],
    labels: Sequence[Any],
    parts: Sequence[str] | None = None,
    *,
    n_threads: int = 2,
    min_classes: int = 2,
) -> Dataset:
    """Make a dataset of `paths`, in their order, repeats included; labels become text.

    Raises
    ------
    UsageError
        The lists differ in length.
    DataError
        No image can be read, or there are too few classes.
    """
    if len(paths) != len(labels) or (parts is not None and len(parts) != len(paths)):
        lengths = [len(paths), len(labels)] + ([len(parts)] if parts is not None else [])
        raise UsageError(f"Paths, labels and parts must be equally long, not {' and '.join(map(str, lengths))}.")
    found = Candidates(None, "lists of paths and labels", set())
    given = standard_parts([str(part) for part in parts] if parts is not None else [""] * len(paths), "parts")
    for path, label, part in zip(paths, labels, given, strict=True):
        add_listed(found, os.fspath(path), str(label), part)
    return checked(look_at(found, n_threads=n_threads, min_classes=min_classes, progress=None))


def find_images(sources: Iterable[str | os.PathLike[str]]) -> list[str]:
    """Return the named files, and all images in the named folders, without labels.

    Raises
    ------
    UsageError
        A source does not exist.
    DataError
        A folder holds no image.
    """
    found: list[str] = []
    for given in sources:
        source = os.fspath(given)
        if os.path.isdir(source):
            walk = Walk(source, True, Candidates(None, "", set()))
            inside = sorted(path for path, _ in walk.images([ClassFolder(source, "")]) if looks_like_image(path))
            if not inside:
                raise DataError(f"'{display(source)}' holds no images.")
            found += inside
        elif os.path.exists(source):
            found.append(source)  # a person named it: if it is no image, decoding says so
        else:
            raise UsageError(_no_such(os.path.abspath(source)))
    return found


def _no_such(source: str) -> str:
    missing = source
    while not os.path.exists(parent := os.path.dirname(missing)):
        missing = parent
    try:
        nearest = did_you_mean(os.path.basename(missing), map(display, os.listdir(parent)))
    except OSError:
        nearest = ""
    return f"No such file or folder: '{display(source)}'.{nearest or ' Check the spelling.'}"
