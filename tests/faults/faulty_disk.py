"""A disk that fails at the n-th operation, as in SQLite's tests: what writes, renames and deletes is counted."""

from __future__ import annotations

import builtins
import contextlib
import errno
import hashlib
import io
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple
from unittest import mock

from transfer import cli, files

ERRORS = {name: getattr(errno, name) for name in ("ENOSPC", "EIO", "EACCES")}
_DELETIONS = ("unlink", "rmdir")  # which a full disk allows
_MAKERS = ("mkdir", "rename", "replace", *_DELETIONS)


class Disk:
    """Within `on`, what happens below `root` is written down, and the n-th operation fails.

    A full disk stays full: with ENOSPC whatever comes after the n-th operation fails too, but for deletions.
    """

    def __init__(self, root: Path, fails_at: int = 0, name: str = "EIO") -> None:
        self.root, self.fails_at, self.name = root, fails_at, name
        self.operations: list[str] = []
        self.elsewhere: list[
            str
        ] = []  # those that `transfer.files` did not do; into a file that it opened all may write

    @contextlib.contextmanager
    def on(self) -> Iterator[Disk]:
        """Put the disk in place."""
        opened = self._opener(builtins.open)
        with contextlib.ExitStack() as stack:
            stack.enter_context(mock.patch.object(builtins, "open", opened))
            stack.enter_context(mock.patch.object(io, "open", opened))
            for name in _MAKERS:
                stack.enter_context(mock.patch.object(os, name, self._on_path(name, getattr(os, name))))
            for name in ("fsync", "posix_fallocate"):
                stack.enter_context(mock.patch.object(os, name, self._on_handle(name, getattr(os, name))))
            yield self

    def happens(self, what: str, path: str) -> None:
        """Write an operation down, and let it fail if its time has come."""
        self.operations.append(f"{what} {path}")
        frame = sys._getframe()
        while frame and frame.f_code.co_filename != files.__file__:
            frame = frame.f_back
        if not frame and what != "write":
            self.elsewhere.append(self.operations[-1])
        now = len(self.operations)
        is_later = self.name == "ENOSPC" and 0 < self.fails_at < now
        if (now == self.fails_at or is_later) and not (self.name == "ENOSPC" and what in _DELETIONS):
            raise OSError(ERRORS[self.name], os.strerror(ERRORS[self.name]), path)

    def is_here(self, path: Any) -> bool:
        return isinstance(path, (str, os.PathLike)) and Path(path).absolute().is_relative_to(self.root)

    def _opener(self, opened: Callable[..., Any]) -> Callable[..., Any]:
        def open_(file: Any, mode: str = "r", *rest: Any, **options: Any) -> Any:
            if not (set(mode) & set("wax+") and self.is_here(file)):
                return opened(file, mode, *rest, **options)
            self.happens("open", os.fspath(file))
            return _File(self, opened(file, mode, *rest, **options))

        return open_

    def _on_path(self, name: str, call: Callable[..., Any]) -> Callable[..., Any]:
        def on_path(path: Any, *rest: Any, **options: Any) -> Any:
            # shutil.rmtree names what it deletes from the folder that holds it
            folder = options.get("dir_fd")
            full = path if folder is None else Path(f"/proc/self/fd/{folder}").readlink() / path
            if self.is_here(full):
                self.happens(name, os.fspath(full))
            return call(path, *rest, **options)

        return on_path

    def _on_handle(self, name: str, call: Callable[..., Any]) -> Callable[..., Any]:
        def on_handle(handle: int, *rest: Any) -> Any:
            path = Path(f"/proc/self/fd/{handle}").readlink()
            if self.is_here(path):
                self.happens(name, str(path))
            return call(handle, *rest)

        return on_handle


class _File:
    """An open file whose writes are operations."""

    def __init__(self, disk: Disk, file: Any) -> None:
        self._disk, self._file = disk, file

    def write(self, data: Any) -> Any:
        self._disk.happens("write", str(self._file.name))
        return self._file.write(data)

    def __enter__(self) -> _File:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)


class Ended(NamedTuple):
    """How a command ended."""

    code: int
    said: str


def transfer(*words: object) -> Ended:
    """Run a command of the command line in this process."""
    said = io.StringIO()
    with (
        mock.patch.object(sys, "argv", ["transfer", *map(str, words)]),
        contextlib.redirect_stdout(io.StringIO()),
        contextlib.redirect_stderr(said),
    ):
        try:
            cli.main()
        except SystemExit as ended:
            return Ended(int(ended.code or 0), said.getvalue())
    raise AssertionError("the command line did not exit")


def digests(folder: Path) -> dict[str, str]:
    """Return the SHA-256 of each file in a folder by its name."""
    found = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in found}
