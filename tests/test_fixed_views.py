"""Fixed views: the geometry of crops, turns and mirrors, in pixels."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from transfer.images import FIXED_VIEWS, STANDARD, FixedView, Preprocessing, view

WARPED = Preprocessing(crop_mode="squash", crop_share=1.0)


def picture(height: int, width: int) -> np.ndarray:
    """A smooth picture, so that resizing changes little: rows in red, columns in green."""
    rows, columns = np.mgrid[0:height, 0:width]
    return np.stack([255 * rows / height, 255 * columns / width, np.full_like(rows, 99)], axis=2).astype(np.uint8)


def test_there_are_as_many_views_as_their_number_says_and_all_differ() -> None:
    pixels = np.random.default_rng(0).integers(0, 255, (300, 240, 3)).astype(np.uint8)
    for n_views, views in FIXED_VIEWS.items():
        seen = [each.see(pixels, WARPED).numpy().tobytes() for each in views]
        assert len(set(seen)) == len(views) == n_views


def test_the_first_view_is_the_standard_one() -> None:
    pixels = picture(300, 240)
    assert FIXED_VIEWS[1] == (STANDARD,)
    assert FIXED_VIEWS[2][0] == FIXED_VIEWS[16][0] == STANDARD
    assert torch.equal(STANDARD.see(pixels, WARPED), view(pixels, WARPED))
    assert STANDARD.to_dict() == {}


def test_sixteen_views_have_five_crops_of_four_ninths_of_the_area() -> None:
    crops = [each for each in FIXED_VIEWS[16] if each.share < 1 and not each.is_mirrored]
    boxes = [each.box(300, 240, WARPED) for each in crops]
    assert boxes == [(0, 0, 200, 160), (0, 80, 200, 160), (100, 0, 200, 160), (100, 80, 200, 160), (50, 40, 200, 160)]
    assert pytest.approx(4 / 9) == 200 * 160 / (300 * 240)
    assert sum(bool(each.degrees) for each in FIXED_VIEWS[16]) == 4
    assert sum(each.is_mirrored for each in FIXED_VIEWS[16]) == 8


def test_a_crop_of_a_network_that_does_not_squash_is_a_square_of_the_shorter_side() -> None:
    centre = Preprocessing()
    crops = [each for each in FIXED_VIEWS[16] if each.share < 1 and not each.is_mirrored]
    boxes = [each.box(300, 240, centre) for each in crops]
    assert (boxes[0], boxes[3]) == ((0, 0, 160, 160), (140, 80, 160, 160))


def test_ten_views_are_those_of_torchvision() -> None:
    from torchvision.transforms.v2 import functional

    centre = Preprocessing(interpolation="bilinear")
    pixels = picture(400, 300)
    resized = functional.resize(torch.from_numpy(pixels).permute(2, 0, 1), [256], antialias=True)
    expected = functional.five_crop(resized, [224, 224])
    order = (0, 1, 2, 3, 4)  # upper left, upper right, lower left, lower right, centre
    found = [each for each in FIXED_VIEWS[10] if not each.is_mirrored]
    for i, each in enumerate(found):
        difference = (each.see(pixels, centre).int() - expected[order[i]].int()).abs().float()
        assert difference.mean() < 1.0  # grey levels; another corner is 20 away


def test_a_mirrored_view_is_the_mirror_image() -> None:
    pixels = picture(200, 260)
    for plain, mirrored in zip(FIXED_VIEWS[16][::2], FIXED_VIEWS[16][1::2], strict=True):
        assert torch.equal(plain.see(pixels, WARPED).flip(2), mirrored.see(pixels, WARPED))


@pytest.mark.parametrize("size", [(200, 200), (150, 400), (401, 90)])
def test_a_turned_view_shows_no_corner_that_is_not_the_picture(size: tuple[int, int]) -> None:
    white = np.full((*size, 3), 255, np.uint8)
    for degrees in (10, -10, 45):
        assert FixedView(degrees=degrees).see(white, WARPED).min() >= 250


def test_a_turn_is_anticlockwise() -> None:
    pixels = np.zeros((201, 201, 3), np.uint8)
    pixels[95:106, 150:] = 255  # a bar from the middle to the right
    seen = FixedView(degrees=30).see(pixels, WARPED)[0].numpy()
    rows = np.nonzero(seen[:, 180] > 128)[0]
    assert rows.mean() < 100  # it points up now


@pytest.mark.parametrize("size", [(1, 1), (1, 50), (3, 2)])
def test_the_smallest_images_have_all_views(size: tuple[int, int]) -> None:
    for each in FIXED_VIEWS[16]:
        assert each.see(np.zeros((*size, 3), np.uint8), WARPED).shape == (3, 224, 224)


def test_images_are_decoded_large_enough_for_the_closest_view() -> None:
    assert FIXED_VIEWS[16][2].needed_side(WARPED) == 336
    assert STANDARD.needed_side(Preprocessing()) == 256
