"""Folder: what lies in one, judged quickly, before any file is accounted for."""

# ruff: noqa: PTH116

from __future__ import annotations

import os
from collections.abc import Iterator

from transfer.dataset.names import display
from transfer.dataset.sniffing import looks_like_image
from transfer.errors import DataError

_CLUTTER = frozenset(
    ("__macosx", "thumbs.db", "ehthumbs.db", "desktop.ini", "icon\r", "@eadir", "$recycle.bin")
)  # what macOS, Windows and NAS boxes leave behind; dot files are hidden anyway


def is_hidden(name: str) -> bool:
    """Say whether a file or folder of this name is none of the data."""
    return name.startswith(".") or name.casefold() in _CLUTTER


def subfolders(folder: str, follow_links: bool) -> list[str]:
    """Return the folders directly in `folder` that are not hidden, sorted by name."""
    try:
        with os.scandir(folder) as entries:
            return sorted(e.path for e in entries if not is_hidden(e.name) and e.is_dir(follow_symlinks=follow_links))
    except OSError as error:
        raise DataError(f"Cannot read the folder '{display(folder)}': {error.strerror or error}.") from error


def filled_subfolders(folder: str, follow_links: bool) -> Iterator[str]:
    """Yield the subfolders that have an image anywhere below them."""
    return (below for below in subfolders(folder, follow_links) if _has_images(below, follow_links))


def has_classes(folder: str, follow_links: bool) -> bool:
    """Say whether `folder` has subfolders with images."""
    return any(filled_subfolders(folder, follow_links))


def class_names(folder: str, follow_links: bool) -> set[str]:
    """Return the names of the subfolders with images."""
    return set(map(os.path.basename, filled_subfolders(folder, follow_links)))


def count_images(folder: str) -> int:
    """Count the images directly in `folder`."""
    with os.scandir(folder) as entries:
        return sum(not is_hidden(e.name) and e.is_file() and looks_like_image(e.path) for e in entries)


def _has_images(folder: str, follow_links: bool) -> bool:
    """Say whether an image lies anywhere below `folder`; stops at the first."""
    stack, visited = [folder], set()
    while stack:
        current = stack.pop()
        try:
            identity = os.stat(current)
            if (identity.st_dev, identity.st_ino) in visited:
                continue
            visited.add((identity.st_dev, identity.st_ino))
            with os.scandir(current) as entries:
                for entry in entries:
                    if is_hidden(entry.name):
                        continue
                    if entry.is_dir(follow_symlinks=follow_links):
                        stack.append(entry.path)
                    elif entry.is_file(follow_symlinks=follow_links) and looks_like_image(entry.path):
                        return True
        except OSError:
            continue  # the walk records it
    return False
