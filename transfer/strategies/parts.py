"""Parts: which images of a dataset a recipe trains on, validates on and reports on."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from transfer.dataset import Dataset, Split, add_few, draw_few, draw_split, read_split, thin_out
from transfer.recipe import Recipe

NOT_NEEDED = "more than is trained on"


def find_parts(dataset: Dataset, recipe: Recipe, split: str | Path | None = None) -> tuple[np.ndarray, Split]:
    """Return the positions of the images that take part, sorted, and their split."""
    settings, seed = recipe.data, recipe.seed
    drawn, kept = draw_few(dataset, seed)
    rest = dataset.keep(kept, NOT_NEEDED)
    if split is not None:
        parts = read_split(split, rest, seed=seed)
    else:
        parts = draw_split(rest, seed=seed, test_share=settings.test_share, val_share=settings.val_share)
    if settings.per_class:
        thinned = thin_out(rest, parts, settings.per_class, seed)
        reason = [
            *parts.reasons_of_parts,
            f"At most {settings.per_class} images of each class are trained on, as asked.",
        ]
        # over few images the folds of a cross-validation would hold more of them than are to be trained on
        kept, parts = kept[thinned], Split(parts.parts[thinned], reason, False)
    if dataset.domains and len(drawn):
        return add_few(kept, parts, drawn, dataset.domains, seed)
    return kept, parts
