"""Settings: how the loop trains; a recipe's `train` says the same in its own words."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class TrainingSettings:
    """How the loop trains."""

    n_epochs: int  # that the rate's course has
    batch_size: int
    warmup: float  # share of all steps
    clip: float  # largest norm of the gradient
    label_smoothing: float
    mixup: float  # alpha of the Beta distribution; 0: off
    cutmix: float
    ema: float  # decay per step of the averaged weights; 0: off
    patience: float  # epochs without a better one on val
    seed: int
    optimizer: str = "adamw"  # or sgd
    schedule: str = "cosine"  # or staircase
    frozen_epochs: int = 0  # first, that train the head alone
    frozen_lr: float = 0.0  # peak rate of the head in those
    blend: float = 1.0  # of the way from the start to the weights that are kept, where the trainee is left
    chooses_epoch: bool = True  # by val, the start where none is better; otherwise the last one is kept
    last_epoch: int | None = None  # after which training ends, on its way; None: the last of all
