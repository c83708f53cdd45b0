"""Stage: a main part of a backbone; between two of them is where partial fine-tuning cuts."""

from __future__ import annotations

from torch import nn

from transfer.cuts.names import is_collection, is_composite, parents
from transfer.cuts.points import IMAGENET_SIZE, InputSize
from transfer.cuts.traces import cut_points


def stage_cuts(model: nn.Module, input_size: InputSize = IMAGENET_SIZE) -> list[str]:
    """Return the cuts between the main stages, in order: the stem, then the output of each stage.

    ``layer1 … layer4`` of a ResNet after its stem ``maxpool``, ``blocks.0 … blocks.6`` of an EfficientNet, every block
    of a ViT, every layer of AlexNet (after its activation and pooling). The last entry is the output of the last
    stage, so a cut at ``stage_cuts(model)[-1 - k]`` trains the last k stages and whatever follows them.
    """
    names = [point.name for point in cut_points(model, input_size)[1:-1]]
    units = [name for name in names if all(is_collection(model, parent) for parent in parents(name))]
    stages = [name for name in units if is_composite(model.get_submodule(name)) and _has_weights(model, name)]
    if len(stages) < 2:
        return _layer_groups(model, names)
    groups: list[str] = []
    for name in units[: units.index(stages[-1]) + 1]:
        starts = name in stages or not groups
        # Normalisation, activation and pooling behind a stage belong to it, and the layers of a stem to one another.
        groups = [*groups, name] if starts else [*groups[:-1], name]
    return groups


def _layer_groups(model: nn.Module, names: list[str]) -> list[str]:
    """Return one cut per convolution or linear layer, behind its activation and pooling."""
    groups: list[str] = []
    for name in names:
        if _has_weights(model, name):
            groups.append(name)
        elif groups and groups[-1].rpartition(".")[0] == name.rpartition(".")[0]:
            groups[-1] = name
    return groups


def _has_weights(model: nn.Module, path: str) -> bool:
    return any(isinstance(module, (nn.Conv2d, nn.Linear)) for module in model.get_submodule(path).modules())
