"""Blends: how far of the way from the solved head the weights should lie, and whether val can tell.

    python bench/blends.py ../shared/data/signdigits ../shared/data/clothing --per-class 10,25 --seeds 2 \\
        --set features.image_size=96
    python bench/blends.py --show

In each cell all layers are trained on train, once, for the usual time (`full`, the last epoch is kept, val is not
learned from); the weights are then put at several shares of the way from the start (0: the solved head on the frozen
network, 1: the last epoch), and val and test are read at each. A JSON line per cell in `--out`; what is there is not
run again.

`--show` prints by how many points of test accuracy each fixed share is below the best one of its cell, and the share
that val chooses: by log loss after a temperature, as `train.blend=val` does, and by accuracy, of half the way or more.
Then how many test images are right at one end of the way and wrong at the other, as a share of the linear head's
errors.
"""

from __future__ import annotations

import statistics
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
from cells import measure_grid

SHARES = (0.0, 0.25, 0.5, 0.75, 1.0)


def main() -> None:
    _print(measure_grid(__doc__, "10,25", Path("bench/results/blends.jsonl"), _measure))


def _measure(folder: Path, size: str, seed: int, settings: list[str]) -> dict:
    from transfer import machine, metrics
    from transfer.heads import LinearHead, fit_temperature
    from transfer.progress import Progress
    from transfer.recipe import load_recipe
    from transfer.strategies import courses, tuning
    from transfer.strategies.preparing import prepare
    from transfer.training import blend

    # the last epoch of a training that has not seen val, which `train.keep=last` would learn from
    courses.learned_from = tuning.learned_from = lambda recipe, split: split.indices("train")
    machine.keep_memory()
    recipe = load_recipe("full", ["train.keep=last", f"seed={seed}", f"data.per_class={size}", *settings])
    with tempfile.TemporaryDirectory() as scratch:
        job, _ = prepare(folder, None, 0, recipe, Path(scratch) / "run", None, Progress(quiet=True))
        training = tuning.Tuning(job)
        training.run()
        end, trainee = training.trainee.state(), training.trainee
        parts = {part: job.split.indices(part) for part in ("val", "test")}
        shares, first = {}, np.empty(0)
        for share in SHARES:
            trainee.load_state_dict(blend(training._start, end, share))
            rows, _ = training.features(np.concatenate(list(parts.values())), "Features")
            head = training.head
            scores = dict(zip(parts, np.split(head.scores(rows), [len(parts["val"])]), strict=True))
            labels = {part: job.dataset.labels[images] for part, images in parts.items()}
            hits = {part: scores[part].argmax(axis=1) == labels[part] for part in parts}
            first = first if share else hits["test"]
            found = {part: float(hits[part].mean()) for part in parts}
            found["differing"] = float((hits["test"] != first).mean())
            tempered = LinearHead(head.weight, head.bias, fit_temperature(scores["val"], labels["val"]))
            found["val_log_loss"] = metrics.log_loss(tempered.probabilities(rows[: len(parts["val"])]), labels["val"])
            shares[str(share)] = {name: round(value, 5) for name, value in found.items()}
        training.undo()
        training.checkpoints.clear()
    return {"n_val": len(parts["val"]), "n_test": len(parts["test"]), "shares": shares}


def _print(rows: list[dict]) -> None:
    def share_with_most(row: dict, judge: Callable[[dict], float]) -> float:
        return max((1.0, 0.75, 0.5), key=lambda share: judge(row["shares"][str(share)]))

    ways: dict[str, Callable[[dict], float]] = {f"{share:g} of the way": lambda row, s=share: s for share in SHARES}
    ways["val, by log loss"] = lambda row: share_with_most(row, lambda found: -found["val_log_loss"])
    ways["val, by accuracy"] = lambda row: share_with_most(row, lambda found: found["val"])
    sizes = sorted({row["cell"][1] for row in rows}, key=int)
    print("| share | " + " | ".join(f"{size} per class, mean (largest)" for size in sizes) + " |")
    print("|---" * (len(sizes) + 1) + "|")
    for name, choose in ways.items():
        cells = []
        for size in sizes:
            below = [
                100 * (max(found["test"] for found in row["shares"].values()) - row["shares"][str(choose(row))]["test"])
                for row in rows
                if row["cell"][1] == size
            ]
            cells.append(f"{statistics.mean(below):.1f} ({max(below):.1f})")
        print(f"| {name} | {' | '.join(cells)} |")
    differing = [row["shares"]["1.0"]["differing"] / (1 - row["shares"]["0.0"]["test"]) for row in rows]
    print(f"\nRight or wrong otherwise than the linear head, of its errors: {statistics.mean(differing):.2f} "
          f"({min(differing):.2f} to {max(differing):.2f})")  # fmt: skip


if __name__ == "__main__":
    main()
