"""Augmentation: another look at a training image, drawn at random.

The draws come from a seed that the caller makes of what the view is for, never from a global generator: the same view
of the same image is the same in every thread, process and resumed run. torchvision's v2 functions do the work.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from transfer.errors import UsageError, did_you_mean
from transfer.images.preprocessing import Preprocessing
from transfer.images.views import squash, view

if TYPE_CHECKING:
    import torch

_VERSION = 2  # raise it when the same draw gives other pixels
_ASPECT = (3 / 4, 4 / 3)  # of a random crop, as in torchvision's RandomResizedCrop


@dataclass(frozen=True)
class Augmentation:
    """How far a training view may be from the standard one."""

    least_area: float = 1.0  # of the image that a random crop shows; 1: the standard view
    flip: float = 0.0  # probability of a mirror image
    jitter: float = 0.0  # brightness, contrast and saturation are multiplied by 1 ± this
    n_distortions: int = 0  # operations of TrivialAugment (Müller & Hutter, ICCV 2021)
    erase: float = 0.0  # probability that a rectangle is blanked (Zhong et al., AAAI 2020)

    def needed_side(self, preprocessing: Preprocessing) -> int:
        """Return the pixels that an image's shorter side is needed with: its smallest square crop has the input's."""
        return max(preprocessing.resize_size, math.ceil(preprocessing.input_size / math.sqrt(self.least_area)))


AUGMENTATIONS = {
    "none": Augmentation(),
    "light": Augmentation(least_area=0.6, flip=0.5),
    # the crop of most fine-tuning recipes lies between 0.08 (timm, for training from scratch) and 0.5 (Ultralytics)
    "standard": Augmentation(least_area=0.35, flip=0.5, jitter=0.2),
    "strong": Augmentation(least_area=0.2, flip=0.5, n_distortions=1, erase=0.25),
}


def find_augmentation(name: str) -> Augmentation:
    """Return a named augmentation.

    Raises
    ------
    UsageError
        There is none of that name.
    """
    if name not in AUGMENTATIONS:
        raise UsageError(
            f"Unknown augmentation {name!r}: use {', '.join(AUGMENTATIONS)}.{did_you_mean(name, AUGMENTATIONS)}"
        )
    return AUGMENTATIONS[name]


def generator_for(purpose: str, *numbers: int) -> np.random.Generator:
    """Return a generator that depends on nothing but what is drawn for, so that no two purposes share a stream."""
    return np.random.default_rng([zlib.crc32(purpose.encode()), len(numbers), *numbers])


@dataclass(frozen=True)
class RandomView:
    """One of the random views that every image of a dataset gets: number `number` of those with this seed."""

    augmentation: Augmentation
    seed: int
    number: int

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for a cache's key."""
        return {**asdict(self), "version": _VERSION}

    def needed_side(self, preprocessing: Preprocessing) -> int:
        """Return the pixels that an image's shorter side is needed with."""
        return self.augmentation.needed_side(preprocessing)

    def see(self, pixels: np.ndarray, preprocessing: Preprocessing, content: str) -> torch.Tensor:
        """Return this view of the image with that content, whatever it is called and wherever it stands."""
        rng = generator_for("view", self.seed, self.number, int(content[:16], 16))
        return random_view(pixels, preprocessing, self.augmentation, rng)


def random_view(
    pixels: np.ndarray, preprocessing: Preprocessing, augmentation: Augmentation, rng: np.random.Generator
) -> torch.Tensor:
    """Return a random view of an image, uint8 (3, input_size, input_size) in channels-last memory.

    Parameters
    ----------
    pixels
        uint8 of shape (height, width, 3), as `decode` returns it.
    rng
        Where every draw comes from.
    """
    if augmentation == Augmentation():
        return view(pixels, preprocessing)
    if augmentation.least_area < 1:
        top, left, height, width = _draw_crop(pixels.shape[0], pixels.shape[1], augmentation.least_area, rng)
        image = squash(pixels[top : top + height, left : left + width], preprocessing)
    else:
        image = view(pixels, preprocessing)
    if rng.random() < augmentation.flip:
        image = image.flip(2)
    if augmentation.jitter:
        image = _jitter(image, augmentation.jitter, rng)
    for _ in range(augmentation.n_distortions):
        image = _distort(image, rng)
    if rng.random() < augmentation.erase:
        image = _erase(image, preprocessing, rng)
    return image.permute(1, 2, 0).contiguous().permute(2, 0, 1)


