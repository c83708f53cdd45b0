"""Split: which images train, which choose settings and which are reported on; drawn, written and read."""

from __future__ import annotations

import hashlib
import math
import os
from collections import Counter, deque
from dataclasses import dataclass, replace

import numpy as np

from transfer.dataset.names import count, display, few, relative, storable
from transfer.dataset.parts import PARTS, check_parts, standard_parts
from transfer.dataset.records import Dataset
from transfer.dataset.tables import ALL_COLUMNS, Row, read_table
from transfer.errors import DataError, UsageError, did_you_mean
from transfer.files import neutral_cell, write_csv

_SMALL_SET = 300  # below it one drawn test part is too small to be trusted alone
_TRUST = "trust the cross-validated result more."
_MOST_HELD_OUT = 2500  # 95 % intervals are within 2 points from here on; more images serve better in training


@dataclass(frozen=True, eq=False)
class Split:
    """Which images train, which choose settings (val) and which are reported on (test)."""

    parts: np.ndarray  # unicode (n,), aligned with `Dataset.paths`
    reason: list[str]  # what came from the data and what was drawn, in words
    cross_validate: bool  # the drawn test part is too small to be trusted alone

    @property
    def development(self) -> np.ndarray:
        """The positions of the images that may be learned from and chosen on: train and val."""
        return np.flatnonzero(self.parts != "test")

    @property
    def reasons_of_parts(self) -> list[str]:
        """The reasons without the advice to trust a cross-validation, for a split that will have none."""
        return [line for line in self.reason if not line.endswith(_TRUST)]

    def indices(self, part: str) -> np.ndarray:
        """Return the positions of the images of `part` (train, val or test)."""
        if part not in PARTS:
            raise UsageError(f"Unknown part {part!r}: a split has train, val and test.{did_you_mean(part, PARTS)}")
        return np.flatnonzero(self.parts == part)


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
    return _complete(dataset, dataset.parts, seed=seed, test_share=test_share, val_share=val_share)


def require_drawable(dataset: Dataset) -> None:
    """Refuse a dataset that a test part has to be drawn from and cannot, whatever the seed and the share.

    Raises
    ------
    DataError
        No class has two different images.
    """
    if len(np.unique(dataset.parts)) < 2 and not _has_two_of_a_class(dataset):
        raise DataError(
            "No class has two different images: none can be held out to report on. Add images, or bring a test part "
            "(train and test folders, or --test)."
        )


def require_test(dataset: Dataset, split: Split) -> None:
    """Refuse a split that has nothing to report on.

    Raises
    ------
    DataError
        It says whether that is due to the images or to their number.
    """
    if len(split.indices("test")):
        return
    require_drawable(dataset)
    raise DataError(
        f"Of {count(len(dataset), 'image')} none is held out to report on: they are too few, or data.test_share is too "
        "small. Add images, or raise it."
    )


def _has_two_of_a_class(dataset: Dataset) -> bool:
    first: dict[int, str] = {}  # content of each class
    images = zip(dataset.labels.tolist(), dataset.hashes, strict=True)
    return any(first.setdefault(label, content) != content for label, content in images)


def _complete(
    dataset: Dataset,
    given: np.ndarray,
    *,
    seed: int,
    test_share: float | None = None,
    val_share: float | None = None,
) -> Split:
    """Complete the `given` parts of the images to train, val and test, as `draw_split` says."""
    names = sorted(set(np.unique(given).tolist()))
    reason: list[str] = []
    for name, share, is_given in (("test_share", test_share, len(names) > 1), ("val_share", val_share, len(names) > 2)):
        if share is not None and not 0 <= share < 1:
            raise UsageError(f"{name} must be at least 0 and under 1, not {share}.")
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
    is_small = len(np.unique(dataset.parts)) < 2 and len(dataset) < _SMALL_SET
    cross_validate = is_small and _has_two_of_a_class(dataset)
    if cross_validate:
        reason.append(f"{len(dataset)} images are few for a test part: {_TRUST}")
    return Split(parts, reason, cross_validate)


def _draw(dataset: Dataset, parts: np.ndarray, part: str, share: float | None, seed: int) -> list[str]:
    """Move a stratified sample of the train images to `part`, in place; say so in words."""
    pool = np.flatnonzero(parts == "train")
    share = held_out_share(len(pool)) if share is None else share
    in_pool = np.bincount(dataset.labels[pool], minlength=len(dataset.classes))
    wanted = _quotas(in_pool, share, [order_key(seed, part, name) for name in dataset.classes])
    copies: dict[str, list[int]] = {}
    for i in pool.tolist():
        copies.setdefault(dataset.hashes[i], []).append(i)
    labels, left, taken = dataset.labels.tolist(), in_pool.tolist(), [0] * len(in_pool)
    for digest in sorted(copies, key=lambda digest: order_key(seed, part, digest)):
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
        words.append(f"{part} has no image of {few(without)}: too few to spare one.")
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


