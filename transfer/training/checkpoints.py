"""Checkpoint: the state of a training, on disk, from which it goes on exactly.

A checkpoint is one file under the checksum of its content, written whole. The last two are kept: one that is damaged
is passed over for the one before.
"""

from __future__ import annotations

import hashlib
import json
import logging
import shutil
from pathlib import Path
from typing import Any

import torch

from transfer.files import require_writable, sweep, write_bytes

_SUFFIX = ".safetensors"
_KEPT = 2
log = logging.getLogger(__name__)


class Checkpoints:
    """The checkpoints of one training, in a folder of their own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def save(self, tensors: dict[str, torch.Tensor], about: dict[str, Any]) -> None:
        """Write one checkpoint and forget all but the last two."""
        from safetensors.torch import save

        require_writable(self.folder)
        sweep(self.folder)
        data = save({name: t.detach().cpu().contiguous() for name, t in tensors.items()}, {"about": json.dumps(about)})
        known = self._files()
        number = 1 + (int(known[-1].name.partition("-")[0]) if known else 0)
        write_bytes(self.folder / f"{number:08d}-{hashlib.sha256(data).hexdigest()}{_SUFFIX}", data)
        for old in known[: 1 - _KEPT]:
            old.unlink(missing_ok=True)

    def load(self) -> tuple[dict[str, torch.Tensor], dict[str, Any]] | None:
        """Return tensors and description of the newest checkpoint that is whole, None where there is none."""
        from safetensors.torch import load

        for path in reversed(self._files()):
            data = path.read_bytes()
            if hashlib.sha256(data).hexdigest() != path.stem.partition("-")[2]:
                log.warning("%s is damaged; going on from the checkpoint before it.", path)
                continue
            header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
            return load(data), json.loads(header["__metadata__"]["about"])
        return None

    def clear(self) -> None:
        """Delete all of them."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def _files(self) -> list[Path]:
        return sorted(path for path in self.folder.glob(f"*-*{_SUFFIX}") if path.name[0] != ".")
