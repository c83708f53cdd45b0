"""Peak memory of `transfer features`, for few images and for many: it must not grow with their number.

    python bench/memory.py ../shared/data/hymenoptera ../shared/data/cifar10 [--exact]

Each folder is extracted in a process of its own with an empty cache, as the command line does it, arrays written to
disk included. Printed: images, seconds, and the largest resident set that the system saw.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", nargs="+", type=Path)
    parser.add_argument("--exact", action="store_true", help="float32 throughout")
    arguments = parser.parse_args()
    for folder in arguments.folders:
        with tempfile.TemporaryDirectory() as scratch:
            n_images, seconds, peak = _extract(folder, Path(scratch), arguments.exact)
        print(f"{folder.name:16} {n_images:7} images {seconds:7.1f} s   peak {peak / 1e6:7.0f} MB", flush=True)


def _extract(folder: Path, scratch: Path, exact: bool) -> tuple[int, float, float]:
    import numpy as np

    out = scratch / "features"
    command = [sys.executable, "-m", "transfer.cli", "features", str(folder), "--out", str(out), "--quiet"]
    environment = {**os.environ, "TRANSFER_CACHE": str(scratch / "cache"), "HF_HUB_OFFLINE": "1"}
    started = time.perf_counter()
    running = subprocess.Popen(command + ["--exact"] * exact, env=environment, stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(running.pid, 0)
    seconds = time.perf_counter() - started
    if status:
        raise SystemExit(f"{' '.join(command)} failed")
    kilobyte = 1 if sys.platform == "darwin" else 1024  # macOS counts in bytes
    return len(np.load(out / "labels.npy", allow_pickle=False)), seconds, usage.ru_maxrss * kilobyte


if __name__ == "__main__":
    main()
