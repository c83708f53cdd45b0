"""Preparation: what every strategy needs before it starts, a dataset in parts, a network, and what a head reads."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path

from transfer.backbones import Backbone, load_backbone, see
from transfer.dataset import (
    Dataset,
    Source,
    join_domains,
    read_split,
    require_drawable,
    require_test,
    scan,
    stop_on_bad,
)
from transfer.errors import UsageError
from transfer.features import FEATURES, Representation, extract, require_strictly
from transfer.progress import Progress
from transfer.recipe import Recipe
from transfer.runs import require_as_written, reserve
from transfer.strategies.cutting import cut_shape, find_cut
from transfer.strategies.inspecting import describe_plan
from transfer.strategies.jobs import Clock, Job
from transfer.strategies.parts import NOT_NEEDED, find_parts
from transfer.strategies.protocols import describe_protocol, seen_as
from transfer.strategies.tapping import SEARCH, candidates, ranks_taps, search_taps

_ENOUGH = 128  # images whose features tell the speed of the network


def prepare(
    data: Source,
    test: Source | None,
    few_target: int,
    recipe: Recipe,
    out: str | Path | None,
    split: str | Path | None,
    progress: Progress,
) -> tuple[Job, Path]:
    """Scan, load the network, compute its features, split; return the job and the run's folder.

    What can be refused is refused before the slow part.
    """
    for table in (data, test, split):
        require_as_written(table)
    folder = reserve(data, recipe.strategy, out, test=test)
    clock = Clock(recipe.train.minutes)
    with clock.time("scan"):
        dataset = _scan(data, recipe, progress)
        if test is not None:
            dataset = join_domains(dataset, _scan(test, recipe, progress, min_classes=1), few_target)
    if split is not None:
        read_split(split, dataset, seed=recipe.seed, before_decoding=True)
    else:
        require_drawable(dataset)
    with clock.time("load backbone"):
        backbone = _load(recipe)
        searched = candidates(backbone) if recipe.taps == (SEARCH,) else []
        compared = candidates(backbone) if recipe.is_auto and ranks_taps(backbone, len(dataset)) else []
        read = _represent(searched or recipe.taps, recipe, backbone)
        cut = find_cut(recipe, backbone) if recipe.is_fine_tuning else None
        if recipe.is_auto and recipe.cut is not None:
            find_cut(recipe.with_strategy("partial"), backbone)  # what is wrong with it is said now
    with clock.time("features"):
        extraction = extract(
            dataset,
            backbone,
            compared or read.taps,
            pool=read.pool,
            views=read.views,
            exact=recipe.exact,
            device=recipe.device,
            max_pixels=recipe.data.max_pixels,
            progress=progress,
        )
    dataset = extraction.dataset
    stop_on_bad(dataset, recipe.data.on_bad, recipe.data.max_bad_share, "--set data.max_bad_share")
    kept, parts = find_parts(dataset, recipe, split)
    require_test(dataset, parts)
    if len(kept) < len(dataset):
        dataset = dataset.keep(kept, NOT_NEEDED)
    found = None
    if searched:
        with clock.time("taps"):
            found = search_taps(searched, extraction, dataset, parts, recipe)
        progress.say(found.rule)
        recipe = recipe.model_copy(update={"tap": list(found.taps)})
        read = _represent(found.taps, recipe, backbone)
    protocol = describe_protocol(recipe, backbone.preprocessing)
    for line in [*dataset.notes, *protocol, *describe_plan(recipe, dataset, parts)]:
        progress.say(line)
    X = extraction.represent(read, dataset.hashes)
    # of a few images it would be the speed of starting
    speed = extraction.seconds_running / extraction.n_computed if extraction.n_computed >= _ENOUGH else 0.0
    return Job(recipe, dataset, parts, backbone, read, X, progress, clock, cut, speed, extraction, found), folder


def _scan(data: Source, recipe: Recipe, progress: Progress, min_classes: int = 2) -> Dataset:
    dataset = scan(data, min_classes=min_classes)
    if recipe.data.strict:
        require_strictly(dataset, recipe.data.max_pixels, progress)
    return dataset


def _load(recipe: Recipe) -> Backbone:
    """Load the network, which sees images as the recipe says."""
    backbone = load_backbone(recipe.backbone, recipe.weights, seed=recipe.seed)
    seen = seen_as(backbone.preprocessing, recipe.features)
    if backbone.is_handmade and seen != backbone.preprocessing:
        raise UsageError(
            f"How {backbone.name} sees an image is part of it: leave out features.image_size and features.crop_*."
        )
    return see(backbone, seen)


def _represent(taps: Sequence[str], recipe: Recipe, backbone: Backbone) -> Representation:
    """Return what a head reads, without a pooling that changes nothing: most networks end in rows, not in maps."""
    read = Representation.from_settings(taps, recipe.features)
    is_idle = read.taps == (FEATURES,) and read.pool != "average"
    if is_idle and len(cut_shape(backbone, FEATURES)) == 1:
        return dataclasses.replace(read, pool="average")
    return read
