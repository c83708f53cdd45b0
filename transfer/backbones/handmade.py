"""Hand-made backbone: features that somebody thought up, with no weights to learn or to fetch.

The lecture's f(x) = Wx on raw pixels, and the image features from before deep learning (CS231n's first assignment).
What pretrained features are worth shows beside them.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import numpy as np
import torch
from torch import nn

from transfer.images import Preprocessing

_CELL = 8  # pixels: the side of what one histogram of gradients covers
_ORIENTATIONS = 9
_HUES = 10


class Pixels(nn.Module):
    """The pixels themselves in one row: all of red, then green, then blue, as CIFAR-10's own files keep them."""

    definition = "pixels 1"  # of what a row holds; raise the number when that changes, and old caches are left alone

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return images.flatten(1)


class HogColor(nn.Module):
    """Histograms of oriented gradients (Dalal and Triggs, CVPR 2005) for shape, then a histogram of hues for colour.

    Takes RGB in [0, 1]. Computes in NumPy on the CPU, image by image, wherever the images are; without a gradient.
    """

    definition = "hog-color 1"

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        pixels = images.detach().cpu().permute(0, 2, 3, 1).numpy()
        rows = np.stack([np.concatenate([gradients(image), hues(image)]) for image in pixels])
        return torch.from_numpy(rows).to(images.device)


def gradients(image: np.ndarray) -> np.ndarray:
    """Return the histograms of oriented gradients of an image (height, width, 3), as scikit-image computes them.

    Nine orientations in cells of 8x8 pixels; each 2x2 cells normalised together (L2-Hys).
    """
    from skimage.feature import hog

    return hog(
        image,
        orientations=_ORIENTATIONS,
        pixels_per_cell=(_CELL, _CELL),
        cells_per_block=(2, 2),
        block_norm="L2-Hys",
        channel_axis=-1,  # the steepest channel counts at each pixel, as in the paper
    ).astype(np.float32)


def hues(image: np.ndarray) -> np.ndarray:
    """Return which share of the pixels of an RGB image (height, width, 3) has each of ten hues, from red on.

    The hue is that of HSV, whatever the saturation: grey counts as red, as in CS231n's `color_histogram_hsv`.
    """
    red, green, blue = (image[..., channel] for channel in range(3))
    largest = image.max(-1)
    chroma = largest - image.min(-1)
    chroma[chroma == 0] = 1  # grey: the numerators are 0
    # a tenth of the time of scikit-image's `rgb2hsv`, which takes as long as the gradients
    sixths = np.where(
        largest == red,
        (green - blue) / chroma,
        np.where(largest == green, 2 + (blue - red) / chroma, 4 + (red - green) / chroma),
    )
    counts, _ = np.histogram(sixths % 6, bins=_HUES, range=(0, 6))
    return (counts / counts.sum()).astype(np.float32)


@dataclasses.dataclass(frozen=True)
class Handmade:
    """How the module is built, and how it wants to see images."""

    build: Callable[[], nn.Module]
    preprocessing: Preprocessing
    n_features: int


def _squashed(size: int, largest: float) -> Preprocessing:
    """Return the preprocessing that shows all of the image as a square, with values from 0 to `largest`."""
    return Preprocessing(size, 1.0, "bilinear", (0.0, 0.0, 0.0), (1 / largest,) * 3, "squash")


HANDMADE = {
    # the lecture's numbers for CIFAR-10: 32 * 32 * 3 = 3,072 from 0 to 255; the heads centre them
    "pixels": Handmade(Pixels, _squashed(32, 255.0), 3072),
    "hog-color": Handmade(HogColor, _squashed(64, 1.0), 7 * 7 * 4 * _ORIENTATIONS + _HUES),
}
