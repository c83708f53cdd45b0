"""Unreadable images: how many a job may leave out."""

from __future__ import annotations

from transfer.dataset.names import display
from transfer.dataset.records import Dataset
from transfer.errors import DataError


def stop_on_bad(dataset: Dataset, on_bad: str, max_share: float, setting: str = "") -> None:
    """Stop where images are unreadable and may not be, or where they are too many.

    Parameters
    ----------
    setting
        What allows more where it is given, as in ``--set data.max_bad_share``; empty where nothing does.

    Raises
    ------
    DataError
        It names the first files and the way on.
    """
    n_bad = len(dataset.unreadable)
    if not n_bad:
        return
    first = ", ".join(f"{display(s.path)} ({s.reason})" for s in dataset.unreadable[:3])
    more = f" and {n_bad - 3} more" if n_bad > 3 else ""
    share = n_bad / (n_bad + len(dataset))
    if on_bad == "fail":
        raise DataError(f"{n_bad} unreadable images: {first}{more}. Remove them, or use --on-bad skip.")
    if share > max_share:
        allow = f", or allow it with {setting}={min(1.0, share + 0.01):.2f}" if setting else " or remove them"
        raise DataError(
            f"{n_bad} of {n_bad + len(dataset)} images ({share:.0%}) are unreadable: {first}{more}. More than "
            f"{max_share:.0%} stops it; repair them{allow}."
        )
