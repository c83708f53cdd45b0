"""Unreadable image: one that cannot be decoded completely, and why in a few words."""

from __future__ import annotations

import os
from pathlib import Path

from transfer.errors import DataError


class UnreadableImage(DataError):  # noqa: N818 (the glossary's word)
    """An image that cannot be decoded completely.

    A list of these keeps the pixels alive that their tracebacks refer to: keep `path` and `reason` instead.

    Attributes
    ----------
    path : Path or None
        The file, or None for an image that came as bytes or as a PIL image.
    reason : str
        A few words: `truncated JPEG`, `empty file`, `not an image (HTML)`.
    """

    def __init__(self, path: str | os.PathLike[str] | None, reason: str) -> None:
        super().__init__(path, reason)  # both, so that it can be pickled and cross to another process
        self.path = None if path is None else Path(path)
        self.reason = reason

    def __str__(self) -> str:
        return f"Unreadable image {printable(self.path)}: {self.reason}. Replace it or leave it out."


def printable(thing: object) -> str:
    """Return text without line breaks, control characters or bytes that are not UTF-8."""
    text = "from memory" if thing is None else str(thing)
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
