"""Ways of fine-tuning compared on images that are never reported on: how the defaults are chosen.

    python bench/defaults.py ../shared/data/clothing ../shared/data/cifar10 --per-class 25 --seeds 2 [--val 8] \
        --try "" --try "train.label_smoothing=0" --try "train.augment=light train.label_smoothing=0"

Of each set, the part that is not for testing is divided anew for every seed: N images per class to train on, `--val` to
check the epochs, and the others, at most 1,500, to score. The test part takes no part. `train.refit=false` holds unless
a way says otherwise, so that ways are compared and not amounts of data. A JSON line per cell in `--out`; what is there
is not run again.
"""

from __future__ import annotations

import argparse
import csv
import random
import statistics
import tempfile
import time
from collections import defaultdict
from pathlib import Path

from cells import add_cell, read_cells

N_VAL = 8  # of each class; in a cell, another number stands beside that of the training images
N_SCORED = 1500


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", nargs="+", type=Path)
    parser.add_argument("--per-class", type=int, default=25)
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--val", type=int, default=N_VAL, help="images per class that check the epochs")
    parser.add_argument("--recipe", default="partial")
    parser.add_argument("--try", dest="ways", action="append", default=[], help="settings, with spaces between")
    parser.add_argument("--out", type=Path, default=Path("bench/results/defaults.jsonl"))
    arguments = parser.parse_args()
    known, n, n_val = read_cells(arguments.out), arguments.per_class, arguments.val
    for way in arguments.ways or [""]:
        for folder in arguments.folders:
            for seed in range(arguments.seeds):
                key = [folder.name, n if n_val == N_VAL else f"{n}+{n_val}", arguments.recipe, way, seed]
                if key not in [row["cell"] for row in known]:
                    row = {"cell": key, **_fit(folder, n, n_val, arguments.recipe, way.split(), seed)}
                    add_cell(arguments.out, known, row)
    cells = defaultdict(list)
    for row in known:
        name, size, recipe, way, _ = row["cell"]
        cells[name, size, recipe, way].append(100 * row["accuracy"])
    for (name, size, recipe, way), values in sorted(cells.items(), key=str):
        print(f"{name} {size} {recipe} {way or 'defaults'}: {statistics.mean(values):.1f} of {len(values)} seeds")


def _fit(folder: Path, n: int, n_val: int, recipe: str, settings: list[str], seed: int) -> dict:
    import transfer

    started = time.perf_counter()
    with tempfile.TemporaryDirectory() as scratch:
        table = Path(scratch) / "images.csv"
        divide(folder, n, n_val, seed, table, N_SCORED)
        fine_tuning = ["train.refit=false"] if recipe not in ("linear-svm", "logistic", "ridge", "frozen") else []
        options = {"settings": [*fine_tuning, *settings], "seed": seed, "quiet": True, "out": Path(scratch) / "run"}
        run = transfer.fit(table, recipe, report=False, **options)
    return {
        "accuracy": run.metrics["test"]["accuracy"],
        "n": run.metrics["test"]["n"],
        "best_epoch": (run.info.get("training") or {}).get("best_epoch"),
        "seconds": round(time.perf_counter() - started, 1),
    }


def divide(folder: Path, n: int, n_val: int, seed: int, table: Path, most: int) -> None:
    """Write a CSV file with the parts of one seed, of which at most so many images score; copies are left out."""
    from transfer.dataset import draw_split, scan

    dataset = scan(folder)
    split = draw_split(dataset, seed=0)
    rng = random.Random(seed)
    of_class: dict[int, list[int]] = defaultdict(list)
    seen: set[str] = set()
    for i in [*split.indices("train").tolist(), *split.indices("val").tolist()]:
        if dataset.hashes[i] not in seen:
            seen.add(dataset.hashes[i])
            of_class[int(dataset.labels[i])].append(i)
    rows, scored = [], []
    for label, images in of_class.items():
        rng.shuffle(images)
        for k, i in enumerate(images):
            part = "train" if k < n else "val" if k < n + n_val else "test"
            (scored if part == "test" else rows).append((dataset.paths[i], dataset.classes[label], part))
    rng.shuffle(scored)
    with open(table, "w", newline="") as out:
        writer = csv.writer(out)
        writer.writerow(["path", "label", "split"])
        writer.writerows(rows + scored[:most])


if __name__ == "__main__":
    main()
