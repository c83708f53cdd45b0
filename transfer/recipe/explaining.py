"""Explaining: what is wrong with settings, in words."""

from __future__ import annotations

import reprlib
from collections.abc import Sequence
from dataclasses import dataclass

from pydantic import BaseModel, ValidationError

from transfer.errors import did_you_mean
from transfer.recipe.settings import Recipe

_BRANCHES = ("list", "range", "str", "list[str]")  # of unions: pydantic names them, nobody wrote them
_shorten = reprlib.Repr()
_shorten.maxstring = _shorten.maxother = 80
_shorten.maxlevel = 2


@dataclass(frozen=True)
class Problem:
    """What is wrong, and where: the keys that lead to it, none where settings do not go together."""

    where: tuple[str, ...]
    words: str


def explain(error: ValidationError) -> list[Problem]:
    """Say in words what is wrong with each setting."""
    problems = []
    for found in error.errors(include_url=False):
        *parents, key = [str(part) for part in found["loc"] if part not in _BRANCHES] or [""]
        where = tuple(part for part in (*parents, key) if part)
        name = ".".join(where)
        if found["type"] == "extra_forbidden":
            known = _fields(parents)
            here = f" Known here: {', '.join(known)}" if known else ""
            problems.append(Problem(where, f"unknown key {name!r}.{did_you_mean(key, known)}{here}"))
        elif found["type"] == "value_error":
            problems += [Problem(where, f"{clash}.") for clash in str(found["ctx"]["error"]).split("\n")]
        else:
            value = _shorten.repr(found["input"])
            problems.append(Problem(where, f"{name} is {value}: {found['msg'][0].lower()}{found['msg'][1:]}"))
    return problems


def _fields(parents: Sequence[str]) -> list[str]:
    model: type[BaseModel] = Recipe
    for parent in parents:
        inner = type(model.model_fields[parent].default) if parent in model.model_fields else type(None)
        if not issubclass(inner, BaseModel):
            return []
        model = inner
    return list(model.model_fields)
