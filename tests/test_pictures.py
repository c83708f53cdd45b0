from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from transfer import pictures
from transfer.backbones import Backbone, load_backbone
from transfer.errors import UsageError
from transfer.images import UnreadableImage


@pytest.fixture(scope="module")
def backbone(weights: Path) -> Backbone:
    return load_backbone("test_resnet", weights)


def tiles(picture: np.ndarray, rows: int, columns: int, skipped: int = 0) -> list[np.ndarray]:
    """Cut a grid into its tiles again, `skipped` pixels from the left."""
    gap = pictures._GAP
    picture = picture[:, skipped:]
    height, width = ((picture.shape[axis] - gap) // n for axis, n in enumerate((rows, columns)))
    return [
        picture[gap + row * height : (row + 1) * height, gap + column * width : (column + 1) * width]
        for row in range(rows)
        for column in range(columns)
    ]


def test_each_filter_is_a_tile_in_colour_with_grey_for_zero(backbone: Backbone) -> None:
    weight = backbone.model.conv1[0].weight.detach()
    picture = np.array(pictures.draw_filters(backbone))
    assert max(picture.shape) < 1200
    found = tiles(picture, 4, 4)
    for tile, kernel in zip(found, weight, strict=True):
        scale = tile.shape[0] // 3
        assert tile.shape == (3 * scale, 3 * scale, 3)
        shown = tile[scale // 2 :: scale, scale // 2 :: scale].transpose(2, 0, 1)
        expected = 128 + 127 * kernel / kernel.abs().max()
        np.testing.assert_allclose(shown, expected.numpy(), atol=0.5 + 1e-3)


def test_filters_on_other_than_three_channels_are_grey_and_a_dead_one_is_plain() -> None:
    model = nn.Sequential(nn.Conv2d(2, 2, 5))
    with torch.no_grad():
        model[0].weight[1].zero_()
    network = Backbone("toy", model, None, 2, "", "")  # type: ignore[arg-type]
    picture = np.array(pictures.draw_filters(network))
    found = tiles(picture, 2, 2)
    assert all((tile == tile[..., :1]).all() for tile in found)
    assert [len(np.unique(tile)) == 1 for tile in found] == [False, False, True, True]
    assert (found[2] == 128).all()


def test_a_network_without_convolutions_has_no_filters() -> None:
    network = Backbone("toy", nn.Linear(2, 2), None, 2, "", "")  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="toy has no convolution"):
        pictures.draw_filters(network)


def test_maps_are_drawn_beside_what_the_network_sees(backbone: Backbone, shapes: Path) -> None:
    from transfer import cuts
    from transfer.images import load_view, normalise

    image = shapes / "circle/00.png"
    seen = load_view(image, backbone.preprocessing, exact=True)
    with torch.inference_mode():
        values = cuts.read_taps(backbone.model, ["layer1"], backbone.input_shape)(
            normalise(seen[None], backbone.preprocessing)
        )
    maps = values["layer1"][0]
    picture = np.array(pictures.draw_activations(backbone, image, "layer1"))
    n_columns = 6  # of 32 maps
    scale = max(1, round(pictures._SIDE / (n_columns * maps.shape[1])))
    width = n_columns * (scale * maps.shape[1] + pictures._GAP) + pictures._GAP
    found = tiles(picture, 6, n_columns, picture.shape[1] - width)
    for tile, values_of_one in zip(found, maps, strict=False):
        shown = tile[scale // 2 :: scale, scale // 2 :: scale, 0]
        expected = 255 * values_of_one / values_of_one.max().clamp_min(1e-12)  # behind a ReLU: black is zero
        np.testing.assert_allclose(shown, expected.numpy(), atol=0.51)
    corner = picture[pictures._GAP, pictures._GAP]
    np.testing.assert_array_equal(corner, seen[:, 0, 0].numpy())


def test_maps_with_negative_values_have_grey_for_zero(backbone: Backbone, shapes: Path) -> None:
    maps = np.array([[[0.0, 2.0]], [[-1.0, 0.0]]], np.float32)
    np.testing.assert_array_equal(pictures._shades(maps), [[[128, 255]], [[1, 128]]])
    np.testing.assert_array_equal(pictures._shades(maps.clip(0)), [[[0, 255]], [[0, 0]]])


def test_at_most_64_channels_are_drawn_and_without_a_tap_the_stem(backbone: Backbone, shapes: Path) -> None:
    assert pictures.default_tap(backbone) == "maxpool"
    image = Image.open(shapes / "circle/00.png")
    picture = pictures.draw_activations(backbone, image, "layer4")
    assert max(picture.size) < 2000
    assert pictures.draw_activations(backbone, image).size == pictures.draw_activations(backbone, image, "maxpool").size


@pytest.mark.parametrize(("tap", "message"), [("features", "has no maps but an output of"), ("layer9", "no tap")])
def test_a_tap_without_maps_or_that_is_not_there_is_refused(
    backbone: Backbone, shapes: Path, tap: str, message: str
) -> None:
    with pytest.raises(UsageError, match=message):
        pictures.draw_activations(backbone, shapes / "circle/00.png", tap)


def test_tokens_are_no_maps_and_the_default_of_a_transformer_has_some(shapes: Path) -> None:
    vit = load_backbone("test_vit", "random")
    with pytest.raises(UsageError, match="'blocks.1' of test_vit has no maps but an output of"):
        pictures.draw_activations(vit, shapes / "circle/00.png", "blocks.1")
    assert pictures.draw_activations(vit, shapes / "circle/00.png").size[0] > 100


def test_an_image_that_cannot_be_read_is_named(backbone: Backbone, tmp_path: Path) -> None:
    (tmp_path / "bad.png").write_bytes(b"no picture")
    with pytest.raises(UnreadableImage, match="bad.png"):
        pictures.draw_activations(backbone, tmp_path / "bad.png", "layer1")


def test_pictures_are_written_as_png_alone(backbone: Backbone, tmp_path: Path) -> None:
    picture = pictures.draw_filters(backbone)
    pictures.write_picture(tmp_path / "a.png", picture)
    np.testing.assert_array_equal(np.array(Image.open(tmp_path / "a.png")), np.array(picture))
    with pytest.raises(UsageError, match=r"end in \.png"):
        pictures.write_picture(tmp_path / "a.jpg", picture)
    assert [path.name for path in tmp_path.iterdir()] == ["a.png"]
