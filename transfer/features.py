"""Features: what a frozen network says about each image, computed once and kept.

Each CPU core has one thread that decodes, resizes and runs the network for its own small batch, with one torch thread:
on two cores that was faster than decoding workers that feed a two-thread network, or than processes. On a GPU the
threads decode and the device computes.
"""

from __future__ import annotations

import contextlib
import copy
import csv
import dataclasses
import functools
import json
import time
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import torch

from transfer import __version__, cuts, fusion, machine
from transfer.backbones import DEFAULT, Backbone, load_backbone
from transfer.cache import ActivationCache, open_cache
from transfer.dataset import Dataset, Skipped, display, scan
from transfer.display import table
from transfer.errors import ArtefactError, DataError, ResourceError, UsageError
from transfer.files import (
    atomic_folder,
    atomic_path,
    cache_folder,
    reserve_space,
    sha256,
    write_csv,
    write_json,
)
from transfer.images import MAX_PIXELS, UnreadableImage, decode, normalise, stack, view
from transfer.progress import Advance, Progress

FEATURES = cuts.FEATURES
_SHARD_BYTES = 64 << 20
_SHARD_ROWS = 2048
_SHARD_SECONDS = 20.0  # a killed extraction loses no more than this
_TIMED_RUNS = 2
# images; below, measuring or rewriting the network costs more than it saves
_WORTH_MEASURING = 512
_WORTH_FUSING = 16


@dataclasses.dataclass(frozen=True)
class Plan:
    """How the network is run on this machine."""

    device: str
    dtype: str  # float32 or bfloat16: the type that the network computes in
    batch_size: int
    n_workers: int


@dataclasses.dataclass(frozen=True)
class Extraction:
    """Where the rows are: one cache for each tap, and the images that could be read."""

    dataset: Dataset  # without the unreadable images; row i is its image i
    caches: dict[str, ActivationCache]
    backbone: Backbone
    pool: str
    plan: Plan | None  # None: every row was there, and no network was run
    n_computed: int
    seconds_running: float  # of the network, without loading it and preparing it

    def rows(self, tap: str = FEATURES) -> np.ndarray:
        """Return the activations at `tap`, row i for image i of the dataset, in memory."""
        return self.caches[tap].rows(self.dataset.hashes)


@dataclasses.dataclass(frozen=True)
class Features:
    """Features of labelled images: row i of X belongs to paths[i] and y[i], an index into classes."""

    X: np.ndarray
    y: np.ndarray
    paths: list[str]
    classes: tuple[str, ...]
    dataset: Dataset
    backbone: str
    tap: str

    def __repr__(self) -> str:
        return f"Features({self.X.shape[0]} images x {self.X.shape[1:]} at {self.tap!r} of {self.backbone})"

    def _repr_html_(self) -> str:
        counts = np.bincount(self.y, minlength=len(self.classes))
        rows = [[display(name), n] for name, n in zip(self.classes, counts, strict=True)]
        return table(["class", "rows"], rows, repr(self))


def extract_features(
    data: str | Path | Dataset,
    backbone: str | Backbone = DEFAULT,
    tap: str = FEATURES,
    *,
    weights: str | Path | None = None,
    pool: str = "average",
    exact: bool = False,
    device: str = "auto",
    quiet: bool = False,
) -> Features:
    """Run a frozen backbone over a dataset and return one row of features per readable image.

    Parameters
    ----------
    data
        A folder, a CSV file or a scanned dataset.
    tap
        The layer to read: ``features`` (the classifier's input), or a name from `transfer backbones NAME`.
    pool
        ``average`` over the positions of a map, or ``none`` to keep the map.
    exact
        Compute in float32; otherwise a short measurement may choose a faster type.

    Returns
    -------
    Features
        X of shape (N, d) in float32, y of shape (N,). Unreadable images are left out, listed in
        ``dataset.unreadable`` and never replaced by others.
    """
    dataset = data if isinstance(data, Dataset) else scan(data)
    loaded = backbone if isinstance(backbone, Backbone) else load_backbone(backbone, weights)
    extraction = extract(dataset, loaded, (tap,), pool=pool, exact=exact, device=device, progress=Progress(quiet=quiet))
    dataset = extraction.dataset
    X = extraction.rows(tap).astype(np.float32, copy=False)
    return Features(X, dataset.labels, dataset.paths, dataset.classes, dataset, loaded.name, tap)


