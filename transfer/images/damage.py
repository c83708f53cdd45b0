"""Damage: what Pillow raises on a damaged file, and what that means in words."""

from __future__ import annotations

import functools
import struct
import zlib

from transfer.images.unreadable import printable


@functools.cache
def pillow_errors() -> tuple[type[BaseException], ...]:
    """What Pillow was seen to raise on damaged files; the list is long because its parsers trust their input."""
    from PIL import Image

    return (
        OSError,  # the usual one; UnidentifiedImageError is one too
        SyntaxError,  # "not a … file", broken PNG chunks, unknown TIFF layouts
        ValueError,  # sizes and text chunks beyond a limit, failed codecs
        EOFError,
        struct.error,  # headers cut short
        zlib.error,  # compressed PNG metadata
        LookupError,  # IndexError past the data; KeyError for an unknown mode or tag
        TypeError,
        AttributeError,
        AssertionError,
        ArithmeticError,  # OverflowError and ZeroDivisionError from absurd sizes and resolutions
        RuntimeError,  # codecs that fail to start; recursion in nested metadata
        MemoryError,
        ImportError,  # a codec that this build of Pillow lacks
        Image.DecompressionBombError,  # checks of single plugins: GIF frames, WebP and TIFF tiles
        Warning,  # where an application has turned warnings into errors
    )


def describe_damage(format_name: str, error: BaseException) -> str:
    """Say in a few words what an error that Pillow raised means for a file of this format."""
    from PIL import Image

    message = " ".join(printable(error).split())
    if "truncated" in message.lower() or isinstance(error, EOFError):
        return f"truncated {format_name}"
    if isinstance(error, MemoryError):
        return f"not enough memory for this {format_name}"
    if isinstance(error, Image.DecompressionBombError):
        return f"more pixels than Pillow allows in a {format_name}"
    return f"damaged {format_name} ({message[:80] or type(error).__name__})"
