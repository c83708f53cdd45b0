"""Name: what a place in a backbone is called, the path of the outermost layer, block or stage that ends there.

Backbones nest their modules in their own ways; three words make one rule of them. A module is *composite* if it has
modules inside, a *container* if these are a row of layers or blocks (a stage, ``features``), and a *collection* if it
is the one row of all stages or blocks (``blocks``, ``stages``; ``layer3`` is a stage).
"""

from __future__ import annotations

from torch import fx, nn

from transfer.cuts.points import FEATURES, PIXELS


def readable_names(model: nn.Module, outputs: dict[str, fx.Node]) -> dict[fx.Node, str]:
    """Return for each node its name, where it has one, from the output node of each module."""
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


def parents(path: str) -> list[str]:
    """Return the paths of the modules around a module, the outermost first.

    >>> parents("layer1.0.conv1")
    ['layer1', 'layer1.0']
    """
    parts = path.split(".")
    return [".".join(parts[:depth]) for depth in range(1, len(parts))]


def is_composite(module: nn.Module) -> bool:
    return next(module.children(), None) is not None


def is_collection(model: nn.Module, path: str) -> bool:
    module = model.get_submodule(path)
    return not path[-1].isdigit() and _is_container(module) and any(map(is_composite, module.children()))


def _is_container(module: nn.Module) -> bool:
    if type(module) in (nn.Sequential, nn.ModuleList, nn.ModuleDict):
        return True
    children = list(module.children())
    rows = [list(child.children()) for child in children if type(child) in (nn.Sequential, nn.ModuleList)]
    return any(row and all(map(_is_block, row)) for row in [children, *rows])


def _is_block(module: nn.Module) -> bool:
    return is_composite(module) and not isinstance(module, nn.Sequential)


def _is_readable(model: nn.Module, path: str) -> bool:
    """Whether a path names a layer, block or stage: not a block's inside, and not the list that holds all blocks."""
    if path in (PIXELS, FEATURES) or is_collection(model, path):
        return False
    in_a_stage = any(parent[-1].isdigit() for parent in parents(path))
    if in_a_stage and not is_composite(model.get_submodule(path)):
        return False
    return all(_is_container(model.get_submodule(parent)) for parent in parents(path))
