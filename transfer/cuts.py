"""Cuts: the places where a backbone can be split into a frozen prefix and a trainable suffix.

A backbone is traced with ``torch.fx``; a cut is a node of the graph through which everything that the output
needs from the image has to pass, so that one tensor per image is all that crosses. How a name becomes two modules:

* `trace` records the graph once (and remembers it); modules that read ``self.training`` stay whole, so that the
  suffix still changes between train and eval mode as the backbone does.
* Each node is run on the ``meta`` device (shapes only, no arithmetic) at two batch sizes and, where the backbone
  takes it, at a second image size. Numbers that cross a cut beside the tensor (``B, N, C = x.shape``) are read
  from the shape of that tensor again, so they do not count as crossing.
* `cut` copies the nodes left and right of the cut into two modules, which hold the backbone's own parameters
  under their own names.

Where a backbone cannot be traced at all, it has two cuts: ``pixels`` and ``features``.
"""

from __future__ import annotations

import copy
import functools
import inspect
import math
import sys
import types
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import fx, nn
from torch.utils._python_dispatch import TorchDispatchMode

from transfer.errors import UsageError, did_you_mean

PIXELS = "pixels"
FEATURES = "features"

InputSize = tuple[int, int, int]
IMAGENET_SIZE: InputSize = (3, 224, 224)

# Two unusual batch sizes, so that a number equal to both is the batch size and not a width that happens to match.
_BATCHES = (3, 5)

_DROPOUTS: dict[Callable[..., Any], type[nn.Module]] = {
    nn.functional.dropout: nn.Dropout,
    nn.functional.dropout1d: nn.Dropout1d,
    nn.functional.dropout2d: nn.Dropout2d,
    nn.functional.dropout3d: nn.Dropout3d,
    nn.functional.alpha_dropout: nn.AlphaDropout,
    nn.functional.feature_alpha_dropout: nn.FeatureAlphaDropout,
}


@dataclass(frozen=True)
class CutPoint:
    """One place where a backbone can be cut, with what lies on either side.

    Attributes
    ----------
    name : str
        ``pixels``, the path of the module whose output crosses (``layer3``, ``blocks.5``, ``features.7``),
        or ``features``.
    shape : tuple of int
        Of the one tensor that crosses, per image, e.g. ``(112, 14, 14)``.
    parameters_left, parameters_right : int
        Parameters of the prefix and of the suffix; together, those of the backbone.
    multiply_adds_left, multiply_adds_right : int
        Of convolutions, linear layers and attention products, per image.
    receptive_field : int or None
        Side in pixels of the patch one activation depends on: 1 + Σ (K − 1) · ∏ S along the longest path. None
        where it is not such a patch (after attention, global pooling, or a linear layer on the flattened map).
    cache_bytes : int
        Of the tensor per image, in float16 (uint8 for ``pixels``).
    """

    name: str
    shape: tuple[int, ...]
    parameters_left: int
    parameters_right: int
    multiply_adds_left: int
    multiply_adds_right: int
    receptive_field: int | None
    cache_bytes: int


@dataclass(frozen=True)
class _Place:
    """A cut point in the graph: which nodes lie on its left, which on its right."""

    point: CutPoint
    node: fx.Node
    left: list[fx.Node]
    right: list[fx.Node]
    numbers: dict[fx.Node, Any]  # shape arithmetic that would cross, expressed in the crossing tensor


@dataclass
class Trace:
    """A backbone's graph and its cut points, as `trace` found them at one image size.

    Attributes
    ----------
    points : list of CutPoint
        In order from the pixels to the features.
    why_opaque : str
        Empty, or why the backbone could not be traced (then only ``pixels`` and ``features`` are offered).
    """

    points: list[CutPoint]
    why_opaque: str = ""
    record: _Record | None = None
    facts: dict[fx.Node, _Fact] = field(default_factory=dict)
    places: dict[str, _Place] = field(default_factory=dict)  # by every name that the cut answers to
    taps: dict[str, fx.Node] = field(default_factory=dict)


@dataclass
class _Record:
    """What tracing recorded: the graph, each module's output node, and the tensors that no module holds."""

    graph: fx.Graph
    outputs: dict[str, fx.Node]
    constants: dict[str, Any]

    @property
    def image(self) -> fx.Node:
        return next(iter(self.graph.nodes))

    @property
    def features(self) -> Any:
        return next(node for node in reversed(self.graph.nodes) if node.op == "output").args[0]

    def attribute(self, model: nn.Module, path: str) -> Any:
        return self.constants[path] if path in self.constants else _attribute(model, path)


class Prefix(fx.GraphModule):
    """The frozen part: images to the crossing tensor. Always in eval mode; no gradient goes into it."""

    def train(self, mode: bool = True) -> Prefix:
        """Stay in eval mode: statistics that drift would make every cached activation a lie."""
        return super().train(False)

    def __deepcopy__(self, memo: dict[int, Any]) -> Prefix:
        return _same_persistence(super().__deepcopy__(memo), self)


class Suffix(fx.GraphModule):
    """The trainable part: the crossing tensor to features of shape (N, d)."""

    def __deepcopy__(self, memo: dict[int, Any]) -> Suffix:
        return _same_persistence(super().__deepcopy__(memo), self)


