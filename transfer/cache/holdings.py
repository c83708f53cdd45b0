"""Holdings: what lies in the cache folder, how much of it there is, and how long it has not been used."""

from __future__ import annotations

import contextlib
import json
import os
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from transfer.cache.opening import ABOUT, ACTIVATIONS, PIXELS
from transfer.errors import ResourceError
from transfer.files import cache_folder, folder_bytes, remove, sweep, users_of

TRAINING = "training"  # the folder of the checkpoints of trainings that were stopped


@dataclass(frozen=True)
class Holding:
    """One folder of the cache.

    Attributes
    ----------
    what
        What was cached, in words.
    last_used
        Seconds since the epoch.
    """

    what: str
    path: Path
    n_bytes: int
    last_used: float

    def is_unused_for(self, days: float) -> bool:
        """Whether nobody has used it for so long."""
        return time.time() - self.last_used >= days * 86400


def find_holdings(folder: Path | None = None) -> list[Holding]:
    """Return what lies in the cache folder, the largest first; what is not ours is passed over."""
    folder = folder or cache_folder()
    found = [
        Holding(_describe(kind, place), place, folder_bytes(place), _last_used(place))
        for kind in (ACTIVATIONS, PIXELS, TRAINING)
        for place in (folder / kind).glob("*")
        if place.is_dir() and not place.is_symlink()
    ]
    return sorted(found, key=lambda holding: (-holding.n_bytes, str(holding.path)))


def clear(holdings: Iterable[Holding], folder: Path | None = None) -> int:
    """Delete them, and return how many bytes are free again.

    Raises
    ------
    ResourceError
        A process is filling the cache, or one of another machine may be.
    """
    folder = folder or cache_folder()
    if users := sorted(users_of(folder)):
        host, number = users[0]
        raise ResourceError(
            f"Process {number} on {host} is filling the cache in {folder}. Wait for it, or stop it first."
        )
    sweep(folder)
    n_bytes = 0
    for holding in holdings:
        remove(holding.path)
        n_bytes += holding.n_bytes * (not holding.path.exists())
    return n_bytes


def _describe(kind: str, place: Path) -> str:
    about: dict[str, Any] = {}
    with contextlib.suppress(OSError, ValueError):
        about = dict(json.loads((place / ABOUT).read_text(encoding="utf-8")))
    if kind == TRAINING:
        return "checkpoints of a training that was stopped"
    if kind == PIXELS:
        return f"decoded images, shorter side {about['side']} px" if about.get("side") else "decoded images"
    views = ", augmented views" if about.get("view") else ""
    return f"activations of {about.get('backbone', 'a network')} at {about.get('tap', 'a layer')}{views}"


def _last_used(place: Path) -> float:
    latest = 0.0
    for path in (place, *place.rglob("*")):
        with contextlib.suppress(OSError):
            latest = max(latest, os.lstat(path).st_mtime)
    return latest
