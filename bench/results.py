"""Test accuracy of recipes on real sets and sizes, several seeds: a JSON line per cell, resumable.

    python bench/results.py ../shared/data/clothing:25 ../shared/data/cifar10:25,200 --recipes linear-svm,partial \
        [--seeds 3] [--first-seed 0] [--set train.epochs=20] [--out bench/results/accuracy.jsonl]
    python bench/results.py --show [--out FILE]

A cell is one `transfer fit` as a process of its own: FOLDER:N trains on N images per class, `all` on all. What is in
the file is not run again. `--show` prints a table: the mean over seeds, and their standard deviation.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from cells import add_cell, read_cells


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cells", nargs="*", help="FOLDER:N[,N...]")
    parser.add_argument("--recipes", default="linear-svm,partial")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--set", dest="settings", action="append", default=[])
    parser.add_argument("--out", type=Path, default=Path("bench/results/accuracy.jsonl"))
    parser.add_argument("--show", action="store_true")
    arguments = parser.parse_args()
    known = read_cells(arguments.out)
    if not arguments.show:
        for cell in arguments.cells:
            folder, _, sizes = cell.partition(":")
            for size in (sizes or "all").split(","):
                for seed in range(arguments.first_seed, arguments.first_seed + arguments.seeds):
                    for recipe in arguments.recipes.split(","):
                        key = [Path(folder).name, size, recipe, seed, sorted(arguments.settings)]
                        if key not in [row["cell"] for row in known]:
                            row = {"cell": key, **_fit(folder, size, recipe, seed, arguments.settings)}
                            add_cell(arguments.out, known, row)
    _show(known)


def _fit(folder: str, size: str, recipe: str, seed: int, settings: list[str]) -> dict:
    with tempfile.TemporaryDirectory() as scratch:
        command = [sys.executable, "-m", "transfer.cli", "fit", folder, "--recipe", recipe, "--seed", str(seed)]
        command += ["--out", str(Path(scratch) / "run"), "--json", "-q", "--no-report"]
        command += ["--per-class", size] * (size != "all")
        command += [word for setting in settings for word in ("--set", setting)]
        environment = {
            "TRANSFER_CACHE": str(Path(tempfile.gettempdir()) / "transfer-bench-cache"),
            "HF_HUB_OFFLINE": "1",
        }
        started = time.perf_counter()
        done = subprocess.run(command, env={**os.environ, **environment}, capture_output=True, text=True)
        if done.returncode:
            raise SystemExit(f"{' '.join(command)}\n{done.stderr}")
        scores = json.loads(done.stdout)
        training = json.loads((Path(scratch) / "run" / "run.json").read_text()).get("training") or {}
    return {
        "test": scores["test"]["accuracy"],
        "n": scores["test"]["n"],
        "val": scores["val"]["accuracy"],
        "seconds": round(time.perf_counter() - started, 1),
        "best_epoch": training.get("best_epoch"),
        "n_epochs": training.get("n_epochs"),
    }


def _show(rows: list[dict]) -> None:
    cells: dict[tuple, list[dict]] = {}
    for row in rows:
        name, size, recipe, _, settings = row["cell"]
        cells.setdefault((name, size, recipe, ", ".join(settings)), []).append(row)
    print("\n| data | images per class | recipe | test accuracy, % | seeds | seconds |")
    print("|---|---|---|---|---|---|")
    for (name, size, recipe, settings), found in sorted(cells.items()):
        values = [100 * row["test"] for row in found]
        spread = f" ± {statistics.stdev(values):.1f}" if len(values) > 1 else ""
        seconds = statistics.median(row["seconds"] for row in found)
        what = f"{recipe} ({settings})" if settings else recipe
        print(f"| {name} | {size} | {what} | {statistics.mean(values):.1f}{spread} | {len(found)} | {seconds:.0f} |")


if __name__ == "__main__":
    main()