def extract(
    dataset: Dataset,
    backbone: Backbone,
    taps: Sequence[str] = (FEATURES,),
    *,
    pool: str = "average",
    dtype: str = "float32",
    exact: bool = False,
    device: str = "auto",
    max_pixels: int = MAX_PIXELS,
    progress: Progress | None = None,
    cache: Path | None = None,
) -> Extraction:
    """Make sure that the activations of every image are in the cache; compute in one pass what is missing.

    Parameters
    ----------
    dtype
        In which the rows are kept: ``float32`` or ``float16``.
    cache
        Another folder for the cache than the user's.
    """
    if pool not in ("average", "none"):
        raise UsageError(f"Unknown pool {pool!r}. Use 'average' or 'none'.")
    progress = progress or Progress()
    taps = tuple(dict.fromkeys(taps))
    torch_device = machine.pick_device(device)
    where = _open_caches(backbone, taps, pool, dtype, exact, torch_device, cache)
    missing = sorted({position for rows in where.values() for position in rows.missing(dataset.hashes)})
    reasons: dict[str, str] = {}  # why an image cannot be read, by its content
    plan = None
    n_computed, seconds = 0, 0.0
    if missing:
        runner = Runner(backbone, taps, pool, exact, torch_device, n_images=len(missing), cache=cache)
        paths, contents = [dataset.paths[i] for i in missing], [dataset.hashes[i] for i in missing]
        shards = _Shards(where, np.dtype(dtype))
        started = time.perf_counter()
        with progress.task("Extracting features", len(missing)) as advance:
            try:
                for positions, rows, bad in runner.run(paths, max_pixels):
                    shards.add([contents[i] for i in positions], rows)
                    reasons.update((contents[i], reason) for i, reason in bad)
                    advance(len(positions) + len(bad))
            finally:
                shards.flush()
        plan, n_computed = runner.plan, len(missing) - len(reasons)
        seconds = time.perf_counter() - started
    unreadable = [
        Skipped(path, reasons[content])
        for path, content in zip(dataset.paths, dataset.hashes, strict=True)
        if content in reasons
    ]
    dataset = dataset.without(unreadable)
    return Extraction(dataset, where, backbone, pool, plan, n_computed, seconds)


