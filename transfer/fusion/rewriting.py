"""Rewriting: what changing the graph of a traced network takes."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from torch import fx, nn

Padding = tuple[tuple[int, int], tuple[int, int]]  # (top, bottom), (left, right)


class NormedConvolution(NamedTuple):
    """A convolution whose output goes through a BatchNorm and nowhere else."""

    convolution_node: fx.Node
    norm_node: fx.Node
    convolution: nn.Conv2d
    norm: nn.BatchNorm2d
    activations: list[nn.Module]  # that the norm carries with it, as timm's BatchNormAct2d does


def normed_convolutions(network: fx.GraphModule) -> Iterator[NormedConvolution]:
    """Yield each convolution that can be one with the BatchNorm behind it."""
    modules = dict(network.named_modules())
    for node in list(network.graph.nodes):
        norm = modules.get(node.target) if node.op == "call_module" else None
        if not isinstance(norm, nn.BatchNorm2d) or norm.running_mean is None:
            continue
        before = node.args[0]
        convolution = modules.get(before.target) if before.op == "call_module" else None
        if not isinstance(convolution, nn.Conv2d) or len(before.users) > 1 or is_used_twice(network, before.target):
            continue
        if type(convolution) is not nn.Conv2d and not pads_like_tensorflow(convolution):
            continue  # a convolution that treats its weights first, such as weight standardisation
        yield NormedConvolution(before, node, convolution, norm, _after(norm))


def _after(norm: nn.Module) -> list[nn.Module]:
    steps = [getattr(norm, name, None) for name in ("drop", "act")]
    return [step for step in steps if isinstance(step, nn.Module) and type(step) is not nn.Identity]


def pads_like_tensorflow(convolution: nn.Conv2d) -> bool:
    """Tell timm's Conv2dSame, which computes its padding from the size of its input."""
    return type(convolution).__name__ == "Conv2dSame"


def padding_of(convolution: nn.Conv2d, size: Sequence[int]) -> Padding:
    """Return the zeros around an input of that height and width.

    TensorFlow's way pads an odd amount with one more at the end.
    """
    if not pads_like_tensorflow(convolution):
        assert not isinstance(convolution.padding, str)
        top, left = convolution.padding
        return (top, top), (left, left)
    amounts = [
        max((math.ceil(side / stride) - 1) * stride + (kernel - 1) * dilation + 1 - side, 0)
        for side, kernel, stride, dilation in zip(
            size, convolution.kernel_size, convolution.stride, convolution.dilation, strict=True
        )
    ]
    height, width = [(amount // 2, amount - amount // 2) for amount in amounts]
    return height, width


def is_used_twice(network: fx.GraphModule, target: str) -> bool:
    """Whether the module is called at more than one place."""
    return sum(node.op == "call_module" and node.target == target for node in network.graph.nodes) > 1


def clean(network: fx.GraphModule) -> None:
    """Drop what is no longer used and compile the graph anew."""
    network.graph.eliminate_dead_code()
    network.graph.lint()
    network.recompile()
    network.delete_all_unused_submodules()
