"""Guard: Pillow's process-wide switches, set as decoding needs them while any thread decodes."""

from __future__ import annotations

import os
import re
import threading
import warnings
from typing import Any


class _PillowGuard:
    """While inside: Pillow refuses truncated files, and does not warn about what `decode` handles.

    Both are process-wide switches. `ImageFile.LOAD_TRUNCATED_IMAGES` (which other libraries turn on) fills the
    missing part with grey; it is off while any thread is inside and as before when the last one leaves.
    `warnings.catch_warnings` is not safe with threads, so one filter for Pillow's own modules is put in and stays.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._filter = ("ignore", None, Warning, re.compile(r"PIL\."), 0)
        self._n_inside = 0
        self._allowed_truncated = False
        if hasattr(os, "register_at_fork"):  # a forked child must not inherit a lock that nobody will release
            os.register_at_fork(
                before=self._lock.acquire, after_in_parent=self._lock.release, after_in_child=self._lock.release
            )

    def __enter__(self) -> None:
        from PIL import ImageFile

        with self._lock:
            self._allowed_truncated = ImageFile.LOAD_TRUNCATED_IMAGES or (
                self._n_inside > 0 and self._allowed_truncated
            )
            ImageFile.LOAD_TRUNCATED_IMAGES = False
            self._n_inside += 1
            filters: list[Any] = warnings.filters  # type: ignore[assignment]
            if not filters or filters[0] is not self._filter:
                filters[:] = [self._filter, *(other for other in filters if other is not self._filter)]

    def __exit__(self, *_: object) -> None:
        from PIL import ImageFile

        with self._lock:
            self._n_inside -= 1
            if self._n_inside == 0:
                ImageFile.LOAD_TRUNCATED_IMAGES = self._allowed_truncated


pillow_guard = _PillowGuard()
