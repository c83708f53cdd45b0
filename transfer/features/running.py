"""Runner: a frozen network over many images.

Each CPU core has one thread that decodes, resizes and runs the network for its own small batch, with one torch thread:
on two cores that was faster than decoding workers that feed a two-thread network, or than processes. On a GPU the
threads decode and the device computes.
"""

from __future__ import annotations

import copy
import functools
import time
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import nullcontext
from typing import Any, NamedTuple

import numpy as np
import torch

from transfer import cuts, fusion, machine
from transfer.backbones import Backbone
from transfer.errors import ResourceError
from transfer.features.planning import CHANNELS_LAST, Plan, Plans
from transfer.images import MAX_PIXELS, UnreadableImage, decode, normalise, stack, view

_TIMED_RUNS = 2
_WORTH_FUSING = 16  # images; below, rewriting the network costs more than it saves


class Loaded(NamedTuple):
    """One batch of views, of which the first `len(good)` are images."""

    good: list[int]  # positions among the sources
    views: torch.Tensor  # uint8 (batch_size, 3, S, S)
    bad: list[tuple[int, str]]  # positions and reasons


class Rows(NamedTuple):
    """What the network said about one batch."""

    positions: list[int]  # among the sources
    rows: dict[str, np.ndarray]  # for each tap, one row per position
    bad: list[tuple[int, str]]  # positions and reasons of what could not be read


