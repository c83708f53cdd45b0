import pytest
import timm
import torch
import torchvision
from torch import nn

from transfer import cuts, fusion


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
    plain = fusion._with_explicit_padding(convolution, [1, 3, size, size])
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
    monkeypatch.setattr(fusion, "_pack_convolutions", gone)
    with torch.inference_mode():
        torch.testing.assert_close(fused(model, images)(images)["features"], model(images), atol=1e-4, rtol=1e-4)


def test_a_rewrite_that_computes_something_else_is_thrown_away(monkeypatch: pytest.MonkeyPatch) -> None:
    model, images = network("test_resnet"), torch.rand(2, 3, 64, 64)
    monkeypatch.setattr(fusion, "fuse_conv_bn_eval", lambda convolution, norm: convolution)  # forgets the norm
    with torch.inference_mode():
        got = fused(model, images)(images)["features"]
        torch.testing.assert_close(got, model(images), atol=1e-4, rtol=1e-4)