def cut_points(model: nn.Module, input_size: InputSize = IMAGENET_SIZE) -> list[CutPoint]:
    """Return where `model` can be cut, in order from ``pixels`` to ``features``.

    Parameters
    ----------
    model : nn.Module
        A backbone without its classifier: images (N, 3, H, W) to features (N, d).
    input_size : tuple of int
        Channels, height and width of one image.

    Raises
    ------
    UsageError
        If the backbone does not accept images of that size.
    """
    return list(trace(model, input_size).points)


def cut(model: nn.Module, at: str, input_size: InputSize = IMAGENET_SIZE) -> tuple[nn.Module, nn.Module]:
    """Return ``(prefix, suffix)`` with ``suffix(prefix(x)) == model(x)``, bit for bit in eval mode.

    Both hold the parameters and buffers of `model` itself, under their names in `model`, so that what is trained
    in the suffix is trained in `model`. Tensors that the forward pass never uses go to the prefix. The prefix is in
    eval mode and stays there (as long as nobody calls ``model.train()``, whose layers these are), and no gradient
    flows into it. The suffix follows ``train()`` and ``eval()`` as the backbone does, dropout included, and never
    writes into the activations it is given. Any batch size works on either side, and other image sizes than
    `input_size` where the backbone takes them (except in a few that hand the map's height and width on from block to
    block beside the tokens).

    At ``pixels`` the suffix is `model` itself; at ``features`` the suffix is an identity.

    Raises
    ------
    UsageError
        If there is no such cut.
    """
    found = trace(model, input_size)
    if at == PIXELS:
        return nn.Identity(), model
    if found.record is None and at == FEATURES:
        return model.eval(), nn.Identity()
    if found.record is None or at not in found.places:
        raise UsageError(_unknown("cut", at, model, found, [point.name for point in found.points]))
    place = found.places[at]
    right = _modules_of(place.right)
    prefix = _part(Prefix, model, found, place.left, found.record.image, place.node, twice=right)
    suffix: nn.Module = nn.Identity()
    if at != FEATURES:
        suffix = _part(Suffix, model, found, place.right, place.node, found.record.features, numbers=place.numbers)
    _adopt_unused(prefix, suffix, model)
    prefix.eval()
    return prefix, suffix


def stage_cuts(model: nn.Module, input_size: InputSize = IMAGENET_SIZE) -> list[str]:
    """Return the cuts between the main stages, in order: the stem, then the output of each stage.

    ``layer1 … layer4`` of a ResNet after its stem ``maxpool``, ``blocks.0 … blocks.6`` of an EfficientNet, every block
    of a ViT, every layer of AlexNet (after its activation and pooling). The last entry is the output of the last
    stage, so a cut at ``stage_cuts(model)[-1 - k]`` trains the last k stages and whatever follows them.
    """
    names = [point.name for point in cut_points(model, input_size)[1:-1]]
    units = [name for name in names if _is_stage_level(model, name)]
    stages = [name for name in units if _is_composite(model.get_submodule(name)) and _has_weights(model, name)]
    if len(stages) < 2:
        return _layer_groups(model, names)
    groups: list[str] = []
    for name in units[: units.index(stages[-1]) + 1]:
        starts = name in stages or not groups
        # Normalisation, activation and pooling behind a stage belong to it, and the layers of a stem to one another.
        groups = [*groups, name] if starts else [*groups[:-1], name]
    return groups


def tap_names(model: nn.Module, input_size: InputSize = IMAGENET_SIZE) -> list[str]:
    """Return every layer whose output can be read as a feature, in order; the last is ``features``.

    All the modules that tracing saw, before and after activations, whether or not the backbone can be cut there. A
    module that runs twice has the names ``relu`` and ``relu_1``.
    """
    return list(trace(model, input_size).taps) or [FEATURES]


def read_taps(model: nn.Module, taps: list[str], input_size: InputSize = IMAGENET_SIZE) -> nn.Module:
    """Return a module that maps images to ``{tap: activation}`` in one pass, computing no more than the taps need.

    The activations come unpooled, each as it left its layer, also where the next layer works in place. The module
    shares the layers of `model` and stays in eval mode.

    Raises
    ------
    UsageError
        If there is no such tap.
    """
    found = trace(model, input_size)
    if found.record is None and set(taps) == {FEATURES}:
        return _FeaturesOnly(model)
    for tap in taps:
        if found.record is None or tap not in found.taps:
            raise UsageError(_unknown("tap", tap, model, found, list(found.taps) or [FEATURES]))
    assert found.record is not None
    nodes = {tap: found.taps[tap] for tap in taps}
    part = _part(Prefix, model, found, _needed(list(nodes.values())), found.record.image, nodes)
    return part.eval()


