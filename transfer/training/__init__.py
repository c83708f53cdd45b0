"""Training: the layers right of a cut learn the new classes, and the layers left of it stay what they are.

* `trainees` is what is trained: the suffix of a backbone with a head that is already solved.
* `examples` are what it sees: cached activations of several views, or `pixels` decoded in every epoch or once.
* `rates` says how fast each layer learns and when, `mixing` makes one image of two.
* `pace` chooses type and layout by taking a step in each.
* `loop` is the only training loop; `checkpoints` let it go on exactly where it was, `signals` let it end in order.
"""

from __future__ import annotations

from transfer.training.checkpoints import Checkpoints
from transfer.training.examples import CachedExamples, Examples, LivePrefixExamples, PixelExamples
from transfer.training.loop import Epoch, Outcome, TrainingSettings, train
from transfer.training.pace import Pace, choose_pace
from transfer.training.pixels import DecodedPixels, keep_pixels, measure_pixels
from transfer.training.rates import parameter_groups, rate_at
from transfer.training.trainees import Trainee

__all__ = [
    "CachedExamples",
    "Checkpoints",
    "DecodedPixels",
    "Epoch",
    "Examples",
    "LivePrefixExamples",
    "Outcome",
    "Pace",
    "PixelExamples",
    "Trainee",
    "TrainingSettings",
    "choose_pace",
    "keep_pixels",
    "measure_pixels",
    "parameter_groups",
    "rate_at",
    "train",
]
