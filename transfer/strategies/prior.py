"""Prior: what the size of a dataset says about what to train, before anything is measured."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from transfer.recipe import ChoiceSettings


@dataclass(frozen=True)
class Prior:
    """The size of the part that may be learned from, and what is worth trying at it."""

    n_images: int  # of train and val
    n_classes: int
    per_class: float  # median
    least: int  # of the smallest class
    column: int  # of the lecture's slide: 2, a new last layer; 3, deeper layers too
    is_few: bool  # too few to choose anything on them
    headroom: float  # share that a linear head must get wrong for a race to be worth its time

    @property
    def is_bigger(self) -> bool:
        """Whether it is the bigger dataset of the lecture's slide."""
        return self.column == 3

    def describe(self) -> list[str]:
        """Say it in a few lines."""
        size = (
            f"{self.n_images} images to learn from, {self.n_classes} classes, {self.per_class:g} images per class "
            f"(the median; the smallest has {self.least})"
        )
        if self.is_few:
            return [f"Size: {size}.", "Too few per class to choose anything on."]
        if not self.is_bigger:
            worth = "small, so a linear head on the frozen network first; deeper layers where it leaves much to gain"
        else:
            worth = "bigger, so deeper layers are likely to pay; a linear head first, to compare them with"
        return [f"Size: {size}.", f"Column {self.column} of the lecture's slide: {worth}."]

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        return asdict(self)


def judge_size(labels: np.ndarray, n_classes: int, settings: ChoiceSettings) -> Prior:
    """Return what the labels of train and val say."""
    counts = np.bincount(labels, minlength=n_classes)
    per_class = float(np.median(counts))
    is_bigger = len(labels) >= settings.bigger
    return Prior(
        n_images=len(labels),
        n_classes=n_classes,
        per_class=per_class,
        least=int(counts.min()),
        column=3 if is_bigger else 2,
        is_few=per_class < settings.few,
        headroom=settings.headroom_bigger if is_bigger else settings.headroom,
    )
