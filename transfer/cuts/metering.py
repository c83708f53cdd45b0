"""Meter: counts multiply-adds and follows receptive fields while a network runs.

The lecture's rule: a layer with kernel K and stride S sees K − 1 steps further than the layer before it, and its own
step is S times as long. A step is the distance in pixels between the centres of two neighbours in the map.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


@dataclass(frozen=True)
class Reach:
    """How far an activation sees: window and step in pixels (height, width), and the length of the channel axis."""

    window: tuple[int, int]
    step: tuple[int, int]
    channels: int


class Meter(TorchDispatchMode):
    """Counts in every operation of PyTorch's that runs, also inside modules that were not traced.

    A tensor that depends on the image has a ``_reach``, None where it is no patch of fixed size.
    """

    def __init__(self, image: torch.Tensor) -> None:
        super().__init__()
        self.multiply_adds = 0
        image._reach = Reach((1, 1), (1, 1), image.shape[1])  # type: ignore[attr-defined]

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        made = [value for value in tree_leaves(out) if isinstance(value, torch.Tensor)]
        seen = [value._reach for value in tree_leaves(args) if hasattr(value, "_reach")]
        if made:
            self.multiply_adds += _multiply_adds(func.overloadpacket.__name__, args, made[0])
        if made and seen:  # else it is computed from weights alone
            reach = _reach(func, args, made[0], seen)
            for tensor in made:
                tensor._reach = reach  # type: ignore[attr-defined]
        return out


def _multiply_adds(name: str, args: Any, out: torch.Tensor) -> int:
    if name == "convolution":
        image, kernel, transposed = args[0], args[1], args[6]
        return (image if transposed else out).numel() * kernel[0].numel()
    if name in ("mm", "bmm", "addmm", "baddbmm"):
        return out.numel() * args[-2 if name in ("mm", "bmm") else 1].shape[-1]
    if "scaled_dot_product" in name:
        query, key, value = args[:3]
        return query.shape[:-1].numel() * key.shape[-2] * (key.shape[-1] + value.shape[-1])
    return 0


# Operations after which each activation depends on the same pixels as before, beside those that PyTorch tags so.
# fmt: off
_POINTWISE = frozenset([
    "hardswish", "rsub", "native_dropout",
    "native_batch_norm", "_native_batch_norm_legit_no_training", "cudnn_batch_norm",
    "view", "_unsafe_view", "_reshape_alias", "permute", "transpose", "t", "squeeze", "unsqueeze", "expand", "alias",
    "clone", "detach", "_to_copy", "copy", "constant_pad_nd",
    "slice", "select", "split", "split_with_sizes", "chunk", "unbind",
])
# fmt: on


def _reach(func: Any, args: Any, out: torch.Tensor, seen: list[Reach | None]) -> Reach | None:
    """Return how far `out` sees, whose inputs have `seen` so much."""
    name = func.overloadpacket.__name__.rstrip("_")
    patches = [reach for reach in seen if reach is not None]
    if len(patches) < len(seen) or len({reach.step for reach in patches}) > 1:
        return None
    height, width = (max(reach.window[axis] for reach in patches) for axis in (0, 1))
    reach = replace(patches[0], window=(height, width))
    if name == "convolution" and not args[6]:
        return replace(_slide(reach, args[1].shape[2:], args[3], args[5]), channels=out.shape[1])
    if name in ("max_pool2d_with_indices", "avg_pool2d"):
        kernel = args[1]
        stride = args[2] if len(args) > 2 and args[2] else kernel
        dilation = args[4] if name.startswith("max") and len(args) > 4 else [1]
        return _slide(reach, kernel, stride, dilation)
    if name in ("mm", "addmm"):
        rows = args[-2] if name == "mm" else args[1]
        return replace(reach, channels=out.shape[-1]) if rows.shape[-1] == reach.channels else None
    if name == "native_layer_norm":
        return reach if list(args[1]) == [reach.channels] else None
    if name == "_adaptive_avg_pool2d":
        return reach if args[0].shape == out.shape else None
    if name == "cat":
        axis = args[1] if len(args) > 1 else 0
        wider = args[0][0].shape[axis] == reach.channels
        return replace(reach, channels=out.shape[axis]) if wider else reach
    return reach if torch.Tag.pointwise in func.tags or name in _POINTWISE else None


def _slide(reach: Reach, kernel: Any, stride: Any, dilation: Any) -> Reach:
    """Apply the lecture's rule to one layer, along height and width."""
    window, step = list(reach.window), list(reach.step)
    for axis in (0, 1):
        k, s, d = (numbers[axis % len(numbers)] for numbers in (kernel, stride, dilation))
        window[axis] += (k - 1) * d * step[axis]
        step[axis] *= s
    return Reach((window[0], window[1]), (step[0], step[1]), reach.channels)
