"""Plan: which recipes are compared, with which settings, checked before any work."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from transfer.backbones import full_name
from transfer.errors import UsageError
from transfer.recipe import FINE_TUNING, Recipe, find_recipe, load_recipe

RECIPES = ("linear-svm", "frozen", "partial", "full", "auto")  # the strategies, from the cheapest on
_TRAINING = "train."  # settings that only fine-tuning has
_CHOICE = "choice."  # settings that only auto has
_OWN = {"strategy": "which the recipes say", "seed": "which --seeds counts from 0"}


@dataclass(frozen=True)
class Plan:
    """The recipes by name, each to be fitted with every seed, and what is to be said about them."""

    recipes: dict[str, Recipe]
    n_seeds: int
    notes: list[str]

    def wanted(self, name: str, seed: int) -> Recipe:
        """Return the recipe of one fit."""
        return self.recipes[name].model_copy(update={"seed": seed})


def make_plan(names: Sequence[str | Path] | None, n_seeds: int, settings: Sequence[str] = (), **changes: Any) -> Plan:
    """Load all recipes, with the changes on top; settings of ``train`` change those that fine-tune, and no others.

    Raises
    ------
    UsageError
        A recipe is unknown or named twice, or a setting is wrong, for one of them or for all.
    """
    if n_seeds < 1:
        raise UsageError(f"{n_seeds} seeds are none to compare with: give 1 or more.")
    if names is not None and not names:
        raise UsageError(f"There are no recipes to compare. Name some, such as {', '.join(RECIPES)}.")
    for key in [*(setting.partition("=")[0] for setting in settings), *changes]:
        if key in _OWN:
            raise UsageError(f"{key} cannot be set for all recipes, {_OWN[key]}: leave it out.")
    training = [setting for setting in settings if setting.startswith(_TRAINING)]
    choosing = [setting for setting in settings if setting.startswith(_CHOICE)]
    others = [setting for setting in settings if not setting.startswith((_TRAINING, _CHOICE))]
    recipes: dict[str, Recipe] = {}
    for name in map(str, RECIPES if names is None else names):
        short = find_recipe(name).stem
        if short in recipes:
            raise UsageError(f"{short} is named twice among the recipes: each has one line. Rename or drop one.")
        recipe = load_recipe(name, others, **changes)
        its_own = [*training] * recipe.may_tune + [*choosing] * recipe.is_auto
        recipes[short] = load_recipe(name, [*others, *its_own], **changes) if its_own else recipe
        full_name(recipe.backbone)  # says what the nearest name is
    tuned = [name for name, recipe in recipes.items() if recipe.may_tune]
    if training and not tuned:
        raise UsageError(
            f"{training[0].partition('=')[0]} is a setting of {', '.join(FINE_TUNING)} and auto, and "
            f"{', '.join(recipes)} train no layers: leave it out."
        )
    if choosing and not any(recipe.is_auto for recipe in recipes.values()):
        raise UsageError(f"{choosing[0].partition('=')[0]} is a setting of auto, which is not compared: leave it out.")
    notes = [f"{', '.join(choosing)}: for auto only."] * bool(choosing)
    if training and len(tuned) < len(recipes):
        notes += [f"{', '.join(training)}: for {', '.join(tuned)} only; the others train no layers."]
    return Plan(recipes, n_seeds, notes)