class _FeaturesOnly(nn.Module):
    """What `read_taps` can still do for a backbone that cannot be traced."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model.eval()

    def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        return {FEATURES: self.model(x)}


def _unknown(noun: str, name: str, model: nn.Module, found: Trace, known: list[str]) -> str:
    architecture = (getattr(model, "pretrained_cfg", None) or {}).get("architecture", "NAME")
    opaque = f" This backbone cannot be traced ({found.why_opaque})." if found.why_opaque else ""
    nearest = did_you_mean(name, known)
    remedy = f"`transfer backbones {architecture}` lists all."
    return f"{type(model).__name__} has no {noun} {name!r}.{nearest}{opaque} {remedy}"


# --- tracing ----------------------------------------------------------------------------------------------------------

_traces: weakref.WeakKeyDictionary[nn.Module, dict[InputSize, tuple[Any, Trace]]] = weakref.WeakKeyDictionary()


def trace(model: nn.Module, input_size: InputSize = IMAGENET_SIZE) -> Trace:
    """Trace `model` once and find its cuts; a second call with the same model and size returns the same `Trace`.

    It is traced again when its modules were exchanged. The weights are not looked at, except in backbones that
    cannot run on the ``meta`` device. The model's train/eval mode is left as it was.

    Raises
    ------
    UsageError
        If the backbone does not accept images of that size.
    """
    input_size = (input_size[0], input_size[1], input_size[2])  # a list will do
    structure = tuple((name, id(module)) for name, module in model.named_modules())
    known = _traces.setdefault(model, {})
    if input_size not in known or known[input_size][0] != structure:
        with torch.inference_mode(False), _in_mode(model, training=False):
            known[input_size] = (structure, _trace(model, input_size))
    return known[input_size][1]


def _trace(model: nn.Module, input_size: InputSize) -> Trace:
    try:
        record = _record(model)
        facts = _survey(model, record, input_size)
        places = _places(model, record, facts)
    except _OpaqueError as error:
        return _opaque_trace(model, input_size, str(error))
    # A module named `features` in the middle of a network answers to its last layer's name only.
    paths = {path: node for path, node in record.outputs.items() if path not in (PIXELS, FEATURES)}
    by_name = {path: places[node] for path, node in paths.items() if node in places}
    by_name[FEATURES] = places[record.features]
    taps = {path: node for path, node in paths.items() if _is_tensor(facts[node].values[0])}
    taps[FEATURES] = record.features
    cost = sum(fact.multiply_adds for fact in facts.values())
    points = [_pixels_point(model, input_size, cost), *(place.point for place in places.values())]
    return Trace(points, "", record, facts, by_name, taps)


class _OpaqueError(Exception):
    """The backbone's graph cannot be had."""


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


def _reads_training(module_type: Any) -> bool:
    """Whether a forward pass of this module's own code depends on train/eval mode, which tracing would freeze."""
    for owner in module_type.__mro__:
        if owner is nn.Module:
            return False
        for name, function in vars(owner).items():
            runs = isinstance(function, types.FunctionType) and name not in ("__init__", "train", "eval")
            if runs and "training" in function.__code__.co_names:
                return True
    return False


def _record(model: nn.Module) -> _Record:
    """Record the graph in eval mode, without its identities."""
    record = _record_once(model)
    if _may_differ_in_training(model, record):
        with _in_mode(model, training=True):
            in_training = _record_once(model)
        if _signature(record.graph) != _signature(in_training.graph):
            raise _OpaqueError("its forward pass takes another path in training")
    if not isinstance(record.features, fx.Node):
        raise _OpaqueError("it returns something other than one tensor")
    for node in list(record.graph.nodes):
        if node.op == "call_module" and type(model.get_submodule(node.target)) is nn.Identity and node.args:
            node.replace_all_uses_with(node.args[0])
            for path, output in record.outputs.items():
                if output is node:
                    record.outputs[path] = node.args[0]
            record.graph.erase_node(node)
    return record


def _record_once(model: nn.Module) -> _Record:
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
                follow_buffers = False  # code that branches on a buffer: what it computes from buffers is frozen
            else:
                raise _OpaqueError(_first_line(error)) from error
            continue
        finally:
            # The tracer leaves tensors that it met (`torch.tensor(2.0)`) on the model; they go into the record.
            constants = {name: vars(model).pop(name) for name in set(vars(model)) - own}
        return _Record(graph, tracer.outputs, constants)


def _may_differ_in_training(model: nn.Module, record: _Record) -> bool:
    """Whether code that reads the train/eval mode ran outside of the modules that were kept whole."""
    whole = {node.target for node in record.graph.nodes if node.op == "call_module"}
    return any(
        _reads_training(type(module)) and not whole.intersection([*_parents(path), path])
        for path, module in model.named_modules()
    )


def _signature(graph: fx.Graph) -> list[str]:
    """Describe each node, without the train/eval flag of functional dropout."""
    lines = []
    for node in graph.nodes:
        arguments = _dropout_arguments(node) if node.target in _DROPOUTS else {"args": node.args, **node.kwargs}
        lines.append(f"{node.op} {node.target} {arguments}")
    return lines


def _dropout_arguments(node: fx.Node) -> dict[str, Any]:
    bound = inspect.signature(node.target).bind(*node.args, **node.kwargs)  # type: ignore[arg-type]
    bound.apply_defaults()
    return {"input": bound.arguments["input"], "p": bound.arguments["p"], "inplace": bound.arguments["inplace"]}


