"""Damaged images of every format: pixels or a refusal, and nothing else. docs/reliability.md has the counts."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from decoder_fuzz import DAMAGES, FORMATS


def fuzz(n_files: int, seed: int) -> dict[str, Any]:
    command = [sys.executable, Path(__file__).parent / "decoder_fuzz.py", str(n_files), str(seed)]
    done = subprocess.run(command, capture_output=True, text=True)
    lines = done.stdout.splitlines()
    # a negative code is a signal: a crash, or SIGVTALRM where one file took too long
    assert done.returncode == 0, (done.returncode, lines[-1:], done.stderr)
    return json.loads(lines[-1])


@pytest.mark.parametrize(("n_files", "seed"), [(300, 1), pytest.param(2400, 0, marks=pytest.mark.slow)])
def test_a_damaged_image_is_decoded_or_refused_and_nothing_else(n_files: int, seed: int) -> None:
    counted = fuzz(n_files, seed)
    assert counted["n"] == n_files
    assert set(counted["table"]) == {f"{name} {damage}" for name in FORMATS for damage in DAMAGES}
    outcomes = {what for cell in counted["table"].values() for what in cell}
    assert outcomes == {"refused", "same pixels", "other pixels"}
    # what is cut off is never made up, by grey or by anything else
    assert all("other pixels" not in counted["table"][f"{name} truncate"] for name in FORMATS)
    # checksums of its own tell a PNG
    assert all("other pixels" not in counted["table"][f"PNG {damage}"] for damage in DAMAGES)
    # and the checksum of the scan tells all others
    assert counted["unnoticed"] == []
