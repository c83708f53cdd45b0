"""Reproduction: the command that makes a run once more."""

from __future__ import annotations

import shlex
from pathlib import Path

from transfer.dataset import display
from transfer.report.records import Record


def command(run: Record) -> str:
    """Return the command that fits on the same images, in the same parts, with the same settings.

    Where two domains were joined, or images came as lists, split.csv names them in full and is itself the data.
    """
    folder = run.path.absolute()
    root = run.info["data"]["root"]
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
