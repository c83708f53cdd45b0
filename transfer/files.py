"""Files: every write of the toolkit goes through here, whole or not at all.

A file is written under a temporary name in its own folder, flushed to the disk and renamed. A killed
process leaves at most a temporary file, which carries its owner's process number and is swept later.
"""

from __future__ import annotations

import contextlib
import csv
import errno
import hashlib
import io
import itertools
import json
import os
import shutil
import socket
import uuid
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import numpy as np

from transfer.errors import ResourceError, UsageError

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_TEMPORARY = ".partial"
_FORMULAS = ("=", "+", "-", "@", "\t", "\r")  # how a cell begins that a spreadsheet would run


@contextlib.contextmanager
def atomic_file(path: str | os.PathLike[str], n_bytes: int = 0) -> Iterator[IO[bytes]]:
    """Yield a file beside `path` to write into; it is renamed to `path` when the block ends without an error.

    Leftovers of processes that died here are swept first.

    Parameters
    ----------
    n_bytes
        How many it will take, where that is known: a full disk is told with it.

    Raises
    ------
    ResourceError
        The folder cannot be written or the disk is full. Nothing with the final name has changed.
    """
    final = Path(path)
    temporary = _temporary(final)
    try:
        sweep(final.parent, deep=False)
        with open(temporary, "wb") as target:
            yield target
            target.flush()
            os.fsync(target.fileno())
        os.replace(temporary, final)
        _sync_folder(final.parent)
    except OSError as error:
        remove(temporary)  # what it takes is free again
        raise cannot_write(final, error, n_bytes) from error
    finally:
        remove(temporary)


@contextlib.contextmanager
def atomic_folder(path: str | os.PathLike[str], *, replace: bool = False) -> Iterator[Path]:
    """Yield a temporary folder beside `path`; rename it to `path` when the block ends without an error.

    An empty folder at `path` is replaced, with `replace` a full one too: it is put aside for the moment of the
    renaming. Leftovers of processes that died here are swept first.

    Raises
    ------
    ResourceError
        The folder cannot be written or the disk is full. Nothing with the final name has changed.
    """
    final = Path(path).absolute()
    building, aside = _temporary(final), _temporary(final)
    try:
        building.mkdir(parents=True)
        sweep(final.parent, deep=False)
        yield building
        _sync_folder(building)
        if replace and final.is_dir():
            final.rename(aside)
        elif final.is_dir():
            final.rmdir()
        building.rename(final)
        _sync_folder(final.parent)
    except OSError as error:
        if error.errno in (errno.ENOTEMPTY, errno.EEXIST):
            raise UsageError(f"{final} was made by another process meanwhile. Choose another --out.") from error
        raise cannot_write(final, error) from error
    finally:
        if aside.exists() and not final.exists():
            aside.rename(final)
        remove(building)
        remove(aside)


@contextlib.contextmanager
def scratch_folder(parent: str | os.PathLike[str]) -> Iterator[Path]:
    """Yield a new folder inside `parent` that is gone when the block ends.

    Those of processes that died here are swept first.
    """
    require_writable(parent)
    sweep(parent, deep=False)
    scratch = _temporary(Path(parent) / "scratch")
    try:
        scratch.mkdir(mode=0o700)  # the parent may be /tmp, which others read
    except OSError as error:
        raise cannot_write(scratch, error) from error
    try:
        yield scratch
    finally:
        remove(scratch)


def make_folder(path: str | os.PathLike[str]) -> None:
    """Make a folder and those above it, where they are not there yet.

    Raises
    ------
    ResourceError
        It cannot be made.
    """
    try:
        Path(path).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise cannot_write(Path(path), error) from error


def remove(path: str | os.PathLike[str]) -> None:
    """Delete a file, or a folder with all that is in it; what is not there or cannot be deleted is passed over."""
    path = Path(path)
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        with contextlib.suppress(OSError):
            path.unlink(missing_ok=True)


