"""Extraction: the rows of a dataset, looked up in the cache and computed where they are missing."""

from __future__ import annotations

import dataclasses
import functools
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from transfer.backbones import DEFAULT, Backbone, load_backbone
from transfer.cache import ActivationCache, Filling, open_cache
from transfer.cuts import FEATURES
from transfer.dataset import Dataset, Skipped, Source, display, scan
from transfer.display import table
from transfer.errors import DataError, UsageError
from transfer.features.planning import Plan, Plans
from transfer.features.running import Runner
from transfer.files import require_space
from transfer.images import MAX_PIXELS, RandomView
from transfer.progress import Progress


@dataclasses.dataclass(frozen=True)
class Extraction:
    """Where the rows are: one cache for each tap, and the images that could be read."""

    dataset: Dataset  # without the unreadable images; row i is its image i
    caches: dict[str, ActivationCache]
    backbone: Backbone
    pool: str
    computed_in: str  # the type that the network computed in
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
    data: Source,
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

    Several taps at once, or more images than fit in memory: `transfer.export_features`.

    Parameters
    ----------
    data
        What `scan` takes: a folder, a CSV file, a pair of lists (paths, labels), or a scanned dataset.
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
    dataset = scan(data)
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
    random_view: RandomView | None = None,
    computed_in: str | None = None,
    label: str = "Extracting features",
    progress: Progress | None = None,
    cache: Path | None = None,
) -> Extraction:
    """Make sure that the activations of every image are in the cache; compute in one pass what is missing.

    Parameters
    ----------
    dtype
        In which the rows are kept: ``float32`` or ``float16``.
    random_view
        Which random view of each image to run over, instead of the standard one.
    computed_in
        Compute in this type and no other, as another extraction did.
    label
        What the progress says.
    cache
        Another folder for the cache than the user's.
    """
    if pool not in ("average", "none"):
        raise UsageError(f"Unknown pool {pool!r}. Use 'average' or 'none'.")
    progress = progress or Progress()
    taps = tuple(dict.fromkeys(taps))
    plans = Plans(backbone, taps, device, exact, cache, dtype=computed_in)
    about = {
        "weights": backbone.weights_hash,
        "backbone": backbone.name,
        "view": backbone.preprocessing.fingerprint(),
        "random_view": random_view.to_dict() if random_view else None,
        "pool": pool,
        "dtype": dtype,
        "exact": exact,
        "device": plans.device.type,
        "max_pixels": max_pixels,  # a larger image is unreadable: its row must not be answered
    }

    @functools.cache  # opening a cache reads and checks all of it
    def look_up(kind: str) -> tuple[dict[str, ActivationCache], list[int]]:
        caches = {tap: open_cache({**about, "computed_in": kind, "tap": tap}, cache) for tap in taps}
        missing = {position for rows in caches.values() for position in rows.missing(dataset.hashes)}
        return caches, sorted(missing)

    # rows of different types are never mixed: where one type has them all, that is the answer, whatever is fastest now
    for kind in plans.types:
        caches, missing = look_up(kind)
        if not missing:
            return Extraction(dataset, caches, backbone, pool, kind, None, 0, 0.0)
    runner = Runner(
        backbone,
        taps,
        plans,
        dataset.paths,
        contents=dataset.hashes,
        max_pixels=max_pixels,
        pool=pool,
        exact=exact,
        n_images=len(missing),
        random_view=random_view,
    )
    caches, missing = look_up(runner.plan.dtype)
    started = time.perf_counter()
    reasons = _compute(runner, missing, caches, np.dtype(dtype), label, progress)
    seconds = time.perf_counter() - started
    unreadable = [
        Skipped(path, reasons[content])
        for path, content in zip(dataset.paths, dataset.hashes, strict=True)
        if content in reasons
    ]
    return Extraction(
        dataset.without(unreadable),
        caches,
        backbone,
        pool,
        runner.plan.dtype,
        runner.plan,
        len(missing) - len(reasons),
        seconds,
    )


def _compute(
    runner: Runner,
    missing: list[int],
    caches: dict[str, ActivationCache],
    dtype: np.dtype,
    label: str,
    progress: Progress,
) -> dict[str, str]:
    """Put the rows of the missing images into the caches; return why an image cannot be read, by its content."""
    reasons: dict[str, str] = {}
    is_space_checked = False

    def write(pieces: list[tuple[list[str], dict[str, np.ndarray]]]) -> None:
        contents = [content for some, _ in pieces for content in some]
        for tap, cache in caches.items():
            cache.append(contents, np.concatenate([rows[tap] for _, rows in pieces]))

    with progress.task(label, len(missing)) as advance, Filling(write) as filling:
        for positions, rows, bad in runner.run(missing):
            if positions:
                narrowed = {tap: _narrowed(tap, new, dtype) for tap, new in rows.items()}
                n_bytes = sum(new.nbytes for new in narrowed.values())
                if not is_space_checked:  # a full disk is better known now than in an hour
                    is_space_checked = True
                    require_space(next(iter(caches.values())).folder, n_bytes * len(missing) // len(positions))
                filling.add(([runner.contents[i] for i in positions], narrowed), len(positions), n_bytes)
            reasons.update((runner.contents[i], reason) for i, reason in bad)
            advance(len(positions) + len(bad))
    return reasons


def _narrowed(tap: str, rows: np.ndarray, dtype: np.dtype) -> np.ndarray:
    limit = float(np.finfo(dtype).max)
    if dtype == np.float16 and float(np.abs(rows).max(initial=0.0)) > limit:
        raise DataError(f"Activations at {tap!r} go beyond float16's {limit:.0f}. Use float32 (--exact, --dtype).")
    return rows.astype(dtype, copy=False)
