"""Recipe: a complete description of one experiment. The YAML files in `recipes/` are such.

* `settings` says what there is to set, and what does not go together.
* `explaining` puts mistakes in words.
* `reading` finds, loads, checks and copies files, and writes a recipe as YAML.
"""

from __future__ import annotations

from transfer.recipe.reading import (
    check_recipe,
    copy_recipe,
    describe_recipe,
    dump_recipe,
    find_recipe,
    load_recipe,
    recipe_files,
)
from transfer.recipe.settings import (
    DEFAULT,
    FINE_TUNING,
    ChoiceSettings,
    DataSettings,
    FeatureSettings,
    HeadSettings,
    LogGrid,
    Recipe,
    TrainSettings,
    find_clash,
)

__all__ = [
    "DEFAULT",
    "FINE_TUNING",
    "ChoiceSettings",
    "DataSettings",
    "FeatureSettings",
    "HeadSettings",
    "LogGrid",
    "Recipe",
    "TrainSettings",
    "check_recipe",
    "copy_recipe",
    "describe_recipe",
    "dump_recipe",
    "find_clash",
    "find_recipe",
    "load_recipe",
    "recipe_files",
]
