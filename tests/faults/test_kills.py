"""Killed commands go on to the same files, to the bit: a short version of bench/kills.py.

Rows 52 and 53 of docs/reliability.md. `partial` alone is in tests/test_finetuning.py.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

BENCH = Path(__file__).resolve().parents[2] / "bench/kills.py"
JOBS = ("features", "linear-svm", "frozen", "full", "auto")


@pytest.mark.slow
def test_what_was_killed_goes_on_to_the_same_files(shapes: Path, tmp_path: Path) -> None:
    words = [shapes, "--tiny", "--kills", 4, "--epochs", 3, "--out", tmp_path / "rows.jsonl", "--jobs", *JOBS]
    command = [sys.executable, BENCH, *words]
    subprocess.run([*map(str, command)], check=True, env={**os.environ, "OMP_NUM_THREADS": "1"})
    rows = [json.loads(line) for line in (tmp_path / "rows.jsonl").read_text().splitlines()]
    assert [row["job"] for row in rows] == list(JOBS)
    for row in rows:
        assert row["n_kills"] == 4
        assert row["n_same"] == row["n_through"] > 0, row
        assert row["n_left"] == 0, row
