"""Thumbnail: a small picture of an image, inside the page."""

from __future__ import annotations

import base64
import io
from typing import TYPE_CHECKING

from transfer.errors import DataError, ResourceError
from transfer.images import decode

if TYPE_CHECKING:
    import numpy as np

_SIDE = 128  # pixels of the longer side
_QUALITY = 78  # about 4 kB each


def thumbnail(path: str, content: str | None, max_pixels: int) -> str | None:
    """Return an image as a data URI, at most 128 pixels wide and high.

    Parameters
    ----------
    content
        The SHA-256 that the file must have: what is shown is what was predicted.

    Returns
    -------
    str or None
        None where the file is missing, cannot be read, or is another one by now.
    """
    try:
        return picture(decode(path, max_pixels=max_pixels, at_least=_SIDE, content=content), _SIDE)
    except (DataError, ResourceError, MemoryError):
        return None


def picture(pixels: np.ndarray, side: int) -> str:
    """Return uint8 (height, width, 3) as a data URI of a JPEG, at most `side` pixels wide and high."""
    from PIL import Image

    image = Image.fromarray(pixels)
    image.thumbnail((side, side), Image.Resampling.LANCZOS, reducing_gap=None)
    data = io.BytesIO()
    image.save(data, "JPEG", quality=_QUALITY, optimize=True)
    return f"data:image/jpeg;base64,{base64.b64encode(data.getvalue()).decode()}"
