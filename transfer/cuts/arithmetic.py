"""Arithmetic: what a layer's numbers follow from, by the formulas of Stanford's CS231n (lecture on ConvNets)."""

from __future__ import annotations

from collections.abc import Iterable

from transfer.errors import UsageError


def output_size(width: int, kernel: int, stride: int = 1, pad: int = 0) -> int:
    """Return how often a filter fits along one side: (W − F + 2P) / S + 1.

    Frameworks round down where this is no whole number and leave the last pixels out; `layers` shows what they do.

    >>> output_size(32, 5, stride=1, pad=2), output_size(7, 3), output_size(7, 3, stride=2)
    (32, 5, 3)

    Raises
    ------
    UsageError
        It is no whole number, or the filter is larger than the padded side.
    """
    for name, value, least in (("width", width, 1), ("kernel", kernel, 1), ("stride", stride, 1), ("pad", pad, 0)):
        if value < least:
            raise UsageError(f"A layer with {name} {value} cannot be: give {least} or more.")
    room = width - kernel + 2 * pad
    formula = f"({width} − {kernel} + {2 * pad}) / {stride} + 1"
    if room < 0:
        raise UsageError(
            f"A filter of {kernel} does not fit into a width of {width} with pad {pad}: give a smaller filter or more "
            "padding."
        )
    if room % stride:
        fitting = [other for other in range(1, stride) if room % other == 0]
        raise UsageError(
            f"A filter of {kernel} with stride {stride} and pad {pad} does not fit a width of {width}: {formula} = "
            f"{room / stride + 1:.2f}. Take stride {' or '.join(map(str, fitting))}, or another pad."
        )
    return room // stride + 1


def conv_parameters(channels: int, filters: int, kernel: int, *, groups: int = 1, bias: bool = True) -> int:
    """Return the parameters of a convolution: (F · F · D + 1) · K, with D input channels and K filters.

    >>> conv_parameters(3, 10, 5)
    760
    """
    return (kernel * kernel * channels // groups + bias) * filters


def linear_parameters(inputs: int, outputs: int, *, bias: bool = True) -> int:
    """Return the parameters of a fully connected layer.

    >>> linear_parameters(4096, 1000)
    4097000
    """
    return (inputs + bias) * outputs


def conv_multiply_adds(channels: int, filters: int, kernel: int, output: int, *, groups: int = 1) -> int:
    """Return the multiply-adds of a convolution with a square output: F · F · D for each of K · W · W numbers.

    >>> conv_multiply_adds(3, 64, 11, 55)  # AlexNet's first layer in torchvision
    70276800
    """
    return kernel * kernel * channels // groups * filters * output * output


def receptive_field(layers: Iterable[tuple[int, int]]) -> int:
    """Return the side of the patch that one number sees: 1 + Σ (K − 1) · ∏ S, over (kernel, stride) of each layer.

    >>> receptive_field([(3, 1), (3, 1), (3, 1)])  # three 3x3 see as much as one 7x7
    7
    """
    field = step = 1
    for kernel, stride in layers:
        field += (kernel - 1) * step
        step *= stride
    return field
