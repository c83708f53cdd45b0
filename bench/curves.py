"""Whether learning curves are right about more images: the measurement behind the intervals of `curves`.

    python bench/curves.py ../shared/data/signdigits ../shared/data/clothing [--quarters 12]

For each set: its curve, with the law checked on the largest size. Then curves are measured on quarters of the set, each
drawn by class, and what they expect of twice and four times their images is compared with what the whole set gives.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", nargs="+", type=Path)
    parser.add_argument("--quarters", type=int, default=12)
    arguments = parser.parse_args()
    for folder in filter(Path.is_dir, arguments.folders):
        _measure(folder, arguments.quarters)


def _measure(folder: Path, quarters: int) -> None:
    from transfer.curves import measure_curve
    from transfer.curves.subsets import draw_nested
    from transfer.features import extract_features

    features = extract_features(folder, quiet=True)
    X, y, groups, n_classes = features.X, features.y, np.array(features.dataset.hashes), len(features.classes)
    whole = measure_curve(X, y, n_classes, groups=groups)
    print(f"{folder.name}: {', '.join(f'{p.n:.0f}: {p.accuracy:.1%} ± {p.standard_error:.1%}' for p in whole.points)}")
    for line in [whole.describe(), *whole.describe_law()]:
        print(f"  {line}")
    truth = {2: whole.points[-2], 4: whole.points[-1]}
    found: dict[int, list[tuple[float, float, float]]] = {2: [], 4: []}
    for seed in range(quarters):
        rows = draw_nested(y, groups, [whole.points[-1].n / len(y) / 4], [100 + seed])[0]
        curve = measure_curve(X[rows], y[rows], n_classes, groups=groups[rows], seed=seed)
        for times, point in truth.items():
            expected = curve.expect(min(point.n, curve.furthest))
            if expected is not None:
                found[times].append(expected)
    for times, expectations in found.items():
        accuracy, low, high = np.array(expectations).T
        measured = truth[times].accuracy
        inside = int(((low <= measured) & (measured <= high)).sum())
        print(
            f"  quarters, {times} times their images: {measured:.1%} measured, inside {inside} of {len(expectations)} "
            f"intervals, {np.median(high - low):.1%} wide; expected {accuracy.mean():.1%} ± {accuracy.std():.1%}",
            flush=True,
        )


if __name__ == "__main__":
    main()
