"""Name: of a file or a class, as it is shown, stored and compared."""

from __future__ import annotations

import os
import re
import unicodedata
from collections.abc import Iterable
from pathlib import Path

_BIDI_CONTROLS = frozenset("\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")


def display(name: str) -> str:
    r"""Return `name` fit for a terminal: control characters and bytes that are not UTF-8 are written out.

    >>> print(display("a\x1b[31mred\n\udcff"))
    a\x1b[31mred\n\xff
    """
    return name if name.isascii() and name.isprintable() else "".join(map(_visible, name))


def _visible(character: str) -> str:
    if "\udc80" <= character <= "\udcff":
        return f"\\x{ord(character) - 0xDC00:02x}"  # the byte it stands for
    if character in _BIDI_CONTROLS or unicodedata.category(character) in ("Cc", "Cs", "Zl", "Zp"):
        return ascii(character)[1:-1]
    return character


def storable(name: str) -> str:
    """Return `name` as `files.write_text` stores it: what UTF-8 lacks is escaped."""
    return name.encode("utf-8", "backslashreplace").decode("utf-8")


def restored(text: str) -> str:
    r"""Return the name that `storable` wrote as `text`.

    A name may hold such letters itself: look for a file of that name first.

    >>> restored(storable("caf\udce9")) == "caf\udce9"
    True
    """
    return re.sub(r"\\udc([89a-f][0-9a-f])", lambda escaped: chr(0xDC00 + int(escaped[1], 16)), text)


def looks(name: str) -> str:
    """Return what two names share that a person, or another file system, takes for the same."""
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", name).casefold()).strip()


def few(names: Iterable[str], limit: int = 5) -> str:
    """Return the first names, quoted, and how many more there are."""
    names = list(names)
    shown = ", ".join(f"'{display(name)}'" for name in names[:limit])
    return f"{shown} and {len(names) - limit} more" if len(names) > limit else shown


def count(n: int, one: str, many: str = "") -> str:
    """Return a number with its noun: "1 image", "2 images"."""
    return f"{n} {one if n == 1 else many or one + 's'}"


def extension(path: str) -> str:
    """Return the extension in lower case, with its dot."""
    return os.path.splitext(path)[1].lower()  # noqa: PTH122


def shown_extension(path: str) -> str:
    """Return the extension as part of a reason, short and safe to print."""
    return display(extension(path)[:12]) or "no extension"


def relative(path: str, root: Path | None) -> str:
    """Return `path` below `root` with forward slashes; as it was given where it is not below."""
    if root is None or not is_below(path, str(root)):
        return path
    return path[len(str(root)) :].lstrip(os.sep).replace(os.sep, "/")


def is_below(path: str, folder: str) -> bool:
    """Say whether `path` is `folder` or lies in it, by their names alone."""
    return path == folder or path.startswith(folder if folder.endswith(os.sep) else folder + os.sep)
