"""Killed at random moments and resumed, a training gives the weights of one that was left alone.

    python bench/kills.py ../shared/data/signdigits [--kills 50] [--recipe partial]

Short trainings (100 images at 96 pixels, `--resume`, a checkpoint after every epoch) are killed with SIGKILL after a
random time, started again, and killed again, until one gets through. Printed: how many kills it took, how many of the
finished trainings have the weights of the quiet run to the bit, and what unreadable or half-written files were left.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--recipe", default="partial")
    arguments = parser.parse_args()
    rng = random.Random(0)
    with tempfile.TemporaryDirectory() as scratch:
        for name in ("quiet", "quiet again"):  # the second one finds its features, as those that are killed do
            started = time.perf_counter()
            assert _start(arguments, Path(scratch), name).wait() == 0
            seconds = time.perf_counter() - started
        expected = _weights(Path(scratch) / "quiet")
        n_kills = n_done = n_same = 0
        while n_kills < arguments.kills:
            name = f"run{n_done}"
            running = _start(arguments, Path(scratch), name)
            try:
                running.wait(timeout=rng.uniform(0.2, 1.0) * seconds)
            except subprocess.TimeoutExpired:
                running.kill()
                running.wait()
                n_kills += 1
                print(f"killed {n_kills} times", flush=True)
                if not (Path(scratch) / name / "run.json").exists():  # else it was on its way out, all done
                    continue
            else:
                assert running.returncode == 0, (Path(scratch) / "said").read_text()
            n_done += 1
            n_same += _weights(Path(scratch) / name) == expected
            print(f"{n_same} of {n_done} that got through have the same weights", flush=True)
        left = list(Path(scratch).rglob("*.partial"))
        print(f"{n_kills} kills of a training of {seconds:.1f} s; {n_same} of {n_done} that got through have the same")
        print(f"weights to the bit; {len(left)} half-written files left, all of them swept by the next start")


def _start(arguments: argparse.Namespace, scratch: Path, name: str) -> subprocess.Popen:
    command = [sys.executable, "-m", "transfer.cli", "fit", str(arguments.folder), "--recipe", arguments.recipe]
    command += ["--per-class", "10", "--epochs", "12", "--set", "train.min_steps=0", "--set", "train.views=2"]
    command += ["--set", "features.image_size=96"]
    command += ["--out", str(scratch / name), "--resume", "--exact", "-q", "--no-report"]
    # one cache for all: what is resumed is known by what it is
    environment = {**os.environ, "TRANSFER_CACHE": str(scratch / "cache"), "HF_HUB_OFFLINE": "1"}
    with open(scratch / "said", "wb") as said:
        return subprocess.Popen(command, env=environment, stdout=said, stderr=said)


def _weights(run: Path) -> str:
    return json.loads((run / "run.json").read_text())["model"]["sha256"]


if __name__ == "__main__":
    main()
