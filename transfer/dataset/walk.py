"""Walk: through a tree, each folder once, with a reason for every file that is not a candidate."""

# ruff: noqa: PTH114, PTH116, PTH120

from __future__ import annotations

import errno
import os
import stat
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from transfer.dataset.candidates import Candidates
from transfer.dataset.folders import is_hidden
from transfer.dataset.names import extension, is_below, shown_extension
from transfer.dataset.records import Skipped
from transfer.dataset.sniffing import IMAGE_EXTENSIONS

OUTSIDE = "image outside the class folders"


@dataclass(frozen=True)
class ClassFolder:
    """A folder all images below which have one label."""

    path: str
    name: str
    part: str = ""


class Walk:
    """Reads folders, each once, real ones before links, and records every file that is not a candidate."""

    def __init__(self, root: str, follow_links: bool, found: Candidates) -> None:
        self.real_root = os.path.realpath(root)
        self.follow_links = follow_links
        self.found = found
        self.n_outside = 0
        self.visited: set[tuple[int, int]] = set()
        for above in Path(self.real_root).parents:
            self._is_new(str(above))

    def images(self, folders: list[ClassFolder], enclosing: Iterable[str] = ()) -> Iterator[tuple[str, ClassFolder]]:
        """Yield every file that may be an image, with its class folder.

        `enclosing` are the folders above the class folders, which a link must not lead back to.
        """
        for folder in enclosing:
            self._is_new(folder)
        links = deque((folder.path, folder) for folder in folders if os.path.islink(folder.path))
        for of_class in folders:
            if not os.path.islink(of_class.path):
                yield from self._images_below(of_class.path, of_class, links)
        while links:  # after all real folders, so that a link never takes the place of what it leads to
            path, of_class = links.popleft()
            self._count_outside(path)
            yield from self._images_below(path, of_class, links)

    def ignore(self, root: str, why: str, used: set[str] | frozenset[str] = frozenset()) -> None:
        """Record every file below `root` as ignored, except those in `used` or in folders in `used`."""
        stack = [(root, why)]
        while stack:
            folder, why = stack.pop()
            for entry in self._entries(folder, self.found.ignored):
                if entry.path in used:
                    continue
                if entry.is_dir(follow_symlinks=False):
                    stack.append((entry.path, "in a hidden folder" if is_hidden(entry.name) else why))
                else:
                    self._ignore(entry.path, _why_ignored(entry, why))

    def _images_below(
        self, top: str, folder: ClassFolder, links: deque[tuple[str, ClassFolder]]
    ) -> Iterator[tuple[str, ClassFolder]]:
        stack = [top]
        while stack:
            current = stack.pop()
            if not self._is_new(current):
                self._ignore(current, _already_read(current))
                continue
            for entry in self._entries(current, self.found.unreadable):
                if is_hidden(entry.name):
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
        self.found.ignored.append(Skipped(path, why))

    def _count_outside(self, path: str) -> None:
        self.n_outside += not is_below(os.path.realpath(path), self.real_root)


def _why_ignored(entry: os.DirEntry[str], why: str) -> str:
    """Return the reason for a file in a folder that is ignored because of `why`."""
    if is_hidden(entry.name):
        return "hidden file"
    if why == OUTSIDE and entry.is_symlink():
        return "symbolic link outside the class folders"
    if why == OUTSIDE and extension(entry.name) not in IMAGE_EXTENSIONS:
        return f"not an image ({shown_extension(entry.name)})"
    return why


def _already_read(link: str) -> str:
    if is_below(os.path.realpath(os.path.dirname(link)), os.path.realpath(link)):
        return "directory loop"
    return "link to a folder already read"