class Runner:
    """Runs a frozen network over image files; built only when there is something to run."""

    def __init__(
        self,
        backbone: Backbone,
        taps: Sequence[str],
        pool: str,
        exact: bool,
        device: torch.device,
        n_images: int,
        cache: Path | None = None,
    ) -> None:
        machine.keep_memory()
        self.preprocessing = backbone.preprocessing
        self.pool = pool
        self.device = device
        with machine.torch_threads(1):  # two threads wait for each other where another process has a core
            self._reader = cuts.read_taps(backbone.model, list(taps), backbone.input_shape)
        self._size = backbone.input_shape[1:]
        self._draft_size = None if exact else self.preprocessing.resize_size
        self._n_images = n_images
        self._networks: dict[str, torch.nn.Module] = {}
        self._is_map_last = _is_map_last(backbone.model)
        remembered = _Plans(cache or cache_folder(), [backbone.weights_hash, *taps, str(device), f"exact {exact}"])
        with machine.torch_threads(1):
            self.plan = self._choose(remembered, exact)
            self.network = self._network(self.plan.dtype)

    def run(
        self, sources: Sequence[Any], max_pixels: int = MAX_PIXELS
    ) -> Iterator[tuple[list[int], dict[str, np.ndarray], list[tuple[int, str]]]]:
        """Run over image files, PIL images or arrays.

        Yields, batch by batch in order: positions in `sources`, their rows for each tap, and what could not be read.
        """
        starts = range(0, len(sources), self.plan.batch_size)
        load = functools.partial(self._load, sources, max_pixels)
        on_cpu = self.device.type == "cpu"
        work = (lambda start: self._forward(load(start))) if on_cpu else load
        with machine.torch_threads(1), ThreadPoolExecutor(self.plan.n_workers, initializer=_one_thread) as pool:
            waiting: deque[Future[Any]] = deque()
            try:
                for start in starts:
                    waiting.append(pool.submit(work, start))
                    if len(waiting) > 2 * self.plan.n_workers:
                        done = waiting.popleft().result()
                        yield done if on_cpu else self._forward(done)
                while waiting:
                    done = waiting.popleft().result()
                    yield done if on_cpu else self._forward(done)
            finally:
                for future in waiting:
                    future.cancel()

    def _load(
        self, sources: Sequence[Any], max_pixels: int, start: int
    ) -> tuple[list[int], torch.Tensor, list[tuple[int, str]]]:
        """Decode one batch of uint8 (batch_size, 3, S, S). What is not filled stays black: every batch has the same
        shape, so that a row does not depend on who was in its batch."""
        views = []
        good: list[int] = []
        bad: list[tuple[int, str]] = []
        for position in range(start, min(start + self.plan.batch_size, len(sources))):
            try:
                pixels = decode(sources[position], max_pixels=max_pixels, at_least=self._draft_size)
                views.append(view(pixels, self.preprocessing))
                good.append(position)
            except UnreadableImage as error:
                bad.append((position, error.reason))
        views += [torch.zeros(3, *self._size, dtype=torch.uint8)] * (self.plan.batch_size - len(views))
        batch = stack(views)
        return good, batch.pin_memory() if self.device.type == "cuda" else batch, bad

    def _forward(
        self, loaded: tuple[list[int], torch.Tensor, list[tuple[int, str]]]
    ) -> tuple[list[int], dict[str, np.ndarray], list[tuple[int, str]]]:
        good, batch, bad = loaded
        if not good:
            return good, {}, bad
        with torch.inference_mode():
            images = batch.to(self.device, non_blocking=True)
            dtype = getattr(torch, self.plan.dtype)
            outputs = self.network(normalise(images, self.preprocessing, dtype, torch.channels_last))
            pooled = {tap: self._pooled(rows[: len(good)]) for tap, rows in outputs.items()}
        return good, pooled, bad

    def _pooled(self, rows: torch.Tensor) -> np.ndarray:
        rows = rows.float()
        if self.pool == "average":
            if rows.ndim == 4:
                rows = rows.mean((1, 2) if self._is_map_last else (2, 3))
            elif rows.ndim == 3:  # tokens of a transformer
                rows = rows.mean(1)
        return rows.contiguous().cpu().numpy()

    def _network(self, dtype: str) -> torch.nn.Module:
        if dtype not in self._networks:
            # the reader shares its layers with the backbone, which stays where and as it is
            reader = self._reader if self.device.type == "cpu" else copy.deepcopy(self._reader).to(self.device)
            if isinstance(reader, torch.fx.GraphModule) and self._n_images >= _WORTH_FUSING:
                example = torch.rand(2, 3, *self._size, device=self.device)
                self._networks[dtype] = fusion.fuse(reader, example, getattr(torch, dtype))
            elif dtype == "float32":
                self._networks[dtype] = reader
            else:
                self._networks[dtype] = copy.deepcopy(reader).to(getattr(torch, dtype))
        return self._networks[dtype]

    def _choose(self, remembered: _Plans, exact: bool) -> Plan:
        """Choose type and batch size by running each candidate for a moment, or take what was chosen last time."""
        types = ["float32"] if exact else ["float32", *machine.narrow_types(self.device)]
        # small batches stay in a core's cache and keep memory low; a GPU wants large ones
        sizes = (8, 4) if self.device.type == "cpu" else (64, 256)
        n_workers = machine.count_cores()
        candidates = [Plan(str(self.device), dtype, size, n_workers) for dtype in types for size in sizes]
        default = candidates[0]
        known = remembered.get(candidates)
        if known is not None or self._n_images < _WORTH_MEASURING:
            return known or default
        best = max(candidates, key=self._images_per_second)
        remembered.put(best)
        return best

    def _images_per_second(self, plan: Plan) -> float:
        network, dtype = self._network(plan.dtype), getattr(torch, plan.dtype)
        batch = torch.zeros(plan.batch_size, 3, *self._size, dtype=torch.uint8, device=self.device)
        seconds = []
        with torch.inference_mode():
            for _ in range(_TIMED_RUNS):
                started = time.perf_counter()
                network(normalise(batch, self.preprocessing, dtype, torch.channels_last))
                if self.device.type == "cuda":
                    torch.cuda.synchronize(self.device)
                seconds.append(time.perf_counter() - started)
        return plan.batch_size / min(seconds)


