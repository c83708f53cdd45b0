"""Format: of a file that can be decoded, and the plugin of Pillow that opens it."""

from __future__ import annotations

import contextlib
import functools
import importlib
import importlib.util
from collections.abc import Callable
from typing import Any

#: Formats that are tried, by Pillow's names. MPO (two pictures in one, from phones and 3-D cameras) comes as JPEG.
#: A fixed list, because Pillow would hand an EPS file to Ghostscript whatever the file is called.
FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "AVIF", "PPM")

HEIC_ADVICE = "`pip install 'transfer[heic]'`, or convert to JPEG"
_HEIC_BRANDS = frozenset((b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1"))
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
    if is_heic(head):  # before the others: a phone's may begin like an AVIF
        return ("HEIC", _heic_opener()) if has_heic() else None
    for name, (factory, accepts) in openers().items():
        if accepts is None or accepts(head[:16]) is True:  # a text says that this Pillow lacks the codec
            return name, factory
    return None


def is_heic(head: bytes) -> bool:
    """Say whether a file with these first bytes is a HEIC, as phones take photographs."""
    return bool(_iso_brands(head) & _HEIC_BRANDS) and not is_avif(head)  # both list mif1


def is_avif(head: bytes) -> bool:
    """Say whether a file with these first bytes is an AVIF."""
    return bool(_iso_brands(head) & {b"avif", b"avis"})


def _iso_brands(head: bytes) -> set[bytes]:
    """Return what a file of the ISO family (HEIC, AVIF, MP4) with these first bytes claims to be; else nothing."""
    if head[4:8] != b"ftyp":
        return set()
    end = min(int.from_bytes(head[:4], "big"), len(head))
    return {head[8:12]} | {head[i : i + 4] for i in range(16, end, 4)}


def has_heic() -> bool:
    """Say whether the extra is there that decodes HEIC; it is not imported yet."""
    return importlib.util.find_spec("pi_heif") is not None


def _heic_opener() -> Callable[..., Any]:
    from pi_heif import HeifImageFile

    return HeifImageFile
