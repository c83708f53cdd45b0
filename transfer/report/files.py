"""File: where an image of a run lies, by what its tables say."""

from __future__ import annotations

import os
from collections.abc import Sequence

from transfer.dataset.names import restored, storable
from transfer.files import neutral_cell


def file_of(path: str, root: str | None) -> str:
    """Return an image's file; tables keep a name that looks like a formula behind an apostrophe, and escape bytes that
    are not UTF-8."""
    bare = path.removeprefix("'")
    names = [bare, path] if bare != path and neutral_cell(bare) == path else [path]
    files = [name if root is None else os.path.join(root, name) for name in names]  # noqa: PTH118 (keeps a name as it is)
    return next((file for file in [*files, *map(restored, files)] if os.path.lexists(file)), files[-1])


def names_in_tables(classes: Sequence[str]) -> dict[str, str]:
    """Return each class's name by what a table has in its place."""
    return {neutral_cell(storable(name)): name for name in classes}
