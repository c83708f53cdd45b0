"""Layer: one step of a backbone with the lecture's numbers: its output, its parameters, its work, how far it sees."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import fx, nn
from torch.utils._pytree import tree_leaves

from transfer.cuts.papers import paper_layers
from transfer.cuts.points import IMAGENET_SIZE, InputSize
from transfer.cuts.survey import BATCHES
from transfer.cuts.traces import Trace, trace
from transfer.cuts.tracing import Record
from transfer.errors import UsageError

_POOLS = (nn.MaxPool2d, nn.AvgPool2d, nn.AdaptiveAvgPool2d, nn.AdaptiveMaxPool2d)
# what functions are called here; with parameters among their arguments, they are layers as their modules are
_FUNCTIONS = {
    "adaptive_avg_pool2d": "average pool",
    "adaptive_max_pool2d": "max pool",
    "avg_pool2d": "average pool",
    "batch_norm": "batch norm",
    "bmm": "matrix product",
    "conv2d": "conv",
    "einsum": "matrix product",
    "group_norm": "group norm",
    "layer_norm": "layer norm",
    "linear": "linear",
    "matmul": "matrix product",
    "max_pool2d": "max pool",
    "mean": "average pool",
    "rms_norm": "RMS norm",
    "scaled_dot_product_attention": "attention",
}


@dataclass(frozen=True)
class Layer:
    """One layer of a backbone.

    Attributes
    ----------
    name : str
        Its path in the backbone.
    paper_name : str
        What papers call it (``conv1``, ``fc6`` of AlexNet), else empty.
    kind : str
        Such as ``conv 11x11, stride 4, pad 2``.
    shape : tuple of int
        Of its output per image: channels, height, width of a map.
    parameters : int
        Biases included; tensors that two layers share count at the first.
    multiply_adds : int
        Of convolutions, linear layers and attention products, per image.
    receptive_field : int or None
        Side in pixels of the patch that one number of the output depends on; None where it is not such a patch.
    fits : bool
        Whether (W − F + 2P) / S is a whole number; if not, it was rounded and the last pixels are not looked at.
    """

    name: str
    paper_name: str
    kind: str
    shape: tuple[int, ...]
    parameters: int
    multiply_adds: int
    receptive_field: int | None
    fits: bool = True


def layers(model: nn.Module, input_size: InputSize = IMAGENET_SIZE) -> list[Layer]:
    """Return the layers of a backbone in the order in which they run, with the shapes that they really have.

    A layer is what has parameters, multiplies, or pools. What does none of this (activations, dropout, reshapes,
    sums) is left out. Together they have all parameters and multiply-adds of the backbone.

    Raises
    ------
    UsageError
        If the backbone cannot be traced, or does not accept images of that size.
    """
    found = trace(model, input_size)
    if found.record is None:
        raise UsageError(
            f"The layers of {type(model).__name__} cannot be told apart: it cannot be traced ({found.why_opaque}). "
            "Its cuts are `pixels` and `features`."
        )
    counter = _Counter(model)
    listed = [_layer(model, found, node, counter) for node in found.record.graph.nodes]
    rows = [layer for layer in listed if layer is not None]
    rest = counter.count(model.parameters())
    return [*rows, Layer("", "", "not used for the features", (), rest, 0, None)] if rest else rows


class _Counter:
    """Counts parameters, each once."""

    def __init__(self, model: nn.Module) -> None:
        self.known = {parameter: name for name, parameter in model.named_parameters()}

    def count(self, tensors: Iterable[Any]) -> int:
        return sum(tensor.numel() for tensor in tensors if self.known.pop(tensor, None) is not None)


def _layer(model: nn.Module, found: Trace, node: fx.Node, counter: _Counter) -> Layer | None:
    assert found.record is not None
    fact = found.facts.get(node)
    if fact is None or node.op == "placeholder":
        return None
    name, kind, fits, shown = _path(node) or node.name, "", True, node
    if node.op == "call_module":
        module = model.get_submodule(str(node.target))
        parameters = counter.count(module.parameters())
        name, kind = str(node.target), _module_kind(module)
        fits = _fits(module, found, node)
        is_layer = parameters > 0 or isinstance(module, _POOLS)
    elif node.op == "get_attr":
        if any(_function_kind(user) for user in node.users):  # it is counted with the layer that it belongs to
            return None
        parameters = counter.count([found.record.attribute(model, str(node.target))])
        name, kind, is_layer = str(node.target), "parameter", parameters > 0
    else:
        held = [source for source in node.all_input_nodes if source.op == "get_attr"]
        parameters = counter.count(found.record.attribute(model, str(source.target)) for source in held)
        kind = _function_kind(node)
        is_layer = parameters > 0 or kind.endswith("pool")
        shown = _end_of_leaf(model, found.record, node)
    if not is_layer and not fact.multiply_adds:
        return None
    return Layer(
        name=name,
        paper_name=paper_layers(model).get(name, ""),
        kind=kind or _words(_called(node)),
        shape=_shape(found.facts[shown].values),
        parameters=parameters,
        multiply_adds=fact.multiply_adds,
        receptive_field=fact.receptive_field,
        fits=fits,
    )


def _path(node: fx.Node) -> str:
    """Return the path of the module in which a function was called; empty for the backbone itself."""
    return next(reversed(node.meta.get("nn_module_stack") or {"": None}))


def _end_of_leaf(model: nn.Module, record: Record, node: fx.Node) -> fx.Node:
    """Return where the module ends that calls the function, if it has no others inside: it may move axes around it."""
    path = _path(node)
    end = record.outputs.get(path, node) if path else node
    return end if end is node or not list(model.get_submodule(path).children()) else node


def _called(node: fx.Node) -> str:
    return str(getattr(node.target, "__name__", node.target)).rstrip("_")


def _function_kind(node: fx.Node) -> str:
    if node.op not in ("call_function", "call_method"):
        return ""
    if _called(node) == "mean" and not _averages_positions(node):
        return ""
    return _FUNCTIONS.get(_called(node), "")


def _averages_positions(node: fx.Node) -> bool:
    """Whether a mean goes over the positions of a map or the tokens, not over the channels as in a normalisation."""
    axes = node.kwargs.get("dim", node.args[1] if len(node.args) > 1 else ())
    return set(axes if isinstance(axes, (tuple, list)) else [axes]) in ({2, 3}, {-2, -1}, {1, 2}, {1})


def _module_kind(module: Any) -> str:
    words = _kind_without_activation(module)
    activation = getattr(module, "act", None)  # inside a normalisation of timm's
    if "Norm" in type(module).__name__ and isinstance(activation, nn.Module) and type(activation) is not nn.Identity:
        words += f", {type(activation).__name__}"
    return words


def _kind_without_activation(module: Any) -> str:
    if isinstance(module, nn.Conv2d):
        steps = ["depthwise conv" if _is_depthwise(module) else "conv"]
        steps[0] += f" {_sides(module.kernel_size)}"
        pad = "same" if type(module).__name__.endswith("Same") else module.padding
        steps += _unless(1, "stride", module.stride) + _unless(0, "pad", pad) + _unless(1, "dilation", module.dilation)
        return ", ".join(steps + _unless(1, "groups", module.groups) * (not _is_depthwise(module)))
    if isinstance(module, (nn.MaxPool2d, nn.AvgPool2d)):
        steps = [f"{'max' if isinstance(module, nn.MaxPool2d) else 'average'} pool {_sides(module.kernel_size)}"]
        steps += _unless(1, "stride", module.stride) + _unless(0, "pad", module.padding)
        return ", ".join(steps + ["rounded up"] * module.ceil_mode)
    if isinstance(module, (nn.AdaptiveAvgPool2d, nn.AdaptiveMaxPool2d)):
        word = "average" if isinstance(module, nn.AdaptiveAvgPool2d) else "max"
        return f"{word} pool to {_sides(module.output_size)}"
    for kind, words in (
        (nn.Linear, "linear"),
        (nn.BatchNorm2d, "batch norm"),
        (nn.LayerNorm, "layer norm"),
        (nn.GroupNorm, "group norm"),
        (nn.MultiheadAttention, "attention"),
    ):
        if isinstance(module, kind):
            return words
    return _words(type(module).__name__)


def _words(name: str) -> str:
    """Write a class or function name as words.

    >>> _words("NormMlpClassifierHead")
    'norm mlp classifier head'
    """
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])|_", " ", name).strip().lower()


def _is_depthwise(module: nn.Conv2d) -> bool:
    return 1 < module.groups == module.in_channels


def _sides(value: Any) -> str:
    height, width = _both(value)
    return f"{height}x{width}"


def _both(value: Any) -> tuple[Any, Any]:
    return (value[0], value[-1]) if isinstance(value, (tuple, list)) else (value, value)


def _unless(usual: int, word: str, value: Any) -> list[str]:
    height, width = _both(value)
    if height == width:
        return [] if height == usual else [f"{word} {height}"]
    return [f"{word} {height}x{width}"]


def _fits(module: Any, found: Trace, node: fx.Node) -> bool:
    """Whether the filter steps over its padded input without a remainder."""
    sliding = isinstance(module, (nn.Conv2d, nn.MaxPool2d, nn.AvgPool2d))
    if not sliding or isinstance(module.padding, str) or type(module).__name__.endswith("Same"):
        return True
    sides = found.facts[node.all_input_nodes[0]].values[0].shape[-2:]
    settings = [_both(getattr(module, name, 1)) for name in ("kernel_size", "stride", "padding", "dilation")]
    return all(
        (side + 2 * pad - dilation * (kernel - 1) - 1) % stride == 0
        for side, kernel, stride, pad, dilation in zip(sides, *settings, strict=True)
    )


def _shape(values: list[Any]) -> tuple[int, ...]:
    """Return the shape per image of a value, from runs at several batch sizes."""
    first, second = (
        next(leaf for leaf in tree_leaves(value) if isinstance(leaf, torch.Tensor)).shape for value in values[:2]
    )
    if not first or first == second:  # the same for all images
        return tuple(first)
    per_image = first[0] // BATCHES[0]
    return (*([per_image] if per_image > 1 else []), *first[1:])  # Swin's windows, for one, lie along the batch
