"""Part: train, val or test, by whatever name the data calls it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from transfer.dataset.names import count, few, looks
from transfer.errors import DataError, did_you_mean

PARTS = ("train", "val", "test")

_ALIASES = {"train": ("train", "training"), "val": ("val", "valid", "validation", "dev"), "test": ("test", "testing")}
PART_NAMES = {name: part for part, names in _ALIASES.items() for name in names}


def standard_parts(given: Sequence[str], where: str) -> list[str]:
    """Translate names of parts into train, val and test; beside train, a single other part may have any name."""
    known = {name: PART_NAMES.get(name.casefold()) for name in set(given) if name}
    if known and "" in given:
        n_empty = sum(not name for name in given)
        raise DataError(f"{n_empty} of {len(given)} entries of {where} are empty: fill all of them, or none.")
    unknown = sorted(name for name, part in known.items() if part is None)
    if unknown and not (len(known) == 2 and "train" in known.values()):
        hint = did_you_mean(unknown[0], PART_NAMES)
        raise DataError(f"Unknown part {few(unknown)} in {where}: expected train, val or test.{hint}")
    return [(known[name] or "test") if name else "" for name in given]


def reported_part(parts: np.ndarray) -> str:
    """Return the part to report on: test, or the other one beside train; empty where all images are reported on."""
    return next((part for part in ("test", "val") if part in parts), "")


def check_parts(classes: Sequence[str], labels: np.ndarray, parts: np.ndarray, where: str) -> None:
    """Refuse parts of which none is to train on, or that have classes unknown to train."""
    given = set(np.unique(parts).tolist())
    if len(given) < 2:
        return
    if "train" not in given:
        raise DataError(f"{where} has {' and '.join(sorted(given))} images but none to train on.")
    trained = set(np.unique(labels[parts == "train"]).tolist())
    twins = {looks(classes[label]): classes[label] for label in trained}
    for part in ("val", "test"):
        unknown = [classes[c] for c in np.unique(labels[parts == part]).tolist() if c not in trained]
        if not unknown:
            continue
        twin = next((f" {n!a} looks like {twins[looks(n)]!a}." for n in unknown if looks(n) in twins), "")
        raise DataError(
            f"{where}: {count(len(unknown), 'class', 'classes')} of the {part} part without a training image: "
            f"{few(unknown, 10)}.{twin} Rename or remove, or add images to train."
        )
