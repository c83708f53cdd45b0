"""History: what each epoch led to, and which one is kept."""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass
class Epoch:
    """One line of the history. Epoch 0 is the head at the start, before any step."""

    epoch: int
    loss: float | None
    train_accuracy: float | None
    val_accuracy: float | None  # None where nothing is judged
    val_loss: float | None
    lr: float
    images_per_second: float | None  # of the steps, without val
    seconds: float  # since the start, val included

    def is_better_than(self, other: Epoch) -> bool:
        """Compare by val: accuracy first, then loss."""
        ours, theirs = ((row.val_accuracy or 0.0, -(row.val_loss or 0.0)) for row in (self, other))
        return ours > theirs

    def describe(self, n_epochs: int, is_kept: bool) -> str:
        """Return one line for people, of an epoch that was judged."""
        if self.epoch == 0:
            return f"Epoch 0, before any step: val {self.val_accuracy:.1%}"
        kept = ", kept" if is_kept else ""
        speed = f", {self.images_per_second:.0f} images/s" if self.images_per_second else ""
        return (
            f"Epoch {self.epoch}/{n_epochs}: loss {self.loss or 0:.3f}, train {self.train_accuracy or 0:.1%}, "
            f"val {self.val_accuracy:.1%}{kept} (rate {self.lr:.1e}{speed})"
        )


def is_as_good(hits: str, best_hits: str) -> bool:
    """Say whether an accuracy is within one standard error of the best one, image by image.

    >>> is_as_good("1110", "1111"), is_as_good("1110" * 9, "1111" * 9)
    (True, False)
    """
    gaps = [int(best) - int(hit) for hit, best in zip(hits, best_hits, strict=True)]
    mean = sum(gaps) / len(gaps)
    variance = sum((gap - mean) ** 2 for gap in gaps) / max(1, len(gaps) - 1)
    return mean <= math.sqrt(variance / len(gaps)) + 1e-12
