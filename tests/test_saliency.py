import dataclasses
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import transfer
from transfer import cuts
from transfer.backbones import Backbone, load_backbone
from transfer.features import Representation
from transfer.heads import LinearHead
from transfer.images import load_view, normalise
from transfer.saliency import draw_saliency, gradient_map, has_gradient_maps, occlusion_map


def some_head(backbone: Backbone, seed: int = 0) -> LinearHead:
    weight = np.random.default_rng(seed).normal(size=(3, backbone.n_features)).astype(np.float32)
    return LinearHead(weight, np.zeros(3, np.float32))


def some_view(backbone: Backbone) -> torch.Tensor:
    return torch.randint(0, 256, backbone.input_shape, dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def test_where_the_last_map_is_averaged_the_map_is_class_activation_mapping() -> None:
    backbone = load_backbone("test_resnet", "random")
    seen = some_view(backbone)
    prefix, _ = cuts.cut(backbone.model, "layer4", backbone.input_shape)
    with torch.inference_mode():
        maps = prefix(normalise(seen[None], backbone.preprocessing))[0].numpy()
    for seed in range(4):
        head = some_head(backbone, seed)
        wanted = np.einsum("c,chw->hw", head.weight[1] - head.weight.mean(axis=0), maps)
        found = gradient_map(backbone, Representation(), head, seen, 1)
        if wanted.max() <= 0:
            assert found is None
        else:
            np.testing.assert_allclose(found, np.clip(wanted / wanted.max(), 0, 1), atol=1e-4)


@pytest.mark.parametrize("name", ["test_vit", "test_convnext", "swin_tiny_patch4_window7_224", "mixer_s32_224"])
def test_any_network_with_places_has_a_map(name: str) -> None:
    backbone = load_backbone(name, "random")
    head = some_head(backbone)
    assert has_gradient_maps(backbone, Representation(), head)
    before = {key: value.clone() for key, value in backbone.model.state_dict().items()}
    found = [gradient_map(backbone, Representation(), head, some_view(backbone), label) for label in range(3)]
    shapes = {each.shape for each in found if each is not None}
    assert len(shapes) == 1
    height, width = shapes.pop()
    assert height == width > 3
    assert all(torch.equal(value, before[key]) for key, value in backbone.model.state_dict().items())
    assert all(parameter.grad is None for parameter in backbone.model.parameters())


def test_a_transformer_looks_at_the_square_whose_colour_is_the_class(tmp_path: Path) -> None:
    side, colours = 48, ("red", "green", "blue")
    rng, corners = np.random.default_rng(0), {}
    for channel, colour in enumerate(colours):
        (tmp_path / "data" / colour).mkdir(parents=True)
        for i in range(40):
            canvas = rng.integers(0, 90, (160, 160, 3)).astype(np.uint8)
            top, left = rng.integers(0, 160 - side, 2)
            canvas[top : top + side, left : left + side] = 30
            canvas[top : top + side, left : left + side, channel] = 220
            Image.fromarray(canvas).save(tmp_path / "data" / colour / f"{i}.png")
            corners[f"{colour}/{i}.png"] = top, left
    whole = ["features.crop_share=1.0"]
    run = transfer.fit(
        tmp_path / "data", "ridge", out=tmp_path / "run", backbone="test_vit", weights="random", settings=whole,
        exact=True, quiet=True,
    )  # fmt: skip
    shares = []
    for path, (top, left) in list(corners.items())[::6]:
        seen = load_view(tmp_path / "data" / path, run.backbone.preprocessing, exact=True)
        found = gradient_map(
            run.backbone, run.representation, run.head, seen, run.classes.index(path.partition("/")[0])
        )
        assert found is not None
        at = (np.arange(len(found)) + 0.5) * 160 / len(found)
        inside = np.outer((at >= top) & (at < top + side), (at >= left) & (at < left + side))
        shares.append(found[inside].sum() / found.sum())
    assert np.mean(shares) > 0.4  # the square is 9 % of the image


def test_other_heads_and_backbones_have_no_gradient_maps() -> None:
    backbone = load_backbone("test_resnet", "random")
    two_layers = dataclasses.replace(Representation(), taps=("layer3", "features"))
    assert not has_gradient_maps(backbone, two_layers, some_head(backbone))
    pixels = load_backbone("pixels")
    assert not has_gradient_maps(pixels, Representation(), some_head(pixels))


def test_a_covered_place_that_matters_lights_up() -> None:
    pixels = np.zeros((60, 90, 3), np.uint8)
    pixels[40:60, 60:90] = 255  # the last two of six cells both ways

    def probabilities(images: Sequence[np.ndarray]) -> np.ndarray:
        p = np.array([image[40:, 60:].mean() / 255 for image in images])
        return np.stack([1 - p, p], axis=1)

    found = occlusion_map(pixels, 1, probabilities)
    assert found is not None
    assert found.argmax() == 35  # the corner is covered by no other square
    assert found[:3].max() == 0
    assert occlusion_map(pixels, 0, probabilities) is None  # nothing that is covered lowers it


def test_the_picture_is_as_it_was_where_the_share_is_one() -> None:
    pixels = np.full((40, 40, 3), (200, 100, 50), np.uint8)
    assert (draw_saliency(pixels, np.ones((4, 4))) == pixels).all()
    assert (draw_saliency(pixels, np.zeros((4, 4))) < 100).all()
