"""Depth: how far from the image a parameter of a backbone is, counted in blocks."""

from __future__ import annotations

from torch import nn

from transfer.cuts.points import IMAGENET_SIZE, InputSize
from transfer.cuts.traces import trace


def parameter_depths(model: nn.Module, input_size: InputSize = IMAGENET_SIZE) -> dict[str, int]:
    """Return for each parameter the number of the block that it is in, 0 nearest to the image.

    A block is what lies between two neighbouring cut points and has parameters. The order is that of execution, so it
    holds for every architecture; a backbone that cannot be traced is one block.
    """
    names = [name for name, _ in model.named_parameters()]
    found = trace(model, input_size)
    if found.record is None:
        return dict.fromkeys(names, 0)
    boundaries = {place.node for place in found.places.values()}
    n_passed = 0
    block_of: dict[str, int] = {}
    for node in found.record.graph.nodes:
        if node.op in ("call_module", "get_attr"):
            target = str(node.target)
            for name in names:
                if name == target or name.startswith(target + "."):
                    block_of.setdefault(name, n_passed)
        n_passed += node in boundaries
    depth_of = {block: depth for depth, block in enumerate(sorted(set(block_of.values())))}
    return {name: depth_of[block_of[name]] if name in block_of else 0 for name in names}