class Runner:
    """Runs a frozen network over images; built only when there is something to run.

    Parameters
    ----------
    pool
        ``average`` over the positions of a map, or ``none`` to keep the map.
    exact
        Compute in float32, and decode JPEGs in full.
    n_images
        How many there will be: choosing how to run the network must not take longer than running it.
    """

    def __init__(
        self,
        backbone: Backbone,
        taps: Sequence[str],
        plans: Plans,
        *,
        pool: str = "average",
        exact: bool = False,
        n_images: int,
    ) -> None:
        machine.keep_memory()
        self.preprocessing = backbone.preprocessing
        self.pool = pool
        self.exact = exact
        self.device = plans.device
        self._size = backbone.input_shape[1:]
        self._draft_size = None if exact else self.preprocessing.resize_size
        self._is_worth_fusing = n_images >= _WORTH_FUSING
        self._is_map_last = _is_map_last(backbone.model)
        self._networks: dict[tuple[str, str], torch.nn.Module] = {}
        with machine.torch_threads(1):  # two threads wait for each other where another process has a core
            self._reader = cuts.read_taps(backbone.model, list(taps), backbone.input_shape)
            self.plan = plans.choose(n_images, self._images_per_second)
            self.network = self._network(self.plan)

    def run(
        self, sources: Sequence[Any], max_pixels: int = MAX_PIXELS, contents: Sequence[str] | None = None
    ) -> Iterator[Rows]:
        """Run over image files, PIL images or arrays; yield batch by batch, in order.

        Parameters
        ----------
        contents
            SHA-256 that the files had when they were scanned.

        Raises
        ------
        DataError
            A file has other content now: its row would be kept as that of another image.
        """
        starts = range(0, len(sources), self.plan.batch_size)
        load = functools.partial(self._load, sources, contents or [None] * len(sources), max_pixels)
        on_cpu = self.device.type == "cpu"
        work = (lambda start: self.forward(load(start))) if on_cpu else load
        with machine.torch_threads(1), self._threads(self.plan) as threads:
            waiting: deque[Future[Any]] = deque()
            try:
                for start in starts:
                    waiting.append(threads.submit(work, start))
                    if len(waiting) > 2 * self.plan.n_workers:
                        done = waiting.popleft().result()
                        yield done if on_cpu else self.forward(done)
                while waiting:
                    done = waiting.popleft().result()
                    yield done if on_cpu else self.forward(done)
            finally:
                for future in waiting:
                    future.cancel()

    def forward(self, loaded: Loaded) -> Rows:
        """Run the network over one batch of views."""
        good, views, bad = loaded
        if not good:
            return Rows(good, {}, bad)
        precision = machine.full_float32(self.device) if self.exact else nullcontext()
        try:
            with torch.inference_mode(), precision:
                outputs = self.network(self._prepared(views.to(self.device, non_blocking=True), self.plan))
                return Rows(good, {tap: self._pooled(rows[: len(good)]) for tap, rows in outputs.items()}, bad)
        except torch.OutOfMemoryError as error:
            raise ResourceError(
                f"Out of memory on {self.device} with batches of {self.plan.batch_size}. Free some of it, or use "
                "--device cpu."
            ) from error

    def _load(self, sources: Sequence[Any], contents: Sequence[str | None], max_pixels: int, start: int) -> Loaded:
        """Decode one batch. What is not filled stays black: every batch has the same shape, so that a row does not
        depend on who was in its batch."""
        views = []
        good: list[int] = []
        bad: list[tuple[int, str]] = []
        for position in range(start, min(start + self.plan.batch_size, len(sources))):
            try:
                pixels = decode(
                    sources[position],
                    max_pixels=max_pixels,
                    at_least=self._draft_size,
                    content=contents[position],
                )
                views.append(view(pixels, self.preprocessing))
                good.append(position)
            except UnreadableImage as error:
                bad.append((position, error.reason))
        views += [torch.zeros(3, *self._size, dtype=torch.uint8)] * (self.plan.batch_size - len(views))
        batch = stack(views)
        return Loaded(good, batch.pin_memory() if self.device.type == "cuda" else batch, bad)

    def _prepared(self, views: torch.Tensor, plan: Plan) -> torch.Tensor:
        return normalise(views, self.preprocessing, getattr(torch, plan.dtype), _memory_format(plan))

    def _pooled(self, rows: torch.Tensor) -> np.ndarray:
        rows = rows.float()
        if self.pool == "average":
            if rows.ndim == 4:
                rows = rows.mean((1, 2) if self._is_map_last else (2, 3))
            elif rows.ndim == 3:  # tokens of a transformer
                rows = rows.mean(1)
        return rows.contiguous().cpu().numpy()

    def _network(self, plan: Plan) -> torch.nn.Module:
        key = plan.dtype, plan.layout
        if key not in self._networks:
            dtype, layout = getattr(torch, plan.dtype), _memory_format(plan)
            # the reader shares its layers with the backbone, which stays where and as it is
            reader = self._reader if self.device.type == "cpu" else copy.deepcopy(self._reader).to(self.device)
            if isinstance(reader, torch.fx.GraphModule) and self._is_worth_fusing and plan.layout == CHANNELS_LAST:
                example = torch.rand(1, 3, *self._size, device=self.device)
                self._networks[key] = fusion.fuse(reader, example, dtype)
            elif plan.dtype == "float32" and plan.layout != CHANNELS_LAST:
                self._networks[key] = reader
            else:
                self._networks[key] = copy.deepcopy(reader).to(dtype).to(memory_format=layout)
        return self._networks[key]

    def _images_per_second(self, plan: Plan) -> float:
        """Run the network for a moment on noise, as `plan` would, on all its threads at once."""
        try:
            network = self._network(plan)
            noise = torch.randint(256, (plan.batch_size, 3, *self._size), dtype=torch.uint8, device=self.device)

            def once(_: int) -> None:
                with torch.inference_mode():
                    network(self._prepared(noise, plan))
                machine.synchronise(self.device)

            at_once = plan.n_workers if self.device.type == "cpu" else 1
            with self._threads(plan) as threads:
                list(threads.map(once, range(at_once)))
                started = time.perf_counter()
                list(threads.map(once, range(_TIMED_RUNS * at_once)))
            return _TIMED_RUNS * at_once * plan.batch_size / (time.perf_counter() - started)
        except torch.OutOfMemoryError:
            torch.cuda.empty_cache()
            return 0.0

    def _threads(self, plan: Plan) -> ThreadPoolExecutor:
        return ThreadPoolExecutor(plan.n_workers, initializer=torch.set_num_threads, initargs=(plan.n_threads,))


def _memory_format(plan: Plan) -> torch.memory_format:
    return torch.channels_last if plan.layout == CHANNELS_LAST else torch.contiguous_format


def _is_map_last(model: torch.nn.Module) -> bool:
    """Tell networks whose maps are (N, H, W, C), such as Swin."""
    return getattr(model, "output_fmt", "") == "NHWC" or type(model).__name__ == "SwinTransformer"
