"""Part: a module made of some nodes of a backbone's graph, with the backbone's own layers under their own names.

The prefix and the suffix of a cut are parts; so is what reads taps.
"""

from __future__ import annotations

import copy
import functools
from collections.abc import Collection, Mapping
from typing import Any

import torch
from torch import fx, nn

from transfer.cuts.places import Number, needed
from transfer.cuts.points import FEATURES, IMAGENET_SIZE, PIXELS, InputSize
from transfer.cuts.preactivations import PRE, add_preactivations
from transfer.cuts.traces import Trace, trace
from transfer.cuts.tracing import OpaqueError, Record, dropout_arguments, record_frozen
from transfer.errors import UsageError, did_you_mean


def cut(model: nn.Module, at: str, input_size: InputSize = IMAGENET_SIZE) -> tuple[nn.Module, nn.Module]:
    """Return ``(prefix, suffix)`` with ``suffix(prefix(x)) == model(x)``, bit for bit in eval mode.

    Both hold the parameters and buffers of `model` itself, under their names in `model`, so that what is trained
    in the suffix is trained in `model`. Tensors that the forward pass never uses go to the prefix. The prefix is in
    eval mode and stays there (as long as nobody calls ``model.train()``, whose layers these are), and no gradient
    flows into it. The suffix follows ``train()`` and ``eval()`` as the backbone does, dropout included, and never
    writes into the activations it is given. Any batch size works on either side, and other image sizes than
    `input_size` where the backbone takes them (except in a few that hand the map's height and width on from block to
    block beside the tokens).

    At ``pixels`` the suffix is the whole backbone, as a graph where it can be traced and else `model` itself; at
    ``features`` the suffix is an identity.

    Raises
    ------
    UsageError
        If there is no such cut.
    """
    found = trace(model, input_size)
    if at == PIXELS:
        return nn.Identity(), _whole(model, found)
    if found.record is None and at == FEATURES:
        return model.eval(), nn.Identity()
    if found.record is None or at not in found.places:
        raise UsageError(_unknown("cut", at, model, found, [point.name for point in found.points]))
    place = found.places[at]
    right = {node.target for node in place.right if node.op == "call_module"}
    build = functools.partial(_part, model=model, record=found.record, overwritten=found.overwritten)
    prefix = build(Prefix, place.left, found.record.image, place.node, copied=right)
    suffix: nn.Module = nn.Identity()
    if at != FEATURES:
        suffix = build(Suffix, place.right, place.node, found.record.features, numbers=place.numbers)
    _adopt_unused(prefix, suffix, model)
    return prefix.eval(), suffix


def _whole(model: nn.Module, found: Trace) -> nn.Module:
    if found.record is None:
        return model
    record = found.record
    suffix = _part(Suffix, needed([record.features]), record.image, record.features, model, record, found.overwritten)
    _adopt_unused(suffix, suffix, model)
    return suffix


def read_taps(model: nn.Module, taps: list[str], input_size: InputSize = IMAGENET_SIZE) -> nn.Module:
    """Return a module that maps images to ``{tap: activation}`` in one pass, computing no more than the taps need.

    The activations come unpooled, each as it left its layer, also where the next layer works in place. The module
    shares the layers of `model` and stays in eval mode.

    Parameters
    ----------
    taps
        Names that `tap_names` returns, or one of them with ``.pre`` behind it: the value before the last activation on
        the way there, with the pooling and reshaping that followed applied to it.

    Raises
    ------
    UsageError
        If there is no such tap, or one with ``.pre`` is not behind an activation.
    """
    if set(taps) == {FEATURES}:
        return _read_features(model)
    found = trace(model, input_size)
    for tap in taps:
        if tap not in found.taps and tap.removesuffix(PRE) not in found.taps:
            raise UsageError(_unknown("tap", tap, model, found, list(found.taps) or [FEATURES]))
    assert found.record is not None
    record, nodes, overwritten = add_preactivations(model, found.record, found.facts, taps, found.taps)
    return _part(Prefix, needed(nodes.values()), record.image, nodes, model, record, overwritten).eval()


def _read_features(model: nn.Module) -> nn.Module:
    """Read the features alone: every node runs, so that none has to be surveyed first."""
    with torch.inference_mode(False):
        try:
            record = record_frozen(model)
        except OpaqueError:
            return _FeaturesOnly(model)
    image = record.image
    modules = dict(model.named_modules())
    # a convolution is the one layer known not to write into the caller's image
    is_safe = all(isinstance(modules.get(str(user.target)), nn.Conv2d) for user in image.users)
    nodes = [node for node in record.graph.nodes if node.op not in ("placeholder", "output")]
    overwritten = frozenset[fx.Node]() if is_safe else frozenset([image])
    return _part(Prefix, nodes, image, {FEATURES: record.features}, model, record, overwritten).eval()


