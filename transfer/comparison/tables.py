"""Table: from the results of all fits to one row per recipe, best first, and what is to be known when reading it."""

from __future__ import annotations

import math
import statistics
from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np

from transfer.comparison.results import Result
from transfer.metrics import paired_p_value, wilson
from transfer.recipe import Recipe

COLUMNS = (
    "recipe",
    "accuracy",  # on test, the mean over seeds
    "accuracy_low",
    "accuracy_high",
    "accuracy_deviation",  # standard, over seeds
    "covers_best",  # whether the interval covers the best recipe's accuracy
    "p_value",  # that this recipe and the best one err alike
    "val_accuracy",
    "seconds",
    "peak_memory_mb",
    "model_mb",
    "n_seeds",
    "n_test",
    "error",
)
_SHARED = ("features", "views", "views again")  # steps whose results a later fit finds in the cache
_SECOND_READINGS = ("cross-validation",)  # of which nothing is kept in the model
_MB = 1e6


def tabulate(results: Sequence[Result]) -> list[dict[str, Any]]:
    """Return one row per recipe with `COLUMNS`, best test accuracy first, those that failed last.

    Of several seeds the accuracy is the mean, and stands with its standard deviation over seeds. The interval is
    Wilson's for that mean, with the number of *different* images that it rests on: an image that is tested with every
    seed says little more than one that is tested once, so n is (Σ m)² / Σ m² for images tested m times (Kish's
    effective size): the sum of all parts where they share no image, one part where they are the same. A t interval
    over 3 seeds would be 2.5 times as wide as their standard deviation, knows nothing of how few images there are, and
    has no meaning where every seed tests the same ones.

    A recipe that failed with a seed has no numbers, since they would be of other images than those of the rest.

    Parameters
    ----------
    results
        Of the same seeds for each recipe, those of one seed reported on the same images.
    """
    by_recipe: dict[str, list[Result]] = {}
    for result in sorted(results, key=lambda result: result.seed):
        by_recipe.setdefault(result.recipe, []).append(result)
    seconds = charge(results)
    whole = {name: group for name, group in by_recipe.items() if not any(result.error for result in group)}
    rows = [_numbers(name, group, seconds) for name, group in whole.items()]
    rows.sort(key=lambda row: (-row["accuracy"], row["seconds"]))
    if rows:
        best = _is_right(whole[rows[0]["recipe"]])
        for row in rows:
            row["covers_best"] = bool(row["accuracy_low"] <= rows[0]["accuracy"] <= row["accuracy_high"])
            row["p_value"] = None if row is rows[0] else paired_p_value(_is_right(whole[row["recipe"]]), best)
    for name, group in by_recipe.items():
        if name not in whole:
            error = next(result.error for result in group if result.error)
            rows.append({"recipe": name, "n_seeds": len(group), "error": error})
    return [{column: row.get(column) for column in COLUMNS} for row in rows]


def charge(results: Sequence[Result]) -> dict[tuple[str, int], float]:
    """Return for each recipe and seed the seconds that it would take alone, from an empty cache.

    A step that found what an earlier fit had computed costs what it cost there: the most that any fit took for it that
    needs the same. Features are one pass through the network for each view, whichever layers are read in it. `auto`,
    whose trials are steps of their own, started from an empty cache.
    """
    finished = [result for result in results if not result.error]
    dearest: dict[tuple[Any, ...], float] = {}
    for result in finished:
        for step in _shared_steps(result):
            key = _key(step, result.settings)
            dearest[key] = max(dearest.get(key, 0.0), result.steps[step] / _n_passes(step, result.settings))
    charged = {}
    for result in finished:
        seconds = result.seconds - sum(result.steps.get(step, 0.0) for step in _SECOND_READINGS)
        for step in _shared_steps(result):
            seconds += dearest[_key(step, result.settings)] * _n_passes(step, result.settings) - result.steps[step]
        charged[result.recipe, result.seed] = seconds
    return charged


def _shared_steps(result: Result) -> list[str]:
    """Return the steps of a fit that may have found what an earlier one had computed."""
    return [] if result.settings.is_auto else [step for step in _SHARED if step in result.steps]


def describe(rows: Sequence[dict[str, Any]], results: Sequence[Result]) -> list[str]:
    """Say what is to be known when reading the table, one line each."""
    finished = [result for result in results if not result.error]
    if not finished:
        return []
    notes = []
    n_seeds = len({result.seed for result in results})
    if n_seeds > 1:
        notes.append(
            f"Accuracy: mean ± standard deviation over {n_seeds} seeds; interval: Wilson's, 95 %, for the mean on the "
            "images that were tested, each counted once."
        )
    notes.append("p: that a recipe and the best err alike, exact McNemar on the same test images.")
    if n_seeds > 1 and _share_images(finished):
        notes.append("The seeds share test images, which p takes for independent ones: it is too small.")
    notes.append(
        "Seconds: what the recipe takes alone, from an empty cache. What an earlier fit here had computed already "
        "counts with the seconds that it took there; the start of Python and cross-validation do not count."
    )
    return notes + _on_choosing(rows, finished)


