import dataclasses
from collections.abc import Sequence

import numpy as np
import pytest
import torch

from transfer import cuts
from transfer.backbones import Backbone, load_backbone
from transfer.features import Representation
from transfer.heads import LinearHead
from transfer.images import normalise
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
