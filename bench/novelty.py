"""How many strange images are called unknown: those of other sets, and those of classes that were left out.

    python bench/novelty.py ../shared/data/signdigits ../shared/data/clothing ../shared/data/cifar10 [--draws 3]

Frozen features, the detector that `fit` keeps with a run. Of each set a third of the classes, two at least, are drawn
and left out; rows of train are remembered, those of val set the threshold, those of test are judged: of the known
classes (where about 5 % should be called unknown), of the classes left out, and of all other sets together.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", nargs="+", type=Path)
    parser.add_argument("--draws", type=int, default=3)
    arguments = parser.parse_args()
    parts = {folder.name: _parts(folder) for folder in arguments.folders}
    print("called unknown, in %: test images of known classes, of classes left out, of other sets")
    for name, (train, val, test) in parts.items():
        others = np.concatenate([parts[other][2][0] for other in parts if other != name] or [np.zeros((0, 1))])
        shares = [_shares(train, val, test, others, draw) for draw in range(arguments.draws)]
        mean, spread = 100 * np.mean(shares, 0), 100 * np.std(shares, 0, ddof=1)
        print(f"{name:14}", "   ".join(f"{m:5.1f} ± {s:4.1f}" for m, s in zip(mean, spread, strict=True)), flush=True)


Part = tuple[np.ndarray, np.ndarray]  # rows and labels


def _parts(folder: Path) -> list[Part]:
    from transfer.dataset import draw_split
    from transfer.features import extract_features

    features = extract_features(folder, quiet=True)
    split = draw_split(features.dataset, seed=0)
    return [(features.X[i], features.y[i]) for i in map(split.indices, ("train", "val", "test"))]


def _shares(train: Part, val: Part, test: Part, others: np.ndarray, draw: int) -> list[float]:
    from transfer.novelty import choose_references, fit_detector

    classes = np.unique(train[1])
    left_out = np.random.default_rng(draw).permutation(classes)[: max(2, len(classes) // 3)]
    X, y = (array[~np.isin(train[1], left_out)] for array in train)
    detector = fit_detector(X[choose_references(y, X.shape[1], draw)], val[0][~np.isin(val[1], left_out)])
    assert detector is not None, "too few validation images"
    is_new = np.isin(test[1], left_out)
    groups = [test[0][~is_new], test[0][is_new], others]
    return [float(detector.is_unknown(rows).mean()) if len(rows) else float("nan") for rows in groups]


if __name__ == "__main__":
    main()
