"""Demo: scikit-learn's handwritten digits as a folder of images, to try everything on without a download."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np

from transfer.errors import UsageError
from transfer.files import atomic_folder, make_folder, write_bytes

_SIDE = 32  # pixels; the digits come as 8x8, which no picture viewer shows well


def write_digits(folder: str | Path) -> int:
    """Write the 1,797 digits of `sklearn.datasets.load_digits` as PNG files, one folder per class.

    Returns
    -------
    int
        The number of images in the folder. A folder that this function wrote before is left as it is.

    Raises
    ------
    UsageError
        The folder exists and holds something else.
    """
    from PIL import Image
    from sklearn.datasets import load_digits

    folder = Path(folder)
    digits = load_digits()
    if folder.exists():
        found = sorted(path.relative_to(folder).as_posix() for path in folder.glob("*/*.png"))
        if found != sorted(_name(i, label) for i, label in enumerate(digits.target)):
            raise UsageError(f"{folder} exists and is not the demo's. Choose another --out, or delete it.")
        return len(found)
    with atomic_folder(folder) as building:
        for i, (pixels, label) in enumerate(zip(digits.images, digits.target, strict=True)):
            path = building / _name(i, label)
            make_folder(path.parent)
            grey = Image.fromarray((255 - pixels * 255 / 16).astype(np.uint8))
            data = io.BytesIO()
            grey.resize((_SIDE, _SIDE), Image.Resampling.BICUBIC).save(data, "PNG")
            write_bytes(path, data.getvalue())
    return len(digits.target)


def _name(i: int, label: int) -> str:
    return f"{label}/{i:04d}.png"
