"""Reproduction: the command that makes a run once more."""

from __future__ import annotations

import shlex
from pathlib import Path

from transfer.dataset import display
from transfer.report.records import Record
from transfer.report.tables import read_rows


def command(run: Record) -> str | None:
    """Return the command that fits on the same images, in the same parts, with the same settings.

    Where two domains were joined, or images came as lists, split.csv names them in full and is itself the data. None
    where no command does it: split.csv holds some of the images only, or names them from where nobody knows.
    """
    folder = run.path.absolute()
    root = run.info["data"]["root"]
    if run.recipe.data.per_class or run.info["data"]["layout"].startswith("table"):
        return None
    if root is None and not all(Path(row["path"]).is_absolute() for row in read_rows(folder / "split.csv")):
        return None
    split = shell_word(folder / "split.csv")
    data = split if root is None else f"{shell_word(root)} --split {split}"
    return f"transfer fit {data} --recipe {shell_word(folder / 'recipe.yaml')}"


def shell_word(path: str | Path) -> str:
    r"""Return a path as one word for a shell; characters that nobody sees are written out.

    >>> shell_word("my data")
    "'my data'"
    >>> print(shell_word("a\nb"))
    $'a\nb'
    """
    text = str(path)
    if display(text) == text:
        return shlex.quote(text)
    escaped = display(text.replace("\\", "\\\\")).replace("'", "\\'")
    return f"$'{escaped}'"
