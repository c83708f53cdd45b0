"""Fault: what is wrong with a dataset, one line for each kind; what `--strict` refuses."""

from __future__ import annotations

from collections.abc import Iterable

from transfer.dataset.names import count, display, extension, relative
from transfer.dataset.records import Dataset, Skipped
from transfer.dataset.sniffing import IMAGE_EXTENSIONS
from transfer.errors import DataError

_SHOWN = 3  # files of each kind
_ON_PURPOSE = ("hidden file", "in a hidden folder")  # what systems leave behind is no image that somebody misses


def find_faults(dataset: Dataset) -> list[str]:
    """Return what is wrong: unreadable images, ignored files that look like images, and every note but one.

    Small classes are noted and no fault: they are what there is.
    """
    left_out = [skipped for skipped in dataset.ignored if _looks_like_image(skipped)]
    kinds = ((dataset.unreadable, "unreadable image", ""), (left_out, "ignored file", " that may be an image"))
    found = [f"{count(len(of), what)}{more}: {_few(of, dataset)}." for of, what, more in kinds if of]
    return [*found, *dataset.faulty]


def require_faultless(dataset: Dataset) -> None:
    """Refuse a dataset with any fault.

    Raises
    ------
    DataError
        It names every kind of fault, with the first files.
    """
    found = find_faults(dataset)
    if not found:
        return
    where = f"'{display(str(dataset.root))}'" if dataset.root else "The lists"
    raise DataError(
        f"{where}: {count(len(found), 'kind')} of fault, and --strict allows none. {' '.join(found)} Mend them "
        "(`transfer inspect` shows more), or leave out --strict."
    )


def _looks_like_image(skipped: Skipped) -> bool:
    if skipped.reason in _ON_PURPOSE:
        return False
    is_other = skipped.reason.startswith("unsupported format") and not skipped.reason.endswith("video")
    return is_other or extension(skipped.path) in IMAGE_EXTENSIONS


def _few(skipped: Iterable[Skipped], dataset: Dataset) -> str:
    words = [f"'{display(relative(s.path, dataset.root))}' ({display(s.reason)})" for s in skipped]
    return ", ".join(words[:_SHOWN]) + (f" and {len(words) - _SHOWN} more" if len(words) > _SHOWN else "")
