"""Place: where in the graph a backbone can be cut, because one tensor per image is all that crosses.

Numbers that cross beside the tensor (``B, N, C = x.shape``) do not count: they are read from the shape of the tensor
again, or are the same at every size.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import fx, nn

from transfer.cuts.names import parents, readable_names
from transfer.cuts.points import FEATURES, CutPoint
from transfer.cuts.survey import BATCHES, Fact
from transfer.cuts.tracing import OpaqueError, Record

# Writes into a graph how to get a number from the crossing tensor.
Number = Callable[[fx.Graph, fx.Node], Any]


@dataclass(frozen=True)
class Place:
    """A cut point in the graph: which nodes lie on its left, which on its right."""

    point: CutPoint
    node: fx.Node
    left: list[fx.Node]
    right: list[fx.Node]
    numbers: dict[fx.Node, Number]  # what would cross beside the tensor


def find_places(model: nn.Module, record: Record, facts: dict[fx.Node, Fact]) -> dict[fx.Node, Place]:
    """Return the offered cuts in order, those inside the network and ``features``, by their node."""
    names = readable_names(model, record.outputs)
    names.pop(record.image, None)
    names[record.features] = FEATURES
    places = {}
    for node in record.graph.nodes:
        if node in names and _is_batch(facts[node].values):
            everywhere = _place(model, record, facts, node, names[node])
            # Rather a cut that holds for this image size only than none.
            place = everywhere or _place(model, record, facts, node, names[node], n_runs=len(BATCHES))
            if place:
                places[node] = place
    if record.features not in places:
        raise OpaqueError("its output is not one row per image")
    return places


def needed(nodes: Iterable[fx.Node], until: Collection[fx.Node] = ()) -> list[fx.Node]:
    """Return what computing `nodes` takes, in order of execution, not looking behind the nodes in `until`."""
    found: set[fx.Node] = set()
    waiting = list(nodes)
    graph = waiting[0].graph
    while waiting:
        node = waiting.pop()
        if node not in found and node not in until and node.op != "placeholder":
            found.add(node)
            waiting.extend(node.all_input_nodes)
    return [node for node in graph.nodes if node in found]


def _place(
    model: nn.Module,
    record: Record,
    facts: dict[fx.Node, Fact],
    node: fx.Node,
    name: str,
    n_runs: int | None = None,
) -> Place | None:
    """Return what lies left and right of `node`, judging by the first runs; None where more than a tensor crosses."""
    numbers: dict[fx.Node, Number] = {}
    computable = {node}
    for other in record.graph.nodes:
        if other.op in ("placeholder", "output"):
            continue
        if other.op == "get_attr" or computable.issuperset(other.all_input_nodes):
            computable.add(other)
        elif other is not node:
            number = _express(facts[other].values[:n_runs], facts[node].values[:n_runs])
            if number is not None:
                numbers[other] = number
                computable.add(other)
    if record.features not in computable:
        return None
    left = needed([node])
    right = [] if name == FEATURES else needed([record.features], until={node, *numbers})
    tensors_left, tensors_right = _tensors_of(model, left), _tensors_of(model, right)
    if tensors_left & tensors_right:
        return None
    n_right = sum(tensor.numel() for tensor in tensors_right if isinstance(tensor, nn.Parameter))
    cost_left = sum(facts[other].multiply_adds for other in left)
    shape = tuple(facts[node].values[0].shape[1:])
    point = CutPoint(
        name=name,
        shape=shape,
        parameters_left=sum(parameter.numel() for parameter in model.parameters()) - n_right,
        parameters_right=n_right,
        multiply_adds_left=cost_left,
        multiply_adds_right=sum(fact.multiply_adds for fact in facts.values()) - cost_left,
        receptive_field=facts[node].receptive_field,
        cache_bytes=2 * math.prod(shape),
    )
    crossing = {other: number for other, number in numbers.items() if not other.users.keys().isdisjoint(right)}
    return Place(point, node, left, right, crossing)


def _is_batch(values: list[Any]) -> bool:
    """Whether a value is one floating-point tensor with one row per image."""
    return all(
        isinstance(value, torch.Tensor) and value.is_floating_point() and value.shape[:1] == (batch,)
        for value, batch in zip(values, (*BATCHES, BATCHES[0]), strict=False)
    )


def _express(values: list[Any], crossing: list[torch.Tensor]) -> Number | None:
    """Say how to get a value from the crossing tensor, judging by all runs; None if it cannot be had."""
    first = values[0]
    if isinstance(first, torch.Tensor):
        return None
    if isinstance(first, (tuple, list)):
        items = [_express(list(column), crossing) for column in zip(*values, strict=False)]
        found = [item for item in items if item is not None]
        whole = found == items and {len(value) for value in values} == {len(first)}
        return (lambda graph, x: tuple(item(graph, x) for item in found)) if whole else None
    if isinstance(first, torch.device):
        return lambda graph, x: graph.call_function(getattr, (x, "device"))
    if isinstance(first, int) and not isinstance(first, bool):
        for axis in range(len(crossing[0].shape)):
            if values == [tensor.shape[axis] for tensor in crossing]:
                return lambda graph, x: graph.call_method("size", (x, axis))
    return (lambda graph, x: first) if all(value == first for value in values) else None


def _tensors_of(model: nn.Module, nodes: list[fx.Node]) -> set[torch.Tensor]:
    """Return the tensors of the state dict that `nodes` use."""
    targets = {str(node.target) for node in nodes if node.op in ("call_module", "get_attr")}
    tensors = model.state_dict(keep_vars=True)
    return {tensor for path, tensor in tensors.items() if targets.intersection([*parents(path), path])}
