"""Memory and time of a scan: how many bytes a file costs, and whether that grows.

    python bench/scan.py [--files 10000,100000] [--classes 1000]

For each size a folder of tiny files, a PNG's first bytes and a number, is made by code; a process of its own scans it.
Shown are files/s, and the peak of its memory above that of a process which has imported the package only, per file.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path

SCAN = """
import sys, time, transfer.dataset
from transfer.machine import peak_memory
before, started = peak_memory(), time.perf_counter()
transfer.dataset.scan(sys.argv[1]).notes
print(time.perf_counter() - started, peak_memory() - before)
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--files", default="10000,100000", help="N[,N...]")
    parser.add_argument("--classes", type=int, default=1000)
    arguments = parser.parse_args()
    for n_files in map(int, arguments.files.split(",")):
        with tempfile.TemporaryDirectory() as scratch:
            write_folder(Path(scratch), n_files, arguments.classes)
            seconds, n_bytes = scan(scratch)
        print(
            f"{n_files:9,} files in {arguments.classes:,} classes: {n_files / seconds:7,.0f} files/s, "
            f"{n_bytes / n_files:6,.0f} bytes of memory per file",
            flush=True,
        )


def write_folder(root: Path, n_files: int, n_classes: int) -> None:
    """Make `n_files` files that pass for images in `n_classes` folders."""
    folders = [root / f"class_{c:06}" for c in range(n_classes)]
    for folder in folders:
        folder.mkdir()
    for i in range(n_files):
        (folders[i % n_classes] / f"image_{i:08}.png").write_bytes(b"\x89PNG\r\n\x1a\n" + str(i).encode())


def scan(root: str) -> tuple[float, float]:
    """Return the seconds that a scan takes, and its peak memory in bytes above that of the start."""
    done = subprocess.run([sys.executable, "-c", SCAN, root], capture_output=True, text=True, check=True)
    seconds, n_bytes = map(float, done.stdout.split())
    return seconds, n_bytes


if __name__ == "__main__":
    main()
