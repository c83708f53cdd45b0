"""Peak memory for few images and for many: it must not grow with their number.

    python bench/memory.py ../shared/data/hymenoptera ../shared/data/cifar10 [--exact]
    python bench/memory.py ../shared/data/cifar10 --recipe full --per-class 25,100,400 --set train.min_steps=0

Without `--recipe` it is that of `transfer features`, arrays written to disk included; with it, of one epoch of
`transfer fit`. Each is a process of its own with an empty cache. Printed: images, seconds, the largest resident set
that the system saw, and on Linux the largest part of it that is the process's own: pages of mapped caches count in the
former, and the system takes them back where it needs them. The own part, children included, is read every 50 ms.
"""

from __future__ import annotations

import argparse
import csv
import os
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

Command = list[str]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", nargs="+", type=Path)
    parser.add_argument("--recipe", help="measure a fit by this recipe, one epoch")
    parser.add_argument("--per-class", default="all", help="N[,N...] images of each class to train on; all")
    parser.add_argument("--set", dest="settings", action="append", default=[])
    parser.add_argument("--exact", action="store_true", help="float32 throughout")
    arguments = parser.parse_args()
    for folder in arguments.folders:
        for size in arguments.per_class.split(","):
            with tempfile.TemporaryDirectory() as scratch:
                out = Path(scratch) / "out"
                command = _fit(arguments, folder, size) if arguments.recipe else ["features", str(folder)]
                seconds, peak, own = _run([*command, "--out", str(out)] + ["--exact"] * arguments.exact, Path(scratch))
                n_images = _count(out)
            print(
                f"{folder.name:16} {n_images:7} images {seconds:7.1f} s   peak {peak / 1e6:7.0f} MB"
                f"   its own {own / 1e6:7.0f} MB",
                flush=True,
            )


def _fit(arguments: argparse.Namespace, folder: Path, size: str) -> Command:
    command = ["fit", str(folder), "--recipe", arguments.recipe, "--epochs", "1", "--no-report"]
    command += ["--per-class", size] * (size != "all")
    return command + [word for setting in arguments.settings for word in ("--set", setting)]


def _run(command: Command, scratch: Path) -> tuple[float, float, float]:
    environment = {**os.environ, "TRANSFER_CACHE": str(scratch / "cache"), "HF_HUB_OFFLINE": "1"}
    whole = [sys.executable, "-m", "transfer.cli", *command, "--quiet"]
    started = time.perf_counter()
    running = subprocess.Popen(whole, env=environment, stdout=subprocess.DEVNULL)
    own = [0.0]
    ended = threading.Event()
    watching = threading.Thread(target=_watch, args=(running.pid, own, ended))
    watching.start()
    _, status, usage = os.wait4(running.pid, 0)
    seconds = time.perf_counter() - started
    ended.set()
    watching.join()
    if status:
        raise SystemExit(f"{' '.join(whole)} failed")
    kilobyte = 1 if sys.platform == "darwin" else 1024  # macOS counts in bytes
    return seconds, usage.ru_maxrss * kilobyte, own[0]


def _watch(pid: int, largest: list[float], ended: threading.Event) -> None:
    while not ended.wait(0.05):
        largest[0] = max(largest[0], _own(pid))


def _own(pid: int) -> float:
    """Bytes that a process and its children hold of their own; 0 where the system does not say."""
    try:
        status = Path(f"/proc/{pid}/status").read_text()
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    except OSError:
        return 0.0
    anonymous = next((line for line in status.splitlines() if line.startswith("RssAnon")), "RssAnon: 0 kB")
    return 1024 * float(anonymous.split()[1]) + sum(_own(int(child)) for child in children)


def _count(out: Path) -> int:
    import numpy as np

    if (out / "labels.npy").exists():
        return len(np.load(out / "labels.npy", allow_pickle=False))
    with open(out / "split.csv", newline="") as table:
        return sum(row["split"] == "train" for row in csv.DictReader(table))


if __name__ == "__main__":
    main()
