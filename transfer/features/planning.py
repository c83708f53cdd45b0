"""Plan: how a network is run on this machine, chosen by running it for a moment and remembered."""

from __future__ import annotations

import dataclasses
import functools
import math
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

from transfer import machine
from transfer.backbones import Backbone
from transfer.memos import Memo

CHANNELS_LAST, CONTIGUOUS = "channels_last", "contiguous"
_WORTH_MEASURING = 512  # images; below, the usual plan is done before the others are measured
_SHARE = 0.05  # of the time that the job will take may go into measuring


@dataclasses.dataclass(frozen=True)
class Plan:
    """How a network is run on this machine."""

    device: str
    dtype: str  # float32 or bfloat16: the type that the network computes in
    layout: str  # of images in memory: channels_last or contiguous
    batch_size: int
    n_workers: int  # threads that decode and, on a CPU, run the network, each on a batch of its own
    n_threads: int  # of torch's in each of them

    def cut(self, positions: Sequence[int], n_views: int) -> list[Sequence[int]]:
        """Cut positions of images into those that are run together, so that their views fill whole batches."""
        size = self.batch_size // math.gcd(self.batch_size, n_views)
        return [positions[start : start + size] for start in range(0, len(positions), size)]


Settings = dict[str, Any]


class Plans:
    """The plans for one network at some taps, and how fast those were that have been measured here.

    Parameters
    ----------
    device
        A name, as `machine.pick_device` takes it. A hand-made backbone stays on the CPU.
    exact
        Leaves float32 as the only type, as a hand-made backbone does.
    folder
        Where speeds are remembered; the cache folder by default.
    dtype
        The only type to compute in; by default the fastest.
    """

    def __init__(
        self,
        backbone: Backbone,
        taps: Sequence[str],
        device: str,
        exact: bool,
        folder: Path | None = None,
        dtype: str | None = None,
    ) -> None:
        self.device = machine.pick_device(device)
        if backbone.is_handmade:  # it computes in NumPy or merely copies: quickest in the threads that decode
            self.device = torch.device("cpu")
        self.memo = Memo("plans", folder)
        seen = f"{backbone.preprocessing.input_size} px"
        about = [machine.describe_device(self.device), torch.__version__, backbone.weights_hash, seen, *taps]
        self.key = " | ".join([*about, *["exact"] * exact])
        narrow = [] if exact or backbone.is_handmade else machine.narrow_types(self.device)
        n_cores = machine.count_cores()
        # what is usually fastest comes first; small batches stay in a core's cache, a GPU wants large ones
        on_cpu = self.device.type == "cpu"
        sizes = (4, 8) if on_cpu else (64, 128, 256)
        shapes = dict.fromkeys([(n_cores, 1), (max(1, n_cores // 2), 2), (1, n_cores)] if on_cpu else [(n_cores, 1)])
        # those that need another network come last: it is held instead of the one before, and built again
        self._alternatives: list[list[Settings]] = [
            [{"batch_size": size} for size in sizes],
            [{"n_workers": workers, "n_threads": threads} for workers, threads in shapes],
            [{"dtype": name} for name in ([dtype] if dtype else [*narrow, "float32"])],
            [{"layout": layout} for layout in (CHANNELS_LAST, CONTIGUOUS)],
        ]
        usual = functools.reduce(lambda settings, choices: settings | choices[0], self._alternatives, Settings())
        self.usual = Plan(**{"device": str(self.device), **usual})
        self.speeds = self._read()  # images/s

    @property
    def types(self) -> list[str]:
        """The types that the network may compute in, that of the best plan first."""
        offered = [choice["dtype"] for choices in self._alternatives for choice in choices if "dtype" in choice]
        return sorted(offered, key=lambda dtype: dtype != self.best.dtype)

    @property
    def best(self) -> Plan:
        """The fastest plan so far; the usual one where none was measured."""
        return max(self.speeds, key=self.speeds.__getitem__, default=self.usual)

    def choose(self, n_images: int, measure: Callable[[Plan], float]) -> Plan:
        """Return the plan for a job of `n_images`; vary one setting after the other as long as that pays.

        Parameters
        ----------
        measure
            Runs a plan for a moment and returns its speed in images/s, 0 where it cannot be run.
        """
        if n_images < _WORTH_MEASURING:
            return self.best
        n_known = len(self.speeds)
        best = self.usual  # the same way each time, so that what is known is not measured again
        if best not in self.speeds:
            self.speeds[best] = measure(best)
        deadline = time.perf_counter() + _SHARE * n_images / max(self.speeds[best], 1e-9)
        for choices in self._alternatives:
            for settings in choices:
                plan = dataclasses.replace(best, **settings)
                if plan not in self.speeds and time.perf_counter() < deadline:
                    self.speeds[plan] = measure(plan)
                best = max(best, plan, key=lambda plan: self.speeds.get(plan, 0.0))
        if len(self.speeds) > n_known:
            self.memo.write(
                self.key, [[dataclasses.asdict(plan), round(speed, 1)] for plan, speed in self.speeds.items()]
            )
        return self.best

    def _read(self) -> dict[Plan, float]:
        try:
            speeds = {Plan(**settings): float(speed) for settings, speed in self.memo.read(self.key) or []}
        except (ValueError, TypeError):
            return {}
        return {plan: speed for plan, speed in speeds.items() if self.is_possible(plan)}

    def is_possible(self, plan: Plan) -> bool:
        """Tell whether this network could be run so, here and now."""
        settings = dataclasses.asdict(plan).items()
        is_offered = all(any(choice.items() <= settings for choice in choices) for choices in self._alternatives)
        return is_offered and plan.device == self.usual.device