def write_features(extraction: Extraction, out: str | Path, dtype: str = "float32") -> dict[str, Any]:
    """Write a feature folder: one .npy per tap, `labels.npy`, `index.csv`, and `manifest.json` last.

    Row i of every array is line i of the index. Arrays are written a few thousand rows at a time, so that memory does
    not grow with the number of images. The folder gets its name when everything is in it.

    Returns
    -------
    dict
        The manifest.
    """
    out = Path(out)
    if out.exists() and any(out.iterdir()):
        raise UsageError(f"{out} exists and is not empty. Choose another folder for the features.")
    dataset, backbone = extraction.dataset, extraction.backbone
    with atomic_folder(out) as building:
        files: dict[str, str] = {}
        shapes: dict[str, list[int]] = {}
        for tap, cache in extraction.caches.items():
            name = f"{tap}.npy"
            shape = (len(dataset), *cache.rows(dataset.hashes[:1]).shape[1:])
            _write_array_in_chunks(building / name, shape, np.dtype(dtype), cache.chunks(dataset.hashes))
            files[name], shapes[tap] = sha256(building / name), list(shape)
        _write_array_in_chunks(building / "labels.npy", (len(dataset),), np.dtype(np.int64), iter([dataset.labels]))
        rows = zip(range(len(dataset)), dataset.labels.tolist(), dataset.parts.tolist(), dataset.hashes, strict=True)
        write_csv(
            building / "index.csv",
            ["row", "path", "label", "class", "split", "sha256"],
            (
                [i, dataset.relative(i), label, dataset.classes[label], part, content]
                for i, label, part, content in rows
            ),
        )
        files |= {name: sha256(building / name) for name in ("labels.npy", "index.csv")}
        manifest = {
            "format": "transfer features 1",
            "n_images": len(dataset),
            "classes": list(dataset.classes),
            "backbone": backbone.name,
            "weights": {"source": backbone.source, "sha256": backbone.weights_hash},
            "preprocessing": backbone.preprocessing.to_dict(),
            "taps": shapes,
            "pool": extraction.pool,
            "dtype": dtype,
            "computed_in": extraction.plan.dtype if extraction.plan else "from the cache",
            "dataset": {"root": str(dataset.root), "fingerprint": dataset.fingerprint},
            "unreadable": [{"path": display(s.path), "reason": s.reason} for s in dataset.unreadable],
            "versions": versions(),
            "sha256": files,
        }
        write_json(building / "manifest.json", manifest)
    return manifest


