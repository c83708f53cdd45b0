"""Note: a line about what is odd in the columns of a dataset, safe to print."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from transfer.dataset.names import count, few, looks

_TINY_CLASS = 5  # fewer images than this are worth a note: no cross-validation with five folds


def twin_notes(classes: Sequence[str]) -> list[str]:
    """Return notes about classes that look the same."""
    by_looks: dict[str, list[str]] = {}
    for name in classes:
        by_looks.setdefault(looks(name), []).append(name)
    return [
        f"The classes {' and '.join(map(ascii, twins))} look the same but are kept apart: "
        "rename one folder if they are one class."
        for twins in by_looks.values()
        if len(twins) > 1
    ]


def size_notes(classes: Sequence[str], labels: np.ndarray) -> list[str]:
    """Return a note about tiny classes, if there are any."""
    counts = np.bincount(labels, minlength=len(classes))
    tiny = [f"{classes[c]}: {counts[c]}" for c in np.flatnonzero(counts < _TINY_CLASS).tolist()]
    words = f"{count(len(tiny), 'class', 'classes')} with fewer than {_TINY_CLASS} images: {few(tiny)}."
    return [words] * bool(tiny)


def part_notes(classes: Sequence[str], labels: np.ndarray, parts: np.ndarray) -> list[str]:
    """Return notes about classes that val or test lack."""
    notes = []
    for part in ("val", "test"):
        inside = np.unique(labels[parts == part])
        if 0 < len(inside) < len(classes) and "train" in parts:
            lacking = [name for label, name in enumerate(classes) if label not in inside]
            verb = "has" if len(lacking) == 1 else "have"
            notes.append(f"{count(len(lacking), 'class', 'classes')} {verb} no {part} image: {few(lacking)}.")
    return notes


def copy_notes(copies: list[list[int]], labels: np.ndarray, parts: np.ndarray) -> list[str]:
    """Return notes about groups of equal images with several labels or in several parts."""
    notes = []
    if n := sum(len(set(labels[group].tolist())) > 1 for group in copies):
        notes.append(f"{count(n, 'image')} found under more than one class (`transfer inspect` lists them).")
    if n := sum(len(set(parts[group].tolist())) > 1 for group in copies):
        notes.append(
            f"{count(n, 'image')} found in more than one of train, val and test: results look better than they are."
        )
    return notes
