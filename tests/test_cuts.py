"""Cuts: every offered cut gives the backbone back, bit for bit, and the two parts share its tensors."""

from __future__ import annotations

import copy
import functools
import gc
import itertools
import warnings
import weakref
from collections.abc import Callable

import pytest
import torch
from torch import nn

from transfer.cuts import (
    FEATURES,
    PIXELS,
    CutPoint,
    conv_multiply_adds,
    conv_parameters,
    cut,
    cut_points,
    layers,
    linear_parameters,
    output_size,
    read_taps,
    receptive_field,
    stage_cuts,
    tap_names,
    trace,
)
from transfer.errors import UsageError

# name -> side of the image. The tiny ones run always.
TINY = {
    "timm/test_resnet": 64,
    "timm/test_vit": 160,
    "timm/test_convnext": 64,
    "timm/test_efficientnet": 64,
    "timm/mobilenetv3_small_100": 64,
    "torchvision/squeezenet1_1": 64,
    "torchvision/mobilenet_v3_small": 64,
}
LARGE = {
    "timm/resnet18": 64,
    "timm/densenet121": 64,
    "timm/regnetx_002": 64,
    "timm/deit_tiny_patch16_224": 224,
    "timm/swin_tiny_patch4_window7_224": 224,
    "timm/vit_small_patch14_dinov2": 70,
    "timm/vit_small_patch16_dinov3": 64,
    "timm/eva02_tiny_patch14_224": 224,
    "timm/xcit_nano_12_p16_224": 224,
    "timm/tf_efficientnet_lite0": 64,
    "timm/edgenext_small": 64,
    "torchvision/alexnet": 96,
    "torchvision/vgg11": 64,
    "torchvision/resnet18": 64,
    "torchvision/densenet121": 64,
    "torchvision/efficientnet_b0": 64,
    "torchvision/vit_b_16": 224,
    "torchvision/convnext_tiny": 64,
    "torchvision/swin_t": 64,
}
IMAGE_SIDE = {**TINY, **LARGE}


def backbone(name: str, **settings: object) -> nn.Module:
    """Return a backbone with random weights in all places, also where training starts from zeros."""
    library, _, architecture = name.partition("/")
    torch.manual_seed(0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torchvision and timm speak of weights and deprecations here
        if library == "timm":
            import timm

            if architecture.startswith("vit_") and IMAGE_SIDE[name] != 224:
                settings = {"img_size": IMAGE_SIDE[name], **settings}
            model = timm.create_model(architecture, pretrained=False, num_classes=0, **settings)
        else:
            model = torchvision_backbone(architecture)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.02 * torch.randn_like(parameter))
    return model.eval()


@functools.cache
def tiny(name: str) -> nn.Module:
    """Return a tiny backbone that several tests share and none changes."""
    return backbone(name)


def torchvision_backbone(architecture: str) -> nn.Module:
    import torchvision

    model = getattr(torchvision.models, architecture)(weights=None)
    linears = [path for path, module in model.named_modules() if isinstance(module, nn.Linear)]
    if architecture.startswith("squeezenet"):
        model.classifier = nn.AdaptiveAvgPool2d(1)
    else:
        owner, _, last = linears[-1].rpartition(".")
        setattr(model.get_submodule(owner), last, nn.Identity())
    return model


def images(side: int, n: int = 2) -> torch.Tensor:
    return torch.randn(n, 3, side, side, generator=torch.Generator().manual_seed(1))


class Recipe(nn.Module):
    """A backbone whose forward pass is a function, for the awkward cases."""

    def __init__(self, forward: Callable[[nn.Module, torch.Tensor], torch.Tensor], **modules: nn.Module) -> None:
        super().__init__()
        self.steps = forward
        for name, module in modules.items():
            self.add_module(name, module)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.steps(self, x)


def names(model: nn.Module, side: int = 16) -> list[str]:
    return [point.name for point in cut_points(model, (3, side, side))]