class _Part(fx.GraphModule):
    def __deepcopy__(self, memo: dict[int, Any]) -> fx.GraphModule:
        copied = super().__deepcopy__(memo)
        for path, module in self.named_modules():  # a GraphModule forgets which buffers stay out of the state dict
            copied.get_submodule(path)._non_persistent_buffers_set = set(module._non_persistent_buffers_set)
        return copied


class Prefix(_Part):
    """The frozen part: images to the crossing tensor. Always in eval mode; no gradient goes into it."""

    def train(self, mode: bool = True) -> Prefix:
        """Stay in eval mode: statistics that drift would make every cached activation a lie."""
        return super().train(False)


class Suffix(_Part):
    """The trainable part: the crossing tensor to features of shape (N, d)."""


class _FeaturesOnly(nn.Module):
    """What `read_taps` can still do for a backbone that cannot be traced."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model.eval()

    def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        return {FEATURES: self.model(x)}


def _part(
    part_type: type[_Part],
    nodes: list[fx.Node],
    start: fx.Node,
    result: fx.Node | dict[str, fx.Node],
    model: nn.Module,
    record: Record,
    overwritten: Collection[fx.Node],
    *,
    numbers: Mapping[fx.Node, Number] | None = None,
    copied: Collection[Any] = (),
) -> _Part:
    """Copy `nodes` into a module of their own that takes the value of `start` and returns that of `result`.

    Values in `overwritten` are those that a later node writes into. Modules without tensors that both sides use (named
    in `copied`) are copied, so that each side has its own mode.
    """
    graph = fx.Graph()
    root: dict[str, Any] = {}
    entry = graph.placeholder("image" if start is record.image else "activation")
    # A layer that works in place must not write into the caller's (cached) activations, nor into what is tapped.
    copies: dict[fx.Node, Any] = {start: graph.call_method("clone", (entry,)) if start in overwritten else entry}
    kept: dict[fx.Node, fx.Node] = {}
    for node, number in (numbers or {}).items():
        copies[node] = number(graph, entry)
    for node in nodes:
        target, dropout = str(node.target), dropout_arguments(node)
        if dropout:  # as a module: its train/eval flag was frozen by tracing, a module's is not
            root[f"_{node.name}"] = nn.Dropout(dropout["p"], dropout["inplace"])
            copies[node] = graph.call_module(f"_{node.name}", (copies[dropout["input"]],))
            continue
        copies[node] = graph.node_copy(node, copies.__getitem__)
        if node.op == "call_module":
            module = record.module(model, target)
            root[target] = copy.deepcopy(module) if target in copied else module
        elif node.op == "get_attr":
            root[target] = record.attribute(model, target)
        if isinstance(result, dict) and node in overwritten and node in result.values():
            kept[node] = graph.call_method("clone", (copies[node],))
    if isinstance(result, dict):
        graph.output({tap: kept.get(node, copies[node]) for tap, node in result.items()})
    else:
        out = copies[result]
        graph.output(graph.call_method("detach", (out,)) if part_type is Prefix else out)
    part = part_type(root, graph)
    state, shared = model.state_dict(), set(model.modules())
    for path, value in root.items():
        if isinstance(value, torch.Tensor) and path not in state:
            owner, _, name = path.rpartition(".")
            part.get_submodule(owner)._non_persistent_buffers_set.add(name)
    for module in part.modules():
        if module not in shared:
            module.training = model.training
    return part


def _adopt_unused(prefix: nn.Module, suffix: nn.Module, model: nn.Module) -> None:
    """Give the prefix the names in `model` that the forward pass does not use, so that none is lost."""
    used = prefix.state_dict().keys() | suffix.state_dict().keys()
    for path, value in model.state_dict(keep_vars=True).items():
        if path not in used:
            *parents, name = path.split(".")
            owner = prefix
            for parent in parents:
                if not hasattr(owner, parent):
                    owner.add_module(parent, nn.Module())
                owner = getattr(owner, parent)
            if isinstance(value, nn.Parameter):
                owner.register_parameter(name, value)
            else:
                owner.register_buffer(name, value)


def _unknown(noun: str, name: str, model: nn.Module, found: Trace, known: list[str]) -> str:
    architecture = (getattr(model, "pretrained_cfg", None) or {}).get("architecture", "NAME")
    opaque = f" This backbone cannot be traced ({found.why_opaque})." if found.why_opaque else ""
    remedy = f"`transfer backbones {architecture}` lists all."
    return f"{type(model).__name__} has no {noun} {name!r}.{did_you_mean(name, known)}{opaque} {remedy}"
