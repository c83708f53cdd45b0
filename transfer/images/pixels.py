"""Pixels: 8-bit RGB, made of images of every mode and of arrays."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from transfer.errors import UsageError

if TYPE_CHECKING:
    import PIL.Image


def rgb_pixels(image: PIL.Image.Image) -> np.ndarray:
    """Return the pixels of a loaded image of any mode, without turning it."""
    if image.mode == "F" or image.mode.startswith("I"):
        grey = _grey_8_bit(np.asarray(image), is_16_bit=image.format in ("PNG", "PPM"))
        return np.repeat(grey[:, :, None], 3, axis=2)
    if image.has_transparency_data:
        image = _on_white(image)
    return np.array(image if image.mode == "RGB" else image.convert("RGB"))


def pixels_of_array(array: np.ndarray) -> np.ndarray:
    """Return the pixels of an array that `decode` accepts."""
    from PIL import Image

    accepted = "give uint8, or floats in [0, 1], of shape (height, width), (…, 1), (…, 3) or (…, 4)."
    if array.ndim == 2:
        array = array[:, :, None]
    if array.ndim != 3 or array.shape[2] not in (1, 3, 4) or array.size == 0:
        raise UsageError(f"An array of shape {array.shape} is no image: {accepted}")
    if array.dtype.kind == "f":
        if not (array.min() >= 0 and array.max() <= 1):  # also catches NaN
            raise UsageError(f"A floating-point image has values outside [0, 1]: {accepted}")
        array = np.rint(array * 255).astype(np.uint8)
    if array.dtype != np.uint8:
        raise UsageError(f"An image of type {array.dtype} has no known scale: {accepted}")
    if array.shape[2] == 4:
        return np.array(_on_white(Image.fromarray(np.ascontiguousarray(array))))
    return np.repeat(array, 3, axis=2) if array.shape[2] == 1 else np.ascontiguousarray(array)


def _on_white(image: PIL.Image.Image) -> PIL.Image.Image:
    from PIL import Image

    layer = (image.convert("LA") if image.mode == "La" else image).convert("RGBA")
    white = Image.new("RGB", image.size, "white")
    white.paste(layer, mask=layer)
    return white


def _grey_8_bit(values: np.ndarray, *, is_16_bit: bool) -> np.ndarray:
    """Scale grey of more than 8 bits; `is_16_bit`: the format says so, whatever the largest value is."""
    low, high = float(values.min()), float(values.max())
    if not (math.isfinite(low) and math.isfinite(high)):
        raise ValueError("NaN or infinite pixels")
    if values.dtype.itemsize == 2 or (values.dtype.kind != "f" and low >= 0 and (is_16_bit or 255 < high <= 65535)):
        return ((values.astype(np.uint32) + 128) // 257).astype(np.uint8)
    if values.dtype.kind != "f" and low >= 0 and high <= 255:
        return values.astype(np.uint8)
    return np.rint((values.astype(np.float64) - low) * (255 / ((high - low) or 1))).astype(np.uint8)
