"""Checkpoint: the state of a training, on disk, from which it goes on exactly.

A checkpoint is one file under the checksum of its content, written whole. The last two are kept: one that is damaged
is passed over for the one before.
"""

from __future__ import annotations

import hashlib
import json
import logging
from pathlib import Path
from typing import Any

import torch

from transfer.errors import ResourceError
from transfer.files import remove, require_writable, write_bytes

_SUFFIX = ".safetensors"
_KEPT = 2
log = logging.getLogger(__name__)


class Checkpoints:
    """The checkpoints of one training, in a folder of their own.

    Parameters
    ----------
    resume
        Go on from what is there; otherwise it is replaced, but not before this training has saved something itself.
    about
        What was decided before the first step and must not be decided anew when the training goes on, as JSON values.
    """

    def __init__(self, folder: Path, *, resume: bool = True, about: dict[str, Any] | None = None) -> None:
        self.folder, self.resume, self.about = folder, resume, about or {}
        self._obsolete = [] if resume else self._files()

    def save(self, tensors: dict[str, torch.Tensor], state: dict[str, Any]) -> None:
        """Write one checkpoint and forget all but the last two; where nothing can be written, say so and go on."""
        from safetensors.torch import save

        about = json.dumps({"state": state, "about": self.about})
        data = save({name: t.detach().cpu().contiguous() for name, t in tensors.items()}, {"about": about})
        known = self._files()
        number = 1 + (int(known[-1].name.partition("-")[0]) if known else 0)
        try:
            require_writable(self.folder)
            write_bytes(self.folder / f"{number:08d}-{hashlib.sha256(data).hexdigest()}{_SUFFIX}", data)
        except ResourceError as error:
            log.warning("No checkpoint of this training: %s", error)
            return
        kept = [path for path in known if path not in self._obsolete]
        for old in [*self._obsolete, *kept[: 1 - _KEPT]]:
            remove(old)
        self._obsolete = []

    def load(self) -> tuple[dict[str, torch.Tensor], dict[str, Any]] | None:
        """Return tensors and state of the newest checkpoint that is whole, None where there is none to go on from."""
        from safetensors.torch import load

        found = self._newest()
        return (load(found[0]), found[1]["state"]) if found else None

    def load_about(self) -> dict[str, Any] | None:
        """Return what the training that is to go on decided at its start, None where there is none."""
        found = self._newest()
        return found[1]["about"] if found else None

    def _newest(self) -> tuple[bytes, dict[str, Any]] | None:
        for path in reversed(self._files() if self.resume else []):
            try:
                data = path.read_bytes()
            except OSError:  # another process was faster
                continue
            if hashlib.sha256(data).hexdigest() != path.stem.partition("-")[2]:
                log.warning("%s is damaged; going on from the checkpoint before it.", path)
                continue
            header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
            return data, json.loads(header["__metadata__"]["about"])
        return None

    def clear(self) -> None:
        """Delete all of them."""
        remove(self.folder)

    def _files(self) -> list[Path]:
        return sorted(path for path in self.folder.glob(f"*-*{_SUFFIX}") if path.name[0] != ".")
