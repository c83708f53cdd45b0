"""Memory that is not there is said in one line, with exit code 5.

Row 62 of docs/reliability.md. A device's memory is in tests/test_training.py.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from faulty_disk import transfer

from transfer.features import exporting


@pytest.mark.parametrize("ask", [lambda _: torch.empty(2**60), lambda _: np.empty(2**58)], ids=["torch", "numpy"])
def test_too_much_memory_for_this_machine_is_one_line(
    ask: Callable[[Any], Any], shapes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(exporting, "scan", ask)
    ended = transfer("features", shapes, "--out", tmp_path / "out")
    assert ended.code == 5
    assert ended.said == "transfer: Out of memory. Choose a smaller backbone, or run on a machine with more.\n"
