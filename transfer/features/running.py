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
from transfer.images import MAX_PIXELS, RandomView, UnreadableImage, decode, normalise, stack, view

_TIMED_BATCHES = 2  # for each worker
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
    sources
        Image files, PIL images or arrays.
    contents
        SHA-256 that the files had when they were scanned.
    pool
        ``average`` over the positions of a map, or ``none`` to keep the map.
    exact
        Compute in float32, and decode JPEGs in full.
    random_view
        Instead of the standard view; it needs the `contents`.
    n_images
        How many of the sources there are to run, all by default: choosing a plan must not take longer than that.
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
        random_view: RandomView | None = None,
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
        self.random_view = random_view
        self._is_map_last = backbone.is_map_last
        self._networks: dict[tuple[str, str], torch.nn.Module] = {}
        with machine.torch_threads(1):  # two threads wait for each other where another process has a core
            self._reader = cuts.read_taps(backbone.model, list(taps), backbone.input_shape)
            self.plan = plans.choose(self.n_images, self._images_per_second)

    def run(self, positions: Sequence[int] | None = None) -> Iterator[Rows]:
        """Yield the rows batch by batch, in order, of the sources at `positions` or of all.

        Raises
        ------
        DataError
            A file has other content than when it was scanned: its row would be kept as that of another image.
        ResourceError
            The device has not enough memory.
        """
        try:
            yield from self._run(self.plan, range(len(self.sources)) if positions is None else positions)
        except torch.OutOfMemoryError as error:
            raise ResourceError(
                f"Out of memory on {self.device} with batches of {self.plan.batch_size}. Free some of it, or use "
                "--device cpu."
            ) from error

    def load(self, plan: Plan, positions: Sequence[int]) -> Loaded:
        """Decode one batch. What is not filled stays black: every batch has the same shape, so that a row does not
        depend on who was in its batch."""
        views = []
        good: list[int] = []
        bad: list[tuple[int, str]] = []
        for position in positions:
            try:
                pixels = decode(
                    self.sources[position],
                    max_pixels=self.max_pixels,
                    at_least=None if self.exact else self._side(),
                    content=self.contents[position] or None,
                )
                views.append(self._see(pixels, self.contents[position]))
                good.append(position)
            except UnreadableImage as error:
                bad.append((position, error.reason))
        views += [torch.zeros(3, *self._size, dtype=torch.uint8)] * (plan.batch_size - len(views))
        batch = stack(views)
        return Loaded(good, batch.pin_memory() if self.device.type == "cuda" else batch, bad)

    def _side(self) -> int:
        if self.random_view is None:
            return self.preprocessing.resize_size
        return self.random_view.augmentation.needed_side(self.preprocessing)

    def _see(self, pixels: np.ndarray, content: str) -> torch.Tensor:
        if self.random_view is None:
            return view(pixels, self.preprocessing)
        return self.random_view.see(pixels, self.preprocessing, content)

    def forward(self, plan: Plan, loaded: Loaded) -> Rows:
        """Run the network over one batch of views."""
        good, views, bad = loaded
        if not good:
            return Rows(good, {}, bad)
        precision = machine.full_float32(self.device) if self.exact else nullcontext()
        with torch.inference_mode(), precision:
            images = views.to(self.device, non_blocking=True)
            images = normalise(images, self.preprocessing, getattr(torch, plan.dtype), _memory_format(plan))
            outputs = self._network(plan)(images)
            return Rows(good, {tap: self._pooled(rows[: len(good)]) for tap, rows in outputs.items()}, bad)

    def _load_and_forward(self, plan: Plan, positions: Sequence[int]) -> Rows:
        return self.forward(plan, self.load(plan, positions))

    def _run(self, plan: Plan, positions: Sequence[int]) -> Iterator[Rows]:
        self._network(plan)  # built by one thread
        batches = [positions[start : start + plan.batch_size] for start in range(0, len(positions), plan.batch_size)]
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
        rows = pooled(rows.float(), self._is_map_last) if self.pool == "average" else rows.float()
        return rows.contiguous().cpu().numpy()

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

    def _images_per_second(self, plan: Plan) -> float:
        """Run the first images for a moment as `plan` would, decoding included."""
        n_workers = plan.n_workers if self.device.type == "cpu" else 1
        first = [i % len(self.sources) for i in range(n_workers * plan.batch_size)]
        try:
            list(self._run(plan, first))  # builds the network and fills its memory
            started = time.perf_counter()
            list(self._run(plan, first * _TIMED_BATCHES))
            return len(first) * _TIMED_BATCHES / (time.perf_counter() - started)
        except torch.OutOfMemoryError:
            torch.cuda.empty_cache()
            return 0.0


def _memory_format(plan: Plan) -> torch.memory_format:
    return torch.channels_last if plan.layout == CHANNELS_LAST else torch.contiguous_format


def pooled(rows: torch.Tensor, is_map_last: bool) -> torch.Tensor:
    """Return activations (N, ...) averaged over the positions of a map or the tokens of a transformer: (N, d)."""
    if rows.ndim == 4:
        return rows.mean((1, 2) if is_map_last else (2, 3))
    return rows.mean(1) if rows.ndim == 3 else rows
