"""Claims: who computes what a cache lacks now, so that others wait for the rows instead of computing them too.

A claim is a mark in the cache's folder: an empty file with its holder's host and number in the name, which a thread
renews as long as the holder lives. No lock is taken, no clock is compared, and no more than time depends on it: where a
claim cannot be written, or is lost, rows are computed twice.
"""

from __future__ import annotations

import contextlib
import os
import random
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, TypeVar

from transfer.cache.opening import place_of
from transfer.errors import ResourceError
from transfer.files import find_marks, is_ours, make_mark, remove, touch

T = TypeVar("T")

_RENEWAL_SECONDS = 1.0
_LIMIT_SECONDS = 60.0  # a claim that has not changed for so long, by the clock of who waits, is nobody's
_POLL_SECONDS = 0.2
_random = random.SystemRandom()  # the user's draws are not touched
_held: set[Path] = set()  # by the threads of this process
_holding = threading.Lock()


@contextlib.contextmanager
def claim(
    name: str,
    about: dict[str, Any],
    folder: Path | None,
    contents: Iterable[str],
    look: Callable[[], T | None],
    say: Callable[[str], None],
) -> Iterator[T | None]:
    """Yield what `look` finds; None, where it finds nothing: the block then computes it, and nobody else meanwhile.

    While another process holds the claim it waits, and then looks again. Whoever waits holds no claim.

    Parameters
    ----------
    name, about, folder
        Of what is computed, as for opening a cache. More may be under one claim than lies in one folder.
    contents
        Of the images. A claim is for these: who wants others is not held up by them, at the price of computing twice
        what both have.
    look
        Called again whenever another process may have written.
    """
    mark: Path | None = None
    found = look()
    if found is not None:  # the usual case
        yield found
        return
    watch = _Watch(place_of(name, {**about, "images": sorted(set(contents))}, folder), say)
    try:
        while found is None:
            mark = _make(watch.place)
            is_free = mark is None or not watch.others(mark)
            if not is_free:  # two that come at once both step back, and come again at random moments
                _release(mark)
                mark = None
                watch.wait()
            found = look()
            if is_free:
                break
        if found is None and mark is not None:
            with _renewed(mark):
                yield None
        else:
            yield found
    finally:
        _release(mark)


class _Watch:
    """The claims of others on one place, and since when each of them has not changed."""

    def __init__(self, place: Path, say: Callable[[str], None]) -> None:
        self.place = place
        self._say = say
        self._seen: dict[Path, tuple[int, float]] = {}
        self._has_said = False

    def others(self, mine: Path | None = None) -> list[tuple[str, int]]:
        """Return the hosts and numbers of those who hold a claim; what died or stopped is passed over and removed."""
        alive = []
        with _holding:
            for mark, owner in find_marks(self.place).items():
                if mark == mine:
                    continue
                # of one before us that had our number, as the first in a container always has
                is_left = is_ours(*owner) and mark not in _held
                if is_left or not self._has_changed_lately(mark):
                    remove(mark)
                else:
                    alive.append(owner)
        return alive

    def wait(self) -> None:
        """Return when nobody else holds a claim."""
        time.sleep(_random.uniform(0, _POLL_SECONDS))
        while others := self.others():
            if not self._has_said:
                self._has_said = True
                host, number = others[0]
                self._say(f"Waiting for process {number} on {host}, which fills the same cache.")
            time.sleep(_random.uniform(0.5, 1.5) * _POLL_SECONDS)

    def _has_changed_lately(self, mark: Path) -> bool:
        try:
            with open(mark, "rb") as source:  # on a network disk, opening asks the server
                changed = os.fstat(source.fileno()).st_mtime_ns
        except OSError:
            return False
        before, since = self._seen.get(mark, (None, 0.0))
        if before != changed:
            since = time.monotonic()
            self._seen[mark] = changed, since
        return time.monotonic() - since < _LIMIT_SECONDS


def _make(place: Path) -> Path | None:
    with _holding, contextlib.suppress(ResourceError):
        mark = make_mark(place)
        _held.add(mark)
        return mark
    return None


def _release(mark: Path | None) -> None:
    if mark is not None:
        with _holding:
            _held.discard(mark)
            remove(mark)


@contextlib.contextmanager
def _renewed(mark: Path) -> Iterator[None]:
    """Renew a claim inside the block, however long a single step of the work may take."""
    is_over = threading.Event()

    def renew() -> None:
        while not is_over.wait(_RENEWAL_SECONDS) and touch(mark):
            pass

    threading.Thread(target=renew, daemon=True).start()
    try:
        yield
    finally:
        is_over.set()
