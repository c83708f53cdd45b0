"""Fixed view: a crop, mirror or turn of an image that is the same for every image, to be put together with others.

Ten views are AlexNet's (Krizhevsky et al., NIPS 2012) as torchvision's TenCrop takes them: crops of 7/8 of the shorter
side in the corners and the centre of the whole image, where AlexNet takes those of its central square. Sixteen are
those of "CNN features off-the-shelf" (Razavian et al., CVPRW 2014): the image, five crops of 4/9 of its area, two
turns, and the mirror image of each. A crop has its own share; the preprocessing's is for the image and its turns.
"""

from __future__ import annotations

import dataclasses
import math
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from transfer.images.preprocessing import Preprocessing
from transfer.images.views import shrink, view

if TYPE_CHECKING:
    import torch

_VERSION = 1  # raise it when the same view shows other pixels
_CORNERS_AND_CENTRE = ((0.0, 0.0), (0.0, 1.0), (1.0, 0.0), (1.0, 1.0), (0.5, 0.5))
_DEGREES = 10.0  # Razavian et al. do not say how far they turn


@dataclass(frozen=True)
class FixedView:
    """One part of an image as a backbone sees it.

    Attributes
    ----------
    share : float
        Of each side that is shown; where the preprocessing does not squash, of a square as long as the shorter side.
    place : tuple of float
        Of the crop, down and to the right, as a share of the way that it can go: (0, 0) is the upper left corner.
    degrees : float
        By which the image is turned, anticlockwise; shown is the largest part of its shape without a black corner.
    """

    share: float = 1.0
    place: tuple[float, float] = (0.5, 0.5)
    degrees: float = 0.0
    is_mirrored: bool = False

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for a cache's key; the standard view has none."""
        return {**asdict(self), "place": list(self.place), "version": _VERSION} if self != FixedView() else {}

    def needed_side(self, preprocessing: Preprocessing) -> int:
        """Return the pixels that an image's shorter side is needed with."""
        return max(preprocessing.resize_size, math.ceil(preprocessing.input_size / self.share))

    def see(self, pixels: np.ndarray, preprocessing: Preprocessing, content: str = "") -> torch.Tensor:
        """Return this view of an image, uint8 (3, S, S) in channels-last memory, from pixels (height, width, 3)."""
        if self.degrees:  # at twice the size that is needed: turning takes memory for every pixel
            enough = shrink(pixels, 2 * self.needed_side(preprocessing), preprocessing.interpolation)
            pixels = _turned(enough, self.degrees)
        if self.share < 1:
            top, left, height, width = self.box(pixels.shape[0], pixels.shape[1], preprocessing)
            pixels = pixels[top : top + height, left : left + width]
            preprocessing = dataclasses.replace(preprocessing, crop_share=1.0)
        seen = view(pixels, preprocessing)
        return seen.flip(2).permute(1, 2, 0).contiguous().permute(2, 0, 1) if self.is_mirrored else seen

    def box(self, height: int, width: int, preprocessing: Preprocessing) -> tuple[int, int, int, int]:
        """Return top, left, height and width of what is shown of an image of that size."""
        whole = (height, width) if preprocessing.crop_mode == "squash" else (min(height, width),) * 2
        shown = [max(1, round(self.share * side)) for side in whole]
        top, left = (
            round(place * (side - part)) for place, side, part in zip(self.place, (height, width), shown, strict=True)
        )
        return top, left, shown[0], shown[1]


def _with_mirrors(*views: FixedView) -> tuple[FixedView, ...]:
    return tuple(dataclasses.replace(each, is_mirrored=mirrored) for each in views for mirrored in (False, True))


STANDARD = FixedView()
FIXED_VIEWS = {
    1: (STANDARD,),
    2: _with_mirrors(STANDARD),
    10: _with_mirrors(*(FixedView(share=224 / 256, place=place) for place in _CORNERS_AND_CENTRE)),
    16: _with_mirrors(
        STANDARD,
        *(FixedView(share=2 / 3, place=place) for place in _CORNERS_AND_CENTRE),  # 4/9 of the area
        FixedView(degrees=_DEGREES),
        FixedView(degrees=-_DEGREES),
    ),
}


def _turned(pixels: np.ndarray, degrees: float) -> np.ndarray:
    """Turn an image about its centre; return the largest part of the same shape that it fills."""
    import torch
    from torchvision.transforms.v2 import InterpolationMode
    from torchvision.transforms.v2.functional import rotate

    height, width = pixels.shape[:2]
    image = torch.from_numpy(np.ascontiguousarray(pixels)).permute(2, 0, 1)
    turned = rotate(image, degrees, InterpolationMode.BILINEAR).permute(1, 2, 0).numpy()
    cos, sin = abs(math.cos(math.radians(degrees))), abs(math.sin(math.radians(degrees)))
    scale = min(width / (width * cos + height * sin), height / (width * sin + height * cos))
    # the outermost pixels are mixed with what lies beyond
    kept_height, kept_width = max(1, int(height * scale) - 2), max(1, int(width * scale) - 2)
    top, left = (height - kept_height) // 2, (width - kept_width) // 2
    return np.ascontiguousarray(turned[top : top + kept_height, left : left + kept_width])
