"""How alike features are of an image and an altered copy of it, and of different images: behind `likeness.NEAR`.

    python bench/likeness.py ../shared/data/* [--copies 200]

For each set: cosines of centred features of seeded images with altered copies of themselves (5 and 50 % quantiles),
and, for all images, with the most similar other one of another content (50, 95 and 99 % quantiles). Some of the latter
are near-duplicates too. At the end, for each threshold, the share of altered copies found and of images that have
another one above it.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image, ImageEnhance, ImageOps

ALTERATIONS: dict[str, Callable[[Image.Image], Image.Image]] = {
    "half as large": lambda image: image.resize((max(1, image.width // 2), max(1, image.height // 2))),
    "5 % cut off": lambda image: image.crop(
        (image.width // 40, image.height // 40, image.width - image.width // 40, image.height - image.height // 40)
    ),
    "brighter by 20 %": lambda image: ImageEnhance.Brightness(image).enhance(1.2),
    "mirrored": ImageOps.mirror,
    "JPEG again": lambda image: image,
}
THRESHOLDS = (0.8, 0.85, 0.9, 0.92, 0.94, 0.95, 0.96, 0.97, 0.98)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", nargs="+", type=Path)
    parser.add_argument("--copies", type=int, default=200)
    parser.add_argument("--raw", action="store_true", help="without centring, for comparison")
    arguments = parser.parse_args()
    found = {threshold: ([], []) for threshold in THRESHOLDS}
    for folder in filter(Path.is_dir, arguments.folders):
        copies, others = _measure(folder, arguments.copies, arguments.raw)
        print(f"{folder.name}: other images {_quantiles(others, 50, 95, 99)}")
        for name, cosines in copies.items():
            print(f"  {name:18} {_quantiles(cosines, 5, 50)}", flush=True)
        for threshold, (of_copies, of_others) in found.items():
            of_copies.append([(cosines >= threshold).mean() for cosines in copies.values()])
            of_others.append((others >= threshold).mean())
    print(f"threshold: copies found ({', '.join(ALTERATIONS)}); images with another one above it, means over the sets")
    for threshold, (of_copies, of_others) in found.items():
        print(f"  {threshold:.2f}: {', '.join(f'{s:.0%}' for s in np.mean(of_copies, 0))}; {np.mean(of_others):.1%}")


def _measure(folder: Path, n_copies: int, is_raw: bool) -> tuple[dict[str, np.ndarray], np.ndarray]:
    from transfer.features import extract_features

    features = extract_features(folder, quiet=True)
    mean = 0 * features.X.mean(axis=0) if is_raw else features.X.mean(axis=0)
    rows = _unit(features.X - mean)
    cosines = rows @ rows.T
    contents = np.unique(features.dataset.hashes, return_inverse=True)[1]
    cosines[contents[:, None] == contents] = -1
    some = np.random.default_rng(0).permutation(len(rows))[:n_copies]
    copies = {}
    with tempfile.TemporaryDirectory() as scratch:
        for name, alter in ALTERATIONS.items():
            for i in some:
                target = Path(scratch) / name / ("a" if i % 2 else "b") / f"{i:06d}.jpg"
                target.parent.mkdir(parents=True, exist_ok=True)
                with Image.open(features.paths[i]) as image:
                    alter(ImageOps.exif_transpose(image).convert("RGB")).save(target, quality=85)
            altered = extract_features(Path(scratch) / name, quiet=True)
            origin = [int(Path(path).stem) for path in altered.paths]
            copies[name] = (_unit(altered.X - mean) * rows[origin]).sum(axis=1)
    return copies, cosines.max(axis=1)


def _unit(rows: np.ndarray) -> np.ndarray:
    return rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12)


def _quantiles(values: np.ndarray, *percents: int) -> str:
    return ", ".join(f"{p} %: {np.percentile(values, p):.3f}" for p in percents)


if __name__ == "__main__":
    main()
