"""Feature folder: rows as .npy files that others read, with what they are and their checksums."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from transfer import machine
from transfer.backbones import DEFAULT, Backbone, load_backbone
from transfer.cuts import FEATURES
from transfer.dataset import Source, display, scan, stop_on_bad
from transfer.errors import ArtefactError
from transfer.features.decoding import require_strictly
from transfer.features.extracting import Extraction, extract
from transfer.files import atomic_file, atomic_folder, require_new, reserve_space, sha256, write_csv, write_json
from transfer.images import MAX_PIXELS
from transfer.progress import Progress


def export_features(
    data: Source,
    out: str | Path,
    backbone: str | Backbone = DEFAULT,
    taps: Sequence[str] = (FEATURES,),
    *,
    weights: str | Path | None = None,
    pool: str = "average",
    dtype: str = "float32",
    exact: bool = False,
    device: str = "auto",
    on_bad: str = "skip",
    strict: bool = False,
    max_bad_share: float = 0.05,
    max_pixels: int = MAX_PIXELS,
    quiet: bool = False,
) -> dict[str, Any]:
    """Write the features of a dataset at any number of taps, in one pass, into a new folder; return its manifest.

    The folder holds ``TAP.npy`` for each tap, which ``np.load(..., mmap_mode="r")`` opens, ``labels.npy``,
    ``index.csv`` and ``manifest.json``. What was computed when a call was interrupted is used by the next one.

    Parameters
    ----------
    data
        What `scan` takes: a folder, a CSV file, a pair of lists (paths, labels), or a scanned dataset.
    taps, pool, exact
        As in `extract_features`.
    dtype
        Of the arrays: ``float32`` or ``float16``.
    on_bad
        ``skip`` leaves unreadable images out, up to `max_bad_share` of all; ``fail`` stops, when
        all have been looked at, where there are any.
    strict
        Refuse a dataset with any fault before anything is computed.

    Raises
    ------
    UsageError
        The folder exists and is not empty, or there is no such tap.
    DataError
        Too many images are unreadable.
    """
    require_new(out)
    dataset = scan(data)
    if strict:
        require_strictly(dataset, max_pixels, Progress(quiet))
    loaded = backbone if isinstance(backbone, Backbone) else load_backbone(backbone, weights)
    extraction = extract(
        dataset,
        loaded,
        taps,
        pool=pool,
        dtype=dtype,
        exact=exact,
        device=device,
        max_pixels=max_pixels,
        progress=Progress(quiet),
    )
    stop_on_bad(extraction.dataset, on_bad, max_bad_share)
    return write_features(extraction, out, dtype)


def write_features(extraction: Extraction, out: str | Path, dtype: str = "float32") -> dict[str, Any]:
    """Write a feature folder: one .npy per tap, `labels.npy`, `index.csv`, and `manifest.json` last.

    Row i of every array is line i of the index. Arrays are written a few thousand rows at a time, so that memory does
    not grow with the number of images. The folder gets its name when everything is in it.

    Returns
    -------
    dict
        The manifest.
    """
    require_new(out)
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
            "computed_in": extraction.computed_in,
            "dataset": {"root": str(dataset.root), "fingerprint": dataset.fingerprint},
            "unreadable": [{"path": display(s.path), "reason": s.reason} for s in dataset.unreadable],
            "versions": machine.versions(),
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
        files, taps, n_images = dict(manifest["sha256"]), dict(manifest["taps"]), int(manifest["n_images"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ArtefactError(f"{folder} has no readable manifest.json; extract the features again.") from error
    for name, expected in files.items():
        path = folder / name
        if Path(name).name != name or not path.is_file():
            raise ArtefactError(f"{path} is missing; extract the features again.")
        if sha256(path) != expected:
            raise ArtefactError(f"{path} has changed since it was written; extract the features again.")
    for tap, shape in taps.items():
        if f"{tap}.npy" not in files:  # their names are checked above
            raise ArtefactError(f"{folder / 'manifest.json'} has no checksum of {tap}.npy; extract the features again.")
        try:
            found = list(np.load(folder / f"{tap}.npy", mmap_mode="r", allow_pickle=False).shape)
        except (OSError, ValueError) as error:  # a ValueError: it holds Python objects
            raise ArtefactError(
                f"{folder / tap}.npy is no array of numbers: {error} Extract the features again."
            ) from error
        if found != shape or shape[0] != n_images:
            raise ArtefactError(f"{folder / tap}.npy has shape {found}, the manifest says {shape}.")
    with open(folder / "index.csv", encoding="utf-8", newline="") as source:
        n_lines = sum(1 for _ in csv.reader(source)) - 1
    if n_lines != n_images:
        raise ArtefactError(f"{folder / 'index.csv'} has {n_lines} lines for {n_images} images.")
    return manifest


def _write_array_in_chunks(path: Path, shape: tuple[int, ...], dtype: np.dtype, chunks: Iterator[np.ndarray]) -> None:
    n_bytes = int(np.prod(shape)) * dtype.itemsize
    with atomic_file(path, n_bytes) as target:
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