@contextmanager
def _in_mode(model: nn.Module, training: bool) -> Iterator[None]:
    modes = [(module, module.training) for module in model.modules()]
    try:
        for module, _ in modes:
            module.training = training
        yield
    finally:
        for module, mode in modes:
            module.training = mode


# --- what each node computes ------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _TensorLike:
    shape: tuple[int, ...]
    dtype: torch.dtype


@dataclass
class _Fact:
    """What running a node showed: its value, its cost, and whether a later node overwrites it."""

    values: list[Any]  # one per run, tensors as _TensorLike
    multiply_adds: int
    receptive_field: int | None
    overwritten: bool


@dataclass(frozen=True)
class _Reach:
    """How far an activation sees: window and step in pixels (height, width), and the length of the channel axis."""

    window: tuple[int, int]
    step: tuple[int, int]
    channels: int


# Operations after which each activation depends on the same pixels as before.
# fmt: off
_POINTWISE = frozenset([
    "add", "sub", "mul", "div", "rsub", "neg", "pow", "exp", "log", "sqrt", "rsqrt", "abs", "where",
    "clamp", "clamp_min", "clamp_max", "relu", "hardtanh", "hardswish", "hardsigmoid", "silu", "gelu", "sigmoid",
    "tanh", "elu", "leaky_relu", "mish", "native_dropout",
    "native_batch_norm", "_native_batch_norm_legit_no_training", "cudnn_batch_norm",
    "view", "_unsafe_view", "_reshape_alias", "permute", "transpose", "t", "squeeze", "unsqueeze", "expand", "alias",
    "clone", "detach", "_to_copy", "copy", "constant_pad_nd",
    "slice", "select", "split", "split_with_sizes", "chunk", "unbind",
])
# fmt: on


class _Meter(TorchDispatchMode):
    """Counts multiply-adds and follows receptive fields through every operation, also inside untraced modules."""

    def __init__(self, image: torch.Tensor) -> None:
        super().__init__()
        self.multiply_adds = 0
        image._reach = _Reach((1, 1), (1, 1), image.shape[1])  # type: ignore[attr-defined]

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        name = func.overloadpacket.__name__
        first = out[0] if isinstance(out, (tuple, list)) and out else out
        if isinstance(first, torch.Tensor):
            self.multiply_adds += _multiply_adds(name, args, first)
            tensors = [item for arg in args for item in (arg if isinstance(arg, (list, tuple)) else [arg])]
            seen = [tensor._reach for tensor in tensors if hasattr(tensor, "_reach")]
            if seen:  # else it is computed from weights alone
                reach = _reach(name.rstrip("_"), args, first, seen)
                for tensor in out if isinstance(out, (tuple, list)) else [out]:
                    if isinstance(tensor, torch.Tensor):
                        tensor._reach = reach  # type: ignore[attr-defined]
        return out


def _multiply_adds(name: str, args: Any, out: torch.Tensor) -> int:
    if name == "convolution":
        image, kernel, transposed = args[0], args[1], args[6]
        return (image if transposed else out).numel() * kernel[0].numel()
    if name in ("mm", "bmm", "addmm", "baddbmm"):
        return out.numel() * args[-2 if name in ("mm", "bmm") else 1].shape[-1]
    if "scaled_dot_product" in name:
        query, key, value = args[:3]
        return query.shape[:-1].numel() * key.shape[-2] * (key.shape[-1] + value.shape[-1])
    return 0


def _reach(name: str, args: Any, out: torch.Tensor, seen: list[_Reach | None]) -> _Reach | None:
    """Return how far `out` sees, whose inputs have `seen` so much; None where that is no patch of fixed size."""
    patches = [reach for reach in seen if reach is not None]
    if len(patches) < len(seen) or len({reach.step for reach in patches}) > 1:
        return None
    height, width = (max(reach.window[axis] for reach in patches) for axis in (0, 1))
    reach = _Reach((height, width), patches[0].step, patches[0].channels)
    if name == "convolution" and not args[6]:
        return _slide(reach, args[1].shape[2:], args[3], args[5], out.shape[1])
    if name in ("max_pool2d_with_indices", "max_pool2d", "avg_pool2d"):
        kernel = args[1]
        stride = args[2] if len(args) > 2 and args[2] else kernel
        dilation = args[4] if name.startswith("max") and len(args) > 4 else [1, 1]
        return _slide(reach, kernel, stride, dilation, reach.channels)
    if name in ("mm", "addmm"):
        rows = args[-2] if name == "mm" else args[1]
        return _Reach(reach.window, reach.step, out.shape[-1]) if rows.shape[-1] == reach.channels else None
    if name == "native_layer_norm":
        return reach if list(args[1]) == [reach.channels] else None
    if name == "_adaptive_avg_pool2d":
        return reach if args[0].shape == out.shape else None
    if name == "cat":
        axis = args[1] if len(args) > 1 else 0
        wider = args[0][0].shape[axis] == reach.channels
        return _Reach(reach.window, reach.step, out.shape[axis] if wider else reach.channels)
    return reach if name in _POINTWISE else None


