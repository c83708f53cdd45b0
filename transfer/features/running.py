"""Runner: a frozen network over many images.

Each CPU core has one thread that decodes, resizes and runs the network for its own small batch, with one torch thread:
on two cores that was faster than decoding workers that feed a two-thread network, or than processes. On a GPU the
threads decode and the device computes.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import torch

from transfer import cuts, fusion, machine
from transfer.backbones import Backbone
from transfer.errors import ResourceError
from transfer.features.planning import CHANNELS_LAST, Plan, Plans
from transfer.features.pooling import pooled
from transfer.images import MAX_PIXELS, STANDARD, UnreadableImage, View, decode, normalise, stack

_TIMED_BATCHES = 2  # for each worker
_WORTH_FUSING = 16  # images; below, rewriting the network costs more than it saves


class Loaded(NamedTuple):
    """Some images, each in all its views, one after the other."""

    good: list[int]  # positions among the sources
    batches: list[torch.Tensor]  # uint8 (batch_size, 3, S, S); what is over in the last one is black
    bad: list[tuple[int, str]]  # positions and reasons


class Rows(NamedTuple):
    """What the network said about some images."""

    positions: list[int]  # among the sources
    views: list[dict[str, np.ndarray]]  # for each view the rows at each tap, one per position
    bad: list[tuple[int, str]]  # positions and reasons of what could not be read


class Runner:
    """Runs a frozen network over images; built only when there is something to run.

    Parameters
    ----------
    sources
        Image files, PIL images or arrays.
    contents
        SHA-256 that the files had when they were scanned.
    pool
        One of `POOLS`: how a map becomes a row; ``none`` keeps the map.
    exact
        Compute in float32, and decode JPEGs in full.
    views
        That are taken of each image, which is decoded once for all; random ones need the `contents`.
    n_images
        How many of the sources there are to run, all by default: choosing a plan must not take longer than that.
    plan
        How the network is run; by default what is quickest.
    """

    def __init__(
        self,
        backbone: Backbone,
        taps: Sequence[str],
        plans: Plans,
        sources: Sequence[Any],
        *,
        contents: Sequence[str] | None = None,
        max_pixels: int = MAX_PIXELS,
        pool: str = "average",
        exact: bool = False,
        n_images: int | None = None,
        views: Sequence[View] = (STANDARD,),
        plan: Plan | None = None,
    ) -> None:
        machine.keep_memory()
        self.sources = sources
        self.n_images = len(sources) if n_images is None else n_images
        self.contents = contents if contents is not None else [""] * len(sources)  # empty: not known
        self.max_pixels = max_pixels
        self.preprocessing = backbone.preprocessing
        self.pool = pool
        self.exact = exact
        self.device = plans.device
        self._size = backbone.input_shape[1:]
        self.views = tuple(views)
        self._is_map_last = backbone.is_map_last
        self._networks: dict[tuple[str, str], torch.nn.Module] = {}
        with machine.torch_threads(1):  # two threads wait for each other where another process has a core
            self._reader = cuts.read_taps(backbone.model, list(taps), backbone.input_shape)
            self.plan = plan or plans.choose(self.n_images * len(self.views), self._views_per_second)

    def run(self, positions: Sequence[int] | None = None) -> Iterator[Rows]:
        """Yield the rows batch by batch, in order, of the sources at `positions` or of all."""
        yield from self.run_batches(
            self.plan.cut(range(len(self.sources)) if positions is None else positions, len(self.views))
        )

    def run_batches(self, batches: Sequence[Sequence[int]]) -> Iterator[Rows]:
        """Yield the rows of each batch of positions, of which none may be larger than the plan's.

        Raises
        ------
        DataError
            A file has other content than when it was scanned: its row would be kept as that of another image.
        ResourceError
            The device has not enough memory.
        """
        try:
            yield from self._run(self.plan, batches)
        except torch.OutOfMemoryError as error:
            raise ResourceError(
                f"Out of memory on {self.device} with batches of {self.plan.batch_size}. Free some of it, or use "
                "--device cpu."
            ) from error

    def load(self, plan: Plan, positions: Sequence[int]) -> Loaded:
        """Decode some images. What is not filled stays black: every batch has the same shape, so that a row does not
        depend on who was in its batch."""
        seen: list[torch.Tensor] = []
        good: list[int] = []
        bad: list[tuple[int, str]] = []
        for position in positions:
            try:
                pixels = decode(
                    self.sources[position],
                    max_pixels=self.max_pixels,
                    at_least=None if self.exact else max(each.needed_side(self.preprocessing) for each in self.views),
                    content=self.contents[position] or None,
                )
                seen += [each.see(pixels, self.preprocessing, self.contents[position]) for each in self.views]
                good.append(position)
            except UnreadableImage as error:
                bad.append((position, error.reason))
        seen += [torch.zeros(3, *self._size, dtype=torch.uint8)] * (-len(seen) % plan.batch_size)
        batches = [stack(seen[start : start + plan.batch_size]) for start in range(0, len(seen), plan.batch_size)]
        on_gpu = self.device.type == "cuda"
        return Loaded(good, [batch.pin_memory() if on_gpu else batch for batch in batches], bad)

    def forward(self, plan: Plan, loaded: Loaded) -> Rows:
        """Run the network over some images."""
        good, batches, bad = loaded
        if not good:
            return Rows(good, [], bad)
        pieces = [self._forward_batch(plan, batch) for batch in batches]
        n_views = len(self.views)
        rows = {tap: np.concatenate([piece[tap] for piece in pieces])[: n_views * len(good)] for tap in pieces[0]}
        return Rows(good, [{tap: each[k::n_views] for tap, each in rows.items()} for k in range(n_views)], bad)

    def _forward_batch(self, plan: Plan, batch: torch.Tensor) -> dict[str, np.ndarray]:
        precision = machine.full_float32(self.device) if self.exact else nullcontext()
        with torch.inference_mode(), precision:
            images = batch.to(self.device, non_blocking=True)
            images = normalise(images, self.preprocessing, getattr(torch, plan.dtype), _memory_format(plan))
            return {tap: self._pooled(rows) for tap, rows in self._network(plan)(images).items()}

    def _load_and_forward(self, plan: Plan, positions: Sequence[int]) -> Rows:
        return self.forward(plan, self.load(plan, positions))

    def _run(self, plan: Plan, batches: Sequence[Sequence[int]]) -> Iterator[Rows]:
        self._network(plan)  # built by one thread
        on_cpu = self.device.type == "cpu"
        work: Callable[[Sequence[int]], Any] = partial(self._load_and_forward if on_cpu else self.load, plan)
        threads = {"n_workers": plan.n_workers, "n_ahead": 2 * plan.n_workers, "n_threads": plan.n_threads}
        outside = torch.get_num_threads()
        with machine.torch_threads(1):
            for done in machine.work_ahead(work, batches, **threads):
                rows = done if on_cpu else self.forward(plan, done)
                with machine.torch_threads(outside):  # whoever takes the rows may compute with them
                    yield rows

    def _pooled(self, rows: torch.Tensor) -> np.ndarray:
        return pooled(rows.float(), self._is_map_last, self.pool).contiguous().cpu().numpy()

    def _network(self, plan: Plan) -> torch.nn.Module:
        key = plan.dtype, plan.layout
        if key not in self._networks:
            if self._networks:  # one at a time: measuring must not need more memory than the work itself
                self._networks.clear()
                machine.give_memory_back()
            dtype, layout = getattr(torch, plan.dtype), _memory_format(plan)
            # the reader shares its layers with the backbone, which stays where and as it is
            reader = self._reader if self.device.type == "cpu" else copy.deepcopy(self._reader).to(self.device)
            if (
                isinstance(reader, torch.fx.GraphModule)
                and (self.n_images >= _WORTH_FUSING or self.pool == "none")  # maps are trained on: all alike
                and plan.layout == CHANNELS_LAST
            ):
                noise = torch.rand(
                    1, 3, *self._size, generator=torch.Generator().manual_seed(0)
                )  # not the caller's draws
                example = noise.to(self.device)
                self._networks[key] = fusion.fuse(reader, example, dtype)
            elif plan.dtype == "float32" and plan.layout != CHANNELS_LAST:
                self._networks[key] = reader
            else:
                self._networks[key] = copy.deepcopy(reader).to(dtype).to(memory_format=layout)
        return self._networks[key]

    def _views_per_second(self, plan: Plan) -> float:
        """Run one view of the first images for a moment as `plan` would, decoding included."""
        views, self.views = self.views, self.views[:1]  # so that what is remembered serves any number of them
        try:
            return self._measured(plan)
        finally:
            self.views = views

    def _measured(self, plan: Plan) -> float:
        n_workers = plan.n_workers if self.device.type == "cpu" else 1
        first = [i % len(self.sources) for i in range(n_workers * plan.batch_size)]
        try:
            list(self._run(plan, plan.cut(first, len(self.views))))  # builds the network and fills its memory
            started = time.perf_counter()
            list(self._run(plan, plan.cut(first * _TIMED_BATCHES, len(self.views))))
            return len(first) * _TIMED_BATCHES / (time.perf_counter() - started)
        except torch.OutOfMemoryError:
            torch.cuda.empty_cache()
            return 0.0


def _memory_format(plan: Plan) -> torch.memory_format:
    return torch.channels_last if plan.layout == CHANNELS_LAST else torch.contiguous_format
