"""Dataset: labelled image files, found, described and split; every file accounted for.

Nothing is decoded here: a file counts as an image when its first bytes say so. Whoever decodes hands back
what could not be decoded through `Dataset.without`.
"""

# Paths are plain strings here: a `Path` per file costs time and a kilobyte, and there may be 100,000 files.
# ruff: noqa: PTH100, PTH110, PTH112, PTH113, PTH114, PTH116, PTH117, PTH118, PTH119, PTH120, PTH122, PTH208

from __future__ import annotations

import csv
import errno
import functools
import hashlib
import io
import os
import re
import stat
import unicodedata
from array import array
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from transfer.errors import DataError, UsageError, did_you_mean
from transfer.files import neutral_cell, readable_bytes, sha256, write_csv

PARTS = ("train", "val", "test")

_PART_NAMES = {
    "train": "train",
    "training": "train",
    "val": "val",
    "valid": "val",
    "validation": "val",
    "dev": "val",
    "test": "test",
    "testing": "test",
}
_PATH_COLUMNS = ("path", "file_name", "filename", "image")
_LABEL_COLUMNS = ("label", "class")
_PART_COLUMNS = ("split", "part")

_EXTENSIONS = {
    "JPEG": (".jpg", ".jpeg", ".jpe", ".jfif"),
    "PNG": (".png", ".apng"),
    "GIF": (".gif",),
    "BMP": (".bmp", ".dib"),
    "TIFF": (".tif", ".tiff"),
    "WebP": (".webp",),
    "AVIF": (".avif", ".avifs"),
    "PPM": (".ppm", ".pgm", ".pbm", ".pnm"),
    "HEIC": (".heic", ".heif", ".hif"),
}
_IMAGE_EXTENSIONS = frozenset(extension for group in _EXTENSIONS.values() for extension in group)
# Most camera formats are TIFF inside; Pillow would silently read their thumbnail.
_RAW_EXTENSIONS = frozenset((".arw", ".cr2", ".dng", ".nef", ".nrw", ".orf", ".pef", ".raw", ".rw2", ".srw"))
_TEXT_EXTENSIONS = frozenset(
    (".csv", ".html", ".json", ".jsonl", ".log", ".md", ".py", ".txt", ".xml", ".yaml", ".yml")
)
_SUPPORTED = frozenset(("JPEG", "PNG", "GIF", "BMP", "TIFF", "WebP", "AVIF", "PPM"))
_MAGIC = (
    (b"\xff\xd8\xff", "JPEG"),
    (b"\x89PNG\r\n\x1a\n", "PNG"),
    (b"GIF87a", "GIF"),
    (b"GIF89a", "GIF"),
    (b"II*\0", "TIFF"),
    (b"MM\0*", "TIFF"),
    (b"II+\0", "TIFF"),
    (b"MM\0+", "TIFF"),
    (b"%PDF", "PDF"),
    (b"%!PS", "EPS"),
    (b"\xc5\xd0\xd3\xc6", "EPS"),
    (b"8BPS", "PSD"),
    (b"\0\0\1\0", "ICO"),
    (b"FUJIFILMCCD-RAW", "RAW"),
    (b"\0\0\0\x0cjP  ", "JPEG 2000"),
    (b"\xff\x4f\xff\x51", "JPEG 2000"),
    (b"\xff\x0a", "JPEG XL"),
    (b"\0\0\0\x0cJXL ", "JPEG XL"),
)
_HEIC_BRANDS = frozenset((b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1"))
_BMP_HEADERS = (12, 16, 40, 52, 56, 64, 108, 124)
_PPM_START = re.compile(rb"P[1-6](\s+|\s*#[^\n]*\n)+\d+(\s+|\s*#[^\n]*\n)+\d*")
_N_HEAD_BYTES = 1024

_CLUTTER = frozenset(
    ("__macosx", "thumbs.db", "ehthumbs.db", "desktop.ini", "icon\r", "@eadir", "$recycle.bin")
)  # what macOS, Windows and NAS boxes leave behind; dot files are hidden anyway
_BIDI_CONTROLS = frozenset("\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")

_TINY_CLASS = 5  # fewer images than this are worth a note: no cross-validation with five folds
_SMALL_SET = 300  # below it one drawn test part is too small to be trusted alone
_MOST_HELD_OUT = 2500  # 95 % intervals are within 2 points from here on; more images serve better in training
_N_FILES_PER_TASK = 256


@dataclass(frozen=True)
class Skipped:
    """A file that is not used, and why."""

    path: str
    reason: str


@dataclass(frozen=True, eq=False)
class Dataset:
    """Labelled image files, as columns of equal length, and every other file that was seen.

    Examples
    --------
    >>> import tempfile
    >>> folder = tempfile.TemporaryDirectory()
    >>> root = Path(folder.name)
    >>> for name in ("cats/1.jpg", "cats/2.jpg", "dogs/1.jpg", "dogs/readme.txt"):
    ...     _ = (root / name).parent.mkdir(exist_ok=True)
    ...     _ = (root / name).write_bytes(bytes([255, 216, 255]) if name.endswith("jpg") else b"hello")
    >>> dataset = scan(root)
    >>> dataset.classes, dataset.labels.tolist(), dataset.relative(2)
    (('cats', 'dogs'), [0, 0, 1], 'dogs/1.jpg')
    >>> [skipped.reason for skipped in dataset.ignored], dataset.n_seen
    (['not an image (.txt)'], 4)
    >>> folder.cleanup()
    """

    root: Path | None  # None: the images came as lists
    paths: list[str]  # one per used image; sorted, or in the given order for lists
    labels: np.ndarray  # int32 (n,), index into classes
    classes: tuple[str, ...]  # sorted names
    parts: np.ndarray  # unicode (n,): "" where the layout gave no split, else "train", "val" or "test"
    hashes: list[str]  # SHA-256 of the content
    sizes: np.ndarray  # int64 (n,), bytes
    unreadable: list[Skipped]  # images, or what claims to be one, that cannot be used
    ignored: list[Skipped]  # everything else in the tree
    scan_notes: list[str]  # what was odd about the tree; `notes` adds what is odd about the images
    layout: str  # how the labels were found, in words
    min_classes: int = 2

    def __len__(self) -> int:
        return len(self.paths)

    @property
    def n_seen(self) -> int:
        """Number of files in the tree: used, unreadable and ignored."""
        return len(self.paths) + len(self.unreadable) + len(self.ignored)

    @functools.cached_property
    def notes(self) -> list[str]:
        """Warnings in words, one line each, safe to print."""
        return [*self.scan_notes, *_class_notes(self), *_part_notes(self), *_duplicate_notes(self)]

    @functools.cached_property
    def fingerprint(self) -> str:
        """SHA-256 over the sorted (relative path, class name, content hash) of all images."""
        names = [(self.relative(i), self.classes[self.labels[i]], self.hashes[i]) for i in range(len(self))]
        digest = hashlib.sha256()
        for row in sorted(names):
            digest.update("\0".join(row).encode("utf-8", "surrogatepass") + b"\0")
        return digest.hexdigest()

    def relative(self, i: int) -> str:
        """Return the path of image `i` below the root, with forward slashes; as it was given where it is not below."""
        return _relative(self.paths[i], self.root)

    def subset(self, indices: Sequence[int] | np.ndarray) -> Dataset:
        """Return the images at `indices`, in that order, with the same classes; other files are left behind."""
        indices = np.asarray(indices, dtype=np.intp)
        return Dataset(
            root=self.root,
            paths=[self.paths[i] for i in indices],
            labels=self.labels[indices],
            classes=self.classes,
            parts=self.parts[indices],
            hashes=[self.hashes[i] for i in indices],
            sizes=self.sizes[indices],
            unreadable=[],
            ignored=[],
            scan_notes=list(self.scan_notes),
            layout=self.layout,
            min_classes=self.min_classes,
        )

    def without(self, unreadable: Iterable[Skipped | tuple[str, str]]) -> Dataset:
        """Return the dataset with these images moved to `unreadable`.

        Parameters
        ----------
        unreadable
            Image paths as they stand in `paths`, each with the reason.

        Raises
        ------
        DataError
            No image, or fewer than `min_classes` classes, would be left.
        UsageError
            A path is not an image of this dataset.
        """
        reasons = {s.path: s.reason for s in (s if isinstance(s, Skipped) else Skipped(*s) for s in unreadable)}
        keep = [i for i, path in enumerate(self.paths) if path not in reasons]
        moved = [Skipped(path, reasons[path]) for path in self.paths if path in reasons]
        if unknown := reasons.keys() - {skipped.path for skipped in moved}:
            raise UsageError(f"{_few(sorted(unknown))} is not among the {len(self)} images of this dataset.")
        if not moved:
            return self
        left = self.subset(keep)
        return _checked_dataset(
            root=self.root,
            paths=left.paths,
            codes=left.labels,
            names=self.classes,
            parts=left.parts,
            hashes=left.hashes,
            sizes=left.sizes,
            unreadable=[*self.unreadable, *moved],
            ignored=self.ignored,
            scan_notes=self.scan_notes,
            layout=self.layout,
            min_classes=self.min_classes,
        )


@dataclass(frozen=True, eq=False)
class Split:
    """Which images train, which choose settings (val) and which are reported on (test)."""

    parts: np.ndarray  # unicode (n,), aligned with `Dataset.paths`
    reason: list[str]  # what came from the data and what was drawn, in words
    cross_validate: bool  # the drawn test part is too small to be trusted alone

    def indices(self, part: str) -> np.ndarray:
        """Return the positions of the images of `part` (train, val or test)."""
        if part not in PARTS:
            raise UsageError(f"Unknown part {part!r}: a split has train, val and test.{did_you_mean(part, PARTS)}")
        return np.flatnonzero(self.parts == part)


# --- finding ---------------------------------------------------------------------------------------------------------


def scan(
    source: str | os.PathLike[str],
    *,
    follow_links: bool = True,
    n_threads: int = 2,
    min_classes: int = 2,
    progress: Callable[[int, int], None] | None = None,
) -> Dataset:
    """Find the labelled images of a folder or a table; nothing is decoded and nothing is written.

    Parameters
    ----------
    source
        A folder of class folders; of train, val|valid|validation|dev and test folders of class folders; with a
        `metadata.csv`; or a CSV file with the columns path|file_name|filename|image, label|class and, if wanted,
        split. A CSV file that is named itself accounts for the files it lists, a folder for all files in it.
    follow_links
        Whether symbolic links are read. Each folder is read once, however many links lead to it.
    n_threads
        Threads that read and hash the files.
    min_classes
        1 lets a single class pass, for evaluation.
    progress
        Called with (files looked at, files to look at) from time to time.

    Raises
    ------
    UsageError
        `source` does not exist or is neither a folder nor a table.
    DataError
        No classes, too few of them, or no readable image.
    """
    source = os.path.abspath(os.fspath(source))
    look = functools.partial(_look_at, n_threads=n_threads, progress=progress)
    if os.path.isdir(source):
        table = _metadata_file(source)
        if table is not None and (_has_columns(table) or not any(_subfolders(source, follow_links))):
            return _scan_table(table, Path(source), look, min_classes)
        return _scan_folder(source, follow_links, look, min_classes)
    if not os.path.exists(source):
        raise UsageError(_no_such(source))
    if os.path.splitext(source)[1].lower() not in (".csv", ".tsv", ".txt"):
        raise UsageError(
            f"'{display(source)}' is a file: give a folder of images or a CSV file with the columns path and label "
            "(unpack archives first)."
        )
    return _scan_table(source, None, look, min_classes)


def from_lists(
    paths: Sequence[str | os.PathLike[str]],
    labels: Sequence[Any],
    parts: Sequence[str] | None = None,
    *,
    n_threads: int = 2,
    min_classes: int = 2,
) -> Dataset:
    """Make a dataset of `paths`, in their order, repeats included; labels become text.

    Raises
    ------
    UsageError
        The lists differ in length.
    DataError
        No image can be read, or there are too few classes.
    """
    if len(paths) != len(labels) or (parts is not None and len(parts) != len(paths)):
        lengths = [len(paths), len(labels)] + ([len(parts)] if parts is not None else [])
        raise UsageError(f"Paths, labels and parts must be equally long, not {' and '.join(map(str, lengths))}.")
    texts = [str(label) for label in labels]
    names = sorted(set(texts))
    code_of = {name: code for code, name in enumerate(names)}
    files = _Files()
    given = _standard_parts([str(part) for part in parts] if parts is not None else [""] * len(paths), "parts")
    for path, label, part in zip(paths, texts, given, strict=True):
        _add_listed(files, os.fspath(path), code_of[label], part)
    columns = _look_at(files, n_threads=n_threads, progress=None)
    return _checked_dataset(
        root=None, names=names, layout="lists of paths and labels", min_classes=min_classes, **columns
    )


def find_images(sources: Iterable[str | os.PathLike[str]]) -> list[str]:
    """Return the named files, and all images in the named folders, without labels.

    Raises
    ------
    UsageError
        A source does not exist.
    DataError
        A folder holds no image.
    """
    found: list[str] = []
    for given in sources:
        source = os.fspath(given)
        if os.path.isdir(source):
            walk = _Walk(source, True, _Files())
            everything = _Layout([_ClassFolder(source, "")], [], "")
            inside = sorted(path for path, _ in walk.images(everything) if _looks_like_image(path))
            if not inside:
                raise DataError(f"'{display(source)}' holds no images.")
            found += inside
        elif os.path.exists(source):
            found.append(source)  # a person named it: if it is no image, decoding says so
        else:
            raise UsageError(_no_such(os.path.abspath(source)))
    return found


class _Files:
    """Files to look at, as columns, and those already known to be of no use."""

    def __init__(self) -> None:
        self.paths: list[str] = []
        self.codes = array("i")
        self.part_codes = array("b")
        self.unreadable: list[Skipped] = []
        self.ignored: list[Skipped] = []
        self.notes: list[str] = []

    def add(self, path: str, code: int, part: str) -> None:
        self.paths.append(path)
        self.codes.append(code)
        self.part_codes.append(("", *PARTS).index(part))


def _look_at(files: _Files, *, n_threads: int, progress: Callable[[int, int], None] | None) -> dict[str, Any]:
    """Sniff and hash every file; return the columns of those that are images, and the rest with reasons."""
    kept = array("q")
    sizes = array("q")
    hashes: list[str] = []
    unreadable, ignored, wrong = list(files.unreadable), list(files.ignored), []
    for i, seen in enumerate(_look_at_each(files.paths, n_threads, progress)):
        if seen.digest:
            kept.append(i)
            sizes.append(seen.size)
            hashes.append(seen.digest)
            if _extension(files.paths[i]) in _IMAGE_EXTENSIONS - set(_EXTENSIONS[seen.what]):
                wrong.append((files.paths[i], seen.what))
        else:
            (unreadable if seen.is_claimed else ignored).append(Skipped(files.paths[i], seen.what))
    notes = list(files.notes)
    if wrong:
        path, what = wrong[0]
        example = f"'{display(os.path.basename(path))}' is {what}"
        notes.append(
            f"{_count(len(wrong), 'image')} with the extension of another format, read all the same: {example}."
        )
    keep = np.array(kept, dtype=np.intp)
    return {
        "paths": [files.paths[i] for i in keep],
        "codes": np.array(files.codes, dtype=np.int32)[keep],
        "parts": np.array(("", *PARTS))[np.array(files.part_codes, dtype=np.intp)][keep],
        "hashes": hashes,
        "sizes": np.array(sizes, dtype=np.int64),
        "unreadable": unreadable,
        "ignored": ignored,
        "scan_notes": notes,
    }


@dataclass(frozen=True)
class _Look:
    what: str  # the format, or why the file is not used
    is_claimed: bool = True  # it is, or its name claims that it is, an image
    size: int = 0
    digest: str = ""  # only of images


def _look_at_each(paths: Sequence[str], n_threads: int, progress: Callable[[int, int], None] | None) -> Iterator[_Look]:
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
    claims = _extension(path) in _IMAGE_EXTENSIONS
    try:
        with open(path, "rb") as source:
            head = source.read(_N_HEAD_BYTES)
            size = os.fstat(source.fileno()).st_size
        if not head:
            return _Look("empty file", claims)
        found = sniff(head)
        if found == "TIFF" and (_extension(path) in _RAW_EXTENSIONS or head[8:10] == b"CR"):
            found = "RAW"
        if found in _SUPPORTED:
            return _Look(found, True, size, sha256(path))
    except OSError as error:
        return _Look(f"cannot be opened: {error.strerror or error}")
    if found == "HEIC":
        return _Look("HEIC: convert it to JPEG or PNG")
    if found:
        return _Look(f"unsupported format {found}", claims)
    return _Look(_not_an_image(path, head, claims), claims)


def _not_an_image(path: str, head: bytes, claims: bool) -> str:
    if head.startswith(b"version https://git-lfs.github.com/"):
        return "Git LFS pointer: run `git lfs pull`"
    if not claims:
        return f"not an image ({_shown_extension(path)})"
    start = head.removeprefix(b"\xef\xbb\xbf").lstrip().lower()
    if start.startswith((b"<!doctype html", b"<html", b"<head", b"<body")):
        return "not an image (HTML)"
    if start.startswith(b"<?xml"):
        return "not an image (XML)"
    is_text = not any(byte < 9 or 13 < byte < 32 for byte in head)
    return "not an image (text)" if is_text else "not an image"


def sniff(head: bytes) -> str | None:
    """Return the format that the first kilobyte of a file announces, or None.

    >>> sniff(bytes([255, 216, 255, 224])), sniff(b"<svg xmlns='http://www.w3.org/2000/svg'>"), sniff(b"hello")
    ('JPEG', 'SVG', None)
    """
    for magic, name in _MAGIC:
        if head.startswith(magic):
            return name
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        return "WebP"
    if head[4:8] == b"ftyp":
        return _sniff_iso_media(head)
    if head[:2] == b"BM" and int.from_bytes(head[14:18], "little") in _BMP_HEADERS:
        return "BMP"
    if head[128:132] == b"DICM":
        return "DICOM"
    if _PPM_START.match(head):
        return "PPM"
    start = head.removeprefix(b"\xef\xbb\xbf").lstrip().lower()
    if start.startswith(b"<svg") or (start.startswith((b"<?xml", b"<!--", b"<!doctype svg")) and b"<svg" in start):
        return "SVG"
    return None


def _sniff_iso_media(head: bytes) -> str:
    end = min(int.from_bytes(head[:4], "big"), len(head))
    brands = {head[8:12]} | {head[i : i + 4] for i in range(16, end, 4)}
    if brands & {b"avif", b"avis"}:  # before HEIC: both list mif1
        return "AVIF"
    if brands & _HEIC_BRANDS:
        return "HEIC"
    return "RAW" if head[8:11] == b"crx" else "video"


# --- folders ---------------------------------------------------------------------------------------------------------


_OUTSIDE = "image outside the class folders"


@dataclass(frozen=True)
class _ClassFolder:
    path: str
    name: str
    part: str = ""


@dataclass(frozen=True)
class _Layout:
    folders: list[_ClassFolder]
    enclosing: list[str]  # folders above the class folders, which a link must not lead back to
    words: str
    notes: list[str] = field(default_factory=list)


def _scan_folder(root: str, follow_links: bool, look: Callable[[_Files], dict[str, Any]], min_classes: int) -> Dataset:
    layout = _find_layout(root, follow_links)
    names = sorted({folder.name for folder in layout.folders})
    code_of = {name: code for code, name in enumerate(names)}
    files = _Files()
    files.notes += layout.notes
    walk = _Walk(root, follow_links, files)
    for path, folder in walk.images(layout):
        files.add(path, code_of[folder.name], folder.part)
    walk.ignore(root, _OUTSIDE, used={folder.path for folder in layout.folders})
    if walk.n_outside:
        files.notes.append(f"{_count(walk.n_outside, 'symbolic link')} to files or folders outside '{display(root)}'.")
    columns = look(files)
    return _checked_dataset(root=Path(root), names=names, layout=layout.words, min_classes=min_classes, **columns)


def _find_layout(root: str, follow_links: bool) -> _Layout:
    base, enclosing = root, [root]
    notes: list[str] = []
    while True:
        folders = list(_subfolders(base, follow_links))
        filled = [folder for folder in folders if _has_images(folder, follow_links)]
        if layout := _parts_layout(base, filled, follow_links):
            found, words, above = layout.folders, layout.words, layout.enclosing
            return _Layout(found, [*enclosing, *above], words, notes + layout.notes)
        if not (len(filled) == 1 and _is_wrapper(filled[0], follow_links)) or _images_in(base):
            break
        base = filled[0]
        enclosing.append(base)
        notes = [f"Read '{display(_relative(base, Path(root)))}', the only folder with images in '{display(root)}'."]
    if not filled:
        raise DataError(_no_classes(base, folders))
    classes = [_ClassFolder(folder, os.path.basename(folder)) for folder in folders]
    return _Layout(classes, enclosing, "class folders", notes)


def _parts_layout(base: str, filled: list[str], follow_links: bool) -> _Layout | None:
    """Recognise train, val and test folders of class folders; None where `base` holds something else."""
    by_part: dict[str, list[str]] = {}
    for folder in filled:
        by_part.setdefault(_PART_NAMES.get(os.path.basename(folder).casefold(), ""), []).append(folder)
    others = by_part.pop("", [])
    for part, same in by_part.items():
        if len(same) > 1 and "train" in by_part and _has_classes(same[0], follow_links):
            raise DataError(f"Two folders for the {part} part: {_few(map(os.path.basename, same))}. Keep one of them.")
    if "train" not in by_part:
        if not others and len(by_part) == 2 and all(_has_classes(f[0], follow_links) for f in by_part.values()):
            raise DataError(f"'{display(base)}' has a val and a test folder but no train folder: give it one.")
        return None
    train = by_part["train"][0]
    if not _has_classes(train, follow_links):
        if others and len(by_part) == 1:
            return None  # `train` is a class, beside others such as `car`
        raise DataError(
            f"'{display(train)}' holds images but no class folders. Put each class in a folder of its own: "
            "train/cats/1.jpg, train/dogs/2.jpg"
        )
    notes = []
    if len(by_part) == 1 and others:
        if len(others) > 1 or _images_in(train):
            return None
        # A second part may have any name, if it has the same classes.
        if _class_names(others[0], follow_links) & _class_names(train, follow_links):
            by_part["test"] = [others.pop()]
    if others:
        notes.append(f"Beside the train folder, not read: {_few(map(os.path.basename, others))}.")
    for part in ("val", "test"):
        if part in by_part and not _has_classes(by_part[part][0], follow_links):
            folder = by_part.pop(part)[0]
            notes.append(f"'{display(os.path.basename(folder))}' holds images but no class folders: not read.")
    parts = {part: by_part[part][0] for part in PARTS if part in by_part}
    classes = [
        _ClassFolder(folder, os.path.basename(folder), part)
        for part, above in parts.items()
        for folder in _subfolders(above, follow_links)
    ]
    words = " and ".join(f"{display(os.path.basename(folder))}/" for folder in parts.values())
    return _Layout(classes, list(parts.values()), f"class folders in {words}", notes)


def _subfolders(folder: str, follow_links: bool) -> Iterator[str]:
    """Yield the folders directly in `folder` that are not hidden, sorted by name."""
    try:
        with os.scandir(folder) as entries:
            found = sorted(e.path for e in entries if not _is_hidden(e.name) and e.is_dir(follow_symlinks=follow_links))
    except OSError as error:
        raise DataError(f"Cannot read the folder '{display(folder)}': {error.strerror or error}.") from error
    yield from found


def _has_images(folder: str, follow_links: bool) -> bool:
    """Say whether an image lies anywhere below `folder`; stops at the first."""
    stack, visited = [folder], set()
    while stack:
        current = stack.pop()
        try:
            identity = os.stat(current)
            if (identity.st_dev, identity.st_ino) in visited:
                continue
            visited.add((identity.st_dev, identity.st_ino))
            with os.scandir(current) as entries:
                for entry in entries:
                    if _is_hidden(entry.name):
                        continue
                    if entry.is_dir(follow_symlinks=follow_links):
                        stack.append(entry.path)
                    elif entry.is_file(follow_symlinks=follow_links) and _looks_like_image(entry.path):
                        return True
        except OSError:
            continue  # the walk records it
    return False


def _looks_like_image(path: str) -> bool:
    """Judge by the extension where it is a usual one, by the first bytes otherwise."""
    extension = _extension(path)
    if extension in _IMAGE_EXTENSIONS or extension in _TEXT_EXTENSIONS:
        return extension in _IMAGE_EXTENSIONS
    try:
        with open(path, "rb") as source:
            return sniff(source.read(_N_HEAD_BYTES)) in _SUPPORTED
    except OSError:
        return False


def _images_in(folder: str) -> int:
    """Count the images directly in `folder`."""
    with os.scandir(folder) as entries:
        return sum(not _is_hidden(e.name) and e.is_file() and _looks_like_image(e.path) for e in entries)


def _class_names(folder: str, follow_links: bool) -> set[str]:
    return {os.path.basename(below) for below in _subfolders(folder, follow_links) if _has_images(below, follow_links)}


def _has_classes(folder: str, follow_links: bool) -> bool:
    return any(_has_images(below, follow_links) for below in _subfolders(folder, follow_links))


def _is_wrapper(folder: str, follow_links: bool) -> bool:
    return _has_classes(folder, follow_links) and not _images_in(folder)


class _Walk:
    """Reads folders, each once, real ones before links, and records every file that is not a candidate."""

    def __init__(self, root: str, follow_links: bool, files: _Files) -> None:
        self.real_root = os.path.realpath(root)
        self.follow_links = follow_links
        self.files = files
        self.n_outside = 0
        self.visited: set[tuple[int, int]] = set()
        for above in Path(self.real_root).parents:
            self._is_new(str(above))

    def images(self, layout: _Layout) -> Iterator[tuple[str, _ClassFolder]]:
        """Yield every file that may be an image, with its class folder."""
        for enclosing in layout.enclosing:
            self._is_new(enclosing)
        links = deque((folder.path, folder) for folder in layout.folders if os.path.islink(folder.path))
        for folder in layout.folders:
            if not os.path.islink(folder.path):
                yield from self._images_below(folder.path, folder, links)
        while links:  # after all real folders, so that a link never takes the place of what it leads to
            path, of_class = links.popleft()
            self._count_outside(path)
            yield from self._images_below(path, of_class, links)

    def ignore(self, root: str, why: str, used: set[str] | frozenset[str] = frozenset()) -> None:
        """Record every file below `root` as ignored, except those in `used` or in folders in `used`."""
        stack = [(root, why)]
        while stack:
            folder, why = stack.pop()
            for entry in self._entries(folder, self.files.ignored):
                if entry.path in used:
                    continue
                if entry.is_dir(follow_symlinks=False):
                    stack.append((entry.path, "in a hidden folder" if _is_hidden(entry.name) else why))
                else:
                    self._ignore(entry.path, _why_ignored(entry, why))

    def _images_below(
        self, top: str, folder: _ClassFolder, links: deque[tuple[str, _ClassFolder]]
    ) -> Iterator[tuple[str, _ClassFolder]]:
        stack = [top]
        while stack:
            current = stack.pop()
            if not self._is_new(current):
                self._ignore(current, _already_read(current))
                continue
            for entry in self._entries(current, self.files.unreadable):
                if _is_hidden(entry.name):
                    if entry.is_dir(follow_symlinks=False):
                        self.ignore(entry.path, "in a hidden folder")
                    else:
                        self._ignore(entry.path, "hidden file")
                elif entry.is_symlink():
                    kind = self._link_kind(entry.path)
                    if kind == "folder":
                        links.append((entry.path, folder))
                    elif kind == "file":
                        self._count_outside(entry.path)
                        yield entry.path, folder
                elif entry.is_dir(follow_symlinks=False):
                    stack.append(entry.path)
                elif entry.is_file(follow_symlinks=False):
                    yield entry.path, folder
                else:
                    self._ignore(entry.path, "not a regular file")

    def _link_kind(self, path: str) -> str:
        """Return "file" or "folder" for a link to follow; record any other as ignored."""
        if not self.follow_links:
            self._ignore(path, "symbolic link, not followed")
            return ""
        try:
            mode = os.stat(path).st_mode
        except OSError as error:
            self._ignore(path, "directory loop" if error.errno == errno.ELOOP else "dangling symbolic link")
            return ""
        if stat.S_ISDIR(mode):
            return "folder"
        if stat.S_ISREG(mode):
            return "file"
        self._ignore(path, "not a regular file")
        return ""

    def _is_new(self, folder: str) -> bool:
        try:
            identity = os.stat(folder)
        except OSError:
            return True  # listing it will say why
        key = (identity.st_dev, identity.st_ino)
        if key in self.visited:
            return False
        self.visited.add(key)
        return True

    def _entries(self, folder: str, blamed: list[Skipped]) -> list[os.DirEntry[str]]:
        try:
            with os.scandir(folder) as entries:
                return sorted(entries, key=lambda entry: entry.name)
        except OSError as error:
            blamed.append(Skipped(folder, f"folder cannot be opened: {error.strerror or error}"))
            return []

    def _ignore(self, path: str, why: str) -> None:
        self.files.ignored.append(Skipped(path, why))

    def _count_outside(self, path: str) -> None:
        self.n_outside += not _is_below(os.path.realpath(path), self.real_root)


def _why_ignored(entry: os.DirEntry[str], why: str) -> str:
    """Return the reason for a file in a folder that is ignored because of `why`."""
    if _is_hidden(entry.name):
        return "hidden file"
    if why == _OUTSIDE and entry.is_symlink():
        return "symbolic link outside the class folders"
    if why == _OUTSIDE and _extension(entry.name) not in _IMAGE_EXTENSIONS:
        return f"not an image ({_shown_extension(entry.name)})"
    return why


def _already_read(link: str) -> str:
    if _is_below(os.path.realpath(os.path.dirname(link)), os.path.realpath(link)):
        return "directory loop"
    return "link to a folder already read"


def _is_hidden(name: str) -> bool:
    return name.startswith(".") or name.casefold() in _CLUTTER


# --- tables ----------------------------------------------------------------------------------------------------------

_LABEL_TABLE = {"path": _PATH_COLUMNS, "label": _LABEL_COLUMNS}
_Row = tuple[int, str, str, str]  # line number, path, label, part ("" where the table has no such column)


def _metadata_file(folder: str) -> str | None:
    path = os.path.join(folder, "metadata.csv")
    return path if os.path.isfile(path) else None


def _has_columns(table: str) -> bool:
    try:
        _open_table(table, _LABEL_TABLE)
    except DataError:
        return False
    return True


def _scan_table(table: str, root: Path | None, look: Callable[[_Files], dict[str, Any]], min_classes: int) -> Dataset:
    """Read a table of labels; `root` is the folder to account for, None for the listed files only."""
    folder = os.path.dirname(table)
    rows = _open_table(table, _LABEL_TABLE)
    if not rows:
        raise DataError(f"'{display(table)}' has no rows: list one image per row, with its path and label.")
    parts = _standard_parts([row[3].strip() for row in rows], f"the split column of '{display(table)}'")
    names = sorted({label.strip() for _, _, label, _ in rows if label.strip()})
    code_of = {name: code for code, name in enumerate(names)}
    files = _Files()
    seen: dict[str, tuple[str, str, int]] = {}
    n_repeated = 0
    for (line, cell, label, _), part in zip(rows, parts, strict=True):
        label, path = label.strip(), _resolve(cell, folder, table, line)
        if path in seen:
            _check_repeat(table, cell, (label, part, line), seen[path])
            n_repeated += 1
            continue
        seen[path] = (label, part, line)
        if label:
            _add_listed(files, path, code_of[label], part)
        else:
            files.ignored.append(Skipped(path, "no label in the table"))
    missing = [skipped.path for skipped in files.unreadable if skipped.reason == "file not found"]
    if len(missing) == len(seen):
        raise DataError(
            f"None of the {len(missing)} files that '{display(table)}' lists exists, not even '{display(missing[0])}': "
            "write paths relative to the table's folder."
        )
    if n_repeated:
        files.notes.append(
            f"{_count(n_repeated, 'row')} of '{display(os.path.basename(table))}' repeat an earlier one."
        )
    if root is not None:
        _ignore_unlisted(root, table, seen, files)
    layout = f"table {display(os.path.basename(table))}"
    return _checked_dataset(root=Path(folder), names=names, layout=layout, min_classes=min_classes, **look(files))


def _ignore_unlisted(root: Path, table: str, listed: Iterable[str], files: _Files) -> None:
    used = set(listed)
    links = set()  # folder links on the way to a listed file
    for above in {os.path.dirname(path) for path in used}:
        while _is_below(above, str(root)) and above != str(root) and above not in links:
            if os.path.islink(above):
                links.add(above)
            above = os.path.dirname(above)
    walk = _Walk(str(root), False, files)
    files.ignored.append(Skipped(table, "the table of labels"))
    walk.ignore(str(root), f"not listed in {display(os.path.basename(table))}", used=used | links | {table})


def _open_table(table: str, wanted: dict[str, tuple[str, ...]]) -> list[_Row]:
    """Read a table whose header has a column for each of `wanted`; comma, semicolon, tab or bar between columns."""
    try:
        with open(table, "rb") as source:
            text = _decode(source.read())
        columns: list[str] = []
        for delimiter in ",;\t|":
            reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter)
            header = [column.strip() for column in next(reader, [])]
            columns = max(columns, header, key=len)
            positions = {name: _position(header, wanted.get(name, ())) for name in ("path", "label")}
            positions["part"] = _position(header, _PART_COLUMNS)
            if all(positions[name] is not None for name in wanted):
                return [_row(row, reader.line_num, positions, table) for row in reader if row]
    except OSError as error:
        raise UsageError(f"Cannot read '{display(table)}': {error.strerror or error}.") from error
    except csv.Error as error:
        raise DataError(f"'{display(table)}' is not a CSV file that can be read: {error}.") from error
    expected = " and ".join("|".join(names) for names in wanted.values())
    found = ", ".join(display(column) for column in columns if column) or "none"
    raise DataError(f"'{display(table)}' has the columns {found}; expected {expected} in its first row.")


def _position(header: list[str], names: Sequence[str]) -> int | None:
    lowered = [column.casefold() for column in header]
    return next((lowered.index(name) for name in names if name in lowered), None)


def _row(row: list[str], line: int, positions: dict[str, int | None], table: str) -> _Row:
    if len(row) <= max(p for p in positions.values() if p is not None):
        raise DataError(f"'{display(table)}', line {line}: {_count(len(row), 'column')}, fewer than its first row has.")
    path, label, part = (
        "" if positions[name] is None else row[positions[name] or 0] for name in ("path", "label", "part")
    )
    return line, path, label, part


def _decode(data: bytes) -> str:
    if data[:2] in (b"\xff\xfe", b"\xfe\xff"):  # Excel's "Unicode text"
        return data.decode("utf-16", "replace")
    return data.decode("utf-8-sig", "surrogateescape")  # as the file system's names, which need not be UTF-8


def _resolve(cell: str, folder: str, table: str, line: int) -> str:
    """Return the path that a table's cell means; only absolute paths may leave the table's folder."""
    if not cell.strip():
        raise DataError(f"'{display(table)}', line {line}: the path is empty.")
    if "\0" in cell:
        raise DataError(f"'{display(table)}', line {line}: the path has a zero byte.")
    candidates = [cell, cell.strip(), cell.replace("\\", "/"), cell.strip().replace("\\", "/")]
    paths = [os.path.normpath(os.path.join(folder, candidate)) for candidate in candidates]
    path = next((path for path in paths if os.path.lexists(path)), paths[0])
    if not os.path.isabs(cell.strip()) and not _is_below(path, folder):
        raise DataError(
            f"'{display(table)}', line {line}: '{display(cell)}' leads out of the table's folder. "
            "Write such a path in full."
        )
    return path


def _check_repeat(table: str, cell: str, row: tuple[str, str, int], earlier: tuple[str, str, int]) -> None:
    for what, value, before in (("labels", row[0], earlier[0]), ("splits", row[1], earlier[1])):
        if value != before:
            raise DataError(
                f"'{display(table)}' gives '{display(cell)}' two {what}: '{display(before)}' on line {earlier[2]} and "
                f"'{display(value)}' on line {row[2]}. Keep one."
            )


def _add_listed(files: _Files, path: str, code: int, part: str) -> None:
    """Add a file that a person listed: one that is not there is unreadable, not ignored."""
    try:
        mode = os.stat(path).st_mode
    except (OSError, ValueError) as error:
        missing = isinstance(error, (FileNotFoundError, NotADirectoryError))
        reason = "file not found" if missing else f"cannot be opened: {getattr(error, 'strerror', None) or error}"
        files.unreadable.append(Skipped(path, reason))
        return
    if stat.S_ISREG(mode):
        files.add(path, code, part)
    else:
        files.unreadable.append(Skipped(path, "not a regular file"))


def _standard_parts(given: list[str], where: str) -> list[str]:
    """Translate names of parts into train, val and test; beside train, a single other part may have any name."""
    names = set(given)
    known = {name: _PART_NAMES.get(name.casefold()) for name in names if name}
    if "" in names and known:
        n_empty = sum(not name for name in given)
        raise DataError(f"{n_empty} of {len(given)} entries of {where} are empty: fill all of them, or none.")
    unknown = sorted(name for name, part in known.items() if part is None)
    if unknown and not (len(known) == 2 and "train" in known.values()):
        hint = did_you_mean(unknown[0], _PART_NAMES)
        raise DataError(f"Unknown part {_few(unknown)} in {where}: expected train, val or test.{hint}")
    return [(known[name] or "test") if name else "" for name in given]


# --- checking --------------------------------------------------------------------------------------------------------


def _checked_dataset(
    *,
    root: Path | None,
    paths: list[str],
    codes: np.ndarray,
    names: Sequence[str],
    parts: np.ndarray,
    hashes: list[str],
    sizes: np.ndarray,
    unreadable: list[Skipped],
    ignored: list[Skipped],
    scan_notes: list[str],
    layout: str,
    min_classes: int,
) -> Dataset:
    """Sort the images, drop classes without any, and refuse what cannot be learnt from. `codes` index `names`."""
    where = f"'{display(str(root))}'" if root else "the lists"
    if not paths:
        raise DataError(_nothing_left(where, unreadable, ignored))
    is_filled = np.bincount(codes, minlength=len(names)) > 0
    classes = tuple(name for name, filled in zip(names, is_filled, strict=True) if filled)
    empty = [name for name, filled in zip(names, is_filled, strict=True) if not filled]
    notes = list(scan_notes)
    if empty:
        notes.append(f"{_count(len(empty), 'class', 'classes')} without a usable image, left out: {_few(empty)}.")
    if len(classes) < min_classes:
        blame = f" ({_summary(unreadable)} could not be used)" if unreadable else ""
        raise DataError(
            f"{where} has a single class, '{display(classes[0])}'{blame}: a classifier needs at least {min_classes}, "
            "such as DATA/cats/1.jpg, DATA/dogs/2.jpg"
        )
    order = np.arange(len(paths)) if root is None else np.array(sorted(range(len(paths)), key=paths.__getitem__))
    new_code = np.cumsum(is_filled, dtype=np.int32) - 1
    dataset = Dataset(
        root=root,
        paths=[paths[i] for i in order],
        labels=new_code[codes][order].astype(np.int32),
        classes=classes,
        parts=parts[order],
        hashes=[hashes[i] for i in order],
        sizes=sizes[order],
        unreadable=sorted(unreadable, key=lambda skipped: skipped.path),
        ignored=sorted(ignored, key=lambda skipped: skipped.path),
        scan_notes=notes,
        layout=layout,
        min_classes=min_classes,
    )
    _check_parts(dataset, dataset.parts, where)
    return dataset


def _check_parts(dataset: Dataset, parts: np.ndarray, where: str) -> None:
    given = set(np.unique(parts).tolist())
    if len(given) > 1 and "train" not in given:
        raise DataError(f"{where} has {' and '.join(sorted(given))} images but none to train on.")
    trained = set(np.unique(dataset.labels[parts == "train"]).tolist())
    for part in ("val", "test"):
        unknown = sorted(set(np.unique(dataset.labels[parts == part]).tolist()) - trained)
        if not unknown or len(given) == 1:
            continue
        names = [dataset.classes[label] for label in unknown]
        twins = {_looks(dataset.classes[label]): dataset.classes[label] for label in trained}
        twin = next((f" {n!a} looks like {twins[_looks(n)]!a}." for n in names if _looks(n) in twins), "")
        raise DataError(
            f"{where}: {_count(len(names), 'class', 'classes')} of the {part} part without a training image: "
            f"{_few(names, 10)}.{twin} Rename or remove, or add images to train."
        )


def _class_notes(dataset: Dataset) -> list[str]:
    notes = []
    by_looks: dict[str, list[str]] = {}
    for name in dataset.classes:
        by_looks.setdefault(_looks(name), []).append(name)
    for twins in by_looks.values():
        if len(twins) > 1:
            spelt = " and ".join(ascii(name) for name in twins)
            notes.append(
                f"The classes {spelt} look the same but are kept apart: rename one folder if they are one class."
            )
    counts = np.bincount(dataset.labels, minlength=len(dataset.classes))
    tiny = [f"{dataset.classes[c]}: {counts[c]}" for c in np.flatnonzero(counts < _TINY_CLASS)]
    if tiny:
        notes.append(f"{_count(len(tiny), 'class', 'classes')} with fewer than {_TINY_CLASS} images: {_few(tiny)}.")
    return notes


def _part_notes(dataset: Dataset) -> list[str]:
    notes = []
    for part in ("val", "test"):
        inside = np.unique(dataset.labels[dataset.parts == part])
        if 0 < len(inside) < len(dataset.classes) and "train" in dataset.parts:
            lacking = [name for label, name in enumerate(dataset.classes) if label not in inside]
            verb = "has" if len(lacking) == 1 else "have"
            notes.append(f"{_count(len(lacking), 'class', 'classes')} {verb} no {part} image: {_few(lacking)}.")
    return notes


def _duplicate_notes(dataset: Dataset) -> list[str]:
    groups = duplicates(dataset)
    notes = []
    if n := sum(len(set(dataset.labels[group].tolist())) > 1 for group in groups):
        notes.append(f"{_count(n, 'image')} found under more than one class (`transfer inspect` lists them).")
    if n := sum(len(set(dataset.parts[group].tolist())) > 1 for group in groups):
        notes.append(
            f"{_count(n, 'image')} found in more than one of train, val and test: results look better than they are."
        )
    return notes


def _no_such(source: str) -> str:
    missing = source
    while not os.path.exists(parent := os.path.dirname(missing)):
        missing = parent
    try:
        nearest = did_you_mean(os.path.basename(missing), map(display, os.listdir(parent)))
    except OSError:
        nearest = ""
    return f"No such file or folder: '{display(source)}'.{nearest or ' Check the spelling.'}"


def _no_classes(folder: str, subfolders: list[str]) -> str:
    n_images = _images_in(folder)
    example = "Put each class in a folder of its own: DATA/cats/1.jpg, DATA/dogs/2.jpg"
    if n_images:
        return f"'{display(folder)}' holds {_count(n_images, 'image')} but no class folders. {example}"
    what = f"{_count(len(subfolders), 'folder')} but no images" if subfolders else "no images"
    return f"'{display(folder)}' holds {what}. {example}"


def _nothing_left(where: str, unreadable: list[Skipped], ignored: list[Skipped]) -> str:
    if unreadable:
        return f"None of the {_count(len(unreadable), 'image')} in {where} can be read: {_summary(unreadable)}."
    return f"{where} holds no images: {_summary(ignored) or 'it is empty'}."


def _summary(skipped: list[Skipped], limit: int = 3) -> str:
    common = Counter(display(s.reason) for s in skipped).most_common()
    words = [f"{n} {reason}" for reason, n in common[:limit]]
    return ", ".join(words) + (f" and {sum(n for _, n in common[limit:])} more" if len(common) > limit else "")


# --- splitting -------------------------------------------------------------------------------------------------------


def held_out_share(n_images: int) -> float:
    """Return the share of `n_images` to hold out: 20 % of hundreds, less of thousands, never over 2,500 images.

    The rule is AutoGluon's (`core/utils/utils.py`), which holds out max(0.1, min(0.2, 500/n)) below 5,000 images
    and max(0.01, min(0.1, 2500/n)) from there on.

    >>> [round(n * held_out_share(n)) for n in (200, 1000, 4000, 5000, 50_000, 1_000_000)]
    [40, 200, 500, 500, 2500, 2500]
    """
    n_images = max(1, n_images)
    share = max(0.1, min(0.2, 500 / n_images)) if n_images < 5000 else max(0.01, min(0.1, 2500 / n_images))
    return min(share, _MOST_HELD_OUT / n_images)


def draw_split(
    dataset: Dataset, *, seed: int = 0, test_share: float | None = None, val_share: float | None = None
) -> Split:
    """Complete the parts that the data came with to train, val and test.

    What the data gives is used. Of two parts, the one that is not train is reported on (test), and val is drawn from
    train; of one part or none, test is drawn first, then val from the rest. Draws are stratified, keep exact copies
    of an image on one side and leave every class an image to train on. They depend on the content of the images and
    the seed alone, not on names, order or place.

    Parameters
    ----------
    test_share, val_share
        Shares of what is drawn from, at least 0 and under 1; by default `held_out_share`.
    """
    return _complete(dataset, dataset.parts, seed, test_share, val_share)


def _complete(
    dataset: Dataset, given: np.ndarray, seed: int, test_share: float | None, val_share: float | None
) -> Split:
    for name, share in (("test_share", test_share), ("val_share", val_share)):
        if share is not None and not 0 <= share < 1:
            raise UsageError(f"{name} must be at least 0 and under 1, not {share}.")
    names = sorted(set(np.unique(given).tolist()))
    reason: list[str] = []
    for name, share, is_given in (("test_share", test_share, len(names) > 1), ("val_share", val_share, len(names) > 2)):
        if share is not None and is_given:
            reason.append(f"{name} is not used: the data comes with that part.")
    parts = np.full(len(dataset), "train", dtype="<U5")
    if len(names) == 3:
        parts[:] = given
        reason.append(f"{', '.join(f'{p}: {int((parts == p).sum())}' for p in PARTS)} images, as given.")
    else:
        if len(names) == 2:
            other = next(name for name in names if name != "train")
            parts[given == other] = "test"
            called = "" if other == "test" else f" (called {other} there)"
            reason.append(f"test: {int((parts == 'test').sum())} images, as given{called}.")
        else:
            reason += _draw(dataset, parts, "test", test_share, seed)
        reason += _draw(dataset, parts, "val", val_share, seed)
        reason.append(f"train: {int((parts == 'train').sum())} images, the rest.")
    drawn = len(set(np.unique(dataset.parts).tolist())) < 2
    cross_validate = drawn and len(dataset) < _SMALL_SET
    if cross_validate:
        reason.append(f"{len(dataset)} images are few for a test part: trust the cross-validated result more.")
    return Split(parts, reason, cross_validate)


def _draw(dataset: Dataset, parts: np.ndarray, part: str, share: float | None, seed: int) -> list[str]:
    """Move a stratified sample of the train images to `part`, in place; say so in words."""
    pool = np.flatnonzero(parts == "train")
    share = held_out_share(len(pool)) if share is None else share
    in_pool = np.bincount(dataset.labels[pool], minlength=len(dataset.classes))
    wanted = _quotas(in_pool, share, [_order_key(seed, part, name) for name in dataset.classes])
    copies: dict[str, list[int]] = {}
    for i in pool.tolist():
        copies.setdefault(dataset.hashes[i], []).append(i)
    labels, left, taken = dataset.labels.tolist(), in_pool.tolist(), [0] * len(in_pool)
    for digest in sorted(copies, key=lambda digest: _order_key(seed, part, digest)):
        images = copies[digest]
        of_class = Counter([labels[i] for i in images])  # more than one class where copies contradict each other
        # Half of a group of copies may overshoot: the sample ends nearest to what was wanted.
        if all(taken[c] + n / 2 <= wanted[c] and left[c] > n for c, n in of_class.items()):
            parts[images] = part
            for c, n in of_class.items():
                taken[c] += n
                left[c] -= n
    words = [f"{part}: {sum(taken)} images, {100 * share:.2g} % of {len(pool)} drawn by class (seed {seed})."]
    without = [name for name, n, m in zip(dataset.classes, in_pool, taken, strict=True) if n and not m]
    if without and share:
        words.append(f"{part} has no image of {_few(without)}: too few to spare one.")
    return words


def _quotas(n_images: np.ndarray, share: float, tie_keys: list[bytes]) -> list[int]:
    """Divide round(share · total) among the classes by largest remainder; each class keeps at least one image."""
    exact = np.where(n_images > 1, n_images * share, 0.0)
    quotas = np.floor(exact + 1e-9).astype(int)
    n_more = round(float(exact.sum())) - int(quotas.sum())
    by_remainder = sorted(range(len(exact)), key=lambda c: (-round(exact[c] - quotas[c], 9), tie_keys[c]))
    for c in by_remainder[: max(0, n_more)]:
        quotas[c] += 1
    return np.minimum(quotas, np.maximum(n_images - 1, 0)).tolist()


def _order_key(seed: int, salt: str, text: str) -> bytes:
    """Return a pseudo-random sort key that only the arguments decide, so that a grown set keeps most of its split."""
    return hashlib.sha256(f"{seed}\0{salt}\0{text}".encode("utf-8", "surrogatepass")).digest()


def write_split(path: str | os.PathLike[str], dataset: Dataset, split: Split) -> None:
    """Write a CSV file with one row (path below the root, class name, part) per image."""
    rows = (
        (_one_line(dataset.relative(i)), _one_line(dataset.classes[dataset.labels[i]]), str(split.parts[i]))
        for i in range(len(dataset))
    )
    write_csv(path, ("path", "label", "split"), rows)


def read_split(
    path: str | os.PathLike[str], dataset: Dataset, *, seed: int = 0, before_decoding: bool = False
) -> Split:
    """Read what `write_split` wrote, or a table like it, for the same images in any order.

    Rows for images that are unreadable now are passed over. Parts that the file lacks are drawn as `draw_split` does.

    Parameters
    ----------
    before_decoding
        Let the file lack images, which may prove unreadable; until then they count as train.

    Raises
    ------
    UsageError
        The file cannot be read.
    DataError
        It lacks an image of the dataset, has one that the dataset lacks, or gives it another label.
    """
    table = os.fspath(path)
    rows = _open_table(table, {"path": _PATH_COLUMNS, "label": _LABEL_COLUMNS, "part": _PART_COLUMNS})
    given = _standard_parts([row[3].strip() for row in rows], f"the split column of '{display(table)}'")
    waiting: dict[str, deque[int]] = {}
    for i in reversed(range(len(dataset))):
        waiting.setdefault(_as_read(dataset.relative(i)), deque()).appendleft(i)
    passed_over = {_as_read(_relative(skipped.path, dataset.root)) for skipped in dataset.unreadable}
    parts = np.full(len(dataset), "", dtype="<U5")
    extra = []
    for (line, cell, label, _), part in zip(rows, given, strict=True):
        # A person's own table has no apostrophe before a name such as "=1.jpg".
        queue = waiting.get(cell) or waiting.get(_as_read(cell))
        if not queue:
            if cell not in passed_over and _as_read(cell) not in passed_over:
                extra.append(cell)
            continue
        i = queue.popleft()
        name = dataset.classes[dataset.labels[i]]
        if label not in (name, _as_read(name)):
            raise DataError(
                f"'{display(table)}', line {line}: '{display(cell)}' has the label '{display(label)}', "
                f"in the data it is '{display(name)}'. Was the split made for other data?"
            )
        parts[i] = part
    if before_decoding and (parts != "").any():
        parts[parts == ""] = "train"
    lacking = [dataset.relative(i) for i in np.flatnonzero(parts == "").tolist()]
    if extra or lacking:
        wrong = [f"lacks {_few(lacking, 3)}"] * bool(lacking) + [f"lists {_few(extra, 3)}, not in the data"] * bool(
            extra
        )
        raise DataError(f"'{display(table)}' does not fit the data: it {' and '.join(wrong)}. Draw a new split.")
    _check_parts(dataset, parts, f"'{display(table)}'")
    split = _complete(dataset, parts, seed, None, None)
    return Split(split.parts, [f"Read from '{display(table)}'.", *split.reason], split.cross_validate)


def _one_line(text: str) -> str:
    return text.replace("\r", "\\r")  # csv does not quote it, and reads it back as the end of the row


def _as_read(text: str) -> str:
    """Return `text` as a reader finds it after `write_split`: formulas with an apostrophe, odd bytes escaped."""
    return str(neutral_cell(_one_line(text))).encode("utf-8", "backslashreplace").decode("utf-8")


# --- describing ------------------------------------------------------------------------------------------------------


def duplicates(dataset: Dataset) -> list[list[int]]:
    """Return the groups of images (positions, at least two each) whose files are equal byte by byte."""
    groups: dict[str, list[int]] = {}
    for i, digest in enumerate(dataset.hashes):
        groups.setdefault(digest, []).append(i)
    return [group for group in groups.values() if len(group) > 1]


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
        "root": None if dataset.root is None else _storable(str(dataset.root)),
        "layout": dataset.layout,
        "fingerprint": dataset.fingerprint,
        "n_seen": dataset.n_seen,
        "n_used": len(dataset),
        "n_unreadable": len(dataset.unreadable),
        "n_ignored": len(dataset.ignored),
        "n_classes": len(dataset.classes),
        "classes": {
            _storable(name): {"n": int(counts[c]), **{part: int(of_part[part][c]) for part in used_parts}}
            for c, name in enumerate(dataset.classes)
        },
        "parts": {part: int(of_part[part].sum()) for part in used_parts},
        "imbalance": round(float(counts.max() / max(1, counts.min())), 2),
        "file_sizes": _size_summary(dataset.sizes),
        "unreadable": _reasons(dataset.unreadable),
        "unreadable_files": [[_storable(_relative(s.path, dataset.root)), s.reason] for s in dataset.unreadable],
        "ignored": _reasons(dataset.ignored),
        "ignored_extensions": dict(Counter(_storable(_extension(s.path)) for s in dataset.ignored).most_common()),
        "duplicates": _describe_duplicates(dataset, parts),
        "notes": list(dataset.notes),
    }
    if split is not None:
        description["split"] = {"reason": list(split.reason), "cross_validate": split.cross_validate}
    return description


