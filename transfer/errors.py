"""Errors: what can go wrong, as a tree. Every message names the thing and the remedy.

Each class carries the exit code with which the command line ends.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class TransferError(Exception):
    """Something the user can act on; its message is one line that says how."""

    exit_code = 1


class UsageError(TransferError):
    """What was asked for does not exist or does not make sense (exit code 2)."""

    exit_code = 2


class DataError(TransferError):
    """The images or labels cannot be used as they are (exit code 3)."""

    exit_code = 3


class ArtefactError(TransferError):
    """A run, feature folder, weights file or cache is damaged or does not fit (exit code 4)."""

    exit_code = 4


class ResourceError(TransferError):
    """Disk, memory or network is missing or refuses (exit code 5)."""

    exit_code = 5


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Return `` Did you mean 'x'?`` for the nearest known name, or an empty string.

    >>> did_you_mean("resnet19", ["resnet18", "vgg16"])
    " Did you mean 'resnet18'?"
    """
    nearest = difflib.get_close_matches(name, list(known), n=1)
    return f" Did you mean {nearest[0]!r}?" if nearest else ""
