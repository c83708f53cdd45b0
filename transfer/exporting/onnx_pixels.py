"""Pixels to input: the preprocessing of a backbone as an ONNX graph, step by step what `images.view` does.

ONNX's Resize smooths before it shrinks, as Pillow does. In ONNX Runtime 1.32 its 8-bit results are 0.006 grey levels
from Pillow's on average (bicubic, 22 photographs; 4 at most), 0.010 from `images.view`'s. Its weights at the edges are
other ones: where a side is below ten pixels, before or after, single pixels are off by up to 18 levels.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from transfer.images import LONGEST_ASPECT, Preprocessing

if TYPE_CHECKING:
    import onnx

_OUTPUT = "preprocessed"
# of a grid of ONNX's Resize, which has torch's and Pillow's two names for each
_RESIZE: dict[str, dict[str, Any]] = {
    "bicubic": {"mode": "cubic", "cubic_coeff_a": -0.5, "antialias": 1},
    "bilinear": {"mode": "linear", "antialias": 1},
    "nearest": {"mode": "nearest", "nearest_mode": "round_prefer_ceil"},
}


def pixels_to_input(
    preprocessing: Preprocessing, opset: int, ir_version: int, name: str, batch: str
) -> onnx.ModelProto:
    """Return a model from uint8 RGB (N, height, width, 3) to normalised float32 (N, 3, S, S).

    Parameters
    ----------
    name, batch
        Of its input, and of the input's first dimension.
    """
    from onnx import TensorProto, helper

    steps = _Steps()
    size = preprocessing.input_size
    image = steps.add("Transpose", name, perm=[0, 3, 1, 2])
    if preprocessing.crop_mode == "center":
        image = _without_far_ends(steps, image)
    image = _resized(steps, image, preprocessing)
    image = _centre(steps, steps.add("Cast", image, to=TensorProto.INT32), preprocessing)
    mean, std = (np.array(values, np.float32).reshape(3, 1, 1) for values in (preprocessing.mean, preprocessing.std))
    image = steps.add("Cast", image, to=TensorProto.FLOAT)
    image = steps.add("Mul", image, steps.constant(1 / (255 * std)))
    steps.add("Add", image, steps.constant(-mean / std), output=_OUTPUT)
    graph = helper.make_graph(
        steps.nodes,
        "preprocessing",
        [helper.make_tensor_value_info(name, TensorProto.UINT8, [batch, "height", "width", 3])],
        [helper.make_tensor_value_info(_OUTPUT, TensorProto.FLOAT, [batch, 3, size, size])],
        steps.constants,
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=ir_version)


class _Steps:
    """Nodes in their order, each with one output, and the constants that they use."""

    def __init__(self) -> None:
        self.nodes: list[Any] = []
        self.constants: list[Any] = []

    def add(self, kind: str, *inputs: str, output: str = "", **attributes: Any) -> str:
        from onnx import helper

        output = output or f"preprocessing_{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, inputs, [output], **attributes))
        return output

    def constant(self, value: np.ndarray) -> str:
        from onnx import numpy_helper

        name = f"preprocessing_constant_{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(np.ascontiguousarray(value), name))
        return name

    def integers(self, *values: int) -> str:
        return self.constant(np.array(values, np.int64))

    def joined(self, *parts: str) -> str:
        return self.add("Concat", *parts, axis=0)


def _without_far_ends(steps: _Steps, image: str) -> str:
    """`images.views._without_far_ends`: of what is longer than 8:1, the middle."""
    sides = steps.add("Shape", image, start=2)
    longest = steps.add("Mul", steps.add("ReduceMin", sides, keepdims=1), steps.integers(LONGEST_ASPECT))
    odd = steps.add("Mod", steps.add("Sub", sides, longest), steps.integers(2))
    kept = steps.add("Min", sides, steps.add("Add", longest, odd))
    start = steps.add("Div", steps.add("Sub", sides, kept), steps.integers(2))
    return steps.add("Slice", image, start, steps.add("Add", start, kept), steps.integers(2, 3))


def _resized(steps: _Steps, image: str, preprocessing: Preprocessing) -> str:
    from onnx import TensorProto

    sides = steps.add("Shape", image, start=2)
    size = steps.integers(preprocessing.resize_size)
    if preprocessing.crop_mode == "squash":
        shape = steps.joined(size, size)
    elif preprocessing.crop_mode == "border":  # the longer side to the size, both rounded, halves to the even number
        precise = [steps.add("Cast", each, to=TensorProto.DOUBLE) for each in (sides, size)]
        ratio = steps.add("Div", steps.add("ReduceMax", precise[0], keepdims=1), precise[1])
        rounded = steps.add("Round", steps.add("Div", precise[0], ratio))
        shape = steps.add("Max", steps.add("Cast", rounded, to=TensorProto.INT64), steps.integers(1))
    else:  # the shorter side to the size, the longer one truncated
        shorter = steps.add("ReduceMin", sides, keepdims=1)
        shape = steps.add("Div", steps.add("Mul", sides, size), shorter)
    first = steps.add("Shape", image, end=2)
    how = {"coordinate_transformation_mode": "half_pixel", **_RESIZE[preprocessing.interpolation]}
    return steps.add("Resize", image, "", "", steps.joined(first, shape), **how)


def _centre(steps: _Steps, image: str, preprocessing: Preprocessing) -> str:
    """`images.views._centre`: pad to the input size, black or in the colour of the mean, and crop."""
    from onnx import TensorProto

    size = steps.integers(preprocessing.input_size)
    sides = steps.add("Shape", image, start=2)
    lacking = steps.add("Max", steps.add("Sub", size, sides), steps.integers(0))
    before = steps.add("Div", lacking, steps.integers(2))
    pads = steps.joined(before, steps.add("Sub", lacking, before))
    is_border = preprocessing.crop_mode == "border"
    fill = [round(255 * value) if is_border else 0 for value in preprocessing.mean]
    colour = steps.constant(np.array(fill, np.int32).reshape(3, 1, 1))
    shifted = steps.add("Sub", image, colour)  # so that what is padded is zero
    padded = steps.add("Add", steps.add("Pad", shifted, pads, "", steps.integers(2, 3)), colour)
    over = steps.add("Sub", steps.add("Shape", padded, start=2), size)
    half = steps.add("Mul", steps.add("Cast", over, to=TensorProto.DOUBLE), steps.constant(np.array([0.5])))
    start = steps.add("Cast", steps.add("Round", half), to=TensorProto.INT64)
    return steps.add("Slice", padded, start, steps.add("Add", start, size), steps.integers(2, 3))
