"""What each step of the off-the-shelf baseline is worth on a modern backbone, on real sets: a JSON line per cell.

    python bench/baselines.py ../shared/data/hymenoptera ../shared/data/clothing ... [--per-class 100] [--out FILE]
    python bench/baselines.py --show [--out FILE]

A cell is one `transfer fit` as a process of its own, on one split (seed 0), with a cache that all cells of a set share
in one call: the seconds of `linear-svm` hold the extraction of one view, those of `16 views` that of sixteen, and those
of `knn` none where it comes after `linear-svm`. What is in the file is not run again. With `--per-class N` the set is
first cut to N training images and N / 2 test images of each class, for sets of many small images. `--show` prints a
table of test accuracies with half the width of their 95 % intervals.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from cells import add_cell, read_cells

STEPS = {
    "pixels": ["--recipe", "pixels"],
    "hog-color": ["--recipe", "hog-color"],
    "linear-svm": ["--recipe", "linear-svm"],
    "knn": ["--recipe", "knn"],
    "2 views": ["--recipe", "linear-svm", "--set", "features.views=2"],
    "16 views": ["--recipe", "linear-svm", "--set", "features.views=16"],
    "best taps": ["--recipe", "linear-svm", "--taps", "search"],
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", nargs="*", type=Path)
    parser.add_argument("--steps", default=",".join(STEPS))
    parser.add_argument("--per-class", type=int)
    parser.add_argument("--out", type=Path, default=Path("bench/results/baselines.jsonl"))
    parser.add_argument("--show", action="store_true")
    arguments = parser.parse_args()
    known = read_cells(arguments.out)
    for folder in arguments.folders:
        name = f"{folder.name} ({arguments.per_class})" if arguments.per_class else folder.name
        with tempfile.TemporaryDirectory() as scratch:
            data = _cut(folder, arguments.per_class, Path(scratch)) if arguments.per_class else folder
            for step in arguments.steps.split(","):
                if (name, step) not in [(row["set"], row["step"]) for row in known]:
                    row = {"set": name, "step": step, **_fit(data, STEPS[step], Path(scratch))}
                    add_cell(arguments.out, known, row)
    _show(known)


def _fit(data: Path, options: list[str], scratch: Path) -> dict:
    out = scratch / f"run{len(list(scratch.glob('run*')))}"
    command = [sys.executable, "-m", "transfer.cli", "fit", str(data), *options, "--out", str(out), "--json", "-q"]
    command.append("--no-report")
    environment = {**os.environ, "TRANSFER_CACHE": str(scratch / "cache"), "HF_HUB_OFFLINE": "1"}
    started = time.perf_counter()
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{' '.join(command)}\n{done.stderr}")
    test = json.loads(done.stdout)["test"]
    info = json.loads((out / "run.json").read_text())
    return {
        "accuracy": test["accuracy"],
        "interval": test["accuracy_interval"],
        "n": test["n"],
        "seconds": round(time.perf_counter() - started, 1),
        "taps": info["representation"]["taps"],
        "gain_of_taps": [info["taps"]["gain"], info["taps"]["gain_standard_error"]] if info["taps"] else None,
    }


def _cut(folder: Path, n: int, scratch: Path) -> Path:
    """Write a CSV file with N training images and N / 2 test images of each class."""
    from transfer.dataset import draw_split, scan

    dataset = scan(folder)
    split = draw_split(dataset, seed=0)
    table = scratch / f"{folder.name}.csv"
    with open(table, "w", newline="") as out:
        writer = csv.writer(out)
        writer.writerow(["path", "label", "split"])
        for part, wanted in (("train", n), ("test", n // 2)):
            for label, name in enumerate(dataset.classes):
                of_class = [i for i in split.indices(part).tolist() if dataset.labels[i] == label]
                for i in random.Random(0).sample(of_class, min(wanted, len(of_class))):
                    writer.writerow([Path(dataset.paths[i]).absolute(), name, part])
    return table


def _show(rows: list[dict]) -> None:
    sets = list(dict.fromkeys(row["set"] for row in rows))
    print("\n| | " + " | ".join(sets) + " |\n|" + "---|" * (len(sets) + 1))
    for step in STEPS:
        cells = []
        for name in sets:
            found = [row for row in rows if (row["set"], row["step"]) == (name, step)]
            if found:
                low, high = found[0]["interval"]
                taps = f" {' + '.join(found[0]['taps'])}" if step == "best taps" else ""
                seconds = f", {found[0]['seconds']:.0f} s"
                cells.append(f"{100 * found[0]['accuracy']:.1f} ± {50 * (high - low):.1f}{seconds}{taps}")
            else:
                cells.append("")
        print(f"| {step} | " + " | ".join(cells) + " |")


if __name__ == "__main__":
    main()
