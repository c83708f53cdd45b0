"""Folding: a network that is trained with frozen BatchNorm statistics, without the BatchNorms' own passes.

With its statistics frozen a BatchNorm is a factor and an offset for each channel. Both go into the kernel and the bias
of the convolution before it, in every step anew, so that gradients reach kernel, scale and offset as if it stood there.
"""

from __future__ import annotations

import copy

import torch
from torch import fx, nn
from torch.nn import functional

from transfer.fusion.depthwise import depthwise_convolution
from transfer.fusion.rewriting import clean, normed_convolutions, padding_of, pads_like_tensorflow


def fold(network: fx.GraphModule) -> fx.GraphModule:
    """Return a network that computes the same, in training too, with all BatchNorms frozen that follow a convolution.

    Both networks have the same parameters and buffers: what is trained in one is trained in the other. The one that is
    returned names them differently; take states from `network`.
    """
    folded = fx.GraphModule(network, copy.deepcopy(network.graph))
    for found in normed_convolutions(folded):
        if found.convolution.padding_mode != "zeros" or isinstance(found.convolution.padding, str):
            continue
        name = f"folded_{str(found.convolution_node.target).replace('.', '_')}"
        folded.add_module(name, FoldedConvolution(found.convolution, found.norm, found.activations))
        with folded.graph.inserting_before(found.norm_node):
            node = folded.graph.call_module(name, found.convolution_node.args)
        found.norm_node.replace_all_uses_with(node)
    for node in folded.graph.nodes:
        module = folded.get_submodule(str(node.target)) if node.op == "call_module" else None
        if isinstance(module, _ACTIVATIONS) and len(node.args[0].users) == 1:  # nobody else sees what it writes
            folded.add_module(f"plain_{node.name}", _out_of_place(module))
            node.target = f"plain_{node.name}"
    clean(folded)
    return folded


class FoldedConvolution(nn.Module):
    """A convolution, its BatchNorm with frozen statistics, and the activations that the norm carries with it."""

    def __init__(self, convolution: nn.Conv2d, norm: nn.BatchNorm2d, activations: list[nn.Module]) -> None:
        super().__init__()
        self.convolution, self.norm = convolution, norm
        self.activations = nn.Sequential(*map(_out_of_place, activations))
        self.is_depthwise = _is_depthwise(convolution)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        convolution = self.convolution
        if torch.is_autocast_enabled(images.device.type):
            images = images.to(torch.get_autocast_dtype(images.device.type))
        weight, bias = self._folded()
        weight, bias = weight.to(images.dtype), bias.to(images.dtype)
        height, width = padding_of(convolution, images.shape[2:])
        stride, dilation = convolution.stride, convolution.dilation
        if self.is_depthwise and images.device.type == "cpu":
            out = depthwise_convolution(images, weight, bias, stride, (height, width))
        else:
            if pads_like_tensorflow(convolution) and (height[0] != height[1] or width[0] != width[1]):
                images = functional.pad(images, (*width, *height))
                height = width = (0, 0)
            padding = height[0], width[0]
            out = functional.conv2d(images, weight, bias, stride, padding, dilation, convolution.groups)
        return self.activations(out)

    def _folded(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Return kernel and bias of one convolution that does both."""
        norm, convolution = self.norm, self.convolution
        assert norm.running_mean is not None
        assert norm.running_var is not None
        scale = torch.rsqrt(norm.running_var + norm.eps)
        if norm.affine:
            scale = scale * norm.weight
        bias = -norm.running_mean * scale
        if norm.affine:
            bias = bias + norm.bias
        if convolution.bias is not None:
            bias = bias + convolution.bias * scale
        return convolution.weight * scale[:, None, None, None], bias


def _is_depthwise(convolution: nn.Conv2d) -> bool:
    """Whether `depthwise_convolution` can compute it."""
    assert not isinstance(convolution.padding, str)
    has_one_each = convolution.in_channels == convolution.out_channels == convolution.groups
    is_padded_less = all(p < k for p, k in zip(convolution.padding, convolution.kernel_size, strict=True))
    return has_one_each and is_padded_less and convolution.dilation == (1, 1)


_ACTIVATIONS = (nn.ReLU, nn.ReLU6, nn.Hardtanh, nn.SiLU, nn.Hardswish, nn.Hardsigmoid, nn.ELU, nn.LeakyReLU, nn.Mish)


def _out_of_place(activation: nn.Module) -> nn.Module:
    """Return the activation as one that leaves its input alone.

    In training an activation in place saves no memory: its derivative needs the input, of which it keeps a copy.
    """
    if not isinstance(activation, _ACTIVATIONS):
        return activation  # the network's own, which follows it between train and eval mode
    plain = copy.copy(activation)
    plain.inplace = False
    return plain
