"""Cache: what was computed of images on disk, found again by the content of the image.

One folder is for one kind of row (these weights, this tap, this view, this type) and holds `shards`, into which
`filling` collects rows. ``open_cache`` opens one of `activations`, ``open_pixels`` one of decoded images. Of several
processes that lack the same rows one computes them, by `claims`. `holdings` says what all of them hold.
"""

from transfer.cache.activations import ActivationCache
from transfer.cache.claims import claim
from transfer.cache.filling import Filling
from transfer.cache.holdings import TRAINING, Holding, clear, find_holdings
from transfer.cache.opening import ACTIVATIONS, PIXELS, open_cache, open_pixels
from transfer.cache.pixels import PixelCache

__all__ = [
    "ACTIVATIONS",
    "PIXELS",
    "TRAINING",
    "ActivationCache",
    "Filling",
    "Holding",
    "PixelCache",
    "claim",
    "clear",
    "find_holdings",
    "open_cache",
    "open_pixels",
]
