"""Format: of a file that can be decoded, and the plugin of Pillow that opens it."""

from __future__ import annotations

import contextlib
import functools
import importlib
from collections.abc import Callable
from typing import Any

#: Formats that are tried, by Pillow's names. MPO (two pictures in one, from phones and 3-D cameras) comes as JPEG.
#: A fixed list, because Pillow would hand an EPS file to Ghostscript whatever the file is called.
FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "AVIF", "PPM")

_PLUGINS = {name: f"PIL.{name.title()}ImagePlugin" for name in FORMATS} | {"WEBP": "PIL.WebPImagePlugin"}


@functools.cache
def openers() -> dict[str, tuple[Callable[..., Any], Callable[[bytes], bool | str] | None]]:
    """Return, for each format that this Pillow has, what opens it and what recognises its first bytes."""
    from PIL import Image

    for plugin in _PLUGINS.values():
        with contextlib.suppress(ImportError):  # AVIF came with Pillow 11.3
            importlib.import_module(plugin)
    return {name: Image.OPEN[name] for name in FORMATS if name in Image.OPEN}


def identify(head: bytes) -> tuple[str, Callable[..., Any]] | None:
    """Return the format of a file with these first bytes and what opens it, or None where it is of no known format."""
    for name, (factory, accepts) in openers().items():
        if accepts is None or accepts(head[:16]) is True:  # a text says that this Pillow lacks the codec
            return name, factory
    return None
