"""Which scaling of the features serves linear heads best: the measurement behind `heads.SCALINGS`.

    python bench/scaling.py ../shared/data/* [--per-class 10 25 100] [--draws 2]

For each set and number of images per class: a seeded draw for training, up to 2,000 other images for the test. Printed:
the mean test accuracy over all sets, sizes and draws for each head and scaling, with the standard error of its
difference to `global` over those measurements.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

SCALINGS = ("global", "standard", "l2")
HEADS = ("linear-svm", "logistic", "ridge")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", nargs="+", type=Path)
    parser.add_argument("--per-class", nargs="+", type=int, default=[10, 25, 100])
    parser.add_argument("--draws", type=int, default=2)
    arguments = parser.parse_args()
    accuracy: dict[tuple[str, str], list[float]] = {(head, scaling): [] for head in HEADS for scaling in SCALINGS}
    for folder in filter(Path.is_dir, arguments.folders):
        for values in _measure(folder, arguments.per_class, arguments.draws):
            for key, value in values.items():
                accuracy[key].append(value)
    n = len(accuracy["ridge", "global"])
    print(f"mean test accuracy over {n} measurements; in brackets the difference to global and its standard error")
    for scaling in SCALINGS:
        cells = []
        for head in HEADS:
            gap = np.array(accuracy[head, scaling]) - accuracy[head, "global"]
            error = gap.std(ddof=1) / np.sqrt(n)
            cells.append(f"{head} {np.mean(accuracy[head, scaling]):.1%} ({gap.mean():+.1%} ± {error:.1%})")
        print(f"  {scaling:10}" + "   ".join(cells))


def _measure(folder: Path, sizes: list[int], draws: int):
    from transfer.features import extract_features
    from transfer.heads import fit_head

    features = extract_features(folder)
    X, y, groups = features.X, features.y, np.array(features.dataset.hashes)
    for size in sizes:
        for seed in range(draws):
            order = np.random.default_rng(seed).permutation(len(y))
            rank = np.empty(len(y), int)
            for c in range(len(features.classes)):
                members = order[y[order] == c]
                rank[members] = np.arange(len(members))
            train = order[rank[order] < size]
            test = order[rank[order] >= size]
            test = test[~np.isin(groups[test], groups[train])][:2000]
            values = {}
            for head in HEADS:
                for scaling in SCALINGS:
                    fitted = fit_head(
                        head, X[train], y[train], len(features.classes), scaling=scaling, groups=groups[train]
                    )
                    values[head, scaling] = float((fitted.head.predict(X[test]) == y[test]).mean())
            yield values
        print(f"  {folder.name}, {size} per class done", flush=True)


if __name__ == "__main__":
    main()