def _slide(reach: _Reach, kernel: Any, stride: Any, dilation: Any, channels: int) -> _Reach:
    """Apply the lecture's rule for one layer: the window grows by (K − 1) steps, the step by the stride."""
    axes = [
        (window + (k - 1) * d * step, step * s)
        for window, step, k, s, d in zip(
            reach.window, reach.step, _pair(kernel), _pair(stride), _pair(dilation), strict=True
        )
    ]
    return _Reach((axes[0][0], axes[1][0]), (axes[0][1], axes[1][1]), channels)


def _pair(value: Any) -> tuple[int, int]:
    numbers = list(value) if isinstance(value, (list, tuple)) else [value]
    return (numbers[0], numbers[-1])


class _Surveyor(fx.Interpreter):
    """Runs the graph and keeps every value, with its version when it was made, and the cost of each node."""

    def __init__(self, module: nn.Module, record: _Record, meter: _Meter) -> None:
        super().__init__(module, garbage_collect_values=False, graph=record.graph)
        self.extra_traceback = False
        self.record = record
        self.meter = meter
        self.versions: dict[fx.Node, int] = {}
        self.multiply_adds: dict[fx.Node, int] = {}

    def fetch_attr(self, target: str) -> Any:
        value = self.record.constants.get(target)
        if value is None:
            return super().fetch_attr(target)
        return value.to(_device(self.module)) if isinstance(value, torch.Tensor) else value

    def run_node(self, n: fx.Node) -> Any:
        cost_before, inputs_before = self.meter.multiply_adds, self._input_versions(n)
        value = super().run_node(n)
        if not n.users and self._input_versions(n) != inputs_before:
            raise _OpaqueError(f"{n.name} writes into its input, and nothing in the graph says who reads it")
        self.versions[n] = _version(value)
        self.multiply_adds[n] = self.meter.multiply_adds - cost_before
        return value

    def _input_versions(self, node: fx.Node) -> list[int]:
        return [_version(self.env[source]) for source in node.all_input_nodes]

    def facts(self, n_images: int) -> dict[fx.Node, _Fact]:
        facts = {}
        for node, value in self.env.items():
            reach = getattr(value, "_reach", None)
            facts[node] = _Fact(
                values=[_describe(value)],
                multiply_adds=self.multiply_adds[node] // n_images,
                receptive_field=max(reach.window) if reach else None,
                overwritten=_version(value) != self.versions[node],
            )
        return facts


def _version(value: Any) -> int:
    """Return how often a tensor's memory was written to; 0 for anything else."""
    return value._version if isinstance(value, torch.Tensor) else 0


def _survey(model: nn.Module, record: _Record, input_size: InputSize) -> dict[fx.Node, _Fact]:
    """Run every node at two batch sizes and, where it can be, two image sizes."""
    channels, height, width = input_size
    shapes = [(batch, *input_size) for batch in _BATCHES]
    try:
        module = _shapes_only(model)
        runs = [_run(module, record, shape) for shape in shapes]
        with suppress(Exception):  # a backbone that takes one image size only: then its numbers are constants
            runs.append(
                _run(module, record, (_BATCHES[0], channels, 2 * height, 3 * width))
            )  # tells one from the other
    except _OpaqueError:
        raise
    except Exception:  # not every operation has a meta kernel
        try:
            runs = [_run(model, record, shape) for shape in shapes]
        except Exception as error:  # the backbone itself then says whether it takes this size
            raise _OpaqueError(_first_line(error)) from error
    facts = runs[0]
    for other in runs[1:]:
        for node, fact in facts.items():
            fact.values.extend(other[node].values)
    return facts


def _run(module: nn.Module, record: _Record, shape: tuple[int, ...]) -> dict[fx.Node, _Fact]:
    image = torch.zeros(shape, device=_device(module), dtype=_dtype(module))
    with torch.no_grad(), _Meter(image) as meter:
        surveyor = _Surveyor(module, record, meter)
        surveyor.run(image)
    return surveyor.facts(shape[0])


def _first_line(error: Exception) -> str:
    return f"{type(error).__name__}: {[*str(error).splitlines(), ''][0]}"


def _shapes_only(model: nn.Module) -> nn.Module:
    """Return a copy on the ``meta`` device, without copying a single weight on the way."""
    stand_ins: dict[int, Any] = {}
    for parameter in model.parameters():
        stand_in = torch.empty_like(parameter, device="meta")
        stand_ins[id(parameter)] = nn.Parameter(stand_in, requires_grad=False)
    for buffer in model.buffers():
        stand_ins[id(buffer)] = torch.empty_like(buffer, device="meta")
    return copy.deepcopy(model, stand_ins)


def _describe(value: Any) -> Any:
    if isinstance(value, torch.Tensor):
        return _TensorLike(tuple(value.shape), value.dtype)
    if isinstance(value, (tuple, list)):
        return tuple(_describe(item) for item in value)
    return value


def _is_tensor(value: Any) -> bool:
    return isinstance(value, _TensorLike)


def _has_tensor(value: Any) -> bool:
    return any(_has_tensor(item) for item in value) if isinstance(value, tuple) else _is_tensor(value)


def _device(model: nn.Module) -> torch.device:
    return next((tensor.device for tensor in model.parameters()), torch.device("cpu"))


