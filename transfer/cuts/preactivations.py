"""Pre-activation: the value before the last activation on the way to a tap, read as ``TAP.pre``.

Behind the activation may come what only pools, reshapes, drops out or joins maps; it is then done to the value before
the activation as well, so that ``features.pre`` of a ResNet is pooled as ``features`` is.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import torch
from torch import fx, nn

from transfer.cuts.survey import Fact
from transfer.cuts.tracing import Record
from transfer.errors import UsageError

PRE = ".pre"

_ACTIVATION_MODULES = (
    *(nn.ReLU, nn.ReLU6, nn.LeakyReLU, nn.PReLU, nn.RReLU, nn.ELU, nn.SELU, nn.CELU, nn.GELU, nn.SiLU, nn.Mish),
    *(nn.Hardswish, nn.Hardtanh, nn.Hardsigmoid, nn.Sigmoid, nn.Tanh, nn.Softplus, nn.Softsign),
)
_ACTIVATION_FUNCTIONS = frozenset(module.__name__.lower() for module in _ACTIVATION_MODULES) | {"leaky_relu"}
# modules of these files of torch's have no weights and compute nothing but a pool, another shape, a dropout or a border
_PASSING_FILES = frozenset(f"torch.nn.modules.{name}" for name in ("pooling", "flatten", "dropout", "padding"))
# fmt: off
_PASSING_FUNCTIONS = frozenset([
    "max_pool2d", "avg_pool2d", "adaptive_avg_pool2d", "adaptive_max_pool2d", "mean", "amax",
    "flatten", "view", "reshape", "squeeze", "unsqueeze", "permute", "transpose", "contiguous", "getitem",
    "dropout", "pad", "clone", "detach", "cat",
])
# fmt: on


def is_activation(model: nn.Module, node: fx.Node) -> bool:
    """Whether a node applies a function such as ReLU to each number."""
    if node.op == "call_module":
        return isinstance(model.get_submodule(str(node.target)), _ACTIVATION_MODULES)
    return _function(node) in _ACTIVATION_FUNCTIONS


def add_preactivations(
    model: nn.Module,
    record: Record,
    facts: dict[fx.Node, Fact],
    taps: Iterable[str],
    nodes: dict[str, fx.Node],
) -> tuple[Record, dict[str, fx.Node], set[fx.Node]]:
    """Return a record whose graph computes the pre-activations too, and each tap's node in it.

    Parameters
    ----------
    taps
        Names of which those that are not in `nodes` end in ``.pre``.
    nodes
        The node of each name in the graph of `record`.

    Returns
    -------
    tuple
        The record, the node of each of the `taps` in its graph, and the nodes into whose value a later node writes.

    Raises
    ------
    UsageError
        A tap is not behind an activation.
    """
    writer = _Writer(model, record, facts)
    found = {}
    for tap in taps:
        if tap in nodes:
            found[tap] = writer.copies[nodes[tap]]
            continue
        behind = tap.removesuffix(PRE)
        before = writer.write(nodes[behind])
        if before is None:
            raise UsageError(
                f"There is no {tap!r}: {behind!r} is not behind an activation, going back from it "
                f"{writer.obstacle} comes first. Read {behind!r} itself."
            )
        found[tap] = before
    return writer.record, found, writer.overwritten


class _Writer:
    """Copies a graph, and writes at its end what comes behind an activation anew, without that activation."""

    def __init__(self, model: nn.Module, record: Record, facts: dict[fx.Node, Fact]) -> None:
        self.model = model
        self.facts = facts
        self.graph = fx.Graph()
        self.copies: dict[fx.Node, Any] = {}
        self.end = self.graph.output(self.graph.graph_copy(record.graph, self.copies))
        self.record = replace(record, graph=self.graph, modules=dict(record.modules))
        self.overwritten = {self.copies[node] for node, fact in facts.items() if fact.overwritten}
        self.obstacle = ""  # at which the way back ended, in words
        self._kept: dict[fx.Node, fx.Node] = {}

    def write(self, node: fx.Node) -> fx.Node | None:
        """Return a new node with the value that `node` has without the activation behind which it is, if it is."""
        inputs = [source for source in node.all_input_nodes if self._is_tensor(source)]
        if is_activation(self.model, node):
            return self._keep(inputs[0])
        if node.op == "call_module" and (bare := _without_activation(self.model.get_submodule(str(node.target)))):
            target = str(node.target).replace(".", "_") + "_pre"
            self.record.modules[target] = bare
            source = self._keep(inputs[0])
            with self.graph.inserting_before(self.end):
                return self.graph.call_module(target, (source,))
        if not self._passes(node) or (len(inputs) > 1 and _function(node) != "cat"):
            self.obstacle = self._words(node)
            return None
        written = {source: self.write(source) for source in inputs}
        if not written or None in written.values():
            return None
        with self.graph.inserting_before(self.end):
            return self.graph.node_copy(node, lambda source: written.get(source) or self.copies[source])

    def _keep(self, node: fx.Node) -> fx.Node:
        """Return the node's copy; where a later node writes into its value, a node that has kept it."""
        if self.copies[node] not in self.overwritten:
            return self.copies[node]
        if node not in self._kept:
            with self.graph.inserting_after(self.copies[node]):
                self._kept[node] = self.graph.call_method("clone", (self.copies[node],))
        return self._kept[node]

    def _passes(self, node: fx.Node) -> bool:
        if node.op == "call_module":
            return _module_passes(self.model.get_submodule(str(node.target)))
        return _function(node) in _PASSING_FUNCTIONS

    def _words(self, node: fx.Node) -> str:
        if node.op == "call_module":
            return f"{node.target} ({type(self.model.get_submodule(str(node.target))).__name__})"
        return "the image" if node.op == "placeholder" else f"an operation ({_function(node) or node.name})"

    def _is_tensor(self, node: fx.Node) -> bool:
        return isinstance(self.facts[node].values[0], torch.Tensor)


def _module_passes(module: nn.Module) -> bool:
    kind, inside = type(module), list(module.children())
    if kind.__module__ in _PASSING_FILES or kind is nn.Identity or "Drop" in kind.__name__:
        return True
    # timm's heads, without their classifier: a pool, a dropout, a flattening
    return bool(inside) and ("Head" in kind.__name__ or "Pool" in kind.__name__) and all(map(_module_passes, inside))


def _function(node: fx.Node) -> str:
    """Return the name of the function or method that a node calls; empty for any other node."""
    if node.op == "call_method":
        return str(node.target).rstrip("_")
    return getattr(node.target, "__name__", "").rstrip("_") if node.op == "call_function" else ""


def _without_activation(module: nn.Module) -> nn.Module | None:
    """Return a normalisation with the same tensors but without the activation inside, as timm's BatchNormAct2d has."""
    if not isinstance(getattr(module, "act", None), _ACTIVATION_MODULES) or "Norm" not in type(module).__name__:
        return None
    bare = copy.copy(module)
    bare._modules = {**module._modules, "act": nn.Identity()}
    return bare
