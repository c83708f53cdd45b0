"""Record: the graph of a backbone's forward pass, as ``torch.fx`` sees it on a stand-in for the image.

Modules that read ``self.training`` stay whole, one node each, so that the suffix still changes between train and
eval mode as the backbone does. So do those that cannot be looked into.
"""

from __future__ import annotations

import functools
import inspect
import math
import sys
import types
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import fx, nn


class OpaqueError(Exception):
    """The backbone's graph cannot be had."""


@dataclass
class Record:
    """What tracing recorded: the graph, each module's output node, and the tensors that no module holds.

    `modules` has those that the graph calls and the backbone does not have.
    """

    graph: fx.Graph
    outputs: dict[str, fx.Node]
    constants: dict[str, Any]
    modules: dict[str, nn.Module] = field(default_factory=dict)

    @property
    def image(self) -> fx.Node:
        return next(iter(self.graph.nodes))

    @property
    def features(self) -> Any:
        return next(node for node in reversed(self.graph.nodes) if node.op == "output").args[0]

    def attribute(self, model: nn.Module, path: str) -> Any:
        return self.constants[path] if path in self.constants else functools.reduce(getattr, path.split("."), model)

    def module(self, model: nn.Module, path: str) -> nn.Module:
        return self.modules[path] if path in self.modules else model.get_submodule(path)


def record(model: nn.Module) -> Record:
    """Record the graph in eval mode, without its identities, of a model that takes the same path in training."""
    with in_mode(model, training=True):
        in_training = _record_once(model)
    with in_mode(model, training=False):
        found = _record_once(model)
    if _signature(found.graph) != _signature(in_training.graph):
        raise OpaqueError("its forward pass takes another path in training")
    return _without_identities(found, model)


def record_frozen(model: nn.Module) -> Record:
    """Record the graph in eval mode only, for a model that will never be trained."""
    with in_mode(model, training=False):
        return _without_identities(_record_once(model), model)


def _without_identities(found: Record, model: nn.Module) -> Record:
    if not isinstance(found.features, fx.Node):
        raise OpaqueError("it returns something other than one tensor")
    for node in list(found.graph.nodes):
        if node.op == "call_module" and type(model.get_submodule(node.target)) is nn.Identity:
            (source,) = node.all_input_nodes
            node.replace_all_uses_with(source)
            found.outputs = {path: source if out is node else out for path, out in found.outputs.items()}
            found.graph.erase_node(node)
    return found


def dropout_arguments(node: fx.Node) -> dict[str, Any] | None:
    """Return what a node of functional dropout is given but for its train/eval flag; None for any other node."""
    if node.target is not nn.functional.dropout:
        return None
    bound = inspect.signature(nn.functional.dropout).bind(*node.args, **node.kwargs)
    bound.apply_defaults()
    return {name: value for name, value in bound.arguments.items() if name != "training"}


@contextmanager
def in_mode(model: nn.Module, training: bool) -> Iterator[None]:
    """Put every module into train or eval mode, and back into its own afterwards."""
    modes = [(module, module.training) for module in model.modules()]
    try:
        for module, _ in modes:
            module.training = training
        yield
    finally:
        for module, mode in modes:
            module.training = mode


class _Tracer(fx.Tracer):
    """Records the graph, and for each module call the node it returned."""

    def __init__(self, leaf_types: set[Any], follow_buffers: bool) -> None:
        import torchvision

        functions: list[Callable[..., Any]] = []
        self.leaf_types = leaf_types
        if "timm" in sys.modules:  # a model of timm's is never here without it, and importing it takes seconds
            from timm.models._features_fx import get_notrace_functions, get_notrace_modules

            functions = get_notrace_functions()
            self.leaf_types = leaf_types | set(get_notrace_modules())
        super().__init__(
            autowrap_modules=(math, torchvision.ops),  # type: ignore[arg-type]
            autowrap_functions=tuple(functions),
        )
        self.proxy_buffer_attributes = follow_buffers
        self.outputs: dict[str, fx.Node] = {}
        self.failed: Any = None

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        whole = isinstance(m, tuple(self.leaf_types)) or _reads_training(type(m))
        return whole or super().is_leaf_module(m, module_qualified_name)

    def create_args_for_root(self, root_fn: Any, is_module: bool, concrete_args: Any = None) -> Any:
        # Only the image is an input: an optional argument left symbolic would take branches (`mask is not None`)
        # that no call takes.
        def image_only(module: nn.Module, image: torch.Tensor) -> Any:
            return root_fn(module, image)

        return super().create_args_for_root(image_only, is_module, concrete_args)

    def call_module(self, m: nn.Module, forward: Any, args: Any, kwargs: Any) -> Any:
        try:
            out = super().call_module(m, forward, args, kwargs)
        except Exception:
            self.failed = self.failed or type(m)
            raise
        if isinstance(out, fx.Proxy):
            path = name = self.path_of_module(m)
            n_calls = 0
            while name in self.outputs:
                n_calls += 1
                name = f"{path}_{n_calls}"
            self.outputs[name] = out.node
        return out


def _record_once(model: nn.Module) -> Record:
    leaf_types: set[Any] = set()
    follow_buffers = True
    own = set(vars(model))
    while True:
        tracer = _Tracer(leaf_types, follow_buffers)
        try:
            graph = tracer.trace(model)
        except Exception as error:  # tracing runs foreign code on stand-ins: any error means "not traceable"
            if tracer.failed is not None and tracer.failed not in leaf_types:
                leaf_types.add(tracer.failed)  # keep whole what cannot be looked into
            elif follow_buffers:
                follow_buffers = False  # DINOv3 branches on a buffer: what it computes from buffers is frozen
            else:
                raise OpaqueError(first_line(error)) from error
            continue
        finally:
            # The tracer leaves tensors that it met (`torch.tensor(2.0)`) on the model; they go into the record.
            constants = {name: vars(model).pop(name) for name in set(vars(model)) - own}
        return Record(graph, tracer.outputs, constants)


def _reads_training(module_type: Any) -> bool:
    """Whether a forward pass of this module's own code depends on train/eval mode, which tracing would freeze."""
    members = [member for owner in module_type.__mro__ if owner is not nn.Module for member in vars(owner).items()]
    return any(
        isinstance(function, types.FunctionType) and "training" in function.__code__.co_names
        for name, function in members
        if name not in ("__init__", "train", "eval")
    )


def _signature(graph: fx.Graph) -> list[str]:
    """Describe each node, without the train/eval flag of functional dropout."""
    return [f"{node.op} {node.target} {dropout_arguments(node) or (node.args, node.kwargs)}" for node in graph.nodes]


def first_line(error: Exception) -> str:
    return f"{type(error).__name__}: {[*str(error).splitlines(), ''][0]}"
