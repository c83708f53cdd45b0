"""Explaining: what is wrong with settings, in words."""

from __future__ import annotations

import reprlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

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
    wrong = error.errors(include_url=False)
    glued = {found["loc"][:-1] for found in wrong if _is_glued(found)}
    for found in wrong:
        *parents, key = [str(part) for part in found["loc"] if part not in _BRANCHES] or [""]
        where = tuple(part for part in (*parents, key) if part)
        name = ".".join(where)
        if _is_glued(found):
            problems.append(Problem(where, f"put a blank after the colon in {name!r}"))
        elif found["type"] == "missing":
            if found["loc"][:-1] not in glued:  # there, what is missing is what has no value
                problems.append(Problem(where, f"{name} is missing"))
        elif found["type"] == "extra_forbidden":
            known = _fields(parents)
            here = f" Known here: {', '.join(known)}" if known else ""
            problems.append(Problem(where, f"unknown key {name!r}.{did_you_mean(key, known)}{here}"))
        elif found["type"] == "value_error":
            problems += [Problem(where, f"{clash}.") for clash in str(found["ctx"]["error"]).split("\n")]
        else:
            value = _shorten.repr(found["input"])
            problems.append(Problem(where, f"{name} is {value}: {found['msg'][0].lower()}{found['msg'][1:]}"))
    return problems


def _is_glued(found: Mapping[str, Any]) -> bool:
    """Tell whether an unknown key is a key and its value, such as `low:1`, which YAML reads as one word."""
    return found["type"] == "extra_forbidden" and found["input"] is None and ":" in str(found["loc"][-1])


def _fields(parents: Sequence[str]) -> list[str]:
    model: type[BaseModel] = Recipe
    for parent in parents:
        inner = type(model.model_fields[parent].default) if parent in model.model_fields else type(None)
        if not issubclass(inner, BaseModel):
            return []
        model = inner
    return list(model.model_fields)
