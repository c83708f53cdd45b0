"""Images: a file becomes pixels, pixels become a view.

Pillow decodes (torchvision's own decoders crash the process on a damaged PNG), torch resizes. An image is
either decoded completely or refused as an `UnreadableImage`; nothing is guessed and nothing is replaced.

* `decoding` leads from a file to pixels: `formats` says which plugin of Pillow opens it, `guard` keeps Pillow strict
  meanwhile, `orientation` sets the image upright, `pixels` makes 8-bit RGB of every mode.
* `unreadable` is what a refused image becomes; `foreign` and `damage` find the words for it. `checksums` tells damage
  that Pillow lets through.
* `preprocessing` says which part of the pixels a backbone sees and at which size. `views` cuts that out, `fixed` knows
  other crops, mirrors and turns, `augmentation` draws one at random for training, and `batches` normalises them.
"""

from __future__ import annotations

from transfer.images.augmentation import (
    AUGMENTATIONS,
    Augmentation,
    RandomView,
    find_augmentation,
    generator_for,
    random_view,
)
from transfer.images.batches import normalise, stack
from transfer.images.decoding import MAX_PIXELS, decode, is_one_image
from transfer.images.fixed import FIXED_VIEWS, STANDARD, FixedView
from transfer.images.formats import FORMATS
from transfer.images.preprocessing import CROP_MODES, IMAGENET_MEAN, IMAGENET_STD, INTERPOLATIONS, Preprocessing
from transfer.images.unreadable import UnreadableImage
from transfer.images.views import LONGEST_ASPECT, View, load_view, shrink, view

__all__ = [
    "AUGMENTATIONS",
    "CROP_MODES",
    "FIXED_VIEWS",
    "FORMATS",
    "IMAGENET_MEAN",
    "IMAGENET_STD",
    "INTERPOLATIONS",
    "LONGEST_ASPECT",
    "MAX_PIXELS",
    "STANDARD",
    "Augmentation",
    "FixedView",
    "Preprocessing",
    "RandomView",
    "UnreadableImage",
    "View",
    "decode",
    "find_augmentation",
    "generator_for",
    "is_one_image",
    "load_view",
    "normalise",
    "random_view",
    "shrink",
    "stack",
    "view",
]
