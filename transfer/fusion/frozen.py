"""Frozen: a network that will not be trained, rewritten to run faster and compute the same.

BatchNorm is folded into the convolution before it. On the CPU the activation is then fused into the convolution's
oneDNN kernel and the weights are packed once. On two cores of a 2024 server CPU, EfficientNet-Lite0 in float32 went
from 108 to 212 images/s by this (`bench/extract.py` prints what it does here).
"""

from __future__ import annotations

import copy
import logging
from collections.abc import Callable

import torch
from torch import fx, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from transfer.fusion.rewriting import (
    clean,
    is_used_twice,
    normed_convolutions,
    padding_of,
    pads_like_tensorflow,
)

# The activations that oneDNN applies inside a convolution: module -> its name there, and its numbers.
_ACTIVATIONS: dict[type[nn.Module], Callable[[nn.Module], tuple[str, list[float]]]] = {
    nn.Identity: lambda _: ("none", []),
    nn.ReLU: lambda _: ("relu", []),
    nn.ReLU6: lambda _: ("hardtanh", [0.0, 6.0]),
    nn.SiLU: lambda _: ("swish", []),
    nn.Hardswish: lambda _: ("hardswish", []),
    nn.Sigmoid: lambda _: ("sigmoid", []),
    nn.Tanh: lambda _: ("tanh", []),
}
_NOTHING_IN_EVAL = (nn.Identity, nn.Dropout, nn.Dropout2d)
log = logging.getLogger(__name__)


def fuse(network: fx.GraphModule, example: torch.Tensor, dtype: torch.dtype = torch.float32) -> nn.Module:
    """Return a faster copy of a traced network in eval mode, for inputs of the example's shape except its first axis.

    Parameters
    ----------
    network
        A traced network, a prefix or a whole backbone; it is left as it was.
    example
        An input (N, 3, H, W) on the device where the copy shall run.
    dtype
        ``torch.float32`` or ``torch.bfloat16``. The copy takes and computes in this type.

    Notes
    -----
    Every rewrite is local and exact up to rounding. The result is compared with the original on the example, and
    thrown away where it differs by more than rounding explains.
    """
    fused = copy.deepcopy(network).eval().requires_grad_(False)
    with torch.inference_mode():
        expected = network(example)
        try:
            _rewrite(fused, example, dtype)
            if _close(fused(channels_last(example, dtype)), expected, dtype):
                return fused
        except (RuntimeError, NotImplementedError, AttributeError) as error:  # oneDNN's entries are torch's own affair
            log.debug("Not rewritten: %s", error)
    return copy.deepcopy(network).to(dtype).to(memory_format=torch.channels_last)


def _rewrite(network: fx.GraphModule, example: torch.Tensor, dtype: torch.dtype) -> None:
    _drop_what_eval_skips(network)
    _fold_batchnorm(network)
    if example.device.type == "cpu" and torch.backends.mkldnn.is_available():
        _record_shapes(network, example)
        network.to(dtype)
        _pack_convolutions(network)
    else:
        network.to(dtype).to(memory_format=torch.channels_last)


