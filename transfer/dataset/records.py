"""Dataset record: columns of labelled images, and every other file that was seen."""

from __future__ import annotations

import functools
import hashlib
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from transfer.dataset.domains import Domains
from transfer.dataset.names import count, display, few, relative
from transfer.dataset.notes import copy_notes, part_notes, size_notes, twin_notes
from transfer.dataset.parts import PARTS, check_parts
from transfer.display import table
from transfer.errors import DataError, UsageError


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
    >>> from transfer.dataset import scan
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
    domains: Domains | None = None  # where two were joined: one to train on, the other to be reported on

    def __len__(self) -> int:
        return len(self.paths)

    def __repr__(self) -> str:
        name = f"{display(self.root.name)!r}: " if self.root else ""
        return f"Dataset({name}{self._size})"

    def _repr_html_(self) -> str:
        columns = [("images", np.full(len(self), True)), *((part, self.parts == part) for part in PARTS)]
        shown = [(name, np.bincount(self.labels[here], minlength=len(self.classes))) for name, here in columns]
        shown = [(name, counts) for name, counts in shown if counts.any()]
        rows = [[display(name), *(counts[c] for _, counts in shown)] for c, name in enumerate(self.classes)]
        unused = f"{len(self.unreadable)} unreadable and {len(self.ignored)} ignored of {count(self.n_seen, 'file')}"
        return table(["class", *(name for name, _ in shown)], rows, self._size, [unused, *self.notes])

    @property
    def _size(self) -> str:
        return f"{count(len(self), 'image')} of {count(len(self.classes), 'class', 'classes')}"

    @property
    def n_seen(self) -> int:
        """Number of files in the tree: used, unreadable and ignored."""
        return len(self.paths) + len(self.unreadable) + len(self.ignored)

    @functools.cached_property
    def notes(self) -> list[str]:
        """Warnings in words, one line each, safe to print."""
        return [*self.faulty, *size_notes(self.classes, self.labels)]

    @functools.cached_property
    def faulty(self) -> list[str]:
        """The notes about what can be mended: all but those about sizes."""
        return [
            *self.scan_notes,
            *twin_notes(self.classes),
            *part_notes(self.classes, self.labels, self.parts),
            *copy_notes(duplicates(self), self.labels, self.parts),
        ]

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
        return relative(self.paths[i], self.root)

    def subset(self, indices: Sequence[int] | np.ndarray) -> Dataset:
        """Return the images at `indices`, in that order, with the same classes; other files are left behind."""
        indices = np.asarray(indices, dtype=np.intp)
        return replace(
            self,
            paths=[self.paths[i] for i in indices],
            labels=self.labels[indices],
            parts=self.parts[indices],
            hashes=[self.hashes[i] for i in indices],
            sizes=self.sizes[indices],
            unreadable=[],
            ignored=[],
        )

    def keep(self, indices: Sequence[int] | np.ndarray, reason: str) -> Dataset:
        """Return what `subset` does, but account for every other file; other images are ignored for `reason`."""
        rest = np.setdiff1d(np.arange(len(self)), indices)
        ignored = [*self.ignored, *(Skipped(self.paths[i], reason) for i in rest)]
        return replace(self.subset(indices), unreadable=self.unreadable, ignored=ignored)

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
        if unknown := reasons.keys() - set(self.paths):
            raise UsageError(f"{few(sorted(unknown))} is not among the {len(self)} images of this dataset.")
        if not reasons:
            return self
        moved = [Skipped(path, reasons[path]) for path in self.paths if path in reasons]
        left = self.subset([i for i, path in enumerate(self.paths) if path not in reasons])
        return checked(replace(left, unreadable=[*self.unreadable, *moved], ignored=self.ignored))


def duplicates(dataset: Dataset) -> list[list[int]]:
    """Return the groups of images (positions, at least two each) whose files are equal byte by byte."""
    groups: dict[str, list[int]] = {}
    for i, digest in enumerate(dataset.hashes):
        groups.setdefault(digest, []).append(i)
    return [group for group in groups.values() if len(group) > 1]


def checked(dataset: Dataset) -> Dataset:
    """Return `dataset` sorted by path and without empty classes; refuse what cannot be learnt from."""
    where = f"'{display(str(dataset.root))}'" if dataset.root else str(dataset.domains or "the lists")
    if not len(dataset):
        raise DataError(_nothing_left(where, dataset))
    is_filled = np.bincount(dataset.labels, minlength=len(dataset.classes)) > 0
    classes = tuple(name for name, filled in zip(dataset.classes, is_filled, strict=True) if filled)
    empty = [name for name, filled in zip(dataset.classes, is_filled, strict=True) if not filled]
    if len(classes) < dataset.min_classes:
        blame = f" ({_summary(dataset.unreadable)} could not be used)" if dataset.unreadable else ""
        raise DataError(
            f"{where} has a single class, '{display(classes[0])}'{blame}: a classifier needs at least "
            f"{dataset.min_classes}, such as DATA/cats/1.jpg, DATA/dogs/2.jpg"
        )
    left_out = f"{count(len(empty), 'class', 'classes')} without a usable image, left out: {few(empty)}."
    order = range(len(dataset)) if dataset.root is None else sorted(range(len(dataset)), key=dataset.paths.__getitem__)
    in_order = dataset.subset(order)
    new_label = np.cumsum(is_filled, dtype=np.int32) - 1
    result = replace(
        in_order,
        labels=new_label[in_order.labels].astype(np.int32),
        classes=classes,
        unreadable=sorted(dataset.unreadable, key=lambda skipped: skipped.path),
        ignored=sorted(dataset.ignored, key=lambda skipped: skipped.path),
        scan_notes=dataset.scan_notes + [left_out] * bool(empty),
    )
    check_parts(result.classes, result.labels, result.parts, where)
    return result


def _nothing_left(where: str, dataset: Dataset) -> str:
    if dataset.unreadable:
        n = count(len(dataset.unreadable), "image")
        return f"None of the {n} in {where} can be read: {_summary(dataset.unreadable)}."
    return f"{where} holds no images: {_summary(dataset.ignored) or 'it is empty'}."


def _summary(skipped: list[Skipped], limit: int = 3) -> str:
    common = Counter(display(s.reason) for s in skipped).most_common()
    words = [f"{n} {reason}" for reason, n in common[:limit]]
    return ", ".join(words) + (f" and {sum(n for _, n in common[limit:])} more" if len(common) > limit else "")
