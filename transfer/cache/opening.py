"""Opening: the folder of a cache is named by what its rows are."""

from __future__ import annotations

import atexit
import contextlib
import functools
import hashlib
import json
import logging
import tempfile
from pathlib import Path
from typing import Any, TypeVar

from transfer.cache.activations import ActivationCache
from transfer.cache.pixels import PixelCache
from transfer.cache.shards import Shards
from transfer.errors import ResourceError
from transfer.files import cache_folder, require_writable, scratch_folder, sweep, touch, write_json

S = TypeVar("S", bound=Shards)

ACTIVATIONS, PIXELS = "activations", "pixels"  # folders in the cache's
ABOUT = "about.json"  # says in each of theirs what its rows are, and changes whenever they are used
_FORMAT = 1  # raise it when rows of the same key would come out differently
log = logging.getLogger(__name__)


def open_cache(about: dict[str, Any], folder: Path | None = None) -> ActivationCache:
    """Open the cache for the activations that `about` describes completely; create it where there is none.

    Where the user's cache folder cannot be written, a temporary one serves, and a warning says so.
    """
    return _open(ActivationCache, ACTIVATIONS, about, folder)


def open_pixels(about: dict[str, Any], folder: Path | None = None) -> PixelCache:
    """Open the cache for the decoded images that `about` describes completely, as `open_cache` does."""
    return _open(PixelCache, PIXELS, about, folder)


def place_of(name: str, about: dict[str, Any], folder: Path | None) -> Path:
    """Return the folder, among those of this `name`, for what `about` describes completely."""
    key = hashlib.sha256(json.dumps({**about, "format": _FORMAT}, sort_keys=True).encode()).hexdigest()[:24]
    return (folder or cache_folder()) / name / key


def _open(kind: type[S], name: str, about: dict[str, Any], folder: Path | None) -> S:
    place = place_of(name, about, folder)
    try:
        require_writable(place)
    except ResourceError as error:
        place = _temporary_folder() / place.name
        require_writable(place)
        log.warning("%s What is computed in this run is kept in %s.", error, place)
    if not touch(place / ABOUT):
        write_json(place / ABOUT, {**about, "format": _FORMAT})
    sweep(place)
    sweep(place.parent, deep=False)  # claims
    return kind(place)


@functools.cache
def _temporary_folder() -> Path:
    """Return one folder for this process, which goes when it ends."""
    scratch = contextlib.ExitStack()
    atexit.register(scratch.close)
    return scratch.enter_context(scratch_folder(tempfile.gettempdir()))
