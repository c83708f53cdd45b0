"""Strength: λ, how much a head is regularised, and the setting by which users of its library know it."""

from __future__ import annotations

from transfer.heads.tasks import Task

# Strengths that are tried are half-decades e: λ = unit · 10^(e/2), on features with rows of unit mean square length.
WEAKEST, STRONGEST = -6, 6
UNIT = {"linear-svm": 0.5, "logistic": 1.0, "ridge": 1.0, "frozen": 1.0}


def at_half_decade(task: Task, exponent: int) -> float:
    return UNIT[task.kind] * 10.0 ** (exponent / 2)


def to_setting(task: Task, strength: float) -> dict[str, float]:
    """Return λ in the unit of the library that users know. `from_setting` is the way back."""
    if task.kind == "linear-svm":
        return {"C": 0.5 / strength}
    if task.kind == "logistic":
        return {"C": 1 / strength}
    if task.kind == "ridge":
        return {"alpha": strength}
    return {"weight_decay": strength / float(task.weights.sum())}


def from_setting(task: Task, setting: float) -> float:
    if task.kind == "linear-svm":
        return 0.5 / setting
    if task.kind == "logistic":
        return 1 / setting
    return setting if task.kind == "ridge" else setting * float(task.weights.sum())