def _draw_crop(height: int, width: int, least_area: float, rng: np.random.Generator) -> tuple[int, int, int, int]:
    """Draw top, left, height and width of a crop, as torchvision's RandomResizedCrop does."""
    for _ in range(10):
        area = height * width * rng.uniform(least_area, 1)
        aspect = math.exp(rng.uniform(math.log(_ASPECT[0]), math.log(_ASPECT[1])))
        w, h = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
        if 0 < w <= width and 0 < h <= height:
            return int(rng.integers(0, height - h + 1)), int(rng.integers(0, width - w + 1)), h, w
    # the image is longer than the aspect allows: the largest crop in its middle
    w, h = min(width, round(height * _ASPECT[1])), min(height, round(width / _ASPECT[0]))
    w, h = max(w, 1), max(h, 1)
    return (height - h) // 2, (width - w) // 2, h, w


def _jitter(image: torch.Tensor, strength: float, rng: np.random.Generator) -> torch.Tensor:
    from torchvision.transforms.v2 import functional

    changes = [functional.adjust_brightness, functional.adjust_contrast, functional.adjust_saturation]
    for i in rng.permutation(len(changes)):
        image = changes[i](image, rng.uniform(1 - strength, 1 + strength))
    return image


def _distort(image: torch.Tensor, rng: np.random.Generator) -> torch.Tensor:
    """Apply one operation of TrivialAugment's wide space, its strength drawn evenly."""
    operations = _distortions()
    return operations[rng.integers(len(operations))](image, rng.uniform(), rng.choice([-1, 1]))


def _distortions() -> list[Callable[[Any, float, int], Any]]:
    """Return operations on (image, strength from 0 to 1, sign), with the ranges of TrivialAugmentWide."""
    from torchvision.transforms.v2 import functional as f

    def affine(image: Any, *, degrees: float = 0.0, shift: tuple[int, int] = (0, 0), shear: Any = (0.0, 0.0)) -> Any:
        return f.affine(image, angle=degrees, translate=list(shift), scale=1.0, shear=list(shear))

    return [
        lambda image, strength, sign: image,
        lambda image, strength, sign: affine(image, shear=(sign * 44.7 * strength, 0.0)),
        lambda image, strength, sign: affine(image, shear=(0.0, sign * 44.7 * strength)),
        lambda image, strength, sign: affine(image, shift=(round(sign * 32 * strength), 0)),
        lambda image, strength, sign: affine(image, shift=(0, round(sign * 32 * strength))),
        lambda image, strength, sign: affine(image, degrees=sign * 135 * strength),
        lambda image, strength, sign: f.adjust_brightness(image, 1 + sign * 0.99 * strength),
        lambda image, strength, sign: f.adjust_saturation(image, 1 + sign * 0.99 * strength),
        lambda image, strength, sign: f.adjust_contrast(image, 1 + sign * 0.99 * strength),
        lambda image, strength, sign: f.adjust_sharpness(image, 1 + sign * 0.99 * strength),
        lambda image, strength, sign: f.posterize(image, 8 - round(6 * strength)),
        lambda image, strength, sign: f.solarize(image, 255 * (1 - strength)),
        lambda image, strength, sign: f.autocontrast(image),
        lambda image, strength, sign: f.equalize(image),
    ]


def _erase(image: torch.Tensor, preprocessing: Preprocessing, rng: np.random.Generator) -> torch.Tensor:
    """Blank a rectangle of 2 to 33 % of the view with the mean colour, which normalises to zero."""
    import torch

    size = preprocessing.input_size
    area, aspect = size * size * rng.uniform(0.02, 0.33), math.exp(rng.uniform(math.log(0.3), math.log(3.3)))
    h, w = min(size, round(math.sqrt(area / aspect))), min(size, round(math.sqrt(area * aspect)))
    top, left = rng.integers(0, size - h + 1), rng.integers(0, size - w + 1)
    image = image.clone()
    colour = torch.tensor([round(255 * value) for value in preprocessing.mean], dtype=torch.uint8)
    image[:, top : top + h, left : left + w] = colour[:, None, None]
    return image
