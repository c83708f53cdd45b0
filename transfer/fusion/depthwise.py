"""Depthwise: one kernel for each channel, with gradients that keep to what oneDNN is fast at on a CPU.

Its gradient for the kernel is fast for kernels up to 3 wide and 7 to 50 times slower beyond, its gradient for the image
is slow in bfloat16 with a stride (measured with torch 2.14, `bench/depthwise.py`). So a wider kernel's gradient is put
together from strips 3 wide, and the image's gradient with a stride is an ordinary convolution of the spread gradient.
"""

from __future__ import annotations

from typing import Any

import torch
from torch.nn import functional

from transfer.fusion.rewriting import Padding

_STRIP = 3  # columns of a kernel whose gradient is fast


def depthwise_convolution(
    images: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor, stride: tuple[int, ...], padding: Padding
) -> torch.Tensor:
    """Return the convolution of images (N, C, H, W) in channels-last memory with one kernel (C, 1, h, w) per channel.

    Parameters
    ----------
    padding
        Zeros around the image, ((top, bottom), (left, right)); of odd amounts one more at the end.
    """
    return _DepthwiseConvolution.apply(images, weight, bias, stride, padding)  # type: ignore[no-any-return]


class _DepthwiseConvolution(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        images: torch.Tensor,
        weight: torch.Tensor,
        bias: torch.Tensor,
        stride: tuple[int, ...],
        padding: Padding,
    ) -> torch.Tensor:
        ctx.save_for_backward(images, weight)
        ctx.stride, ctx.padding = stride, padding
        (top, bottom), (left, right) = padding
        if (top, left) != (bottom, right):  # zeros in front of the kernel for those at the end of the image
            weight = functional.pad(weight, (right - left, 0, bottom - top, 0))
        return functional.conv2d(images, weight, bias, stride, (bottom, right), 1, len(weight))

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        images, weight = ctx.saved_tensors
        needs_images, needs_weight, needs_bias, *_ = ctx.needs_input_grad
        gradient = gradient.contiguous(memory_format=torch.channels_last)
        return (
            _for_images(gradient, images, weight, ctx.stride, ctx.padding) if needs_images else None,
            _for_weight(gradient, images, weight, ctx.stride, ctx.padding) if needs_weight else None,
            gradient.sum((0, 2, 3)) if needs_bias else None,
            None,
            None,
        )


def _for_images(
    gradient: torch.Tensor, images: torch.Tensor, weight: torch.Tensor, stride: tuple[int, ...], padding: Padding
) -> torch.Tensor:
    (top, bottom), (left, right) = padding
    if tuple(stride) == (1, 1) and (top, left) == (bottom, right):
        return _backward(gradient, images, weight, stride, (top, left), for_images=True)
    n, channels, height, width = images.shape
    h, w = weight.shape[2:]
    spread = gradient.new_zeros((n, height + h - 1, width + w - 1, channels)).permute(0, 3, 1, 2)  # channels-last
    places = spread[:, :, h - 1 - top :: stride[0], w - 1 - left :: stride[1]]
    places[:, :, : gradient.shape[2], : gradient.shape[3]] = gradient
    return functional.conv2d(spread, weight.flip(2, 3), None, 1, 0, 1, channels)


def _for_weight(
    gradient: torch.Tensor, images: torch.Tensor, weight: torch.Tensor, stride: tuple[int, ...], padding: Padding
) -> torch.Tensor:
    (top, _), (left, _) = padding
    height, width = images.shape[2:]
    h, w = weight.shape[2:]
    out = torch.empty_like(weight)
    below = (gradient.shape[2] - 1) * stride[0] + h - height - top  # negative: rows that no kernel reaches
    for start in range(0, w, _STRIP):
        start = max(0, min(start, w - _STRIP))
        columns = slice(start, start + _STRIP)
        strip = weight[..., columns]
        before = left - start
        after = (gradient.shape[3] - 1) * stride[1] + strip.shape[3] - width - before
        if (top, before) == (below, after):
            seen, around = images, (top, before)
        else:
            seen, around = functional.pad(images, (before, after, top, below)), (0, 0)
        out[..., columns] = _backward(gradient, seen, strip, stride, around, for_images=False)
    return out


def _backward(
    gradient: torch.Tensor,
    images: torch.Tensor,
    weight: torch.Tensor,
    stride: tuple[int, ...],
    padding: tuple[int, int],
    *,
    for_images: bool,
) -> torch.Tensor:
    of_images, of_weight, _ = torch.ops.aten.convolution_backward(
        gradient,
        images,
        weight,
        None,
        list(stride),
        list(padding),
        [1, 1],
        False,
        [0, 0],
        len(weight),
        [for_images, not for_images, False],
    )
    return of_images if for_images else of_weight
