"""Decoding: from an image in any form to its pixels, complete or refused."""

from __future__ import annotations

import errno
import hashlib
import io
import os
import stat
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from transfer.errors import DataError, ResourceError, UsageError
from transfer.images.checksums import require_png_checksums
from transfer.images.damage import describe_damage, pillow_errors
from transfer.images.foreign import describe_foreign, is_raw
from transfer.images.formats import identify
from transfer.images.guard import pillow_guard
from transfer.images.orientation import upright
from transfer.images.pixels import pixels_of_array, rgb_pixels
from transfer.images.unreadable import UnreadableImage, printable

if TYPE_CHECKING:
    import PIL.Image

#: Pixels of the largest image that is decoded. It is the size that Pillow itself refuses (twice its
#: `MAX_IMAGE_PIXELS`), so every image that other tools open is opened here too; decoding one takes up to 2 GB.
MAX_PIXELS = 178_956_970

# A JPEG decoded at a fraction of its size keeps at least this many times the size that is needed. Measured on 60
# photographs with EfficientNet-Lite0, cosine of the features to those of a full decode: 0.988 on average (0.90 at
# worst) with 1 to 1.5, 0.997 with 2 and more. A 12-megapixel JPEG takes 56 ms with 2, 45 ms with 1, 103 ms in full.
_DRAFT_MARGIN = 2

_N_HEAD_BYTES = 512  # tell the format


def decode(
    source: str | os.PathLike[str] | bytes | PIL.Image.Image | np.ndarray,
    *,
    max_pixels: int = MAX_PIXELS,
    at_least: int | None = None,
    content: str | None = None,
) -> np.ndarray:
    """Return the pixels of an image: complete, upright, RGB.

    * EXIF orientation is applied. ICC profiles are not: numbers are taken as sRGB.
    * Transparency is composited on white.
    * 16-bit grey is scaled by 1/257, the same for every image. Floating-point images and integers beyond
      16 bits carry no scale: each is stretched from its own minimum to its own maximum.
    * Of animations and files with several pages, the first.

    Parameters
    ----------
    source
        A path, the bytes of a file, a PIL image, or an array: uint8, or floating point in [0, 1], of shape
        (height, width) or (height, width, 1, 3 or 4).
    max_pixels
        Larger images are refused from their header alone, before any pixel is decoded.
    at_least
        Pixels that the shorter side is needed with. JPEGs at least four times as large are decoded at 1/2, 1/4 or
        1/8 of their size, keeping at least twice what is needed. None decodes in full.
    content
        The SHA-256 in hexadecimal that a file must have, from when it was scanned.

    Returns
    -------
    numpy.ndarray
        uint8 of shape (height, width, 3), C-contiguous.

    Raises
    ------
    UnreadableImage
        The image is missing, damaged, too large, or of a format that is not in `FORMATS`.
    UsageError
        `source` is an array of another shape or type, or no kind of image at all.
    DataError
        The file has other content than `content`.
    """
    if isinstance(source, np.ndarray):
        return pixels_of_array(source)
    from PIL import Image

    if isinstance(source, Image.Image):
        return _decode_image(source, max_pixels)
    if isinstance(source, (bytes, bytearray, memoryview)):
        return _decode_bytes(source, None, max_pixels, at_least)
    if isinstance(source, (str, os.PathLike)):
        return _decode_bytes(_read(source, content), source, max_pixels, at_least)
    raise UsageError(f"Cannot decode {type(source).__name__}: give a path, bytes, a PIL image or a NumPy array.")


def is_one_image(images: Any) -> bool:
    """Tell whether this is one image where several may be given: a path, a PIL image, or an array of three dimensions
    whose last has 3 or 4 channels."""
    if isinstance(images, np.ndarray):
        return images.ndim == 3 and images.shape[2] in (3, 4)
    from PIL import Image

    return isinstance(images, (str, os.PathLike, Image.Image))


def _read(path: str | os.PathLike[str], content: str | None) -> bytes:
    """Return the whole file: an image is decoded from memory, since libtiff maps a file that it is given, and one
    that shrinks under a map kills the process."""
    try:
        if not stat.S_ISREG(os.stat(path).st_mode):  # noqa: PTH116 (half the time of Path.stat); a FIFO would block
            raise UnreadableImage(path, "not a regular file")
        with open(path, "rb") as stream:
            head = stream.read(_N_HEAD_BYTES)
            _require_known(head, path)
            if is_raw(path, head):
                raise UnreadableImage(path, "unsupported format (RAW)")
            data = head + stream.read()
    except FileNotFoundError as error:
        raise UnreadableImage(path, "no such file") from error
    except OSError as error:
        if error.errno in (errno.EMFILE, errno.ENFILE):  # says nothing about the image
            raise ResourceError("Too many open files: close some, or raise the limit with `ulimit -n`.") from error
        raise UnreadableImage(path, (error.strerror or str(error)).lower()) from error
    except ValueError as error:
        raise UnreadableImage(path, "not a file name") from error
    if content is not None and hashlib.sha256(data).hexdigest() != content:
        raise DataError(f"{printable(path)} has changed since the folder was scanned. Run again when nothing changes.")
    return data


def _decode_bytes(
    data: bytes | bytearray | memoryview,
    path: str | os.PathLike[str] | None,
    max_pixels: int,
    at_least: int | None,
) -> np.ndarray:
    head = bytes(data[:_N_HEAD_BYTES])
    format_name = "image"
    try:
        with pillow_guard:
            format_name, factory = _require_known(head, path)
            # The plugin itself, because `Image.open` compares with a process-wide limit, `Image.MAX_IMAGE_PIXELS`.
            image = factory(io.BytesIO(data), "")
            _require_pixels(image.size, path, max_pixels)
            if format_name == "PNG":
                require_png_checksums(data)
            if at_least:
                image.draft(None, (_DRAFT_MARGIN * at_least, _DRAFT_MARGIN * at_least))
            image.load()
            return rgb_pixels(upright(image))
    except pillow_errors() as error:
        raise UnreadableImage(path, describe_foreign(head) or describe_damage(format_name, error)) from error


def _decode_image(image: PIL.Image.Image, max_pixels: int) -> np.ndarray:
    _require_pixels(image.size, None, max_pixels)
    try:
        with pillow_guard:
            image.load()
            return rgb_pixels(upright(image))
    except pillow_errors() as error:
        raise UnreadableImage(None, describe_damage(image.format or "image", error)) from error


def _require_known(head: bytes, path: str | os.PathLike[str] | None) -> tuple[str, Callable[..., Any]]:
    if not head:
        raise UnreadableImage(path, "empty file")
    known = identify(head)
    if known is None:
        raise UnreadableImage(path, describe_foreign(head) or "not an image")
    return known


def _require_pixels(size: tuple[int, int], path: str | os.PathLike[str] | None, max_pixels: int) -> None:
    n_pixels = size[0] * size[1]
    if n_pixels > max_pixels:
        reason = f"{n_pixels / 1e6:.6g} megapixels, limit {max_pixels / 1e6:.6g} (--max-pixels)"
        raise UnreadableImage(path, reason)