def _dtype(model: nn.Module) -> torch.dtype:
    return next((tensor.dtype for tensor in model.parameters() if tensor.is_floating_point()), torch.float32)


# --- finding the places -----------------------------------------------------------------------------------------------


def _places(model: nn.Module, record: _Record, facts: dict[fx.Node, _Fact]) -> dict[fx.Node, _Place]:
    """Return the offered cuts in order, those inside the network and ``features``, by their node."""
    names = _offered_names(model, record.outputs)
    names.pop(record.image, None)
    names[record.features] = FEATURES
    places = {}
    for node in record.graph.nodes:
        if node in names and _is_batch(facts[node].values):
            # Rather a cut that holds for this image size only than none.
            place = _place(model, record, facts, node, names[node]) or _place(
                model, record, facts, node, names[node], n_runs=len(_BATCHES)
            )
            if place is not None:
                places[node] = place
    if record.features not in places:
        raise _OpaqueError("its output is not one row per image")
    return places


def _place(
    model: nn.Module,
    record: _Record,
    facts: dict[fx.Node, _Fact],
    node: fx.Node,
    name: str,
    n_runs: int | None = None,
) -> _Place | None:
    """Return what lies left and right of `node`, judging by the first runs; None where more than a tensor crosses."""
    numbers: dict[fx.Node, Any] = {}
    computable: set[fx.Node] = {node}
    for other in record.graph.nodes:
        if other.op in ("placeholder", "output"):
            continue
        if other.op == "get_attr" or all(source in computable for source in other.all_input_nodes):
            computable.add(other)
        elif other is not node and not any(_has_tensor(value) for value in facts[other].values):
            number = _express(facts[other].values[:n_runs], facts[node].values[:n_runs])
            if number is not None:
                numbers[other] = number
                computable.add(other)
    if record.features not in computable:
        return None
    left = _needed([node])
    right = [] if name == FEATURES else _needed([record.features], until={node, *numbers})
    tensors_left, tensors_right = _tensors_of(model, left), _tensors_of(model, right)
    if tensors_left.keys() & tensors_right.keys():
        return None
    n_parameters = sum(parameter.numel() for parameter in model.parameters())
    n_right = sum(tensor.numel() for tensor in tensors_right.values() if isinstance(tensor, nn.Parameter))
    cost = sum(fact.multiply_adds for fact in facts.values())
    cost_left = sum(facts[other].multiply_adds for other in left)
    shape = facts[node].values[0].shape[1:]
    point = CutPoint(
        name=name,
        shape=shape,
        parameters_left=n_parameters - n_right,
        parameters_right=n_right,
        multiply_adds_left=cost_left,
        multiply_adds_right=cost - cost_left,
        receptive_field=facts[node].receptive_field,
        cache_bytes=2 * math.prod(shape),
    )
    crossing = {other: number for other, number in numbers.items() if not other.users.keys().isdisjoint(right)}
    return _Place(point, node, left, right, crossing)


def _pixels_point(model: nn.Module, input_size: InputSize, cost: int) -> CutPoint:
    n_parameters = sum(parameter.numel() for parameter in model.parameters())
    return CutPoint(PIXELS, input_size, 0, n_parameters, 0, cost, 1, math.prod(input_size))


def _opaque_trace(model: nn.Module, input_size: InputSize, reason: str) -> Trace:
    """Return what can be said of a backbone that only runs as a whole."""

    def run(module: nn.Module) -> tuple[tuple[int, ...], int]:
        image = torch.zeros((_BATCHES[0], *input_size), device=_device(module), dtype=_dtype(module))
        with torch.no_grad(), _Meter(image) as meter:
            features = module(image)
        return tuple(features.shape[1:]), meter.multiply_adds // _BATCHES[0]

    try:
        shape, cost = run(_shapes_only(model))
    except Exception:  # not every operation has a meta kernel
        try:
            shape, cost = run(model)
        except Exception as error:
            size = "×".join(str(side) for side in input_size)
            problem = f"{type(model).__name__} does not run on images of {size} ({_first_line(error)})"
            raise UsageError(f"{problem}. Give the size that it was built for.") from error
    pixels = _pixels_point(model, input_size, cost)
    features = CutPoint(FEATURES, shape, pixels.parameters_right, 0, cost, 0, None, 2 * math.prod(shape))
    return Trace([pixels, features], reason)


def _is_batch(values: list[Any]) -> bool:
    """Whether a value is one floating-point tensor with one row per image."""
    batches = (_BATCHES[0], _BATCHES[1], _BATCHES[0])
    return all(
        _is_tensor(value) and value.dtype.is_floating_point and value.shape[:1] == (batch,)
        for value, batch in zip(values, batches, strict=False)
    )


@dataclass(frozen=True)
class _Size:
    """A number that is the length of the crossing tensor along an axis."""

    axis: int


@dataclass(frozen=True)
class _Attribute:
    """A value that is an attribute of the crossing tensor: its dtype or device."""

    name: str


@dataclass(frozen=True)
class _Constant:
    value: Any


