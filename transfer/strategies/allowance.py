"""Allowance: the time that deeper layers may take, and where it was too short."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, field
from typing import Any

from transfer.strategies.jobs import Clock

# Where the user does not say: so many images through all layers, forward and back, at the speed of this machine, half
# an hour at most. That is enough for a trial of two stages and ten epochs of all layers, twice where the training is
# gone through again on train and val; an epoch of the plain way takes as long as 4.8 of these (`bench/finetune.py`)
_LEAST_STEPS = 24_000
_EPOCHS = 16
_EPOCHS_AGAIN = 11
_MOST_SECONDS = 1800.0
_SHORTENED = 0.5  # of its usual length a training should have at least, where the user gave a time


@dataclass
class Allowance:
    """The time that is allowed from now on.

    Attributes
    ----------
    bound
        Where it was too short, one sentence each.
    """

    seconds: float
    is_asked: bool = False  # by the user: then a training may be shorter than usual
    started: float = field(default_factory=time.perf_counter)
    bound: list[str] = field(default_factory=list)

    @property
    def left(self) -> float:
        """Seconds that are left."""
        return max(0.0, self.started + self.seconds - time.perf_counter())

    def suffices(self, seconds: float) -> bool:
        """Whether there is time for what usually takes so many seconds."""
        return (_SHORTENED * seconds if self.is_asked else seconds) <= self.left

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        return {"seconds": round(self.seconds, 1), "was_bound": bool(self.bound), "bound": self.bound}


def allow(clock: Clock, seconds_per_image: float, n_train: int, *, again: float) -> Allowance:
    """Return what the user has allowed, or what is usual on this machine.

    Parameters
    ----------
    seconds_per_image
        Of a step through all layers, forward and back.
    again
        How much of the training is spent again on train and val together: 0 to 1.
    """
    if math.isfinite(clock.deadline):
        return Allowance(max(0.0, clock.deadline - time.perf_counter()), is_asked=True)
    n_epochs = _EPOCHS + again * _EPOCHS_AGAIN
    return Allowance(min(_MOST_SECONDS, seconds_per_image * max(_LEAST_STEPS, n_epochs * n_train)))


def in_words(seconds: float) -> str:
    """Return a time for people."""
    return f"{seconds / 60:.0f} minutes" if seconds >= 90 else f"{seconds:.0f} s"
