"""Gradients of depthwise convolutions on this CPU: torch's own against `transfer.fusion.depthwise`.

    python bench/depthwise.py [--batch 32]

For the depthwise layers of EfficientNet-Lite0, channels-last, in both types: milliseconds of a forward and a backward
pass, and the ratio.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable

import torch
from torch.nn import functional

from transfer import machine
from transfer.fusion.depthwise import depthwise_convolution

# channels, side, kernel, stride
LAYERS = [
    (32, 112, 3, 1),
    (96, 112, 3, 2),
    (144, 56, 3, 1),
    (144, 56, 5, 2),
    (240, 28, 5, 1),
    (240, 28, 3, 2),
    (480, 14, 3, 1),
    (480, 14, 5, 1),
    (672, 14, 5, 1),
    (672, 14, 5, 2),
    (1152, 7, 5, 1),
    (1152, 7, 3, 1),
]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch", type=int, default=32)
    arguments = parser.parse_args()
    machine.keep_memory()
    print(f"{machine.describe_processor()}, {machine.count_cores()} cores, torch {torch.__version__}")
    for dtype in (torch.float32, torch.bfloat16):
        for channels, side, kernel, stride in LAYERS:
            pad = kernel // 2
            images = torch.randn(arguments.batch, channels, side, side, dtype=dtype)
            images = images.contiguous(memory_format=torch.channels_last).requires_grad_()
            weight = torch.randn(channels, 1, kernel, kernel, dtype=dtype, requires_grad=True)
            bias = torch.zeros(channels, dtype=dtype, requires_grad=True)
            plain = _milliseconds(
                lambda i=images, w=weight, b=bias, s=stride, p=pad, c=channels: functional.conv2d(i, w, b, s, p, 1, c)
            )
            ours = _milliseconds(
                lambda i=images, w=weight, b=bias, s=stride, p=pad: depthwise_convolution(
                    i, w, b, (s, s), ((p, p), (p, p))
                )
            )
            what = f"{str(dtype)[6:]:9} {channels:5} x {side:3}, {kernel}x{kernel} / {stride}"
            print(f"{what}: torch {plain:6.1f} ms, ours {ours:6.1f} ms, ratio {plain / ours:5.1f}")


def _milliseconds(run: Callable[[], torch.Tensor], n: int = 5) -> float:
    out = run()
    gradient = torch.randn_like(out)
    out.backward(gradient)
    seconds = []
    for _ in range(n):
        started = time.perf_counter()
        run().backward(gradient)
        seconds.append(time.perf_counter() - started)
    return 1000 * min(seconds)


if __name__ == "__main__":
    main()