def _express(values: list[Any], crossing: list[_TensorLike]) -> Any:
    """Say how to get a value from the crossing tensor, judging by all runs; None if it cannot be had."""
    first = values[0]
    if isinstance(first, tuple):
        if any(len(value) != len(first) for value in values):
            return None
        items = tuple(_express(list(column), crossing) for column in zip(*values, strict=True))
        return None if None in items else items
    if isinstance(first, torch.device):
        return _Attribute("device")
    if isinstance(first, torch.dtype):
        same = all(value == tensor.dtype for value, tensor in zip(values, crossing, strict=True))
        return _Attribute("dtype") if same else _Constant(first)
    if isinstance(first, int) and not isinstance(first, bool):
        for axis in range(len(crossing[0].shape)):
            if all(value == tensor.shape[axis] for value, tensor in zip(values, crossing, strict=True)):
                return _Size(axis)
    return _Constant(first) if all(value == first for value in values) else None


def _needed(nodes: list[fx.Node], until: set[fx.Node] = frozenset()) -> list[fx.Node]:  # type: ignore[assignment]
    """Return what computing `nodes` takes, in order of execution, not looking behind the nodes in `until`."""
    found: set[fx.Node] = set()
    waiting = list(nodes)
    while waiting:
        node = waiting.pop()
        if node not in found and node not in until and node.op != "placeholder":
            found.add(node)
            waiting.extend(node.all_input_nodes)
    return [node for node in nodes[0].graph.nodes if node in found]


def _tensors_of(model: nn.Module, nodes: list[fx.Node]) -> dict[int, torch.Tensor]:
    """Return the tensors of the state dict that `nodes` use, by identity."""
    targets = {str(node.target) for node in nodes if node.op in ("call_module", "get_attr")}
    tensors = model.state_dict(keep_vars=True)
    return {id(tensor): tensor for path, tensor in tensors.items() if targets.intersection([*_parents(path), path])}


def _attribute(model: nn.Module, path: str) -> Any:
    return functools.reduce(getattr, path.split("."), model)


# --- names ------------------------------------------------------------------------------------------------------------


def _offered_names(model: nn.Module, outputs: dict[str, fx.Node]) -> dict[fx.Node, str]:
    """Return for each node its readable name, where it has one: the outermost layer, block or stage that ends there."""
    paths: dict[fx.Node, list[str]] = {}
    modules = dict(model.named_modules())
    for path, node in outputs.items():
        if path in modules and path + "_1" not in outputs and _is_readable(model, path):
            paths.setdefault(node, []).append(path)
    names = {}
    for node, candidates in paths.items():
        name = candidates[0]
        for path in candidates[1:]:  # they come innermost first; others merely pass the tensor on
            name = path if name.startswith(path + ".") else name
        # A cut behind a dropout would take that dropout out of the training of the suffix.
        if "Drop" not in type(modules[name]).__name__:
            names[node] = name
    return names


def _is_readable(model: nn.Module, path: str) -> bool:
    """Whether a path names a layer, block or stage: not a block's inside, and not the list that holds all blocks."""
    if path in (PIXELS, FEATURES) or _is_collection(path, model.get_submodule(path)):
        return False
    if not _is_composite(model.get_submodule(path)) and any(parent[-1].isdigit() for parent in _parents(path)):
        return False  # a single layer of a stage
    return all(_is_container(model.get_submodule(parent)) for parent in _parents(path))


def _is_stage_level(model: nn.Module, path: str) -> bool:
    """Whether a path names a stage or what stands between stages, not a part of one."""
    return all(_is_collection(parent, model.get_submodule(parent)) for parent in _parents(path))


def _parents(path: str) -> list[str]:
    parts = path.split(".")
    return [".".join(parts[:depth]) for depth in range(1, len(parts))]


def _is_composite(module: nn.Module) -> bool:
    return next(module.children(), None) is not None


def _is_block(module: nn.Module) -> bool:
    return _is_composite(module) and not isinstance(module, nn.Sequential)


def _is_container(module: nn.Module) -> bool:
    """Whether a module is a row of layers or blocks (``features``, a stage) rather than a block with an inside."""
    if type(module) in (nn.Sequential, nn.ModuleList, nn.ModuleDict):
        return True
    children = list(module.children())
    rows = [list(child.children()) for child in children if type(child) in (nn.Sequential, nn.ModuleList)]
    return any(row and all(_is_block(block) for block in row) for row in [children, *rows])


def _is_collection(path: str, module: nn.Module) -> bool:
    """Whether a module is the one row of all stages or blocks (``blocks``, ``stages``, but ``layer3`` is a stage)."""
    return not path[-1].isdigit() and _is_container(module) and any(_is_composite(child) for child in module.children())


def _has_weights(model: nn.Module, path: str) -> bool:
    return any(isinstance(module, (nn.Conv2d, nn.Linear)) for module in model.get_submodule(path).modules())


def _layer_groups(model: nn.Module, names: list[str]) -> list[str]:
    """Return one cut per convolution or linear layer, behind its activation and pooling."""
    groups: list[str] = []
    for name in names:
        same_row = groups and groups[-1].rpartition(".")[0] == name.rpartition(".")[0]
        if same_row and not _has_weights(model, name):
            groups[-1] = name
        elif _has_weights(model, name):
            groups.append(name)
    return groups


