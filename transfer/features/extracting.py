"""Extraction: the rows of a dataset, looked up in the cache and computed where they are missing."""

from __future__ import annotations

import dataclasses
import functools
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from transfer.backbones import DEFAULT, Backbone, load_backbone
from transfer.cache import ACTIVATIONS, ActivationCache, Filling, claim, open_cache
from transfer.cuts import FEATURES
from transfer.dataset import Dataset, Skipped, Source, display, scan
from transfer.display import table
from transfer.errors import DataError, UsageError, did_you_mean
from transfer.features.jobs import Job, find_job, new_job
from transfer.features.planning import Plan, Plans
from transfer.features.pooling import POOLS
from transfer.features.representing import Representation
from transfer.features.running import Runner
from transfer.files import require_space
from transfer.images import MAX_PIXELS, STANDARD, View
from transfer.progress import Progress


@dataclasses.dataclass(frozen=True)
class Extraction:
    """Where the rows are: one cache for each view and tap, and the images that could be read."""

    dataset: Dataset  # without the unreadable images; row i is its image i
    views: list[dict[str, ActivationCache]]
    backbone: Backbone
    pool: str
    computed_in: str  # the type that the network computed in
    plan: Plan | None  # None: every row was there, and no network was run
    n_computed: int
    seconds_running: float  # of the network, without loading it and preparing it

    @property
    def caches(self) -> dict[str, ActivationCache]:
        """The caches of the first view, by tap."""
        return self.views[0]

    def rows(self, tap: str = FEATURES) -> np.ndarray:
        """Return the activations at `tap`, row i for image i of the dataset, in memory."""
        return self.caches[tap].rows(self.dataset.hashes)

    def represent(self, representation: Representation, contents: Sequence[str] | None = None) -> np.ndarray:
        """Return what a head reads, (N, d) or (N, views, d), in memory.

        Row i is that of image i of the dataset, or of the image that has the SHA-256 `contents[i]`.
        """
        contents = self.dataset.hashes if contents is None else contents
        found = ({tap: view[tap].rows(contents) for tap in representation.taps} for view in self.views)
        return representation.assemble(found)  # one view after the other: memory holds no more than the result twice


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
        How a map becomes a row, one of `POOLS`; ``none`` keeps the map.
    exact
        Compute in float32; otherwise a short measurement may choose a faster type.

    Returns
    -------
    Features
        X of shape (N, d) in float32, y of shape (N,). Unreadable images are left out, listed in
        ``dataset.unreadable`` and never replaced by others.

    Raises
    ------
    UsageError
        `tap` is not one name.
    """
    if not isinstance(tap, str):
        raise UsageError(f"tap={tap!r}: give one tap. transfer.export_features takes several, an array for each.")
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
    views: Sequence[View] = (STANDARD,),
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
    views
        Of each image; it is decoded once for all that are missing.
    computed_in
        Compute in this type and no other, as another extraction did.
    label
        What the progress says.
    cache
        Another folder for the cache than the user's.
    """
    if pool not in POOLS:
        raise UsageError(f"Unknown pool {pool!r}. Use {', '.join(POOLS)}.{did_you_mean(pool, POOLS)}")
    progress = progress or Progress()
    taps = tuple(dict.fromkeys(taps))
    plans = Plans(backbone, taps, device, exact, cache, dtype=computed_in)
    about = {
        "weights": backbone.weights_hash,
        "backbone": backbone.name,
        "preprocessing": backbone.preprocessing.fingerprint(),
        # large JPEGs are decoded at a fraction of their size, which depends on the closest of the views
        "decoded_for": max(view.needed_side(backbone.preprocessing) for view in views),
        "pool": pool,
        "dtype": dtype,
        "exact": exact,
        "device": plans.device.type,
        "max_pixels": max_pixels,  # a larger image is unreadable: its row must not be answered
    }

    @functools.cache  # opening a cache reads and checks all of it
    def open_all(kind: str) -> list[dict[str, ActivationCache]]:
        return [
            {tap: open_cache({**about, "computed_in": kind, "view": view.to_dict(), "tap": tap}, cache) for tap in taps}
            for view in views
        ]

    def look_up(kind: str) -> tuple[list[dict[str, ActivationCache]], list[int]]:
        found = open_all(kind)
        caches = [rows for view in found for rows in view.values()]
        for rows in caches:
            rows.refresh()
        return found, sorted({position for rows in caches for position in rows.missing(dataset.hashes)})

    def look() -> Extraction | None:
        # rows of different types are never mixed: where one type has them all, that is the answer, whatever is
        # fastest now
        for kind in plans.types:
            found, missing = look_up(kind)
            if not missing:
                return Extraction(dataset, found, backbone, pool, kind, None, 0, 0.0)
        return None

    def cut_off(together: dict[str, Any]) -> Job | None:
        for kind in plans.types:
            found, missing = look_up(kind)
            job = find_job([rows for view in found for rows in view.values()], dataset.hashes, missing, together)
            # where nothing but unreadable images is left of it, it was not cut off
            if job and plans.is_possible(job.plan) and job.has_whole_batch(missing, len(views)):
                return job
        return None

    # one claim for all taps, views and types: whoever waits must not choose another type meanwhile
    with claim(ACTIVATIONS, about, cache, dataset.hashes, look, progress.say) as complete:
        if complete:
            return complete
        together = {"taps": taps, "views": [view.to_dict() for view in views]}
        job = cut_off(together)
        _, missing = look_up(job.plan.dtype if job else plans.best.dtype)
        runner = Runner(
            backbone,
            taps,
            plans,
            dataset.paths,
            contents=dataset.hashes,
            max_pixels=max_pixels,
            pool=pool,
            exact=exact,
            n_images=len(job.positions if job else missing),
            views=views,
            plan=job.plan if job else None,
        )
        found, missing = look_up(runner.plan.dtype)
        job = job or new_job(missing, dataset.hashes, runner.plan, together)
        started = time.perf_counter()
        reasons = _compute(runner, job, missing, found, np.dtype(dtype), label, progress)
        seconds = time.perf_counter() - started
    unreadable = [
        Skipped(path, reasons[content])
        for path, content in zip(dataset.paths, dataset.hashes, strict=True)
        if content in reasons
    ]
    return Extraction(
        dataset.without(unreadable),
        found,
        backbone,
        pool,
        runner.plan.dtype,
        runner.plan,
        len(missing) - len(reasons),
        seconds,
    )


