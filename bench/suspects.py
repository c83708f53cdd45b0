"""How many wrong labels the report's suspects find: labels of a share of the images are flipped, by a seed.

    python bench/suspects.py ../shared/data/clothing ../shared/data/signdigits [--share 0.05] [--seeds 3] [--logistic]

Features of all images, test parts included, as `transfer report` has them of train and val. Printed for each set, means
over the seeds with their standard deviation: how many candidates there are, how many of them are flipped (precision),
how many of the flipped are among them (recall), the same of the first 24 and of the first so many as were flipped, and
seconds. Labels that are wrong in the set itself count against the precision. `--logistic`: beside it logistic
regression in five folds in place of ridge.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import numpy as np


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", nargs="+", type=Path)
    parser.add_argument("--share", type=float, default=0.05)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--logistic", action="store_true")
    arguments = parser.parse_args()
    print(
        "| data | images | flipped | head | candidates | precision | recall | of the first 24 | at as many | seconds |"
    )
    print("|---|---|---|---|---|---|---|---|---|---|")
    for folder in filter(Path.is_dir, arguments.folders):
        for head in ["ridge", "logistic"][: 1 + arguments.logistic]:
            print(_row(folder, head, arguments.share, arguments.seeds), flush=True)


def _row(folder: Path, head: str, share: float, n_seeds: int) -> str:
    from transfer.features import extract_features
    from transfer.suspects import find_suspects

    features = extract_features(folder, quiet=True)
    X, groups, n_classes = features.X, np.array(features.dataset.hashes), len(features.classes)
    n, found = len(X), []
    for seed in range(n_seeds):
        random = np.random.default_rng(seed)
        flipped = random.permutation(n)[: round(share * n)]
        y = features.y.copy()
        y[flipped] = (y[flipped] + random.integers(1, n_classes, len(flipped))) % n_classes
        started = time.perf_counter()
        suspects = find_suspects(_probabilities(head, X, y, n_classes, groups, seed), y)
        seconds = time.perf_counter() - started
        hits = np.isin([suspect.row for suspect in suspects], flipped)
        first = hits[: len(flipped)].sum() / len(flipped)
        found.append([len(hits), hits.mean(), hits.sum() / len(flipped), hits[:24].mean(), first, seconds])
    mean, spread = np.mean(found, axis=0), np.std(found, axis=0, ddof=min(1, n_seeds - 1))
    shares = [f"{100 * m:.0f} ± {100 * s:.0f} %" for m, s in zip(mean[1:5], spread[1:5], strict=True)]
    cells = [folder.name, n, round(share * n), head, f"{mean[0]:.0f}", *shares, f"{mean[5]:.1f}"]
    return "| " + " | ".join(map(str, cells)) + " |"


def _probabilities(head: str, X: np.ndarray, y: np.ndarray, n_classes: int, groups: np.ndarray, seed: int):
    from transfer.heads import fit_head, softmax
    from transfer.suspects import out_of_fold

    if head == "ridge":
        return out_of_fold(X, y, n_classes, groups, seed)
    fitted = fit_head(head, X, y, n_classes, groups=groups, class_weight=None, seed=seed)
    return softmax(fitted.out_of_fold.astype(float) / fitted.head.temperature)


if __name__ == "__main__":
    main()
