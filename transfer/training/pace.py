"""Pace: the device, type, layout and rewriting in which a training step is fastest, chosen by taking one."""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from transfer import machine
from transfer.memos import Memo
from transfer.training.trainees import Trainee

_BATCH = 8  # images; enough to tell which is faster


@dataclass(frozen=True)
class Pace:
    """How a step is computed."""

    device: torch.device
    dtype: str  # float32, or bfloat16: mixed precision, with weights and updates in float32
    channels_last: bool
    is_folded: bool = False  # BatchNorms folded into the convolutions before them
    exact: bool = False
    seconds_per_image: float = math.nan  # forward and backward, as measured

    def precision(self) -> AbstractContextManager[object]:
        """Return the context that training runs in: the same step gives the same weights, in float32 if exact."""
        return machine.repeatable(self.device, exact=self.exact)

    def autocast(self) -> AbstractContextManager[object]:
        """Return the context that a forward pass runs in."""
        if self.dtype == "float32":
            return contextlib.nullcontext()
        return torch.autocast(self.device.type, dtype=getattr(torch, self.dtype))

    def place(self, trainee: Trainee) -> None:
        """Move a trainee to the device and into the layout of this pace, and have it compute that way."""
        layout = torch.channels_last if self.channels_last else torch.contiguous_format
        trainee.to(self.device).to(memory_format=layout)
        trainee.is_folded = self.is_folded

    def arranged(self, inputs: torch.Tensor) -> torch.Tensor:
        """Return inputs in the layout of this pace."""
        if inputs.ndim != 4:
            return inputs.contiguous()
        return inputs.contiguous(memory_format=torch.channels_last if self.channels_last else torch.contiguous_format)


def choose_pace(
    trainee: Trainee,
    shape: Sequence[int],
    device: torch.device,
    exact: bool,
    what: Sequence[str],
    folder: Path | None = None,
) -> Pace:
    """Return the fastest pace for steps on inputs of `shape`, measured once on this machine for `what`.

    Remembering is what lets the same seed give the same weights: a pace that changed from one run to the next would
    round differently. Its speed is measured every time, and the best that was seen is remembered: a busy moment is not.

    Parameters
    ----------
    shape
        Of one image's input to the trainee.
    exact
        Compute in float32 and nothing else.
    what
        Names the network and its cut.
    """
    types = ["float32"] if exact else [*machine.narrow_types(device), "float32"]
    # (channels_last, is_folded)
    ways = [(True, False), (False, False)] if len(shape) == 3 else [(False, False)]
    ways += [(True, True)] * (trainee.can_fold and len(shape) == 3)
    paces = [Pace(device, dtype, *way, exact) for dtype in types for way in ways]
    memo = Memo("paces", folder)
    key = " | ".join([machine.describe_device(device), torch.__version__, *what, f"exact {exact}"])
    known = memo.read(key)
    for pace in paces:
        if isinstance(known, list) and known[:-1] == [pace.dtype, pace.channels_last, pace.is_folded]:
            best_seen = min(float(known[-1]), _seconds(trainee, shape, pace) / _BATCH)
            memo.write(key, [*known[:-1], best_seen])
            return replace(pace, seconds_per_image=best_seen)
    seconds = {pace: _seconds(trainee, shape, pace) for pace in paces}
    best = min(paces, key=seconds.__getitem__)
    if math.isinf(seconds[best]):  # training itself goes on to smaller batches
        return replace(paces[-1], seconds_per_image=1.0)
    memo.write(key, [best.dtype, best.channels_last, best.is_folded, seconds[best] / _BATCH])
    return replace(best, seconds_per_image=seconds[best] / _BATCH)


def _seconds(trainee: Trainee, shape: Sequence[int], pace: Pace) -> float:
    """Return how long a forward and a backward pass take, infinity where they fail; no weight changes."""
    pace.place(trainee)
    trainee.eval()  # no statistics change
    seconds = []
    try:
        inputs = pace.arranged(torch.full((_BATCH, *shape), 0.5, device=pace.device))
        for _ in range(2):
            machine.synchronise(pace.device)
            started = time.perf_counter()
            with pace.precision():
                with pace.autocast():
                    scores = trainee(inputs)
                scores.float().sum().backward()
            machine.synchronise(pace.device)
            seconds.append(time.perf_counter() - started)
    except (RuntimeError, NotImplementedError):  # out of memory, or an operation that this type or layout lacks
        return math.inf
    finally:
        trainee.zero_grad(set_to_none=True)
    return min(seconds)
