"""Logs: the history of a training for other tools to draw while it goes on."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path

from transfer.errors import ResourceError
from transfer.training.history import Epoch

LOGS = ("tensorboard",)


def require_log(kind: str | None) -> None:
    """Make sure that what a kind of log needs is installed.

    Raises
    ------
    ResourceError
        It is not; the message says how to get it.
    """
    if kind == "tensorboard" and find_spec("tensorboard") is None:
        raise ResourceError("--log tensorboard needs TensorBoard: pip install tensorboard.")


@contextlib.contextmanager
def open_log(kind: str | None, folder: Path) -> Iterator[Callable[[Epoch], None]]:
    """Yield a function that writes down an epoch, for ``tensorboard`` as an event file in `folder`, else nowhere.

    A training that goes on writes another file beside the first; the epochs that it repeats replace those before.
    """
    if kind != "tensorboard":
        yield lambda row: None
        return
    from torch.utils.tensorboard import SummaryWriter

    writers: list[SummaryWriter] = []

    def write(row: Epoch) -> None:
        if not writers:
            writers.append(SummaryWriter(str(folder), purge_step=row.epoch))
        values = {
            "loss/train": row.loss,
            "loss/val": row.val_loss,
            "accuracy/train": row.train_accuracy,
            "accuracy/val": row.val_accuracy,
            "rate": row.lr,
            "images per second": row.images_per_second,
        }
        for name, value in values.items():
            if value is not None:
                writers[0].add_scalar(name, value, row.epoch)
        writers[0].flush()

    try:
        yield write
    finally:
        for writer in writers:
            writer.close()
