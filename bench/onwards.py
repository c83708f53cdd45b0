"""What becomes of the images of val: trained again from the start with them, or gone on with from where val chose.

    python bench/onwards.py ../shared/data/signdigits ../shared/data/clothing --per-class 8+2,20+5 --seeds 2 \\
        --set features.image_size=96
    python bench/onwards.py --show

`--per-class` says how many images there are to train on and to validate. In each cell all layers are trained on train
and judged on val once, as `auto` does with few images (`train.blend=val`); from there on both ways are gone, and their
ends are scored on at most 600 images that are none of train and val and not of the test part (`bench/defaults.py`
divides so). A JSON line per cell in `--out`; what is there is not run again.
"""

from __future__ import annotations

import dataclasses
import statistics
import tempfile
import time
from pathlib import Path

from cells import measure_grid
from defaults import divide

from transfer import machine
from transfer.progress import Progress
from transfer.recipe import load_recipe
from transfer.strategies import courses
from transfer.strategies.preparing import prepare
from transfer.strategies.tuning import Tuning

WAYS = {"onwards": courses._ONWARDS, "again": 1.0}  # and how much of the training is spent so
N_SCORED = 600


def main() -> None:
    _print(measure_grid(__doc__, "8+2,20+5", Path("bench/results/onwards.jsonl"), _measure))


def _measure(folder: Path, size: str, seed: int, settings: list[str]) -> dict:
    machine.keep_memory()
    recipe = load_recipe("full", ["train.blend=val", f"seed={seed}", *settings])
    with tempfile.TemporaryDirectory() as scratch:
        table = Path(scratch) / "images.csv"
        n, n_val = map(int, size.split("+"))
        divide(folder, n, n_val, seed, table, N_SCORED)
        job, _ = prepare(table, None, 0, recipe, Path(scratch) / "run", None, Progress(quiet=True))
        tuning = Tuning(job)
        started = time.perf_counter()
        outcome = tuning.run()
        tuning.calibrate(outcome)
        seconds = {"trial": time.perf_counter() - started}
        accuracies = {"trial": _score(tuning)}
        for way, share in WAYS.items():
            tuning.course = dataclasses.replace(tuning.course, again=share)
            started = time.perf_counter()
            tuning.refit(outcome)
            seconds[way] = time.perf_counter() - started
            accuracies[way] = _score(tuning)
        tuning.undo()
        tuning.checkpoints.clear()
    return {
        "n": len(job.split.indices("test")),
        "best_epoch": outcome.best_epoch,
        "blend": tuning.share,
        "accuracy": accuracies,
        "seconds": {name: round(value, 1) for name, value in seconds.items()},
    }


def _score(tuning: Tuning) -> float:
    test = tuning.job.split.indices("test")
    rows, _ = tuning.features(test, "Features")
    return round(float((tuning.head.scores(rows).argmax(axis=1) == tuning.job.dataset.labels[test]).mean()), 5)


def _print(rows: list[dict]) -> None:
    print("| per class | cells | as val chose | again | onwards | onwards less again | time, of that of again |")
    print("|---" * 7 + "|")
    for size in [*sorted({row["cell"][1] for row in rows}, key=lambda size: int(size.split("+")[0])), ""]:
        cells = [row for row in rows if size in ("", row["cell"][1])]
        means = [statistics.mean(100 * row["accuracy"][way] for row in cells) for way in ("trial", "again", "onwards")]
        gains = [100 * (row["accuracy"]["onwards"] - row["accuracy"]["again"]) for row in cells]
        error = f" ± {statistics.stdev(gains) / len(gains) ** 0.5:.1f}" if len(gains) > 1 else ""
        share = statistics.mean(row["seconds"]["onwards"] / row["seconds"]["again"] for row in cells)
        shown = " | ".join(f"{mean:.1f}" for mean in means)
        print(f"| {size or 'all'} | {len(cells)} | {shown} | {statistics.mean(gains):+.1f}{error} | {share:.0%} |")


if __name__ == "__main__":
    main()
