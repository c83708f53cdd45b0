"""Cut: where a fine-tuning strategy divides the network; found before the slow part, as is whatever forbids it."""

from __future__ import annotations

from transfer import cuts
from transfer.backbones import Backbone
from transfer.errors import UsageError
from transfer.recipe import Recipe

_STAGES = 2  # that `partial` trains where the recipe names no cut


def find_cut(recipe: Recipe, backbone: Backbone) -> str:
    """Return the cut of the recipe, or the usual one of its strategy, by the name that `cut_points` gives it.

    Raises
    ------
    UsageError
        There is no such cut, or the recipe asks for what cannot be trained there.
    """
    if backbone.is_handmade:
        raise UsageError(f"{backbone.name} has no layers to train. Use --recipe linear-svm, or a pretrained backbone.")
    if recipe.strategy == "full":
        if recipe.cut not in (None, cuts.PIXELS):
            raise UsageError(f"`full` cuts at the pixels, not at {recipe.cut!r}. Use --recipe partial.")
        return cuts.PIXELS
    at = _named(recipe.cut, backbone) if recipe.cut is not None else _usual(backbone)
    shape = cut_shape(backbone, at)
    if recipe.train.cutmix and (len(shape) != 3 or (backbone.is_map_last and at != cuts.PIXELS)):
        raise UsageError(f"CutMix needs maps (C, H, W), which {at!r} is not. Use train.mixup, or cut at the pixels.")
    return at


def cut_shape(backbone: Backbone, at: str) -> tuple[int, ...]:
    """Return the shape of what crosses the cut, per image."""
    return next(p.shape for p in cuts.cut_points(backbone.model, backbone.input_shape) if p.name == at)


def _named(name: str, backbone: Backbone) -> str:
    """Return the one name of a cut that may have several, such as the last block of a stage."""
    cuts.cut(backbone.model, name, backbone.input_shape)  # says what there is instead
    if name in (cuts.PIXELS, cuts.FEATURES):
        return name
    return cuts.trace(backbone.model, backbone.input_shape).places[name].point.name


def _usual(backbone: Backbone) -> str:
    stages = cuts.stage_cuts(backbone.model, backbone.input_shape)
    if len(stages) <= _STAGES:
        raise UsageError(
            f"{backbone.name} has no stages to cut between. Name a cut with --cut (`transfer backbones "
            f"{backbone.name}` lists them), or use --recipe full."
        )
    return stages[-1 - _STAGES]
