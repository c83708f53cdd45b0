"""What a network sees of an image is the same wherever and whenever it is looked at: golden pixels.

Row 67 of docs/reliability.md. That training and prediction see alike is in tests/test_finetuning.py, that the
preprocessing of a network is what timm's would be in tests/test_images.py.
"""

from __future__ import annotations

import numpy as np
import pytest

from transfer.backbones import default_preprocessing
from transfer.images import load_view

# of the default backbone's evaluation transform: (row, column) and the RGB there
GOLDEN = {
    (0, 0): (48, 20, 157),
    (0, 223): (206, 220, 63),
    (223, 0): (48, 220, 32),
    (223, 223): (206, 20, 194),
    (112, 112): (127, 30, 181),
    (20, 47): (81, 20, 62),
    (100, 150): (155, 20, 95),
    (171, 33): (71, 220, 156),
}
MEANS = [127.0, 120.004, 127.517]


def picture() -> np.ndarray:
    """An image of 300 x 420 with edges, gradients and noise, from whole numbers alone."""
    y, x = np.mgrid[:300, :420]
    red = (x * 255 // 419).astype(np.uint8)
    green = ((y // 25 + x // 35) % 2 * 200 + 20).astype(np.uint8)
    blue = ((x * 7919 + y * 104729) % 256).astype(np.uint8)
    return np.stack([red, green, blue], axis=-1)


@pytest.mark.parametrize("exact", [False, True])
def test_the_evaluation_transform_gives_the_golden_pixels(exact: bool) -> None:
    preprocessing = default_preprocessing("tf_efficientnet_lite0")
    seen = load_view(picture(), preprocessing, exact=exact).numpy()
    assert seen.shape == (3, 224, 224)
    for (row, column), expected in GOLDEN.items():
        np.testing.assert_allclose(seen[:, row, column].astype(int), expected, atol=1)
    assert seen.mean(axis=(1, 2)) == pytest.approx(MEANS, abs=0.05)
