"""File: where an image of a run lies, by what its tables say."""

from __future__ import annotations

import os
from collections.abc import Sequence

from transfer.dataset.names import storable
from transfer.files import neutral_cell


def file_of(path: str, root: str | None) -> str:
    """Return an image's file; tables keep a name that looks like a formula behind an apostrophe."""
    files = [path if root is None else os.path.join(root, path)]  # noqa: PTH118 (keeps a name as it is)
    bare = path.removeprefix("'")
    if bare != path and neutral_cell(bare) == path:
        files.insert(0, bare if root is None else os.path.join(root, bare))  # noqa: PTH118
    return next((file for file in files if os.path.lexists(file)), files[-1])


def names_in_tables(classes: Sequence[str]) -> dict[str, str]:
    """Return each class's name by what a table has in its place."""
    return {neutral_cell(storable(name)): name for name in classes}