def order_key(seed: int, salt: str, text: str) -> bytes:
    """Return a pseudo-random sort key that only the arguments decide, so that a grown set keeps most of its split."""
    return hashlib.sha256(f"{seed}\0{salt}\0{text}".encode("utf-8", "surrogatepass")).digest()


def thin_out(dataset: Dataset, split: Split, per_class: int, seed: int) -> np.ndarray:
    """Return the positions that are left, sorted, when each class keeps at most `per_class` images to train on.

    Val keeps its share of train; test stays whole, so that results with more and fewer images compare. A smaller
    number keeps some of those that a larger one keeps.
    """
    kept = [split.indices("test")]
    n = {part: len(split.indices(part)) for part in ("train", "val")}
    for part, limit in (
        ("train", per_class),
        ("val", math.ceil(per_class * n["val"] / max(1, n["train"]))),
    ):
        pool = split.indices(part)
        order = sorted(pool.tolist(), key=lambda i: order_key(seed, f"thin {part}", dataset.hashes[i]))
        taken = np.zeros(len(dataset.classes), int)
        for i in order:
            if taken[dataset.labels[i]] < limit:
                taken[dataset.labels[i]] += 1
                kept.append(np.array([i]))
    return np.sort(np.concatenate(kept))


def write_split(path: str | os.PathLike[str], dataset: Dataset, split: Split) -> None:
    """Write a CSV file with one row (path below the root, class name, part, SHA-256 of the content) per image."""
    rows = (
        (dataset.relative(i), dataset.classes[dataset.labels[i]], str(split.parts[i]), dataset.hashes[i])
        for i in range(len(dataset))
    )
    write_csv(path, ("path", "label", "split", "sha256"), rows)


def read_split(
    path: str | os.PathLike[str], dataset: Dataset, *, seed: int = 0, before_decoding: bool = False
) -> Split:
    """Read what `write_split` wrote, or a table like it, for the same images in any order.

    Rows for images that are unreadable now are passed over. Parts that the file lacks are drawn as `draw_split` does.
    Columns other than path, label and split may be missing; where there is a ``sha256``, the reason says which images
    have changed since.

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
    where = f"'{display(table)}'"
    rows = read_table(table, ALL_COLUMNS)
    given = standard_parts([row.part.strip() for row in rows], f"the split column of {where}")
    parts, extra, changed = _placed(dataset, rows, given, where)
    if before_decoding and (parts != "").any():
        parts[parts == ""] = "train"
    lacking = [dataset.relative(i) for i in np.flatnonzero(parts == "").tolist()]
    wrong = [f"lacks {few(lacking, 3)}"] * bool(lacking) + [f"lists {few(extra, 3)}, not in the data"] * bool(extra)
    if wrong:
        raise DataError(f"{where} does not fit the data: it {' and '.join(wrong)}. Draw a new split.")
    check_parts(dataset.classes, dataset.labels, parts, where)
    split = _complete(dataset, parts, seed=seed)
    verb = "has" if len(changed) == 1 else "have"
    since = f"{count(len(changed), 'image')} {verb} changed since the split was written: {few(changed)}."
    return replace(split, reason=[f"Read from {where}.", *[since] * bool(changed), *split.reason])


def _placed(dataset: Dataset, rows: list[Row], given: list[str], where: str) -> tuple[np.ndarray, list[str], list[str]]:
    """Return the parts of the images, empty where no row is about one; the paths of rows without an image, and of
    images that hold something else than their row says."""
    waiting: dict[str, deque[int]] = {}  # lists may repeat a path
    for i in range(len(dataset)):
        waiting.setdefault(_as_read(dataset.relative(i)), deque()).append(i)
    passed_over = {_as_read(relative(skipped.path, dataset.root)) for skipped in dataset.unreadable}
    parts = np.full(len(dataset), "", dtype="<U5")
    extra, changed = [], []
    for row, part in zip(rows, given, strict=True):
        # A person's own table has no apostrophe before a name such as "=1.jpg".
        key = next((key for key in (row.path, _as_read(row.path)) if waiting.get(key)), None)
        if key is None:
            if passed_over.isdisjoint((row.path, _as_read(row.path))):
                extra.append(row.path)
            continue
        i = waiting[key].popleft()
        name = dataset.classes[dataset.labels[i]]
        if row.label not in (name, _as_read(name)):
            raise DataError(
                f"{where}, line {row.line}: '{display(row.path)}' has the label '{display(row.label)}', "
                f"in the data it is '{display(name)}'. Was the split made for other data?"
            )
        if row.content and row.content != dataset.hashes[i]:
            changed.append(row.path)
        parts[i] = part
    return parts, extra, changed


def _as_read(text: str) -> str:
    """Return `text` as a reader finds it after `write_split`: formulas with an apostrophe, odd bytes escaped."""
    return storable(neutral_cell(text))
