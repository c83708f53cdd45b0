"""Fact: what running a node of the graph showed, its value's shape, its cost and how far it sees.

The graph runs on the ``meta`` device (shapes only, no arithmetic) at two batch sizes and, where the backbone takes it,
at a second image size: what follows the batch and the image then shows as numbers that change.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from torch import fx, nn
from torch.utils._pytree import tree_map_only

from transfer.cuts.metering import Meter
from transfer.cuts.points import InputSize
from transfer.cuts.tracing import OpaqueError, Record, first_line

# Two unusual batch sizes, so that a number equal to both is the batch size and not a width that happens to match.
BATCHES = (3, 5)

T = TypeVar("T")


@dataclass
class Fact:
    """What running a node showed; `overwritten` says that a later node writes into its value."""

    values: list[Any]  # one per run, tensors on the meta device
    multiply_adds: int  # per image
    receptive_field: int | None
    overwritten: bool


def survey(model: nn.Module, record: Record, input_size: InputSize) -> dict[fx.Node, Fact]:
    """Run every node at two batch sizes and, where it can be, two image sizes."""
    channels, height, width = input_size

    def runs(module: nn.Module) -> list[dict[fx.Node, Fact]]:
        found = [_run(module, record, (batch, *input_size)) for batch in BATCHES]
        if _device(module).type == "meta":  # six times the pixels cost nothing there
            with suppress(Exception):  # a backbone that takes one image size only: then its numbers are constants
                found.append(_run(module, record, (BATCHES[0], channels, 2 * height, 3 * width)))
        return found

    try:
        facts, *others = _on_meta(runs, model)
    except Exception as error:  # the backbone itself then says whether it takes this size
        raise OpaqueError(str(error) if isinstance(error, OpaqueError) else first_line(error)) from error
    for other in others:
        for node, fact in facts.items():
            fact.values.extend(other[node].values)
    return facts


def survey_whole(model: nn.Module, input_size: InputSize) -> tuple[tuple[int, ...], int]:
    """Return the shape of the features and the multiply-adds per image of a backbone that runs as a whole only."""

    def run(module: nn.Module) -> tuple[tuple[int, ...], int]:
        image = _image(module, (BATCHES[0], *input_size))
        with torch.no_grad(), Meter(image) as meter:
            features = module(image)
        return tuple(features.shape[1:]), meter.multiply_adds // BATCHES[0]

    return _on_meta(run, model)


def _on_meta(run: Callable[[nn.Module], T], model: nn.Module) -> T:
    """Run a copy on the ``meta`` device, made without copying a single weight, or the model itself where that fails."""
    stand_ins: dict[int, Any] = {}
    for parameter in model.parameters():
        stand_ins[id(parameter)] = nn.Parameter(torch.empty_like(parameter, device="meta"), requires_grad=False)
    for buffer in model.buffers():
        stand_ins[id(buffer)] = torch.empty_like(buffer, device="meta")
    try:
        return run(copy.deepcopy(model, stand_ins))
    except Exception:  # not every operation has a meta kernel
        return run(model)


class _Surveyor(fx.Interpreter):
    """Runs the graph and keeps every value, with its version when it was made, and the cost of each node."""

    def __init__(self, module: nn.Module, record: Record, meter: Meter) -> None:
        super().__init__(module, garbage_collect_values=False, graph=record.graph)
        self.extra_traceback = False
        self.record = record
        self.meter = meter
        self.versions: dict[fx.Node, int] = {}
        self.multiply_adds: dict[fx.Node, int] = {}

    def fetch_attr(self, target: str) -> Any:
        value = self.record.attribute(self.module, target)
        return value.to(_device(self.module)) if target in self.record.constants else value

    def run_node(self, n: fx.Node) -> Any:
        cost_before, inputs_before = self.meter.multiply_adds, self._input_versions(n)
        value = super().run_node(n)
        if not n.users and self._input_versions(n) != inputs_before:
            raise OpaqueError(f"{n.name} writes into its input, and nothing in the graph says who reads it")
        self.versions[n] = _version(value)
        self.multiply_adds[n] = self.meter.multiply_adds - cost_before
        return value

    def _input_versions(self, node: fx.Node) -> list[int]:
        return [_version(self.env[source]) for source in node.all_input_nodes]


def _run(module: nn.Module, record: Record, shape: tuple[int, ...]) -> dict[fx.Node, Fact]:
    image = _image(module, shape)
    with torch.no_grad(), Meter(image) as meter:
        surveyor = _Surveyor(module, record, meter)
        surveyor.run(image)
    facts = {}
    for node, value in surveyor.env.items():
        reach = getattr(value, "_reach", None)
        facts[node] = Fact(
            values=[tree_map_only(torch.Tensor, lambda tensor: tensor.to("meta"), value)],
            multiply_adds=surveyor.multiply_adds[node] // shape[0],
            receptive_field=max(reach.window) if reach else None,
            overwritten=_version(value) != surveyor.versions[node],
        )
    return facts


def _version(value: Any) -> int:
    """Return how often a tensor's memory was written to; 0 for anything else."""
    return value._version if isinstance(value, torch.Tensor) else 0


def _image(module: nn.Module, shape: tuple[int, ...]) -> torch.Tensor:
    dtypes = (tensor.dtype for tensor in module.parameters() if tensor.is_floating_point())
    return torch.zeros(shape, device=_device(module), dtype=next(dtypes, torch.float32))


def _device(module: nn.Module) -> torch.device:
    return next((tensor.device for tensor in module.parameters()), torch.device("cpu"))