def _describe_duplicates(dataset: Dataset, parts: np.ndarray) -> dict[str, list[list[str]]]:
    found: dict[str, list[list[str]]] = {"within_class": [], "across_classes": [], "across_splits": []}
    for group in duplicates(dataset):
        paths = [_storable(dataset.relative(i)) for i in group]
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
    return {_storable(reason): n for reason, n in Counter(s.reason for s in skipped).most_common()}


# --- names -----------------------------------------------------------------------------------------------------------


def display(name: str) -> str:
    r"""Return `name` fit for a terminal: control characters and bytes that are not UTF-8 are written out.

    >>> print(display("a\x1b[31mred\n\udcff"))
    a\x1b[31mred\n\xff
    """
    return name if name.isascii() and name.isprintable() else "".join(map(_visible, name))


def _visible(character: str) -> str:
    if "\udc80" <= character <= "\udcff":
        return f"\\x{ord(character) - 0xDC00:02x}"  # the byte it stands for
    if character in _BIDI_CONTROLS or unicodedata.category(character) in ("Cc", "Cs", "Zl", "Zp"):
        return ascii(character)[1:-1]
    return character


def _storable(name: str) -> str:
    return name.encode("utf-8", "backslashreplace").decode("utf-8")


def _looks(name: str) -> str:
    """Return what two names share that a person, or another file system, takes for the same."""
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", name).casefold()).strip()


def _few(names: Iterable[str], limit: int = 5) -> str:
    names = list(names)
    shown = ", ".join(f"'{display(name)}'" for name in names[:limit])
    return f"{shown} and {len(names) - limit} more" if len(names) > limit else shown


def _count(n: int, one: str, many: str = "") -> str:
    return f"{n} {one if n == 1 else many or one + 's'}"


def _extension(path: str) -> str:
    return os.path.splitext(path)[1].lower()


def _shown_extension(path: str) -> str:
    return display(_extension(path)[:12]) or "no extension"


def _relative(path: str, root: Path | None) -> str:
    if root is None or not _is_below(path, str(root)):
        return path
    return path[len(str(root)) :].lstrip(os.sep).replace(os.sep, "/")


def _is_below(path: str, folder: str) -> bool:
    return path == folder or path.startswith(folder if folder.endswith(os.sep) else folder + os.sep)