def _compute(
    runner: Runner,
    job: Job,
    missing: list[int],
    caches: list[dict[str, ActivationCache]],
    dtype: np.dtype,
    label: str,
    progress: Progress,
) -> dict[str, str]:
    """Put the rows of the missing images into the caches; return why an image cannot be read, by its content."""
    reasons: dict[str, str] = {}
    is_space_checked = False

    def write(pieces: list[tuple[list[str], list[dict[str, np.ndarray]]]]) -> None:
        contents = [content for some, _ in pieces for content in some]
        for k, by_tap in enumerate(caches):
            for tap, cache in by_tap.items():
                cache.append(contents, np.concatenate([views[k][tap] for _, views in pieces]), job.note)

    with progress.task(label, len(missing)) as advance, Filling(write) as filling:
        for positions, views, bad in runner.run_batches(job.batches(missing, len(runner.views))):
            if positions:
                narrowed = [{tap: _narrowed(tap, new, dtype) for tap, new in rows.items()} for rows in views]
                n_bytes = sum(new.nbytes for rows in narrowed for new in rows.values())
                if not is_space_checked:  # a full disk is better known now than in an hour
                    is_space_checked = True
                    require_space(next(iter(caches[0].values())).folder, n_bytes * len(missing) // len(positions))
                filling.add(([runner.contents[i] for i in positions], narrowed), len(positions), n_bytes)
            reasons.update((runner.contents[i], reason) for i, reason in bad)
            advance(len(positions) + len(bad))
    return reasons


def _narrowed(tap: str, rows: np.ndarray, dtype: np.dtype) -> np.ndarray:
    limit = float(np.finfo(dtype).max)
    if dtype == np.float16 and float(np.abs(rows).max(initial=0.0)) > limit:
        raise DataError(f"Activations at {tap!r} go beyond float16's {limit:.0f}. Use float32 (--exact, --dtype).")
    return rows.astype(dtype, copy=False)
