"""Protocol: how a recipe sees images and how its head is found, for the computer and in words.

Published linear probes differ in their resizing, their normalisation, their classifier and the way a setting is chosen,
and say so in their code only; a number means little without these four.
"""

from __future__ import annotations

import dataclasses

from transfer.features import Representation
from transfer.images import Preprocessing
from transfer.recipe import FeatureSettings, HeadSettings, LogGrid, Recipe

_CLASSIFIERS = {
    "linear-svm": "linear SVM (squared hinge, one class against the rest)",
    "logistic": "multinomial logistic regression",
    "ridge": "least squares on targets of +1 and -1",
    "frozen": "new softmax layer, trained by minibatches",
    "knn": "votes of the nearest training images, by cosine similarity",
}
_SCALINGS = {
    "auto": "centred, of one scale",
    "global": "centred, of one scale",
    "standard": "standardised",
    "whiten": "whitened",
    "none": "centred",
}


def seen_as(preprocessing: Preprocessing, settings: FeatureSettings) -> Preprocessing:
    """Return the preprocessing with the resizing that the recipe asks for, where it does."""
    return dataclasses.replace(
        preprocessing,
        input_size=settings.image_size or preprocessing.input_size,
        crop_mode=settings.crop_mode or preprocessing.crop_mode,
        crop_share=settings.crop_share or preprocessing.crop_share,
    )


def describe_protocol(recipe: Recipe, preprocessing: Preprocessing) -> list[str]:
    """Say how images are resized, how rows are normalised, what the classifier is and how its setting is chosen.

    Parameters
    ----------
    preprocessing
        As the recipe has it.
    """
    head, kind = recipe.head, recipe.strategy
    if recipe.may_tune:
        return [f"Images: {preprocessing.describe()}."]
    read = Representation.from_settings(recipe.taps, recipe.features)
    classifier = _CLASSIFIERS[kind]
    if head.multiclass == "pairs":
        classifier = "linear SVM (hinge, every two classes, which vote)"
    extras = [f"dropout {head.dropout:g} on the features"] * (head.dropout > 0)
    extras += [f"images of the class count {head.positive_weight:g} times"] * (head.positive_weight != 1)
    scaling = "" if kind == "knn" else f", {_SCALINGS[head.scaling]}"
    return [
        f"Images: {preprocessing.describe()}; {read.describe()}{scaling}.",
        f"Head: {', '.join([classifier, *extras])}; {_selection(head, kind)}.",
    ]


def _selection(head: HeadSettings, kind: str) -> str:
    """Return how the head's setting is chosen."""
    if isinstance(head.grid, LogGrid):
        tried = f"{head.grid.n} settings from {head.grid.low:g} to {head.grid.high:g}"
    else:
        tried = f"{len(head.grid)} settings" if head.grid else "the likely settings"
    if head.search == "halving":
        tried += ", by halving"
    left_out = "leave-one-out" if kind in ("ridge", "knn") else f"{head.folds}-fold cross-validation"
    on_val = "val, then fitted again on train and val" if head.refit else "val"
    judge = on_val if head.judge == "val" else left_out
    rule = {
        "best": "the best",
        "one-standard-error": "the strongest within one standard error of the best",
        "average-precision": "for each class that of the best average precision",
    }["best" if kind == "knn" else head.rule]
    return f"{rule} of {tried} by {judge}"