def check_features(folder: str | Path) -> dict[str, Any]:
    """Verify every checksum and the row count of a feature folder; return its manifest.

    Raises
    ------
    ArtefactError
        The folder is incomplete, or a file in it has changed.
    """
    folder = Path(folder)
    try:
        manifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
        files = manifest["sha256"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ArtefactError(f"{folder} has no readable manifest.json; extract the features again.") from error
    for name, expected in files.items():
        path = folder / name
        if Path(name).name != name or not path.is_file():
            raise ArtefactError(f"{path} is missing; extract the features again.")
        if sha256(path) != expected:
            raise ArtefactError(f"{path} has changed since it was written; extract the features again.")
    for tap, shape in manifest["taps"].items():
        found = list(np.load(folder / f"{tap}.npy", mmap_mode="r", allow_pickle=False).shape)
        if found != shape or shape[0] != manifest["n_images"]:
            raise ArtefactError(f"{folder / tap}.npy has shape {found}, the manifest says {shape}.")
    with open(folder / "index.csv", encoding="utf-8", newline="") as source:
        n_lines = sum(1 for _ in csv.reader(source)) - 1
    if n_lines != manifest["n_images"]:
        raise ArtefactError(f"{folder / 'index.csv'} has {n_lines} lines for {manifest['n_images']} images.")
    return manifest


def decode_all(
    paths: Sequence[str], max_pixels: int = MAX_PIXELS, advance: Advance = lambda n: None
) -> tuple[dict[str, str], list[Skipped]]:
    """Decode every image in full, as an extraction would.

    Returns
    -------
    tuple
        The smallest, median and largest size, by area, as ``width x height``; and the images that cannot be read.
    """

    def size_of(path: str) -> tuple[int, int] | Skipped:
        try:
            height, width, _ = decode(path, max_pixels=max_pixels).shape
            return height, width
        except UnreadableImage as error:
            return Skipped(path, error.reason)

    sizes: list[tuple[int, int]] = []
    bad: list[Skipped] = []
    with ThreadPoolExecutor(machine.count_cores()) as pool:
        for found in pool.map(size_of, paths):
            bad.append(found) if isinstance(found, Skipped) else sizes.append(found)
            advance(1)
    sizes.sort(key=lambda size: size[0] * size[1])
    picks = {"smallest": 0, "median": len(sizes) // 2, "largest": -1} if sizes else {}
    return {name: f"{sizes[i][1]} x {sizes[i][0]}" for name, i in picks.items()}, bad


def stop_on_bad(dataset: Dataset, on_bad: str, max_share: float) -> None:
    """Stop where images are unreadable and may not be, or where they are too many.

    Raises
    ------
    DataError
        It names the first files and the way on.
    """
    n_bad = len(dataset.unreadable)
    if not n_bad:
        return
    first = ", ".join(f"{display(s.path)} ({s.reason})" for s in dataset.unreadable[:3])
    more = f" and {n_bad - 3} more" if n_bad > 3 else ""
    share = n_bad / (n_bad + len(dataset))
    if on_bad == "fail":
        raise DataError(f"{n_bad} unreadable images: {first}{more}. Remove them, or use --on-bad skip.")
    if share > max_share:
        raise DataError(
            f"{n_bad} of {n_bad + len(dataset)} images ({share:.0%}) are unreadable: {first}{more}. More than "
            f"{max_share:.0%} stops the run; repair them, or allow it with --set data.max_bad_share={share + 0.01:.2f}."
        )


def versions() -> dict[str, str]:
    """Return the versions of what computes the numbers."""
    from importlib.metadata import version

    names = ("torch", "torchvision", "timm", "scikit-learn", "numpy", "pillow")
    return {"transfer": __version__, **{name: version(name) for name in names}}


class _Shards:
    """Collects rows and hands them to the caches in shards of a good size."""

    def __init__(self, caches: dict[str, ActivationCache], dtype: np.dtype) -> None:
        self.caches, self.dtype = caches, dtype
        self._clear()

    def add(self, contents: list[str], rows: dict[str, np.ndarray]) -> None:
        self.contents += contents
        for tap, new in rows.items():
            self.rows.setdefault(tap, []).append(new.astype(self.dtype, copy=False))
        n_bytes = sum(part.nbytes for parts in self.rows.values() for part in parts)
        late = time.perf_counter() - self.started > _SHARD_SECONDS
        if n_bytes >= _SHARD_BYTES or len(self.contents) >= _SHARD_ROWS or late:
            self.flush()

    def flush(self) -> None:
        if self.contents:
            for tap, parts in self.rows.items():
                self.caches[tap].append(self.contents, np.concatenate(parts))
        self._clear()

    def _clear(self) -> None:
        self.contents: list[str] = []
        self.rows: dict[str, list[np.ndarray]] = {}
        self.started = time.perf_counter()


class _Plans:
    """What was measured to be fastest, remembered for this processor, network and torch."""

    def __init__(self, folder: Path, key: list[str]) -> None:
        self.path = folder / "plans.json"
        self.key = " | ".join([machine.describe_processor(), torch.__version__, *key])

    def get(self, candidates: list[Plan]) -> Plan | None:
        found = self._read().get(self.key)
        return next((plan for plan in candidates if dataclasses.asdict(plan) == found), None)

    def put(self, plan: Plan) -> None:
        with contextlib.suppress(ResourceError, OSError):  # not worth stopping for: it will be measured again
            self.path.parent.mkdir(parents=True, exist_ok=True)
            write_json(self.path, {**self._read(), self.key: dataclasses.asdict(plan)})

    def _read(self) -> dict[str, Any]:
        try:
            plans = json.loads(self.path.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return {}
        return plans if isinstance(plans, dict) else {}


def _open_caches(
    backbone: Backbone,
    taps: Sequence[str],
    pool: str,
    dtype: str,
    exact: bool,
    device: torch.device,
    cache: Path | None,
) -> dict[str, ActivationCache]:
    about = {
        "weights": backbone.weights_hash,
        "backbone": backbone.name,
        "view": backbone.preprocessing.to_dict(),
        "pool": pool,
        "dtype": dtype,
        "exact": exact,
        "device": device.type,
    }
    return {tap: open_cache({**about, "tap": tap}, cache) for tap in taps}


def _write_array_in_chunks(path: Path, shape: tuple[int, ...], dtype: np.dtype, chunks: Iterator[np.ndarray]) -> None:
    n_bytes = int(np.prod(shape)) * dtype.itemsize
    with atomic_path(path) as temporary, open(temporary, "wb") as target:
        reserve_space(target, n_bytes)
        np.lib.format.write_array_header_1_0(
            target, {"descr": np.lib.format.dtype_to_descr(dtype), "fortran_order": False, "shape": shape}
        )
        n_rows = 0
        for chunk in chunks:
            target.write(np.ascontiguousarray(chunk, dtype).data)
            n_rows += len(chunk)
        if n_rows != shape[0]:
            raise ArtefactError(f"{path} would get {n_rows} rows for {shape[0]} images. Please report this.")


def _one_thread() -> None:
    torch.set_num_threads(1)


def _is_map_last(model: torch.nn.Module) -> bool:
    """Tell networks whose maps are (N, H, W, C), such as Swin."""
    return getattr(model, "output_fmt", "") == "NHWC" or type(model).__name__ == "SwinTransformer"
