"""Many fits in one process, as a notebook or a service does them: nothing may grow with their number.

    python bench/soak.py [--fits 300] [--every 25] [--recipes ridge,logistic,linear-svm,knn,ridge,partial]

Small sets of the demo's digits, another split each time, a tiny network with random weights; the recipes take turns,
every fifth fit has an empty cache, every eighth writes its page. Printed as it goes: what the process holds of its own
(and of that, what malloc has given out, which the allocator's reserves do not blur), Python objects, open file
descriptors, threads and mappings. At the end: what grew between the middle and the last third of the fits, and exit
code 1 where that is a leak. Needs Linux, for /proc.
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import dataclasses
import gc
import os
import shutil
import statistics
import sys
import tempfile
import threading
import time
from pathlib import Path

import transfer
from transfer.demo import write_digits

# growth for each fit that is no leak yet; in few fits, some of it is still the first page or the first training
BOUNDS = {
    "own_mb": 1.5,  # with code that is compiled late: steps of some MB, which few fits do not spread thin
    "malloc_mb": 0.5,  # torch.fx keeps the source of every graph it compiles: 24 kB for a head, 56 kB for `partial`
    "objects": 100,
    "descriptors": 0.1,
    "threads": 0.1,
    "mappings": 0.5,
}
TRAINING = ["train.epochs=1", "train.min_steps=0", "train.batch_size=16"]


@dataclasses.dataclass(frozen=True)
class Reading:
    """What the process holds."""

    own_mb: float
    malloc_mb: float
    objects: int
    descriptors: int
    threads: int
    mappings: int


class _Mallinfo(ctypes.Structure):  # man 3 mallinfo2
    _fields_ = (
        ("before", ctypes.c_size_t * 4),
        ("hblkhd", ctypes.c_size_t),  # in mappings of their own
        ("between", ctypes.c_size_t * 2),
        ("uordblks", ctypes.c_size_t),  # in arenas
        ("after", ctypes.c_size_t * 2),
    )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--fits", type=int, default=300)
    parser.add_argument("--every", type=int, default=25, help="print after so many fits")
    parser.add_argument("--recipes", default="ridge,logistic,linear-svm,knn,ridge,partial", help="they take turns")
    arguments = parser.parse_args()
    readings = []
    started = time.perf_counter()
    print(f"{'fits':>5} {'seconds':>8} " + " ".join(f"{field.name:>11}" for field in dataclasses.fields(Reading)))
    with tempfile.TemporaryDirectory() as scratch:
        data = _digits(Path(scratch) / "digits")
        recipes = arguments.recipes.split(",")
        for i in range(arguments.fits):
            _fit(data, recipes[i % len(recipes)], i, Path(scratch))
            readings.append(read())
            if not (i + 1) % arguments.every:
                numbers = " ".join(f"{value:11.0f}" for value in dataclasses.astuple(readings[-1]))
                print(f"{i + 1:5} {time.perf_counter() - started:8.0f} {numbers}", flush=True)
    return judge(readings)


def _digits(folder: Path) -> tuple[list[str], list[str]]:
    write_digits(folder)
    paths = [path for label in range(5) for path in sorted((folder / str(label)).iterdir())[:12]]
    return [str(path) for path in paths], [path.parent.name for path in paths]


def _fit(data: tuple[list[str], list[str]], recipe: str, i: int, scratch: Path) -> None:
    cache = scratch / f"cache-{i // 5}"
    if not i % 5:
        shutil.rmtree(scratch / f"cache-{i // 5 - 1}", ignore_errors=True)
    os.environ["TRANSFER_CACHE"] = str(cache)
    settings = TRAINING if recipe in ("partial", "full") else []
    options = {"settings": settings, "seed": i, "report": i % 8 == 3, "quiet": True}
    run = transfer.fit(data, recipe, out=scratch / "run", backbone="test_resnet", weights="random", **options)
    shutil.rmtree(run.path)


def read() -> Reading:
    """Read what this process holds now, after Python's collector has been round and malloc gave back its reserves."""
    gc.collect()
    with contextlib.suppress(AttributeError):  # not glibc
        ctypes.CDLL(None).malloc_trim(0)
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return Reading(
        own_mb=int(status["RssAnon"].split()[0]) / 1024,
        malloc_mb=_malloc_bytes() / 2**20,
        objects=len(gc.get_objects()),
        descriptors=len(os.listdir("/proc/self/fd")),  # noqa: PTH208
        threads=threading.active_count(),
        mappings=len(Path("/proc/self/maps").read_text().splitlines()),
    )


def _malloc_bytes() -> int:
    try:
        mallinfo = ctypes.CDLL(None).mallinfo2
    except AttributeError:  # not glibc, or one older than 2.33
        return 0
    mallinfo.restype = _Mallinfo
    info = mallinfo()
    return info.uordblks + info.hblkhd


def judge(readings: list[Reading]) -> int:
    """Say what grew from the middle third to the last, for each fit, and whether that is a leak."""
    third = len(readings) // 3
    leaks = []
    for name, bound in BOUNDS.items():
        values = [getattr(reading, name) for reading in readings]
        growth = (statistics.median(values[-third:]) - statistics.median(values[-2 * third : -third])) / third
        verdict = "flat" if growth <= bound else "GROWS"
        leaks += [name] * (growth > bound)
        print(f"{name:12} {growth:+9.3f} for each fit (at most {bound}): {verdict}")
    print(f"A leak: {', '.join(leaks)}." if leaks else "All flat.")
    return 1 if leaks else 0


if __name__ == "__main__":
    sys.exit(main())