# --- building the parts -----------------------------------------------------------------------------------------------


def _part(
    part_type: type[fx.GraphModule],
    model: nn.Module,
    found: Trace,
    nodes: list[fx.Node],
    start: fx.Node,
    result: Any,
    numbers: dict[fx.Node, Any] | None = None,
    twice: set[str] | None = None,
) -> fx.GraphModule:
    """Copy `nodes` into a module of their own that takes the value of `start` and returns that of `result`.

    Modules without tensors that both sides use (named in `twice`) are copied, so that each side has its own mode.
    """
    record = found.record
    assert record is not None
    graph = fx.Graph()
    root: dict[str, Any] = {}
    copies: dict[fx.Node, Any] = {}
    taken = set(result.values()) if isinstance(result, dict) else set()
    kept: dict[fx.Node, fx.Node] = {}
    entry = graph.placeholder("image" if start is record.image else "activation")
    # A layer that works in place must not write into the caller's (cached) activations.
    copies[start] = graph.call_method("clone", (entry,)) if found.facts[start].overwritten else entry
    for node, number in (numbers or {}).items():
        copies[node] = _spell(graph, entry, number)
    for node in nodes:
        if node.target in _DROPOUTS:
            copies[node] = _dropout_module(graph, root, node, copies)
        else:
            copies[node] = graph.node_copy(node, copies.__getitem__)
            if node.op == "call_module":
                module = model.get_submodule(str(node.target))
                root[str(node.target)] = copy.deepcopy(module) if twice and node.target in twice else module
            elif node.op == "get_attr":
                root[str(node.target)] = record.attribute(model, str(node.target))
        if node in taken:
            value = copies[node]
            kept[node] = graph.call_method("clone", (value,)) if found.facts[node].overwritten else value
    if isinstance(result, dict):
        graph.output({tap: kept.get(node, copies[node]) for tap, node in result.items()})
    elif part_type is Prefix:
        graph.output(graph.call_method("detach", (copies[result],)))
    else:
        graph.output(copies[result])
    shared = set(model.modules())
    transient = [path for path in root if path in record.constants or _is_transient(model, path)]
    part = part_type(root, graph)
    for path in transient:
        owner, _, name = path.rpartition(".")
        part.get_submodule(owner)._non_persistent_buffers_set.add(name)
    for module in part.modules():
        if module not in shared:
            module.training = model.training
    return part


def _spell(graph: fx.Graph, entry: fx.Node, number: Any) -> Any:
    """Write the nodes that get a number from the crossing tensor."""
    if isinstance(number, tuple):
        return tuple(_spell(graph, entry, item) for item in number)
    if isinstance(number, _Size):
        return graph.call_method("size", (entry, number.axis))
    if isinstance(number, _Attribute):
        return graph.call_function(getattr, (entry, number.name))
    return number.value


def _dropout_module(graph: fx.Graph, root: dict[str, Any], node: fx.Node, copies: dict[fx.Node, Any]) -> fx.Node:
    """Write functional dropout as a module: its train/eval flag was frozen by tracing, a module's is not."""
    arguments = _dropout_arguments(node)
    name = f"_{node.name}"
    root[name] = _DROPOUTS[node.target](p=arguments["p"], inplace=arguments["inplace"])  # type: ignore[index]
    return graph.call_module(name, (copies[arguments["input"]],))


def _modules_of(nodes: list[fx.Node]) -> set[str]:
    return {str(node.target) for node in nodes if node.op == "call_module"}


def _is_transient(model: nn.Module, path: str) -> bool:
    """Whether a path names a tensor that is not in the state dict."""
    owner_path, _, name = path.rpartition(".")
    try:
        owner = model.get_submodule(owner_path)
    except AttributeError:  # a module made here
        return False
    value = getattr(owner, name, None)
    if not isinstance(value, torch.Tensor) or isinstance(value, nn.Parameter):
        return False
    return name in owner._non_persistent_buffers_set or name not in owner._buffers


def _adopt_unused(prefix: nn.Module, suffix: nn.Module, model: nn.Module) -> None:
    """Give the prefix the names in `model` that the forward pass does not use, so that none is lost."""
    used = prefix.state_dict().keys() | suffix.state_dict().keys()
    on_the_right = {id(tensor) for tensor in suffix.state_dict(keep_vars=True).values()}
    for path in model.state_dict().keys() - used:
        *parents, name = path.split(".")
        owner = suffix if id(_attribute(model, path)) in on_the_right else prefix  # right: one tensor of two names
        for parent in parents:
            if not hasattr(owner, parent):
                owner.add_module(parent, nn.Module())
            owner = getattr(owner, parent)
        value = _attribute(model, path)
        if isinstance(value, nn.Parameter):
            owner.register_parameter(name, value)
        else:
            owner.register_buffer(name, value)


def _same_persistence(copied: Any, original: nn.Module) -> Any:
    """Restore which buffers stay out of the state dict, which GraphModule's deepcopy forgets."""
    for path, module in original.named_modules():
        copied.get_submodule(path)._non_persistent_buffers_set = set(module._non_persistent_buffers_set)
    return copied
