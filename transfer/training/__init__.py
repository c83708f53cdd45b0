"""Training: the layers right of a cut learn the new classes, and the layers left of it stay what they are.

* `trainees` is what is trained: the suffix of a backbone with a head that is already solved.
* `examples` are what it sees: cached activations of several views, or `pixels` decoded in every epoch or once.
* `rates` says how fast each layer learns and when, `mixing` makes one image of two.
* `pace` chooses type and layout by taking a step in each.
* `stepping` takes one step, in pieces that fit into memory; `loop` is the only training loop around it.
* `history` says which epoch is kept, `averaging` averages weights, and `logs` write the history for other tools.
* `checkpoints` let a training go on exactly where it was, and `signals` let it end in order.
"""

from __future__ import annotations

from transfer.training.averaging import blend
from transfer.training.checkpoints import Checkpoints
from transfer.training.examples import CachedExamples, Examples, LivePrefixExamples, PixelExamples
from transfer.training.history import Epoch
from transfer.training.logs import LOGS, open_log, require_log
from transfer.training.loop import Outcome, train
from transfer.training.pace import Pace, choose_pace
from transfer.training.pixels import DecodedPixels, keep_pixels, measure_pixels
from transfer.training.rates import parameter_groups, rate_at
from transfer.training.settings import TrainingSettings
from transfer.training.trainees import Trainee

__all__ = [
    "LOGS",
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
    "blend",
    "choose_pace",
    "keep_pixels",
    "measure_pixels",
    "open_log",
    "parameter_groups",
    "rate_at",
    "require_log",
    "train",
]
