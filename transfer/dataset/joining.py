"""Join: two datasets made one, a source to train on and a target to be reported on."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from transfer.dataset.domains import Domain, Domains
from transfer.dataset.names import count, display, few, looks
from transfer.dataset.parts import reported_part
from transfer.dataset.records import Dataset, checked
from transfer.dataset.splitting import Split, order_key
from transfer.errors import DataError, UsageError, did_you_mean


def join_domains(source: Dataset, target: Dataset, few_target: int = 0) -> Dataset:
    """Return the images of two domains as one dataset, with the parts that they are for.

    Source images are train, or val where the source says so; its test part is left out. Of the target, the part that
    it gives for reporting is test, all of it where it gives none. What else it has is left out, or, for `few_target`,
    kept without a part to draw from. An image in both domains is left out of the source, so that the test part is the
    same for every source. Paths keep their order and are not shortened: two roots may share the names below them.

    Parameters
    ----------
    few_target
        How many distinct target images of each class `draw_few` is to draw.

    Raises
    ------
    DataError
        The target has a class that the source lacks, or too few images of one; or all of the source is in the target.
    """
    if few_target < 0:
        raise UsageError(f"few_target must be at least 0, not {few_target}.")
    domains = Domains(_domain(source), _domain(target), reported_part(target.parts), few_target)
    target, target_notes = _target_images(target, domains)
    source, source_notes = _source_images(source, target, domains)
    _require_known_classes(source, target, domains)
    label_of = {name: label for label, name in enumerate(source.classes)}
    target_labels = [label_of[target.classes[label]] for label in target.labels.tolist()]
    which = f" (its {domains.reported} part)" if domains.reported else ""
    joined = Dataset(
        root=None,
        paths=source.paths + target.paths,
        labels=np.concatenate([source.labels, np.array(target_labels, np.int32)]),
        classes=source.classes,
        parts=np.concatenate([source.parts, target.parts]),
        hashes=source.hashes + target.hashes,
        sizes=np.concatenate([source.sizes, target.sizes]),
        unreadable=source.unreadable + target.unreadable,
        ignored=source.ignored + target.ignored,
        scan_notes=[
            f"Two domains: trained on the source, {domains.source}; tested on the target, {domains.target}{which}.",
            *source_notes,
            *target_notes,
        ],
        layout=f"source: {source.layout}; target: {target.layout}",
        domains=domains,
    )
    draw_few(joined, 0)  # what it refuses is better refused before anything is decoded
    return checked(joined)


def draw_few(dataset: Dataset, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Draw the target images that are trained on too; return their positions, and those that a split is drawn from.

    Copies of a drawn image come with it. An image under two classes is not drawn. A smaller number draws some of the
    images that a larger one draws. Of a dataset of one domain, and where none are asked for, none are drawn.

    Raises
    ------
    DataError
        The target has too few distinct images of a class: where it is drawn from the test part, one must be left.
    """
    domains = dataset.domains
    if domains is None or not domains.few_target:
        return np.empty(0, np.intp), np.arange(len(dataset))
    pool = np.flatnonzero(dataset.parts == ("" if domains.reported else "test"))
    copies: dict[str, list[int]] = {}
    for i in pool.tolist():
        copies.setdefault(dataset.hashes[i], []).append(i)
    contents: dict[int, list[str]] = {c: [] for c in np.unique(dataset.labels[_of_target(dataset)]).tolist()}
    for content in sorted(copies, key=lambda content: order_key(seed, "few target", content)):
        of_class = set(dataset.labels[copies[content]].tolist())
        if len(of_class) == 1:
            contents[of_class.pop()].append(content)
    for label, found in contents.items():
        _require_enough(dataset.classes[label], len(found), domains)
    drawn = [i for found in contents.values() for content in found[: domains.few_target] for i in copies[content]]
    is_left = ~_of_target(dataset) | (dataset.parts == "test")
    is_left[drawn] = False
    return np.array(sorted(drawn), np.intp), np.flatnonzero(is_left)


