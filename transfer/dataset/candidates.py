"""Candidate: a file that may be an image, until its first bytes are read and its content is hashed."""

# ruff: noqa: PTH119

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np

from transfer.dataset.names import count, display, extension, shown_extension
from transfer.dataset.records import Dataset, Skipped
from transfer.dataset.sniffing import EXTENSIONS, IMAGE_EXTENSIONS, N_HEAD_BYTES, is_supported, sniff_file
from transfer.files import sha256
from transfer.images.formats import HEIC_ADVICE

_N_FILES_PER_TASK = 256
_HEIC = f"HEIC: {HEIC_ADVICE}"

Progress = Callable[[int, int], None]


class Candidate(NamedTuple):
    """A file to look at."""

    path: str
    label: str  # the name of its class
    part: str  # "" where nothing gives one


@dataclass
class Candidates:
    """Files to look at, and those already known to be of no use."""

    root: Path | None
    layout: str
    classes: set[str]  # also those that turn out to have no image
    files: list[Candidate] = field(default_factory=list)
    unreadable: list[Skipped] = field(default_factory=list)
    ignored: list[Skipped] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def look_at(found: Candidates, *, n_threads: int, min_classes: int, progress: Progress | None) -> Dataset:
    """Sniff and hash every file; return those that are images as a dataset, the others in it with reasons."""
    images: list[tuple[Candidate, _Look]] = []
    unreadable, ignored, notes = list(found.unreadable), list(found.ignored), list(found.notes)
    misnamed = []
    looks = _look_at_each([file.path for file in found.files], n_threads, progress)
    for file, look in zip(found.files, looks, strict=True):
        if not look.digest:
            (unreadable if look.is_claimed else ignored).append(Skipped(file.path, look.what))
            continue
        images.append((file, look))
        if extension(file.path) in IMAGE_EXTENSIONS.difference(EXTENSIONS[look.what]):
            misnamed.append(f"'{display(os.path.basename(file.path))}' is {look.what}")
    if misnamed:
        n = count(len(misnamed), "image")
        notes.append(f"{n} with the extension of another format, read all the same: {misnamed[0]}.")
    if n_heic := sum(skipped.reason == _HEIC for skipped in unreadable):
        notes.append(f"{count(n_heic, 'HEIC image')} left out: {HEIC_ADVICE}.")
    classes = tuple(sorted(found.classes))
    code_of = {name: code for code, name in enumerate(classes)}
    return Dataset(
        root=found.root,
        paths=[file.path for file, _ in images],
        labels=np.array([code_of[file.label] for file, _ in images], dtype=np.int32),
        classes=classes,
        parts=np.array([file.part for file, _ in images], dtype="<U5"),
        hashes=[look.digest for _, look in images],
        sizes=np.array([look.size for _, look in images], dtype=np.int64),
        unreadable=unreadable,
        ignored=ignored,
        scan_notes=notes,
        layout=found.layout,
        min_classes=min_classes,
    )


class _Look(NamedTuple):
    what: str  # the format, or why the file is not used
    is_claimed: bool = True  # it is, or its name claims that it is, an image
    size: int = 0
    digest: str = ""  # only of images


def _look_at_each(paths: list[str], n_threads: int, progress: Progress | None) -> Iterator[_Look]:
    tasks = [paths[i : i + _N_FILES_PER_TASK] for i in range(0, len(paths), _N_FILES_PER_TASK)]
    n_done = 0
    threads = ThreadPoolExecutor(max_workers=max(1, n_threads))
    try:
        for looks in threads.map(lambda task: [_look_at_one(path) for path in task], tasks):
            yield from looks
            n_done += len(looks)
            if progress:
                progress(n_done, len(paths))
    finally:
        threads.shutdown(cancel_futures=True)  # Ctrl-C must not wait for 100,000 files


def _look_at_one(path: str) -> _Look:
    claims = extension(path) in IMAGE_EXTENSIONS
    try:
        with open(path, "rb") as source:
            head = source.read(N_HEAD_BYTES)
            size = os.fstat(source.fileno()).st_size
        if not head:
            return _Look("empty file", claims)
        found = sniff_file(path, head)
        if found and is_supported(found):
            return _Look(found, True, size, sha256(path))
    except OSError as error:
        return _Look(f"cannot be opened: {error.strerror or error}")
    if found == "HEIC":
        return _Look(_HEIC)
    if found:
        return _Look(f"unsupported format {found}", claims)
    return _Look(_not_an_image(path, head, claims), claims)


def _not_an_image(path: str, head: bytes, claims: bool) -> str:
    if head.startswith(b"version https://git-lfs.github.com/"):
        return "Git LFS pointer: run `git lfs pull`"
    if not claims:
        return f"not an image ({shown_extension(path)})"
    start = head.removeprefix(b"\xef\xbb\xbf").lstrip().lower()
    if start.startswith((b"<!doctype html", b"<html", b"<head", b"<body")):
        return "not an image (HTML)"
    if start.startswith(b"<?xml"):
        return "not an image (XML)"
    is_text = not any(byte < 9 or 13 < byte < 32 for byte in head)
    return "not an image (text)" if is_text else "not an image"
