import pytest
import timm
import torch
import torchvision
from torch import nn

from transfer import cuts, fusion
from transfer.fusion import depthwise, frozen


def network(name: str) -> nn.Module:
    torch.manual_seed(0)
    if name.startswith("torchvision/"):
        model = torchvision.models.get_model(name.removeprefix("torchvision/"))
    else:
        model = timm.create_model(name, num_classes=0)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):  # as after training, where folding has something to fold
            module.running_mean.normal_(0, 0.1)
            module.running_var.uniform_(0.5, 1.5)
            module.weight.data.uniform_(0.5, 1.5)
            module.bias.data.normal_(0, 0.1)
    return model.eval()


def fused(model: nn.Module, example: torch.Tensor, dtype: torch.dtype = torch.float32) -> nn.Module:
    reader = cuts.read_taps(model, ["features"], tuple(example.shape[1:]))
    return fusion.fuse(reader, example, dtype)


@pytest.mark.parametrize("name", ["test_resnet", "test_efficientnet", "test_convnext", "test_vit"])
def test_the_fused_network_computes_the_same(name: str) -> None:
    model, example = network(name), torch.rand(2, 3, 96, 96) if name != "test_vit" else torch.rand(2, 3, 160, 160)
    images = torch.rand(5, *example.shape[1:])
    with torch.inference_mode():
        expected = model(images)
        got = fused(model, example)(fusion.channels_last(images, torch.float32))["features"]
    assert (got - expected).abs().max() < 1e-4 * expected.abs().max()


@pytest.mark.slow
@pytest.mark.parametrize(
    "name",
    [
        "tf_efficientnet_lite0",
        "mobilenetv3_small_100",
        "densenet121",
        "regnetx_002",
        "torchvision/alexnet",
        "torchvision/squeezenet1_1",
        "torchvision/vgg11",
        "torchvision/resnet18",
        "torchvision/mobilenet_v3_small",
    ],
)
def test_the_fused_network_computes_the_same_for_full_size_networks(name: str) -> None:
    model, images = network(name), torch.rand(3, 3, 224, 224)
    with torch.inference_mode():
        expected = model(images)
        got = fused(model, images[:2])(fusion.channels_last(images, torch.float32))["features"]
    assert (got - expected).abs().max() < 1e-4 * expected.abs().max()


def test_batchnorm_and_activation_are_really_fused() -> None:
    faster = fused(network("test_efficientnet"), torch.rand(2, 3, 64, 64))
    kinds = [type(module).__name__ for module in faster.modules()]
    assert not any("BatchNorm" in kind for kind in kinds)
    assert kinds.count("PackedConvolution") > 5


@pytest.mark.parametrize(("size", "kernel", "stride"), [(32, 3, 2), (33, 3, 2), (32, 5, 2), (31, 5, 2), (32, 3, 1)])
def test_tensorflow_padding_is_kept_at_odd_and_even_sizes(size: int, kernel: int, stride: int) -> None:
    from timm.layers import Conv2dSame

    torch.manual_seed(0)
    convolution = Conv2dSame(3, 4, kernel, stride)
    plain = frozen._with_explicit_padding(convolution, [1, 3, size, size])
    images = torch.rand(2, 3, size, size)
    torch.testing.assert_close(plain(images), convolution(images))


def test_the_original_is_left_as_it_was() -> None:
    model = network("test_resnet")
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    fused(model, torch.rand(2, 3, 64, 64))
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert all(parameter.requires_grad for parameter in model.parameters())


def test_bfloat16_stays_close() -> None:
    model, images = network("test_resnet"), torch.rand(2, 3, 64, 64)
    with torch.inference_mode():
        expected = model(images)
        got = fused(model, images, torch.bfloat16)(fusion.channels_last(images, torch.bfloat16))["features"].float()
    assert torch.cosine_similarity(got, expected).min() > 0.99


def test_a_rewrite_that_fails_leaves_the_plain_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def gone(*_: object) -> None:
        raise AttributeError("no such entry in this torch")

    model, images = network("test_resnet"), torch.rand(2, 3, 64, 64)
    monkeypatch.setattr(frozen, "_pack_convolutions", gone)
    with torch.inference_mode():
        torch.testing.assert_close(fused(model, images)(images)["features"], model(images), atol=1e-4, rtol=1e-4)


def test_a_rewrite_that_computes_something_else_is_thrown_away(monkeypatch: pytest.MonkeyPatch) -> None:
    model, images = network("test_resnet"), torch.rand(2, 3, 64, 64)
    monkeypatch.setattr(frozen, "fuse_conv_bn_eval", lambda convolution, norm: convolution)  # forgets the norm
    with torch.inference_mode():
        got = fused(model, images)(images)["features"]
        torch.testing.assert_close(got, model(images), atol=1e-4, rtol=1e-4)


