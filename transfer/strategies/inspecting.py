"""Inspection: what a dataset holds, and what `fit` would do with it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from transfer.backbones import HANDMADE, default_preprocessing, full_name
from transfer.dataset import Dataset, Source, Split, describe, require_faultless, require_test, scan
from transfer.errors import DataError
from transfer.features import decode_all
from transfer.images import MAX_PIXELS
from transfer.progress import Progress
from transfer.recipe import Recipe, load_recipe
from transfer.strategies.courses import learned_from
from transfer.strategies.parts import find_parts
from transfer.strategies.protocols import describe_protocol, seen_as
from transfer.strategies.tapping import SEARCH


def inspect(
    data: Source,
    recipe: str | Path | Recipe | None = None,
    *,
    seed: int | None = None,
    max_pixels: int = MAX_PIXELS,
    strict: bool = False,
    quiet: bool = False,
) -> dict[str, Any]:
    """Look at a dataset before anything is trained: every image is decoded, nothing is written.

    Parameters
    ----------
    data
        As in `fit`.
    recipe
        With which ``plan`` says what `fit` would do; its shares of test and val are those of the split.
    seed
        Of the split that would be drawn; by default the recipe's.
    strict
        Refuse a dataset with any fault, with a `DataError` that says all.

    Returns
    -------
    dict
        What `dataset.describe` says of classes, parts, broken files and duplicates, and ``pixels`` and ``plan``.
    """
    chosen = recipe if isinstance(recipe, Recipe) else load_recipe(recipe)
    if seed is not None:
        chosen = chosen.model_copy(update={"seed": seed})
    seen = seen_as(default_preprocessing(full_name(chosen.backbone)), chosen.features)
    dataset = scan(data)
    with Progress(quiet).task("Decoding every image", len(dataset)) as advance:
        decoded = decode_all(dataset, max_pixels, advance)
    dataset = dataset.without(decoded.unreadable)
    if strict:
        require_faultless(dataset)
    whole = chosen.model_copy(update={"data": chosen.data.model_copy(update={"per_class": None})})
    _, split = find_parts(dataset, whole)
    kept, parts = find_parts(dataset, chosen)
    try:
        require_test(dataset, split)
        plan = [*describe_plan(chosen, dataset.subset(kept), parts), *describe_protocol(chosen, seen)]
    except DataError as error:  # what is there is shown all the same
        plan = [f"Refuse this dataset: {error}"]
    described = describe(dataset, split)
    notes = [*described["notes"], *decoded.notes]
    return {**described, "notes": notes, "pixels": decoded.pixels, "plan": plan}


def describe_plan(recipe: Recipe, dataset: Dataset, split: Split) -> list[str]:
    """Say in a few lines what `fit` will do with this dataset."""
    read = "the layers that a search finds" if recipe.taps == (SEARCH,) else " and ".join(map(repr, recipe.taps))
    made = "made by hand" if recipe.backbone in HANDMADE else f"frozen up to {read}"
    what = {
        "auto": f"how much of {recipe.backbone} is trained is found by measurement",
        "partial": f"{recipe.backbone} frozen up to {recipe.cut or 'its last two stages'!r}, the rest trained",
        "full": f"all of {recipe.backbone} trained",
    }.get(recipe.strategy, f"{recipe.backbone} {made}")
    n_learned = len(learned_from(recipe, split))
    # what is trained, or found by the labels of these images, is not cross-validated, and of `auto` it is not yet known
    is_plain = not recipe.may_tune and recipe.taps != (SEARCH,)
    return [
        f"{recipe.strategy}: {what}, a head of {len(dataset.classes)} classes on {n_learned} images; "
        f"{len(split.development) - n_learned} check it, {len(split.indices('test'))} are reported on.",
        *(split.reason if is_plain else split.reasons_of_parts),
    ]