def best_by_val(rows: Sequence[dict[str, Any]], results: Sequence[Result]) -> list[dict[str, Any]]:
    """Return the rows of the best val accuracy in the order of the results, in which the recipes were named.

    The first is the one to choose: measured seconds would tell those apart differently every time. There is none where
    not every finished recipe has a val accuracy.
    """
    ranked = {row["recipe"]: row for row in rows if row["error"] is None}
    if not ranked or any(row["val_accuracy"] is None for row in ranked.values()):
        return []
    best = max(row["val_accuracy"] for row in ranked.values())
    named = [ranked[name] for name in dict.fromkeys(result.recipe for result in results) if name in ranked]
    return [row for row in named if math.isclose(row["val_accuracy"], best, abs_tol=1e-9)]


def _on_choosing(rows: Sequence[dict[str, Any]], finished: Sequence[Result]) -> list[str]:
    """Say which recipe val would choose, and why the best on test is no estimate."""
    ranked = [row for row in rows if row["error"] is None]
    if len(ranked) < 2:
        return []
    notes = [
        f"The best of {len(ranked)} by test accuracy is flattered: it was chosen on the very images that it is "
        "reported on. Choose by val, and report test."
    ]
    best = best_by_val(rows, finished)
    if best:
        chosen = f"{best[0]['recipe']}: {best[0]['accuracy']:.1%} on test."
        if len(best) > 1:
            *names, last = [row["recipe"] for row in best]
            notes.append(
                f"Val cannot tell {', '.join(names)} and {last} apart ({best[0]['val_accuracy']:.1%} each). The first "
                f"one named is taken, {chosen}"
            )
        else:
            notes.append(f"Val chooses {chosen}")
        tuned = dict.fromkeys(result.recipe for result in finished if result.settings.may_tune)
        if tuned and len(tuned) < len(ranked):
            notes[-1] += f" (Val chose the epoch of {' and '.join(tuned)} too, which flatters theirs a little.)"
    return notes


def _numbers(name: str, group: Sequence[Result], seconds: dict[tuple[str, int], float]) -> dict[str, Any]:
    accuracies = [result.accuracy for result in group]
    mean = statistics.fmean(accuracies)
    times = Counter(image for result in group for image in result.tested)
    n = sum(times.values()) ** 2 / sum(m * m for m in times.values())
    low, high = wilson(sum(map(sum, (result.is_right for result in group))) / sum(times.values()) * n, n)
    val = [result.val_accuracy for result in group if result.val_accuracy is not None]
    memory = [result.peak_memory_bytes for result in group if result.peak_memory_bytes is not None]
    return {
        "recipe": name,
        "accuracy": mean,
        "accuracy_low": low,
        "accuracy_high": high,
        "accuracy_deviation": statistics.stdev(accuracies) if len(accuracies) > 1 else None,
        "val_accuracy": statistics.fmean(val) if len(val) == len(group) else None,
        "seconds": statistics.fmean(seconds[name, result.seed] for result in group),
        "peak_memory_mb": max(memory) / _MB if memory else None,
        "model_mb": max(result.model_bytes for result in group) / _MB,
        "n_seeds": len(group),
        "n_test": len(times),
    }


def _is_right(group: Sequence[Result]) -> np.ndarray:
    return np.concatenate([np.array(result.is_right, bool) for result in group])


def _share_images(results: Sequence[Result]) -> bool:
    of_seed = {result.seed: set(result.tested) for result in results}
    return len(set().union(*of_seed.values())) < sum(map(len, of_seed.values()))


def _key(step: str, recipe: Recipe) -> tuple[Any, ...]:
    """Return what the result of a step is known by: fits with the same key need the same of it."""
    features = recipe.features
    network = [recipe.backbone, recipe.weights, recipe.seed if recipe.weights == "random" else None]
    seen = [features.image_size, features.crop_mode, features.crop_share, recipe.device, recipe.exact]
    if step == "features":
        return (step, *network, *seen)
    # random views are drawn by the seed; the decoded images that are kept at the pixels are not
    drawn = None if recipe.strategy == "full" else recipe.seed
    return (step, *network, *seen, recipe.strategy, recipe.cut, recipe.train.augment, recipe.train.views, drawn)


def _n_passes(step: str, recipe: Recipe) -> int:
    return recipe.features.views if step == "features" else 1