def gradients(run: nn.Module, images: torch.Tensor, parameters: dict[str, nn.Parameter]) -> dict[str, torch.Tensor]:
    out = run(images)
    noise = torch.randn(out.shape, generator=torch.Generator().manual_seed(1))
    found = torch.autograd.grad((out * noise).sum(), list(parameters.values()))
    return dict(zip(parameters, found, strict=True))


@pytest.mark.parametrize("name", ["test_resnet", "test_efficientnet", "test_convnext"])
def test_a_folded_network_has_the_outputs_and_gradients_of_the_network(name: str) -> None:
    model = network(name).double()
    _, suffix = cuts.cut(model, "pixels", (3, 64, 64))
    folded, parameters = fusion.fold(suffix), dict(suffix.named_parameters())
    images = torch.rand(3, 3, 64, 64, dtype=torch.float64).contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(folded(images), model(images), atol=1e-9, rtol=1e-9)
    expected, got = gradients(suffix, images, parameters), gradients(folded, images, parameters)
    for path, gradient in expected.items():
        torch.testing.assert_close(got[path], gradient, atol=1e-7, rtol=1e-7, msg=path)


def test_a_folded_network_keeps_dropout_in_training() -> None:
    from timm.layers import BatchNormAct2d

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.convolution, self.norm = nn.Conv2d(3, 8, 3), BatchNormAct2d(8, drop_layer=nn.Dropout)

        def forward(self, images: torch.Tensor) -> torch.Tensor:
            return self.norm(self.convolution(images)).mean((2, 3))

    model, images = Net().eval(), torch.randn(2, 3, 8, 8)
    folded = fusion.fold(cuts.cut(model, "pixels", (3, 8, 8))[1])
    assert not any(isinstance(node.target, str) and "norm" in node.target for node in folded.graph.nodes)
    torch.testing.assert_close(folded(images), model(images))
    model.norm.drop.train()  # its statistics are frozen, its dropout is not
    assert not torch.equal(folded(images), folded(images))


def test_what_another_layer_sees_is_not_changed_by_folding() -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.convolution, self.act = nn.Conv2d(3, 8, 3), nn.ReLU(inplace=True)

        def forward(self, images: torch.Tensor) -> torch.Tensor:
            x = self.convolution(images)
            return (self.act(x) + x).mean((2, 3))  # in place: both are the rectified map

    model, images = Net(), torch.randn(2, 3, 8, 8)
    torch.testing.assert_close(fusion.fold(torch.fx.symbolic_trace(model))(images), model(images))


GEOMETRIES = [  # side, kernel, stride, padding
    (7, 3, 1, ((1, 1), (1, 1))),
    (7, 5, 1, ((2, 2), (2, 2))),
    (14, 5, 2, ((2, 2), (2, 2))),
    (14, 5, 2, ((1, 2), (1, 2))),  # as TensorFlow pads
    (15, 3, 2, ((1, 1), (1, 1))),
    (15, 3, 2, ((0, 1), (0, 1))),
    (9, 7, 1, ((3, 3), (3, 3))),
    (9, 4, 1, ((1, 2), (1, 2))),
    (12, 7, 3, ((0, 0), (0, 0))),  # rows and columns at the end that no kernel reaches
    (8, 2, 2, ((0, 0), (0, 0))),
    (9, (3, 5), (2, 1), ((1, 1), (2, 2))),
]


@pytest.mark.parametrize("geometry", GEOMETRIES, ids=str)
def test_depthwise_gradients_are_those_of_the_plain_convolution(geometry: tuple) -> None:
    side, kernel, stride, padding = geometry
    h, w = kernel if isinstance(kernel, tuple) else (kernel, kernel)
    stride = stride if isinstance(stride, tuple) else (stride, stride)
    torch.manual_seed(0)
    tensors = [torch.randn(3, 6, side, side + 1), torch.randn(6, 1, h, w), torch.randn(6)]
    tensors = [tensor.double().requires_grad_() for tensor in tensors]
    images, weight, bias = tensors
    around = (*padding[1], *padding[0])
    plain = nn.functional.conv2d(nn.functional.pad(images, around), weight, bias, stride, 0, 1, 6)
    ours = depthwise.depthwise_convolution(
        images.contiguous(memory_format=torch.channels_last), weight, bias, stride, padding
    )
    torch.testing.assert_close(ours, plain)
    noise = torch.randn_like(plain)
    for got, expected in zip(
        torch.autograd.grad(ours, tensors, noise), torch.autograd.grad(plain, tensors, noise), strict=True
    ):
        torch.testing.assert_close(got, expected)
