"""Description: of a dataset, as plain values for JSON."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np

from transfer.dataset.names import extension, relative, storable
from transfer.dataset.parts import PARTS
from transfer.dataset.records import Dataset, Skipped, duplicates
from transfer.dataset.splitting import Split
from transfer.files import readable_bytes


def describe(dataset: Dataset, split: Split | None = None) -> dict[str, Any]:
    """Return everything `transfer inspect` says, as plain values for JSON.

    Names are as they are in the file system, except bytes that are not UTF-8, which are escaped; `display` makes
    them fit for a terminal. `notes` is fit already.
    """
    parts = split.parts if split is not None else dataset.parts
    counts = np.bincount(dataset.labels, minlength=len(dataset.classes))
    used_parts = [part for part in PARTS if (parts == part).any()]
    of_part = {p: np.bincount(dataset.labels[parts == p], minlength=len(dataset.classes)) for p in used_parts}
    description: dict[str, Any] = {
        "root": None if dataset.root is None else storable(str(dataset.root)),
        "layout": dataset.layout,
        "fingerprint": dataset.fingerprint,
        "n_seen": dataset.n_seen,
        "n_used": len(dataset),
        "n_unreadable": len(dataset.unreadable),
        "n_ignored": len(dataset.ignored),
        "n_classes": len(dataset.classes),
        "classes": {
            storable(name): {"n": int(counts[c]), **{part: int(of_part[part][c]) for part in used_parts}}
            for c, name in enumerate(dataset.classes)
        },
        "parts": {part: int(of_part[part].sum()) for part in used_parts},
        "imbalance": round(float(counts.max() / max(1, counts.min())), 2),
        "file_sizes": _size_summary(dataset.sizes),
        "unreadable": _reasons(dataset.unreadable),
        "unreadable_files": [[storable(relative(s.path, dataset.root)), s.reason] for s in dataset.unreadable],
        "ignored": _reasons(dataset.ignored),
        "ignored_extensions": dict(Counter(storable(extension(s.path)) for s in dataset.ignored).most_common()),
        "duplicates": _describe_duplicates(dataset, parts),
        "notes": list(dataset.notes),
    }
    if split is not None:
        description["split"] = {"reason": list(split.reason), "cross_validate": split.cross_validate}
    return description


def _describe_duplicates(dataset: Dataset, parts: np.ndarray) -> dict[str, list[list[str]]]:
    found: dict[str, list[list[str]]] = {"within_class": [], "across_classes": [], "across_splits": []}
    for group in duplicates(dataset):
        paths = [storable(dataset.relative(i)) for i in group]
        n_labels = len(set(dataset.labels[group].tolist()))
        found["across_classes" if n_labels > 1 else "within_class"].append(paths)
        if len(set(parts[group].tolist())) > 1:
            found["across_splits"].append(paths)
    return found


def _size_summary(sizes: np.ndarray) -> dict[str, Any]:
    return {
        "min": int(sizes.min()),
        "median": int(np.median(sizes)),
        "max": int(sizes.max()),
        "total": int(sizes.sum()),
        "total_readable": readable_bytes(int(sizes.sum())),
    }


def _reasons(skipped: list[Skipped]) -> dict[str, int]:
    return {storable(reason): n for reason, n in Counter(s.reason for s in skipped).most_common()}