def map_new_array(folder: str | os.PathLike[str], shape: tuple[int, ...]) -> np.ndarray:
    """Return a float32 array to fill that lies in a file in `folder` and not in memory, and is gone when it is.

    Raises
    ------
    ResourceError
        The folder cannot be written, or the disk has less room.
    """
    n_bytes = 4 * int(np.prod(shape))
    make_folder(folder)
    sweep(folder, deep=False)
    path = _temporary(Path(folder) / "rows")
    try:
        with open(path, "wb") as file:
            reserve_space(file, n_bytes)
            file.truncate(n_bytes)
        return np.memmap(path, np.float32, "r+", shape=shape)
    except OSError as error:
        raise cannot_write(path, error, n_bytes) from error
    finally:
        remove(path)  # the file is kept by what is mapped


def write_figure(path: str | os.PathLike[str], figure: Figure, dpi: float | None = None) -> None:
    """Write a figure of matplotlib, PNG or SVG by the end of the name, whole; the same figure gives the same bytes."""
    import matplotlib

    kind = Path(path).suffix.lower().removeprefix(".")
    data = io.BytesIO()
    with matplotlib.rc_context({"svg.hashsalt": "transfer"}):
        metadata = {"Date": None} if kind == "svg" else None
        figure.savefig(data, format=kind, dpi=dpi or "figure", metadata=metadata)
    write_bytes(path, data.getvalue())


def write_bytes(path: str | os.PathLike[str], data: bytes) -> None:
    """Write `data` to `path` atomically."""
    with atomic_file(path, len(data)) as target:
        target.write(data)


def write_text(path: str | os.PathLike[str], text: str) -> None:
    """Write UTF-8 text atomically; characters that UTF-8 lacks (names that are not UTF-8) are escaped."""
    write_bytes(path, text.encode("utf-8", "backslashreplace"))


def write_json(path: str | os.PathLike[str], value: Any) -> None:
    """Write `value` as indented JSON, atomically; numpy numbers and arrays become plain ones."""
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False, default=_plain, allow_nan=False) + "\n")


