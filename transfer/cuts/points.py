"""Cut point: one place where a backbone can be cut, with what lies on either side."""

from __future__ import annotations

from dataclasses import dataclass

PIXELS = "pixels"
FEATURES = "features"

InputSize = tuple[int, int, int]
IMAGENET_SIZE: InputSize = (3, 224, 224)


@dataclass(frozen=True)
class CutPoint:
    """One place where a backbone can be cut, with what lies on either side.

    Attributes
    ----------
    name : str
        ``pixels``, the path of the module whose output crosses (``layer3``, ``blocks.5``, ``features.7``),
        or ``features``.
    shape : tuple of int
        Of the one tensor that crosses, per image, e.g. ``(112, 14, 14)``.
    parameters_left, parameters_right : int
        Parameters of the prefix and of the suffix; together, those of the backbone.
    multiply_adds_left, multiply_adds_right : int
        Of convolutions, linear layers and attention products, per image.
    receptive_field : int or None
        Side in pixels of the patch one activation depends on: 1 + Σ (K − 1) · ∏ S along the longest path. None
        where it is not such a patch (after attention, global pooling, or a linear layer on the flattened map).
    cache_bytes : int
        Of the tensor per image, in float16 (uint8 for ``pixels``).
    """

    name: str
    shape: tuple[int, ...]
    parameters_left: int
    parameters_right: int
    multiply_adds_left: int
    multiply_adds_right: int
    receptive_field: int | None
    cache_bytes: int
