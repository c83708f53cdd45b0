"""View: the part of an image that a backbone sees, at its size."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from transfer.errors import UsageError
from transfer.images.decoding import MAX_PIXELS, decode
from transfer.images.preprocessing import Preprocessing

if TYPE_CHECKING:
    import torch


class View(Protocol):
    """What a backbone is shown of an image: the standard view below, a `FixedView` or a `RandomView`."""

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for a cache's key; the standard view has none."""
        ...

    def needed_side(self, preprocessing: Preprocessing) -> int:
        """Return the pixels that an image's shorter side is needed with."""
        ...

    def see(self, pixels: np.ndarray, preprocessing: Preprocessing, content: str) -> torch.Tensor:
        """Return uint8 (3, input_size, input_size) of an image whose content has that SHA-256."""
        ...


# Longer shapes than 8:1 lose their ends before they are resized: enough for every centre crop, and a
# 20000×1 image would otherwise pass through 4 GB on its way to a square.
LONGEST_ASPECT = 8


def view(pixels: np.ndarray, preprocessing: Preprocessing) -> torch.Tensor:
    """Return the part of an image that a backbone sees, at its size: the standard evaluation transform.

    The same as timm's and torchvision's up to rounding: torch resizes uint8 with antialiasing as Pillow does, in a
    fraction of the time: 0.004 grey levels apart on average, 2 at most (0.25 and 9 where Pillow 13 resizes height
    before width, as it does with some tall images). Images longer than 8:1 lose their far ends first, which no
    centre crop shows.

    Parameters
    ----------
    pixels
        uint8 of shape (height, width, 3), as `decode` returns it. Any size from 1×1.

    Returns
    -------
    torch.Tensor
        uint8 of shape (3, input_size, input_size), in channels-last memory; shares nothing with `pixels`.
    """
    if pixels.dtype != np.uint8 or pixels.ndim != 3 or pixels.shape[2] != 3 or pixels.size == 0:
        raise UsageError(f"A view needs uint8 pixels (height, width, 3), not {pixels.dtype} {pixels.shape}: `decode`.")
    if preprocessing.crop_mode == "center":
        pixels = _without_far_ends(pixels)
    height, width, _ = pixels.shape
    resized = _resize(pixels, _resized_shape(height, width, preprocessing), preprocessing.interpolation)
    return _centre(resized, preprocessing).permute(2, 0, 1)


def squash(pixels: np.ndarray, preprocessing: Preprocessing) -> torch.Tensor:
    """Return all of `pixels` at the backbone's size, whatever their shape was: what a random crop becomes."""
    size = preprocessing.input_size
    return _resize(pixels, (size, size), preprocessing.interpolation).permute(2, 0, 1)


def shrink(pixels: np.ndarray, shorter: int, interpolation: str) -> np.ndarray:
    """Return the image with its shorter side at most `shorter` pixels long, as it is where that holds already."""
    height, width = pixels.shape[:2]
    scale = shorter / min(height, width)
    if scale >= 1:
        return pixels
    return _resize(pixels, (max(1, round(height * scale)), max(1, round(width * scale))), interpolation).numpy()


def load_view(
    path: str | os.PathLike[str] | bytes,
    preprocessing: Preprocessing,
    *,
    max_pixels: int = MAX_PIXELS,
    exact: bool = False,
) -> torch.Tensor:
    """Return the view of an image file: `decode`, then `view`. Several threads may call it at once.

    JPEGs at least four times as large as needed are decoded at a fraction of their size, which moves their pixels
    by one or two grey levels on average; `exact` decodes them in full.

    Raises
    ------
    UnreadableImage
        As `decode` does.
    """
    at_least = None if exact else preprocessing.resize_size
    return view(decode(path, max_pixels=max_pixels, at_least=at_least), preprocessing)


def _without_far_ends(pixels: np.ndarray) -> np.ndarray:
    height, width = pixels.shape[:2]
    longest = LONGEST_ASPECT * min(height, width)
    for axis, length in enumerate((height, width)):
        if length > longest:
            kept = longest + (length - longest) % 2  # an even number goes, so the centre stays where it was
            start = (length - kept) // 2
            pixels = pixels[start : start + kept] if axis == 0 else pixels[:, start : start + kept]
    return pixels


def _resized_shape(height: int, width: int, preprocessing: Preprocessing) -> tuple[int, int]:
    size = preprocessing.resize_size
    if preprocessing.crop_mode == "squash":
        return size, size
    if preprocessing.crop_mode == "border":  # timm.data.transforms.ResizeKeepRatio(longest=1.0)
        ratio = max(height, width) / size
        return max(1, round(height / ratio)), max(1, round(width / ratio))
    if height <= width:  # torchvision truncates the longer side
        return size, int(size * width / height)
    return int(size * height / width), size


def _resize(pixels: np.ndarray, shape: tuple[int, int], interpolation: str) -> torch.Tensor:
    """Return uint8 (height, width, 3) of that height and width; it may share memory with `pixels`."""
    import torch
    from torch.nn.functional import interpolate

    # The batch dimension comes first and the channels move last, or torch takes the strides for NCHW and repacks.
    image = torch.from_numpy(np.require(pixels, requirements=["C", "W"]))[None].permute(0, 3, 1, 2)
    if tuple(image.shape[-2:]) == shape:
        resized = image
    elif interpolation == "nearest":
        resized = interpolate(image, shape, mode="nearest-exact")  # Pillow's nearest; torch's "nearest" is off by half
    else:
        resized = interpolate(image, shape, mode=interpolation, antialias=True, align_corners=False)
    return resized[0].permute(1, 2, 0)


def _centre(image: torch.Tensor, preprocessing: Preprocessing) -> torch.Tensor:
    """Crop (height, width, 3) to the input size around its centre, or pad it: black, or the mean as a border."""
    import torch

    size = preprocessing.input_size
    height, width = image.shape[:2]
    if height < size or width < size:
        fill = [round(255 * value) for value in preprocessing.mean] if preprocessing.crop_mode == "border" else [0] * 3
        canvas = torch.tensor(fill, dtype=torch.uint8).expand(max(height, size), max(width, size), 3).clone()
        top, left = max(0, size - height) // 2, max(0, size - width) // 2
        canvas[top : top + height, left : left + width] = image
        image, (height, width) = canvas, canvas.shape[:2]
    top, left = round((height - size) / 2), round((width - size) / 2)
    return image[top : top + size, left : left + size].clone(memory_format=torch.contiguous_format)