def add_few(kept: np.ndarray, split: Split, drawn: np.ndarray, domains: Domains, seed: int) -> tuple[np.ndarray, Split]:
    """Add the target images that `draw_few` has drawn to what is trained on.

    Parameters
    ----------
    kept
        Positions of the images that `split` is about.

    Returns
    -------
    tuple
        The positions of all images that take part, sorted, and their split.
    """
    positions = np.concatenate([kept, drawn])
    parts = np.concatenate([split.parts, np.full(len(drawn), "train")])
    order = np.argsort(positions)
    words = (
        f"train: {count(len(drawn), 'target image')} besides, {domains.few_target} distinct of each class (seed "
        f"{seed}); val is of the source alone."
    )
    return positions[order], Split(parts[order], [*split.reason, words], split.cross_validate)


def _domain(dataset: Dataset) -> Domain:
    root = None if dataset.root is None else str(dataset.root)
    return Domain(root, dataset.layout, dataset.fingerprint, len(dataset))


def _target_images(target: Dataset, domains: Domains) -> tuple[Dataset, list[str]]:
    """Return the target images that take part, with the part test or none, and notes."""
    notes = [f"Target: {note}" for note in target.scan_notes]
    is_test = target.parts == domains.reported if domains.reported else np.full(len(target), True)
    target = replace(target, parts=np.where(is_test, "test", "").astype("<U5"))
    if not domains.few_target:
        return target.keep(np.flatnonzero(is_test), "target image outside the test part"), notes
    tested = {target.hashes[i] for i in np.flatnonzero(is_test)}
    is_copy = ~is_test & np.array([content in tested for content in target.hashes])
    if n := int(is_copy.sum()):
        notes.append(f"{count(n, 'target image')} outside the test part found in it too: never drawn to train on.")
    return target.keep(np.flatnonzero(~is_copy), "also in the test part of the target"), notes


def _source_images(source: Dataset, target: Dataset, domains: Domains) -> tuple[Dataset, list[str]]:
    """Return the source images that take part, train where they had no part, and notes."""
    notes = [f"Source: {note}" for note in source.scan_notes]
    is_test = source.parts == "test"
    if n := int(is_test.sum()):
        notes.append(f"The source's own test part, {count(n, 'image')}, is neither trained on nor reported on.")
    source = source.keep(np.flatnonzero(~is_test), "test part of the source")
    source = replace(source, parts=np.where(source.parts == "", "train", source.parts))
    in_target = set(target.hashes)
    is_new = np.array([content not in in_target for content in source.hashes], bool)
    if not is_new.any():
        raise DataError(f"Every image of {domains.source} is in {domains.target} too: nothing is left to train on.")
    if n := int((~is_new).sum()):
        notes.append(f"{count(n, 'source image')} found in the target too: left out of training, kept in the target.")
    return source.keep(np.flatnonzero(is_new), "also in the target"), notes


def _require_known_classes(source: Dataset, target: Dataset, domains: Domains) -> None:
    known = [source.classes[label] for label in np.unique(source.labels[source.parts == "train"])]
    unknown = [target.classes[label] for label in np.unique(target.labels) if target.classes[label] not in known]
    if not unknown:
        return
    twins = {looks(name): name for name in known}
    twin = next((f" {n!a} looks like {twins[looks(n)]!a}." for n in unknown if looks(n) in twins), "")
    raise DataError(
        f"{domains.target} has {count(len(unknown), 'class', 'classes')} without a training image in {domains.source}: "
        f"{few(unknown, 10)}.{twin or did_you_mean(unknown[0], known)} Rename or remove, or add images to the source."
    )


def _require_enough(name: str, n_distinct: int, domains: Domains) -> None:
    needed = domains.few_target + (not domains.reported)
    if n_distinct < needed:
        where = f" outside its {domains.reported} part" if domains.reported else ""
        spare = "" if domains.reported else ", one of them to be tested on"
        raise DataError(
            f"{domains.target} has {count(n_distinct, 'distinct image')} of the class '{display(name)}'{where}: "
            f"--few-target {domains.few_target} needs {needed}{spare}. Draw fewer, or add images."
        )


def _of_target(dataset: Dataset) -> np.ndarray:
    """Say which images of joined domains are the target's: source images are train or val."""
    return np.isin(dataset.parts, ("", "test"))