def write_csv(path: str | os.PathLike[str], header: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    """Write a table atomically; text that a spreadsheet would run as a formula gets a leading apostrophe."""
    table = io.StringIO(newline="")
    plain = csv.writer(table, lineterminator="\n")
    # Before Python 3.13 the plain writer leaves a bare \r unquoted, which a reader takes for the end of the row.
    quoting = csv.writer(table, lineterminator="\n", quoting=csv.QUOTE_ALL)
    for row in itertools.chain([header], rows):
        cells = [neutral_cell(cell) for cell in row]
        (quoting if any("\r" in str(cell) for cell in cells) else plain).writerow(cells)
    write_text(path, table.getvalue())


def write_tensors(
    path: str | os.PathLike[str], tensors: dict[str, Any], metadata: dict[str, str] | None = None
) -> None:
    """Write torch tensors as safetensors, atomically, with string metadata."""
    from safetensors.torch import save

    write_bytes(path, save({name: t.detach().cpu().contiguous() for name, t in tensors.items()}, metadata))


def neutral_cell(cell: Any) -> Any:
    """Return `cell`, with an apostrophe before text that spreadsheets take for a formula. Numbers stay.

    >>> neutral_cell("=1+1"), neutral_cell(-0.3), neutral_cell("-0.3"), neutral_cell("cat")
    ("'=1+1", -0.3, "'-0.3", 'cat')
    """
    return "'" + cell if isinstance(cell, str) and cell[:1] in _FORMULAS else cell


def plain_cell(text: str) -> str:
    """Return the text that `neutral_cell` wrote so.

    >>> plain_cell("'=1+1"), plain_cell("'quoted'"), plain_cell("cat")
    ('=1+1', "'quoted'", 'cat')
    """
    return text[1:] if text[:1] == "'" and text[1:2] in _FORMULAS else text


def sha256(path: str | os.PathLike[str]) -> str:
    """Return the SHA-256 of a file's content in hexadecimal."""
    with open(path, "rb") as source:
        return hashlib.file_digest(source, "sha256").hexdigest() if hasattr(hashlib, "file_digest") else _digest(source)


def folder_bytes(folder: str | os.PathLike[str]) -> int:
    """Return how much the files in a folder take, 0 where there is none; files that vanish meanwhile do not count."""
    total = 0
    for path in Path(folder).rglob("*"):
        with contextlib.suppress(OSError):
            total += path.stat().st_size
    return total


def require_space(folder: str | os.PathLike[str], n_bytes: int) -> None:
    """Raise `ResourceError` when the disk that holds `folder` has less than `n_bytes` free."""
    free = shutil.disk_usage(existing_folder(Path(folder))).free
    if free < n_bytes:
        raise ResourceError(f"Disk full: {folder} needs {readable_bytes(n_bytes)}, {readable_bytes(free)} are free.")


def reserve_space(target: IO[bytes], n_bytes: int) -> None:
    """Take `n_bytes` of the disk for an open file now, so that a full disk is noticed before the work is done."""
    require_space(Path(target.name).parent, n_bytes)
    if n_bytes and hasattr(os, "posix_fallocate"):
        try:
            os.posix_fallocate(target.fileno(), 0, n_bytes)
        except OSError as error:
            if error.errno not in (errno.EOPNOTSUPP, errno.EINVAL, errno.ENOSYS):  # file systems without such a call
                raise


def require_new(folder: str | os.PathLike[str]) -> None:
    """Make sure that a new folder can be made, by a trial write beside it; nothing is left behind.

    Raises
    ------
    UsageError
        There is something of that name already, other than an empty folder.
    ResourceError
        The place cannot be written to.
    """
    folder = Path(folder)
    if folder.is_symlink() or (folder.exists() and (not folder.is_dir() or any(folder.iterdir()))):
        raise UsageError(f"{folder} exists. Choose another --out, or delete it.")
    require_folder(existing_folder(folder.parent))


def require_writable(folder: str | os.PathLike[str]) -> None:
    """Create `folder` and try one small write in it, so that a refusal comes before the work does."""
    make_folder(folder)
    require_folder(folder)


def require_folder(folder: str | os.PathLike[str]) -> None:
    """Try one small write in a folder that should be there.

    Raises
    ------
    ResourceError
        It is not there, or not to be written to.
    """
    folder = Path(folder)
    probe = _temporary(folder / "probe")
    try:
        with open(probe, "xb") as target:  # never through a link that somebody put there
            target.write(b"x")
    except OSError as error:
        raise cannot_write(folder, error, 1) from error
    finally:
        remove(probe)


def make_mark(path: str | os.PathLike[str]) -> Path:
    """Make an empty file beside `path` that carries its name and this process's number, and return where it is.

    It is swept like what is temporary, once this process has died.

    Raises
    ------
    ResourceError
        It cannot be made.
    """
    mark = _temporary(Path(path))
    try:
        open(mark, "xb").close()
    except OSError as error:
        raise cannot_write(Path(path), error) from error
    return mark


def touch(path: Path) -> bool:
    """Let the time of a file change, for those who watch it; return whether there is such a file."""
    try:
        os.utime(path)
    except FileNotFoundError:
        return False
    except OSError:  # a disk that is away for a moment
        pass
    return True


def find_marks(path: str | os.PathLike[str]) -> dict[Path, tuple[str, int]]:
    """Return the marks beside `path` with the host and the number of the process of each; those of the dead are swept.

    Of the dead of other machines nothing is known here: theirs are among those returned.
    """
    path = Path(path)
    sweep(path.parent, deep=False)
    owners = {mark: _owner_of(mark) for mark in path.parent.glob(f".{path.name}.*{_TEMPORARY}")}
    return {mark: (host, int(pid)) for mark, (host, pid) in owners.items() if pid.isdigit() and not _is_dead(host, pid)}


def users_of(folder: str | os.PathLike[str]) -> set[tuple[str, int]]:
    """Return host and number of the processes that have something temporary in a folder, or below it.

    Those that have died here are left out. Of other machines' nothing is known: they are among those returned.
    """
    owners = {_owner_of(temporary) for temporary in Path(folder).rglob(f".*{_TEMPORARY}")}
    return {(host, int(pid)) for host, pid in owners if pid.isdigit() and not _is_dead(host, pid)}


def is_ours(host: str, pid: int) -> bool:
    """Tell whether that is this process."""
    return (host, pid) == (_host(), os.getpid())


def sweep(folder: str | os.PathLike[str], deep: bool = True) -> int:
    """Delete temporary files that processes of this machine left when they died; return how many."""
    n_swept = 0
    found = Path(folder).rglob if deep else Path(folder).glob
    for leftover in list(found(f".*{_TEMPORARY}")):
        if _is_dead(*_owner_of(leftover)):
            remove(leftover)
            n_swept += not os.path.lexists(leftover)
    return n_swept


def cannot_write(path: Path, error: OSError, n_bytes: int = 0) -> ResourceError:
    """Say in one line why `path` could not be written, of which `n_bytes` were to be written where that is known."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        free = readable_bytes(shutil.disk_usage(existing_folder(path)).free)
        need = f"it needs {readable_bytes(n_bytes)}, {free} are free" if n_bytes else f"{free} are free"
        return ResourceError(f"Disk full while writing {path}: {need}. Make room or choose another folder.")
    return ResourceError(f"Cannot write {path}: {error.strerror or error}. Choose a folder that you may write to.")


def cache_folder() -> Path:
    """Return where caches live: `$TRANSFER_CACHE`, or the user's cache folder, or the system's temporary one."""
    if chosen := os.environ.get("TRANSFER_CACHE"):
        return Path(chosen)
    if base := os.environ.get("XDG_CACHE_HOME"):
        return Path(base) / "transfer"
    with contextlib.suppress(RuntimeError):  # raised where there is no HOME
        return Path.home() / ".cache" / "transfer"
    import tempfile

    return Path(tempfile.gettempdir()) / "transfer-cache"


def readable_bytes(n_bytes: float) -> str:
    """Return a size for people.

    >>> readable_bytes(1_500_000)
    '1.5 MB'
    """
    for unit in ("B", "kB", "MB", "GB"):
        if n_bytes < 1000:
            return f"{n_bytes:.0f} B" if unit == "B" else f"{n_bytes:.1f} {unit}"
        n_bytes /= 1000
    return f"{n_bytes:.1f} TB"


def _plain(value: Any) -> Any:
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, np.ndarray):
        return value.tolist()
    if isinstance(value, (os.PathLike, set, tuple)):
        return os.fspath(value) if isinstance(value, os.PathLike) else list(value)
    raise TypeError(f"{type(value).__name__} cannot be written as JSON")


def _digest(source: io.BufferedReader) -> str:
    digest = hashlib.sha256()
    while block := source.read(1 << 20):
        digest.update(block)
    return digest.hexdigest()


def existing_folder(path: Path) -> Path:
    """Return the nearest folder above `path`, or itself, that is there."""
    path = path.absolute()
    while not path.exists():
        path = path.parent
    return path


def _host() -> str:
    return socket.gethostname().replace(".", "_")


def _temporary(final: Path) -> Path:
    return final.parent / f".{final.name[:80]}.{_owner()}.{uuid.uuid4().hex[:8]}{_TEMPORARY}"


def _owner() -> str:
    return f"{_host()}-{os.getpid()}"


def _owner_of(temporary: Path) -> tuple[str, str]:
    host, _, pid = temporary.name.split(".")[-3].rpartition("-")
    return host, pid


def _is_dead(host: str, pid: str) -> bool:
    return host == _host() and pid.isdigit() and not _is_alive(int(pid))


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _sync_folder(folder: Path) -> None:
    with contextlib.suppress(OSError):  # not every platform lets a folder be opened
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def let_go_of_output() -> None:
    """Send what could not be printed nowhere: the interpreter tries again at its end, and would end with 120."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
