"""Layout: how a folder says which label and which part its images have."""

# ruff: noqa: PTH113, PTH118, PTH119, PTH120

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from transfer.dataset.candidates import Candidate, Candidates
from transfer.dataset.folders import class_names, count_images, filled_subfolders, has_classes, subfolders
from transfer.dataset.listings import ignore_unlisted, list_tables
from transfer.dataset.names import count, display, few, relative
from transfer.dataset.parts import PART_NAMES, PARTS
from transfer.dataset.tables import has_labels
from transfer.dataset.walk import OUTSIDE, ClassFolder, Walk
from transfer.errors import DataError

_EXAMPLE = "Put each class in a folder of its own: DATA/cats/1.jpg, DATA/dogs/2.jpg"


@dataclass(frozen=True)
class _ClassFolders:
    folders: list[ClassFolder]
    enclosing: list[str] = field(default_factory=list)  # folders between the base and the class folders
    words: str = "class folders"
    notes: list[str] = field(default_factory=list)


def read_folder(root: str, follow_links: bool) -> Candidates:
    """Find the layout of `root`, and in it the files that may be images; account for all others."""
    entered = [root]
    while not (tables := _label_tables(entered[-1], follow_links)):
        if not (lone := _lone_wrapper(entered[-1], follow_links)):
            break
        entered.append(lone)
    base = entered[-1]
    if tables:
        found = list_tables(tables, root)
        ignore_unlisted(found, tables, root)
        found.notes += _not_read(base, tables, follow_links)
    else:
        found = _read_class_folders(entered, follow_links)
    if base != root:
        inner = display(relative(base, Path(root)))
        found.notes.insert(0, f"Read '{inner}', the only folder with images in '{display(root)}'.")
    return found


def _lone_wrapper(base: str, follow_links: bool) -> str | None:
    """Return the only folder with images in `base`, if it has none itself but folders of them."""
    filled = list(filled_subfolders(base, follow_links))
    if len(filled) != 1 or _part_of(filled[0]) == "train":
        return None
    is_wrapper = has_classes(filled[0], follow_links) and not count_images(filled[0])
    return filled[0] if is_wrapper and not count_images(base) else None


def _part_of(folder: str) -> str:
    return PART_NAMES.get(os.path.basename(folder).casefold(), "")


def _by_part(folders: Iterable[str]) -> dict[str, list[str]]:
    by_part: dict[str, list[str]] = {}
    for folder in folders:
        by_part.setdefault(_part_of(folder), []).append(folder)
    return by_part


def _refuse_two(part: str, folders: list[str]) -> None:
    if len(folders) > 1:
        raise DataError(f"Two folders for the {part} part: {few(map(os.path.basename, folders))}. Keep one of them.")


# --- tables of labels in the folder, as Hugging Face's ImageFolder has them


def _label_tables(base: str, follow_links: bool) -> dict[str, str]:
    """Return the `metadata.csv` files that label the images of `base`, each with the part it is for."""
    own = os.path.join(base, "metadata.csv")
    if os.path.isfile(own) and (has_labels(own) or not subfolders(base, follow_links)):
        return {own: ""}
    labelled = [folder for folder in subfolders(base, follow_links) if _is_labelled(folder)]
    by_part = _by_part(labelled)
    if "train" not in by_part and not set(labelled).issuperset(filled_subfolders(base, follow_links)):
        return {}  # class folders, of which one is called `test`
    for part, same in by_part.items():
        _refuse_two(part, same)
    return {os.path.join(by_part[part][0], "metadata.csv"): part for part in PARTS if part in by_part}


def _is_labelled(folder: str) -> bool:
    table = os.path.join(folder, "metadata.csv")
    return bool(_part_of(folder)) and os.path.isfile(table) and has_labels(table)


def _not_read(base: str, tables: Iterable[str], follow_links: bool) -> list[str]:
    read = {os.path.dirname(table) for table in tables}
    left = [os.path.basename(folder) for folder in filled_subfolders(base, follow_links) if folder not in read]
    return [f"Without a table of labels, not read: {few(left)}."] if left and base not in read else []


# --- class folders


def _read_class_folders(entered: list[str], follow_links: bool) -> Candidates:
    root, base = entered[0], entered[-1]
    layout = _class_folders(base, follow_links)
    found = Candidates(Path(root), layout.words, {folder.name for folder in layout.folders})
    found.notes += layout.notes
    walk = Walk(root, follow_links, found)
    for path, folder in walk.images(layout.folders, [*entered, *layout.enclosing]):
        found.files.append(Candidate(path, folder.name, folder.part))
    walk.ignore(root, OUTSIDE, used={folder.path for folder in layout.folders})
    if walk.n_outside:
        found.notes.append(f"{count(walk.n_outside, 'symbolic link')} to files or folders outside '{display(root)}'.")
    return found


def _class_folders(base: str, follow_links: bool) -> _ClassFolders:
    filled = list(filled_subfolders(base, follow_links))
    if layout := _parts_of_class_folders(base, filled, follow_links):
        return layout
    folders = subfolders(base, follow_links)
    if not filled:
        raise DataError(_no_classes(base, len(folders)))
    return _ClassFolders([ClassFolder(folder, os.path.basename(folder)) for folder in folders])


def _parts_of_class_folders(base: str, filled: list[str], follow_links: bool) -> _ClassFolders | None:
    """Recognise train, val and test folders of class folders; None where `base` holds something else."""
    by_part = _by_part(filled)
    others = by_part.pop("", [])
    if "train" not in by_part:
        if not others and len(by_part) == 2 and all(has_classes(f[0], follow_links) for f in by_part.values()):
            raise DataError(f"'{display(base)}' has a val and a test folder but no train folder: give it one.")
        return None
    for part, same in by_part.items():
        if has_classes(same[0], follow_links):
            _refuse_two(part, same)
    train = by_part["train"][0]
    if not has_classes(train, follow_links):
        if others and len(by_part) == 1:
            return None  # `train` is a class, beside others such as `car`
        raise DataError(
            f"'{display(train)}' holds images but no class folders. Put each class in a folder of its own "
            "(train/cats/1.jpg, train/dogs/2.jpg) or list file_name and label in train/metadata.csv."
        )
    notes = []
    if len(by_part) == 1 and others:
        if len(others) > 1 or count_images(train):
            return None
        # A second part may have any name, if it has the same classes.
        if class_names(others[0], follow_links) & class_names(train, follow_links):
            by_part["test"] = [others.pop()]
    if others:
        notes.append(f"Beside the train folder, not read: {few(map(os.path.basename, others))}.")
    for part in ("val", "test"):
        if part in by_part and not has_classes(by_part[part][0], follow_links):
            folder = by_part.pop(part)[0]
            notes.append(f"'{display(os.path.basename(folder))}' holds images but no class folders: not read.")
    parts = {part: by_part[part][0] for part in PARTS if part in by_part}
    classes = [
        ClassFolder(folder, os.path.basename(folder), part)
        for part, above in parts.items()
        for folder in subfolders(above, follow_links)
    ]
    words = " and ".join(f"{display(os.path.basename(folder))}/" for folder in parts.values())
    return _ClassFolders(classes, list(parts.values()), f"class folders in {words}", notes)


def _no_classes(folder: str, n_subfolders: int) -> str:
    if n_images := count_images(folder):
        return f"'{display(folder)}' holds {count(n_images, 'image')} but no class folders. {_EXAMPLE}"
    what = f"{count(n_subfolders, 'folder')} but no images" if n_subfolders else "no images"
    return f"'{display(folder)}' holds {what}. {_EXAMPLE}"