def channels_last(batch: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """Return an image batch (N, 3, H, W) in the type and memory layout that convolutions like best."""
    return batch.to(dtype=dtype, memory_format=torch.channels_last)


class PackedConvolution(nn.Module):
    """A convolution with its activation, as one oneDNN call on packed weights."""

    def __init__(self, convolution: nn.Conv2d, activation: tuple[str, list[float]], input_shape: list[int]) -> None:
        super().__init__()
        geometry = [list(convolution.padding), list(convolution.stride), list(convolution.dilation), convolution.groups]
        packed = torch.ops.mkldnn._reorder_convolution_weight(convolution.weight, *geometry, input_shape)
        self.call = (packed, convolution.bias, *geometry, *activation, "")

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return torch.ops.mkldnn._convolution_pointwise(images, *self.call)


def _drop_what_eval_skips(network: fx.GraphModule) -> None:
    modules = dict(network.named_modules())
    for node in network.graph.nodes:
        if node.op == "call_module" and type(modules[node.target]) in _NOTHING_IN_EVAL and len(node.args) == 1:
            node.replace_all_uses_with(node.args[0])
    clean(network)


def _fold_batchnorm(network: fx.GraphModule) -> None:
    for found in normed_convolutions(network):
        folded = fuse_conv_bn_eval(found.convolution, found.norm)
        _set_module(network, str(found.convolution_node.target), folded)
        after = nn.Sequential(*found.activations) if found.activations else nn.Identity()
        _set_module(network, str(found.norm_node.target), after)
    _flatten_sequentials(network)


def _flatten_sequentials(network: fx.GraphModule) -> None:
    """Show the parts of the Sequentials that folding has put in as nodes of their own."""
    modules = dict(network.named_modules())
    for node in list(network.graph.nodes):
        if node.op == "call_module" and type(modules[node.target]) is nn.Sequential:
            value = node.args[0]
            with network.graph.inserting_before(node):
                for name, _ in modules[node.target].named_children():
                    value = network.graph.call_module(f"{node.target}.{name}", (value,))
            node.replace_all_uses_with(value)
    clean(network)
    _drop_what_eval_skips(network)


def _record_shapes(network: fx.GraphModule, example: torch.Tensor) -> None:
    from torch.fx.passes.shape_prop import ShapeProp

    ShapeProp(network).propagate(example)


def _pack_convolutions(network: fx.GraphModule) -> None:
    modules = dict(network.named_modules())
    for node in list(network.graph.nodes):
        convolution = modules.get(node.target) if node.op == "call_module" else None
        if not isinstance(convolution, nn.Conv2d) or convolution.padding_mode != "zeros":
            continue
        if isinstance(convolution.padding, str) or is_used_twice(network, node.target):
            continue
        shape = [int(size) for size in node.args[0].meta["tensor_meta"].shape]
        if pads_like_tensorflow(convolution):
            convolution = _with_explicit_padding(convolution, shape)
        elif type(convolution) is not nn.Conv2d:
            continue
        last: fx.Node = node
        activation: tuple[str, list[float]] = ("none", [])
        following = next(iter(node.users)) if len(node.users) == 1 else None
        if following is not None and following.op == "call_module":
            after = modules[following.target]
            if type(after) in _ACTIVATIONS:
                last, activation = following, _ACTIVATIONS[type(after)](after)
        packed = f"packed_{node.target.replace('.', '_')}"
        network.add_module(packed, PackedConvolution(convolution, activation, shape))
        with network.graph.inserting_before(node):
            fused = network.graph.call_module(packed, node.args)
        fused.meta = dict(last.meta)
        last.replace_all_uses_with(fused)
    clean(network)


def _with_explicit_padding(convolution: nn.Conv2d, shape: list[int]) -> nn.Conv2d:
    """Return a plain convolution that equals a Conv2dSame at this input size.

    A kernel with a zero row and column in front, padded evenly, reads the same pixels as an input with one more row and
    column of zeros at its end, and saves the copy into a padded image, 16 % of EfficientNet-Lite0's time.
    """
    height, width = padding_of(convolution, shape[2:])
    in_front = [after - before for before, after in (height, width)]
    if any(extra and dilation != 1 for extra, dilation in zip(in_front, convolution.dilation, strict=True)):
        raise NotImplementedError("odd padding with dilation")
    plain = nn.Conv2d(1, 1, 1)
    plain.__dict__.update({name: value for name, value in convolution.__dict__.items() if not name.startswith("_")})
    plain.weight = nn.Parameter(nn.functional.pad(convolution.weight, (in_front[1], 0, in_front[0], 0)), False)
    plain.bias = convolution.bias
    plain.kernel_size = (plain.weight.shape[2], plain.weight.shape[3])
    plain.padding = (height[1], width[1])
    return plain


def _set_module(network: fx.GraphModule, target: str, module: nn.Module) -> None:
    parent, _, name = target.rpartition(".")
    setattr(network.get_submodule(parent), name, module)


def _close(got: object, expected: object, dtype: torch.dtype) -> bool:
    """Compare two outputs (a tensor or a dictionary of tensors) with the error that the type explains."""
    if isinstance(expected, dict):
        return all(_close(got[name], expected[name], dtype) for name in expected)  # type: ignore[index]
    assert isinstance(got, torch.Tensor)
    assert isinstance(expected, torch.Tensor)
    difference = (got.float() - expected).norm() / expected.norm().clamp_min(1e-12)
    return bool(difference < (1e-3 if dtype == torch.float32 else 0.1))