# --- the property -----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module", params=[*TINY, *(pytest.param(name, marks=pytest.mark.slow) for name in LARGE)])
def network(request: pytest.FixtureRequest) -> tuple[str, nn.Module, dict[CutPoint, tuple[nn.Module, nn.Module]]]:
    """Each backbone in turn with its parts at every cut; of a large one, those at the ends and some between."""
    name = request.param
    size = (3, IMAGE_SIDE[name], IMAGE_SIDE[name])
    model = tiny(name) if name in TINY else backbone(name)
    points = cut_points(model, size)
    assert len(points) >= 6
    if name in LARGE:
        points = [*points[: -1 : len(points) // 5], points[-1]]
    return name, model, {point: cut(model, point.name, size) for point in points}


@torch.no_grad()
def test_prefix_then_suffix_is_the_backbone_bit_for_bit_at_every_cut(network):
    name, model, parts = network
    for n_images in (2, 1) if name in TINY else (2,):
        x = images(IMAGE_SIDE[name], n_images)
        expected = model(x)
        assert torch.isfinite(expected).all()
        assert n_images == 1 or not torch.equal(expected[0], expected[1])
        for point, (prefix, suffix) in parts.items():
            crossing = prefix(x)
            before = crossing.clone()
            assert torch.equal(suffix(crossing), expected), point.name
            assert torch.equal(crossing, before), f"the suffix at {point.name} writes into what it is given"
            assert crossing.shape == (n_images, *point.shape)


def test_the_names_of_both_parts_are_the_names_of_the_backbone_each_once(network):
    _, model, parts = network
    state = model.state_dict(keep_vars=True)
    for point, (prefix, suffix) in parts.items():
        left, right = prefix.state_dict(keep_vars=True), suffix.state_dict(keep_vars=True)
        assert not left.keys() & right.keys()
        assert left.keys() | right.keys() == state.keys()
        assert all(tensor is state[path] for path, tensor in {**left, **right}.items())
        assert sum(parameter.numel() for parameter in suffix.parameters()) == point.parameters_right
        assert sum(parameter.numel() for parameter in prefix.parameters()) == point.parameters_left


def test_cuts_are_in_order_and_their_sides_add_up(network):
    name, model, _ = network
    side = IMAGE_SIDE[name]
    points = cut_points(model, (3, side, side))
    assert [points[0].name, points[-1].name] == [PIXELS, FEATURES]
    assert len({point.name for point in points}) == len(points)
    assert points[0].cache_bytes == 3 * side * side
    assert points[-1].cache_bytes == 2 * points[-1].shape[0]
    for before, after in itertools.pairwise(points):
        assert before.parameters_left <= after.parameters_left
        assert before.multiply_adds_left <= after.multiply_adds_left
    n_parameters = sum(parameter.numel() for parameter in model.parameters())
    assert {point.parameters_left + point.parameters_right for point in points} == {n_parameters}
    assert {point.multiply_adds_left + point.multiply_adds_right for point in points} == {points[0].multiply_adds_right}


# --- names ------------------------------------------------------------------------------------------------------------


def test_all_block_boundaries_of_a_vit_are_cuts():
    model = tiny("timm/test_vit")
    found = names(model, 160)
    assert [f"blocks.{i}" for i in range(len(model.blocks))] == [name for name in found if name.startswith("blocks")]


@pytest.mark.slow
@pytest.mark.parametrize("name", ["timm/deit_tiny_patch16_224", "timm/vit_small_patch14_dinov2"])
def test_all_block_boundaries_of_larger_vits_are_cuts(name):
    found = names(backbone(name), IMAGE_SIDE[name])
    assert [f"blocks.{i}" for i in range(12)] == [point for point in found if point.startswith("blocks")]


def test_a_cut_has_the_name_of_the_outermost_stage_that_ends_there():
    import torchvision

    model = torchvision.models.resnet18(weights=None)
    model.fc = nn.Identity()
    expected = "pixels conv1 bn1 relu maxpool layer1.0 layer1 layer2.0 layer2 layer3.0 layer3 layer4.0 layer4"
    assert names(model, 64) == [*expected.split(), "avgpool", "features"]
    prefix, _ = cut(model, "layer3.1", (3, 64, 64))  # the inner name means the same place
    assert set(prefix.state_dict()) == set(cut(model, "layer3", (3, 64, 64))[0].state_dict())


def test_features_is_the_output_also_where_a_module_in_the_middle_has_that_name():
    model = tiny("torchvision/squeezenet1_1")
    assert "features.12" in names(model, 64)
    assert cut_points(model, (3, 64, 64))[-1].shape == (512,)


@pytest.mark.parametrize(
    ("name", "stages"),
    [
        ("timm/test_resnet", ["maxpool", "layer1", "layer2", "layer3", "layer4"]),
        ("timm/test_vit", ["patch_embed", *(f"blocks.{i}" for i in range(6))]),
        ("timm/test_convnext", ["stem", "stages.0", "stages.1", "stages.2", "stages.3"]),
        ("timm/test_efficientnet", ["bn1", *(f"blocks.{i}" for i in range(5))]),
        ("torchvision/mobilenet_v3_small", [f"features.{i}" for i in range(13)]),
    ],
)
def test_stage_cuts_are_the_stem_and_the_stages(name, stages):
    side = IMAGE_SIDE[name]
    assert stage_cuts(tiny(name), (3, side, side)) == stages


def test_an_unknown_cut_names_the_nearest_and_where_they_are_listed():
    model = tiny("timm/test_resnet")
    with pytest.raises(UsageError, match=r"no cut 'layer9'. Did you mean 'layer\d'\? `transfer backbones test_resnet`"):
        cut(model, "layer9", (3, 64, 64))


def test_an_image_size_that_the_backbone_refuses_is_named():
    with pytest.raises(UsageError, match="VisionTransformer does not run on images of 3×50×50") as caught:
        cut_points(tiny("timm/test_vit"), (3, 50, 50))
    assert "\n" not in str(caught.value)


# --- numbers ----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def alexnet() -> nn.Module:
    with torch.device("meta"):
        model = torchvision_backbone("alexnet")
    model = model.to_empty(device="cpu").eval()
    for parameter in model.parameters():  # 57 million, for which the usual ways of drawing them take a second
        nn.init.uniform_(parameter, -0.03, 0.03)
    return model


def test_alexnet_has_its_known_multiply_adds_and_receptive_fields(alexnet):
    points = {point.name: point for point in cut_points(alexnet)}
    classifier = 4096 * 1000  # the layer that a backbone lacks
    assert points[PIXELS].multiply_adds_right + classifier == 714_188_480
    layers = ["features.0", "features.2", "features.3", "features.5", "features.6", "features.8", "features.10"]
    assert [points[layer].receptive_field for layer in layers] == [11, 19, 51, 67, 99, 131, 163]
    assert points["features.12"].receptive_field == 195
    assert points["classifier.1"].receptive_field is None
    assert points["features.12"].shape == (256, 6, 6)
    assert points["features.12"].cache_bytes == 2 * 256 * 6 * 6


def test_resnet18_has_its_known_multiply_adds_and_receptive_field():
    import torchvision

    with torch.device("meta"):
        model = torchvision.models.resnet18(weights=None)
        model.fc = nn.Identity()
    points = {point.name: point for point in cut_points(model)}
    assert points[PIXELS].multiply_adds_right + 512 * 1000 == 1_814_073_344
    expected = {"conv1": 7, "maxpool": 11, "layer1": 43, "layer2": 99, "layer3": 211, "layer4": 435}
    assert {name: points[name].receptive_field for name in expected} == expected
    assert points["avgpool"].receptive_field is None


def test_the_receptive_field_is_the_patch_from_which_gradient_arrives():
    layers = nn.Sequential(
        nn.Conv2d(3, 4, 5, stride=2, padding=2),
        nn.Conv2d(4, 4, 3, dilation=2, padding=2),
        nn.AvgPool2d(3, stride=2),
        nn.Conv2d(4, 4, 3, groups=4),
        nn.Flatten(),
    )
    model = Recipe(lambda self, x: self.layers(x), layers=layers)
    for name in ("layers.0", "layers.1", "layers.2", "layers.3"):
        point = next(point for point in cut_points(model, (3, 65, 65)) if point.name == name)
        x = torch.zeros(1, 3, 65, 65, requires_grad=True)
        depth = int(name[-1]) + 1
        for layer in layers[:depth]:
            if isinstance(layer, nn.Conv2d):
                nn.init.ones_(layer.weight)
        out = layers[:depth](x)
        (gradient,) = torch.autograd.grad(out[0, 0, out.shape[2] // 2, out.shape[3] // 2], x)
        rows = gradient.abs().sum((0, 1, 3)).nonzero().flatten()
        assert point.receptive_field == int(rows[-1] - rows[0]) + 1


def test_attention_products_count_as_multiply_adds_and_see_the_whole_image():
    model = tiny("timm/test_vit")
    points = {point.name: point for point in cut_points(model, (3, 160, 160))}
    width, n_tokens = points["blocks.0"].shape[1], points["blocks.0"].shape[0]
    hidden = model.blocks[1].mlp.fc1.out_features
    linear = n_tokens * (width * 3 * width + width * width + 2 * width * hidden)
    attention = 2 * n_tokens * n_tokens * width
    assert points["blocks.1"].multiply_adds_left - points["blocks.0"].multiply_adds_left == linear + attention
    assert points["patch_embed"].receptive_field == 16
    assert points["blocks.0"].receptive_field is None


# --- training the suffix ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "at", "settings"),
    [
        ("timm/test_efficientnet", "blocks.1", {"drop_rate": 0.5, "drop_path_rate": 0.5}),
        ("timm/test_vit", "blocks.1", {"drop_rate": 0.5, "drop_path_rate": 0.5, "attn_drop_rate": 0.5}),
        ("torchvision/mobilenet_v3_small", "features.3", {}),
    ],
)
def test_the_suffix_drops_in_training_as_the_backbone_does_and_not_in_eval(name, at, settings):
    model, side = backbone(name, **settings), IMAGE_SIDE[name]
    x = images(side, 4)
    with torch.no_grad():
        expected = model(x)
        prefix, suffix = cut(model, at, (3, side, side))
        state = copy.deepcopy(model.state_dict())

        model.train()  # then the layers of the prefix back to eval: the two parts share them with the backbone
        prefix.eval()
        torch.manual_seed(7)
        trained = model(x)
        model.load_state_dict(state)  # batch norm has moved
        suffix.train()
        assert suffix.training
        torch.manual_seed(7)
        assert torch.equal(suffix(prefix(x)), trained)
        model.load_state_dict(state)
        torch.manual_seed(8)
        assert not torch.equal(suffix(prefix(x)), trained)
        model.load_state_dict(state)

        suffix.eval()
        assert torch.equal(suffix(prefix(x)), expected)


def test_functional_dropout_follows_the_mode_of_the_suffix():
    class Dropping(Recipe):
        def forward(self, x):
            return nn.functional.dropout(self.late(self.conv(x)).mean((2, 3)), 0.5, training=self.training)

    model = Dropping(len, conv=nn.Conv2d(3, 8, 3), late=nn.Conv2d(8, 64, 3)).eval()
    _, suffix = cut(model, "conv", (3, 16, 16))
    activation = torch.randn(2, 8, 14, 14)
    assert (suffix.eval()(activation) != 0).all()
    dropped = suffix.train()(activation)
    assert 0.2 < (dropped == 0).float().mean() < 0.8
    kept = dropped != 0
    assert torch.allclose(dropped[kept], 2 * suffix.eval()(activation)[kept])


def test_a_backbone_that_takes_another_path_in_training_is_cut_at_its_ends_only():
    class TwoPaths(Recipe):
        def forward(self, x):
            x = self.conv(x)
            if self.training:
                x = x + torch.randn_like(x)
            return x.mean((2, 3))

    model = TwoPaths(len, conv=nn.Conv2d(3, 8, 3)).eval()
    assert names(model) == [PIXELS, FEATURES]
    assert trace(model, (3, 16, 16)).why_opaque == "its forward pass takes another path in training"


def test_gradient_flows_to_the_suffix_only():
    model = backbone("timm/test_resnet")
    prefix, suffix = cut(model, "layer2", (3, 64, 64))
    suffix.train()
    suffix(prefix(images(64))).square().sum().backward()
    assert all(parameter.grad is None for parameter in prefix.parameters())
    assert all(parameter.grad is not None for parameter in suffix.parameters())


def test_what_the_suffix_learns_the_backbone_knows():
    model = backbone("timm/test_resnet")
    prefix, suffix = cut(model, "layer2", (3, 64, 64))
    x = images(64)
    before = model(x)
    optimiser = torch.optim.SGD(suffix.parameters(), lr=0.1)
    suffix(prefix(x)).square().mean().backward()
    optimiser.step()
    with torch.no_grad():
        assert not torch.equal(model(x), before)
        assert torch.equal(suffix(prefix(x)), model(x))


def test_the_prefix_stays_in_eval_mode():
    model = backbone("timm/test_resnet").train()
    prefix, suffix = cut(model, "layer2", (3, 64, 64))
    assert suffix.training
    prefix.train()
    assert not any(module.training for module in prefix.modules())
    statistics = {name: tensor.clone() for name, tensor in prefix.state_dict().items()}
    prefix(images(64))
    assert all(torch.equal(tensor, statistics[name]) for name, tensor in prefix.state_dict().items())


def test_an_activation_that_both_sides_use_has_a_mode_on_each():
    model = Recipe(
        lambda self, x: self.drop(self.late(self.drop(self.early(x)))).mean((2, 3)),
        early=nn.Conv2d(3, 8, 3),
        late=nn.Conv2d(8, 8, 3),
        middle=nn.Identity(),
        drop=nn.Dropout(0.5),
    ).eval()
    x = images(16)
    prefix, suffix = cut(model, "late", (3, 16, 16))
    suffix.train()
    assert torch.equal(prefix(x), prefix(x))
    assert not torch.equal(suffix(prefix(x)), suffix(prefix(x)))


def test_a_copied_suffix_is_a_suffix_of_its_own():
    model = tiny("timm/test_vit")
    prefix, suffix = cut(model, "blocks.2", (3, 160, 160))
    copied = copy.deepcopy(suffix)
    with torch.no_grad():
        crossing = prefix(images(160))
        assert torch.equal(copied(crossing), suffix(crossing))
        assert copied.state_dict().keys() == suffix.state_dict().keys()
        next(copied.parameters()).add_(1)
        assert not torch.equal(copied(crossing), suffix(crossing))


# --- awkward backbones ------------------------------------------------------------------------------------------------


def test_a_place_past_which_a_shortcut_runs_is_not_a_cut():
    def forward(self, x):
        x = self.first(x)
        return (x + self.second(x)).mean((2, 3))

    model = Recipe(forward, first=nn.Conv2d(3, 8, 1), second=nn.Conv2d(8, 8, 1))
    assert names(model) == [PIXELS, "first", FEATURES]


def test_sizes_taken_from_the_image_are_read_from_the_crossing_tensor():
    def forward(self, x):
        n, _, height, width = x.shape
        x = self.second(self.first(x))
        return x.reshape(n, 8, height * width).mean(2)

    model = Recipe(forward, first=nn.Conv2d(3, 8, 1), second=nn.Conv2d(8, 8, 1))
    assert names(model) == [PIXELS, "first", "second", FEATURES]
    prefix, suffix = cut(model, "first", (3, 16, 16))
    for shape in ((1, 3, 16, 16), (7, 3, 16, 16), (2, 3, 24, 40)):
        x = torch.randn(shape)
        assert torch.equal(suffix(prefix(x)), model(x))


def test_sizes_that_the_crossing_tensor_has_lost_are_kept_as_numbers():
    def forward(self, x):
        height, width = x.shape[2:]
        x = self.tokens(self.patches(x).flatten(2))
        return x.reshape(x.shape[0], 8, height // 4, width // 4).mean((2, 3))

    model = Recipe(forward, patches=nn.Conv2d(3, 8, 4, 4), tokens=nn.ReLU())
    prefix, suffix = cut(model, "tokens", (3, 16, 32))
    x = torch.randn(5, 3, 16, 32)
    assert torch.equal(suffix(prefix(x)), model(x))


@pytest.mark.parametrize(
    ("name", "at", "side"), [("timm/test_resnet", "layer2", 96), ("timm/test_convnext", "stem", 128)]
)
@torch.no_grad()
def test_a_cut_works_at_another_image_size_where_the_backbone_does(name, at, side):
    model = tiny(name)
    prefix, suffix = cut(model, at, (3, 64, 64))
    x = images(side)
    assert torch.equal(suffix(prefix(x)), model(x))


def test_a_layer_used_on_both_sides_of_a_place_forbids_the_cut():
    def forward(self, x):
        x = self.shared(self.first(x))
        x = self.second(x)
        return self.shared(x).mean((2, 3))

    model = Recipe(
        forward, first=nn.Conv2d(3, 8, 1), second=nn.Conv2d(8, 8, 1), shared=nn.Conv2d(8, 8, 1), unused=nn.Linear(2, 2)
    )
    assert names(model) == [PIXELS, "first", FEATURES]
    prefix, suffix = cut(model, "first", (3, 16, 16))
    assert set(prefix.state_dict()) == {"first.weight", "first.bias", "unused.weight", "unused.bias"}
    assert set(suffix.state_dict()) == {"second.weight", "second.bias", "shared.weight", "shared.bias"}


def test_buffers_keep_out_of_the_state_dict_where_they_were_out_of_it():
    class Offset(Recipe):
        def __init__(self):
            super().__init__(len, conv=nn.Conv2d(3, 4, 1), late=nn.Conv2d(4, 4, 1))
            self.register_buffer("kept", torch.ones(4))
            self.register_buffer("transient", torch.ones(4), persistent=False)
            self.scale = nn.Parameter(torch.ones(4))

        def forward(self, x):
            x = self.late(self.conv(x)).mean((2, 3))
            return x * self.scale + self.kept + self.transient + torch.tensor([2.0])

    model = Offset()
    prefix, suffix = cut(model, "conv", (3, 16, 16))
    expected = {"late.weight", "late.bias", "scale", "kept"}
    assert set(suffix.state_dict()) == expected
    assert set(copy.deepcopy(suffix).state_dict()) == expected
    assert set(prefix.state_dict()) | expected == set(model.state_dict())
    x = images(16)
    assert torch.equal(suffix(prefix(x)), model(x))


def test_a_module_that_cannot_be_looked_into_is_kept_whole():
    class Branching(nn.Module):
        def forward(self, x):
            return x if x.sum() > 0 else -x

    model = Recipe(lambda self, x: self.late(self.branch(self.conv(x))).mean((2, 3)), conv=nn.Conv2d(3, 8, 1))
    model.branch, model.late = Branching(), nn.Conv2d(8, 8, 1)
    x = images(16)
    for at in ("conv", "branch", "late"):
        prefix, suffix = cut(model, at, (3, 16, 16))
        assert torch.equal(suffix(prefix(x)), model(x))
        assert torch.equal(suffix(prefix(-x)), model(-x))


def test_a_backbone_that_cannot_be_traced_has_its_pixels_and_its_features():
    def forward(self, x):
        x = self.conv(x)
        return (x if x.sum() > 0 else -x).mean((2, 3))

    model = Recipe(forward, conv=nn.Conv2d(3, 8, 3)).eval()
    points = cut_points(model, (3, 16, 16))
    assert [point.name for point in points] == [PIXELS, FEATURES]
    assert points[1].shape == (8,)
    assert points[0].multiply_adds_right == points[1].multiply_adds_left == 8 * 14 * 14 * 27
    x = images(16)
    for point in points:
        prefix, suffix = cut(model, point.name, (3, 16, 16))
        assert torch.equal(suffix(prefix(x)), model(x))
    with pytest.raises(UsageError, match="cannot be traced"):
        cut(model, "conv", (3, 16, 16))
    assert tap_names(model, (3, 16, 16)) == [FEATURES]
    assert torch.equal(read_taps(model, [FEATURES], (3, 16, 16))(x)[FEATURES], model(x))


# --- tracing ----------------------------------------------------------------------------------------------------------


def test_a_backbone_is_traced_once_and_again_when_its_layers_change():
    model = backbone("timm/test_resnet")
    first = trace(model, (3, 64, 64))
    cut(model, "layer2", (3, 64, 64))
    assert trace(model, (3, 64, 64)) is first
    model.layer4 = nn.Identity()
    assert "layer4" not in names(model, 64)


def test_tracing_leaves_the_backbone_as_it_was():
    model = backbone("timm/test_vit").train()
    model.blocks[0].eval()
    modes = [module.training for module in model.modules()]
    attributes = set(vars(model))
    state = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    trace(model, (3, 160, 160))
    assert [module.training for module in model.modules()] == modes
    assert set(vars(model)) == attributes
    assert all(torch.equal(tensor, state[name]) for name, tensor in model.state_dict().items())


def test_a_backbone_is_traced_in_inference_mode_as_it_is_outside():
    with torch.inference_mode():
        inside = trace(backbone("timm/test_resnet"), (3, 64, 64))
    assert inside.why_opaque == ""
    assert inside.points == cut_points(tiny("timm/test_resnet"), (3, 64, 64))


def test_a_trace_does_not_keep_its_backbone_alive():
    model = backbone("timm/test_resnet")
    trace(model, (3, 64, 64))
    gone = weakref.ref(model)
    del model
    gc.collect()
    assert gone() is None


# --- taps -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["timm/test_efficientnet", "timm/test_vit", "torchvision/squeezenet1_1"])
@torch.no_grad()
def test_all_taps_read_in_one_pass_are_what_hooks_see(name):
    model, side = tiny(name), IMAGE_SIDE[name]
    x = images(side)
    seen: dict[str, torch.Tensor] = {}
    calls: list[str] = []
    for path, module in model.named_modules():

        def keep(module, args, out, path=path):
            calls.append(path)
            seen[path] = out.clone() if isinstance(out, torch.Tensor) else out

        if path:
            module.register_forward_hook(keep)
    expected = model(x)
    for module in model.modules():
        module._forward_hooks.clear()

    taps = tap_names(model, (3, side, side))
    values = read_taps(model, taps, (3, side, side))(x)
    assert list(values) == taps
    assert torch.equal(values[FEATURES], expected)
    comparable = [tap for tap in taps if tap != FEATURES and calls.count(tap) == 1]
    assert len(comparable) > 20
    for tap in comparable:
        assert torch.equal(values[tap], seen[tap]), tap


@torch.no_grad()
def test_alexnets_second_layer_is_read_before_and_after_its_activation(alexnet):
    taps = read_taps(alexnet, ["classifier.4", "classifier.5", "classifier.1"], (3, 96, 96))
    values = taps(images(96))
    assert values["classifier.4"].min() < 0
    assert torch.equal(values["classifier.4"].relu(), values["classifier.5"])
    assert torch.equal(values["classifier.5"], alexnet(images(96)))
    assert not taps.training


def test_a_tap_computes_no_more_than_it_needs():
    model = tiny("timm/test_resnet")
    taps = read_taps(model, ["layer2"], (3, 64, 64))
    assert not any(name.startswith(("layer3", "layer4")) for name in taps.state_dict())


def test_an_unknown_tap_names_the_nearest():
    with pytest.raises(UsageError, match=r"no tap 'layer2.0.bn9'. Did you mean 'layer2.0.bn\d'"):
        read_taps(tiny("timm/test_resnet"), ["layer2.0.bn9"], (3, 64, 64))


# --- the names of papers, and taps before the activation --------------------------------------------------------------


@torch.no_grad()
def test_alexnets_layers_have_the_names_of_the_papers_before_and_after_their_activation(alexnet):
    names = ["pool5", "fc6", "fc7"]
    own = ["features.12", "classifier.2", "classifier.5", "classifier.1", "classifier.4", "features.10"]
    wanted = [*names, *(f"{name}.pre" for name in names), "conv5.pre", *own]
    values = read_taps(alexnet, wanted, (3, 96, 96))(images(96))
    for name, path in (("pool5", own[0]), ("fc6", own[1]), ("fc7", own[2]), ("fc6.pre", own[3]), ("fc7.pre", own[4])):
        assert torch.equal(values[name], values[path]), name
    assert torch.equal(values["conv5.pre"], values["features.10"])
    for name in names:  # also behind a max pool, which lets a ReLU through
        assert values[f"{name}.pre"].min() < 0
        assert torch.equal(values[f"{name}.pre"].relu(), values[name])
    assert tap_names(alexnet, (3, 96, 96))[-3:] == ["fc6", "fc7", FEATURES]


def test_other_networks_have_no_names_of_papers():
    assert "fc6" not in tap_names(tiny("timm/test_resnet"), (3, 64, 64))
    with pytest.raises(UsageError, match="no tap 'fc6'"):
        read_taps(tiny("timm/test_resnet"), ["fc6"], (3, 64, 64))


@torch.no_grad()
def test_features_before_the_activation_are_pooled_as_features_are():
    model, x = tiny("timm/test_resnet"), images(64)
    before: list[torch.Tensor] = []
    last = [module for module in model.layer4.modules() if isinstance(module, nn.ReLU)][-1]
    handle = last.register_forward_pre_hook(lambda module, args: before.append(args[0].clone()))
    expected = model(x)
    handle.remove()
    values = read_taps(model, ["features.pre", FEATURES], (3, 64, 64))(x)
    assert torch.equal(values["features.pre"], before[0].mean((2, 3)))
    assert torch.equal(values[FEATURES], expected)
    assert not torch.equal(values["features.pre"], expected)


@torch.no_grad()
def test_the_activation_inside_a_normalisation_is_taken_out_for_its_tap_alone():
    model, x = tiny("timm/test_efficientnet"), images(64)
    expected, state = model(x), set(model.state_dict())
    values = read_taps(model, ["features.pre", "bn2", "bn2.pre"], (3, 64, 64))(x)
    assert torch.allclose(model.bn2.act(values["bn2.pre"].clone()), values["bn2"])
    assert torch.allclose(values["features.pre"], values["bn2.pre"].mean((2, 3)), atol=1e-6)
    assert not torch.equal(values["bn2.pre"], values["bn2"])
    assert torch.equal(model(x), expected)
    assert set(model.state_dict()) == state


@torch.no_grad()
def test_maps_that_were_joined_are_read_before_the_activation_of_each():
    model, x = tiny("torchvision/squeezenet1_1"), images(64)
    wanted = ["features.12.pre", "features.12.expand1x1", "features.12.expand3x3"]
    values = read_taps(model, wanted, (3, 64, 64))(x)
    parts = [values["features.12.expand1x1"], values["features.12.expand3x3"]]
    assert torch.equal(values["features.12.pre"], torch.cat(parts, 1))


@torch.no_grad()
def test_the_heads_of_timm_are_passed_through():
    import timm

    model = timm.create_model("repvgg_a0", num_classes=0).eval()
    values = read_taps(model, ["features.pre", FEATURES, "stages.pre"], (3, 64, 64))(images(64))
    assert torch.allclose(values["features.pre"], values["stages.pre"].mean((2, 3)), atol=1e-6)
    assert not torch.equal(values["features.pre"], values[FEATURES])


@torch.no_grad()
@pytest.mark.parametrize("act", [nn.ReLU(inplace=True), nn.SiLU(), nn.GELU(), nn.Hardswish(inplace=True)])
def test_a_value_is_read_before_an_activation_of_any_kind_also_one_in_place(act):
    model = Recipe(
        lambda self, x: torch.flatten(self.act(self.conv(x)), 1), conv=nn.Conv2d(3, 4, 16), act=copy.deepcopy(act)
    )
    x = images(16)
    values = read_taps(model, ["features.pre", FEATURES, "conv"], (3, 16, 16))(x)
    assert torch.equal(values["features.pre"], model.conv(x).flatten(1))
    assert torch.equal(values["conv"].flatten(1), values["features.pre"])
    assert torch.equal(values[FEATURES], model(x))


@pytest.mark.parametrize(
    ("name", "tap", "obstacle"),
    [
        ("timm/test_vit", FEATURES, r"(an operation \(layer_norm\)|norm \(LayerNorm\))"),  # by timm's version
        ("timm/test_resnet", "layer2.0.conv1", r"layer2.0.conv1 \(Conv2d\)"),
    ],
)
def test_a_tap_that_is_behind_no_activation_is_refused(name, tap, obstacle):
    side = IMAGE_SIDE[name]
    with pytest.raises(UsageError, match=f"'{tap}' is not behind an activation.* {obstacle} comes first. Read '{tap}'"):
        read_taps(tiny(name), [f"{tap}.pre"], (3, side, side))


# --- the lecture's arithmetic -----------------------------------------------------------------------------------------


def test_the_lectures_worked_examples():
    assert output_size(32, 5, stride=1, pad=2) == 32  # 32x32x3, ten 5x5 filters: 32x32x10
    assert conv_parameters(3, 10, 5) == 760
    assert [output_size(7, 3, stride) for stride in (1, 2)] == [5, 3]
    assert output_size(227, 11, stride=4) == 55
    assert receptive_field([(3, 1)] * 3) == 7
    assert receptive_field([(11, 4), (3, 2), (5, 1)]) == 51
    with pytest.raises(
        UsageError, match=r"does not fit a width of 7: \(7 − 3 \+ 0\) / 3 \+ 1 = 2.33. Take stride 1 or 2"
    ):
        output_size(7, 3, stride=3)


@pytest.mark.parametrize(
    ("numbers", "message"),
    [((5, 7), "A filter of 7 does not fit into a width of 5"), ((7, 3, 0), "stride 0"), ((7, 3, 1, -1), "pad -1")],
)
def test_a_layer_that_cannot_be_is_refused(numbers, message):
    with pytest.raises(UsageError, match=message):
        output_size(*numbers)


def test_the_arithmetic_gives_the_layers_of_alexnet(alexnet):
    rows = {layer.paper_name: layer for layer in layers(alexnet)}
    assert [name for name in rows if name] == (
        ["conv1", "pool1", "conv2", "pool2", "conv3", "conv4", "conv5", "pool5", "fc6", "fc7"]
    )
    side, channels, field = 224, 3, []
    for name, filters, kernel, stride, pad in (
        ("conv1", 64, 11, 4, 2),
        ("pool1", 64, 3, 2, 0),
        ("conv2", 192, 5, 1, 2),
        ("pool2", 192, 3, 2, 0),
        ("conv3", 384, 3, 1, 1),
        ("conv4", 256, 3, 1, 1),
        ("conv5", 256, 3, 1, 1),
        ("pool5", 256, 3, 2, 0),
    ):
        row = rows[name]
        if name == "conv1":
            with pytest.raises(UsageError, match="does not fit"):
                output_size(side, kernel, stride, pad)
            assert not row.fits
            side = 55  # torch rounds down
        else:
            assert row.fits
            side = output_size(side, kernel, stride, pad)
        field.append((kernel, stride))
        assert row.shape == (filters, side, side)
        assert row.receptive_field == receptive_field(field)
        if name.startswith("conv"):
            assert row.parameters == conv_parameters(channels, filters, kernel)
            assert row.multiply_adds == conv_multiply_adds(channels, filters, kernel, side)
        channels = filters
    assert rows["conv1"].kind == "conv 11x11, stride 4, pad 2"
    assert rows["fc6"].parameters == linear_parameters(256 * 6 * 6, 4096)
    assert rows["fc6"].receptive_field is None
    assert sum(row.parameters for row in layers(alexnet)) + linear_parameters(4096, 1000) == 61_100_840


@pytest.mark.parametrize(
    "name",
    ["timm/test_resnet", "timm/test_vit", "timm/test_convnext", "timm/test_efficientnet", "torchvision/squeezenet1_1"],
)
def test_layers_have_all_parameters_and_multiply_adds_and_the_shapes_that_hooks_see(name):
    model, side = tiny(name), IMAGE_SIDE[name]
    rows = layers(model, (3, side, side))
    seen: dict[str, tuple[int, ...]] = {}
    handles = []
    for path, module in model.named_modules():

        def keep(module, args, out, path=path):
            seen[path] = tuple(out.shape[1:])

        handles.append(module.register_forward_hook(keep))
    with torch.no_grad():
        model(images(side))
    for handle in handles:
        handle.remove()
    assert sum(row.parameters for row in rows) == sum(parameter.numel() for parameter in model.parameters())
    assert sum(row.multiply_adds for row in rows) == cut_points(model, (3, side, side))[0].multiply_adds_right
    leaves = {path for path, module in model.named_modules() if not list(module.children())}
    checked = [row for row in rows if row.name in seen.keys() & leaves]  # a function has the name of what it is in
    assert len(checked) >= 10
    for row in checked:
        assert row.shape == seen[row.name], row


def test_kinds_say_what_a_layer_does_and_activations_are_left_out():
    kinds = {layer.name: layer.kind for layer in layers(tiny("timm/test_efficientnet"), (3, 64, 64))}
    assert kinds["conv_stem"] == "conv 3x3, stride 2, pad 1"
    assert kinds["bn1"].startswith("batch norm, ")
    assert any(kind.startswith("depthwise conv") for kind in kinds.values())
    assert kinds["global_pool.pool"] == "average pool to 1x1"
    vit = {layer.name: layer.kind for layer in layers(tiny("timm/test_vit"), (3, 160, 160))}
    assert vit["pos_embed"] == "parameter"
    assert vit["blocks.0.attn"] == "attention"
    assert not [name for name in vit if "drop" in name or "act" in name]


def test_the_layers_of_a_backbone_that_cannot_be_traced_are_not_made_up():
    model = Recipe(lambda self, x: x.mean((2, 3)) if x.sum() > 0 else x.amax((2, 3)))
    with pytest.raises(UsageError, match="cannot be told apart: it cannot be traced"):
        layers(model, (3, 16, 16))
