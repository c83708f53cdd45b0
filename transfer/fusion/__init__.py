"""Fusion: the same network, rewritten to run faster and compute the same.

``fuse`` rewrites a frozen network, ``fold`` one that is trained while its BatchNorm statistics stay frozen.
"""

from transfer.fusion.folding import fold
from transfer.fusion.frozen import channels_last, fuse

__all__ = ["channels_last", "fold", "fuse"]
