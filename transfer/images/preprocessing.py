"""Preprocessing: how pixels become the input of a backbone; it belongs to the weights."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

from transfer.errors import UsageError, did_you_mean

INTERPOLATIONS = ("bicubic", "bilinear", "nearest")
CROP_MODES = ("center", "squash", "border")

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)

# Part of every fingerprint: raise it when `decode`, `view` or `shrink` gives different pixels, and old caches are left
# alone.
_VIEW_VERSION = 1


@dataclass(frozen=True)
class Preprocessing:
    """How pixels become the input of a backbone. It belongs to the weights: other values cost accuracy.

    Examples
    --------
    >>> preprocessing = Preprocessing(input_size=224, mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5))
    >>> preprocessing.resize_size
    256
    >>> preprocessing.describe()
    '224 px: bicubic to 256, centre crop, mean 0.5 0.5 0.5, std 0.5 0.5 0.5'
    """

    input_size: int = 224  # height and width of the view
    crop_share: float = 0.875  # input_size as a share of what the image is resized to; timm's crop_pct
    interpolation: str = "bicubic"  # one of INTERPOLATIONS
    mean: tuple[float, ...] = IMAGENET_MEAN  # red, green, blue, for pixels in [0, 1]
    std: tuple[float, ...] = IMAGENET_STD
    crop_mode: str = "center"  # shorter side to resize_size ("center"), both sides ("squash"), longer side ("border")

    def __post_init__(self) -> None:
        object.__setattr__(self, "mean", tuple(float(value) for value in self.mean))
        object.__setattr__(self, "std", tuple(float(value) for value in self.std))
        for name, value, known in (
            ("interpolation", self.interpolation, INTERPOLATIONS),
            ("crop_mode", self.crop_mode, CROP_MODES),
        ):
            if value not in known:
                hint = did_you_mean(str(value), known)
                raise UsageError(f"Unknown {name} {value!r} in the preprocessing.{hint} Known: {', '.join(known)}.")
        if not isinstance(self.input_size, int) or self.input_size < 1:
            raise UsageError(f"Preprocessing has input_size {self.input_size!r}: give a whole number of pixels.")
        if not 0 < self.crop_share < math.inf:
            raise UsageError(f"Preprocessing has crop_share {self.crop_share!r}: give a share such as 0.875.")
        if len(self.mean) != 3 or len(self.std) != 3 or min(self.std) <= 0:
            raise UsageError("Preprocessing needs a mean and a positive std for red, green and blue.")

    @property
    def resize_size(self) -> int:
        """Pixels that the shorter side (see `crop_mode`) has before the crop."""
        # Floored as in timm; the tiny addition makes input_size / (input_size / n) come back as n.
        return math.floor(self.input_size / self.crop_share + 1e-6)

    @classmethod
    def from_timm(cls, config: Mapping[str, Any]) -> Preprocessing:
        """Return what timm's `pretrained_cfg` or `resolve_data_config` describes, with timm's defaults.

        Raises
        ------
        UsageError
            The network does not take square RGB images, or its interpolation is not offered here.
        """
        n_channels, height, width = config.get("input_size") or (3, 224, 224)
        if height != width or n_channels != 3:
            raise UsageError(
                f"The backbone takes {n_channels}×{height}×{width} input: choose one for square RGB images."
            )
        return cls(
            input_size=int(height),
            crop_share=float(config.get("crop_pct") or 0.875),
            interpolation=config.get("interpolation") or "bicubic",
            mean=tuple(config.get("mean") or IMAGENET_MEAN),
            std=tuple(config.get("std") or IMAGENET_STD),
            crop_mode=config.get("crop_mode") or "center",
        )

    @classmethod
    def from_torchvision(cls, preset: Any) -> Preprocessing:
        """Return what an `ImageClassification` preset of torchvision describes: `weights.transforms()`."""
        (input_size,), (resize_size,) = preset.crop_size, preset.resize_size
        return cls(
            input_size=input_size,
            crop_share=input_size / resize_size,
            interpolation=preset.interpolation.value,
            mean=tuple(preset.mean),
            std=tuple(preset.std),
        )

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Preprocessing:
        """Return the preprocessing that `to_dict` wrote.

        Raises
        ------
        UsageError
            A key or a value is unknown.
        """
        known = [field.name for field in fields(cls)]
        for key in values:
            if key not in known:
                raise UsageError(f"Unknown preprocessing key {key!r}.{did_you_mean(key, known)}")
        return cls(**values)

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON or YAML."""
        return {key: list(value) if isinstance(value, tuple) else value for key, value in asdict(self).items()}

    def describe(self) -> str:
        """Return one line for people."""
        shape = {"center": "centre crop", "squash": "squashed, centre crop", "border": "with border"}[self.crop_mode]
        mean, std = (" ".join(f"{value:.4g}" for value in values) for values in (self.mean, self.std))
        return f"{self.input_size} px: {self.interpolation} to {self.resize_size}, {shape}, mean {mean}, std {std}"

    def fingerprint(self) -> str:
        """Return 16 hexadecimal digits that differ when the views or their normalisation differ."""
        text = json.dumps([_VIEW_VERSION, self.to_dict()], sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:16]
