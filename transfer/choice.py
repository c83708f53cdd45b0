"""Choice: what was trained and why, as a run with the strategy `auto` keeps it in choice.json."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from transfer.display import table
from transfer.errors import ArtefactError


@dataclasses.dataclass(frozen=True)
class Choice:
    """Which way of training was chosen, against which others, and by which rule.

    Everything in it was read on images of train and val; those of test had been put aside.

    Attributes
    ----------
    chosen
        The name of an arm.
    reason
        One paragraph for people.
    size
        Of the dataset: images, classes, images per class, and the column of the lecture's slide that it belongs to.
    arms
        One row for each way of training, cheapest first: `name`, `recipe`, what it showed (`accuracy`, `interval`,
        `n_judged`, `judged_on`), its `gap` to what it was compared with and the gap's `standard_error`, `seconds` that
        the reading took, and `outcome` in words.
    taps
        How layers were ranked for a head on other layers than the last; None where they were not.
    curve
        The learning curve of the linear head; None where there was none.
    budget
        `seconds` that deeper layers were allowed, and whether time bound the choice (`was_bound`) and how (`bound`):
        an arm was left out, or tried less or shorter than usual.
    """

    chosen: str
    reason: str
    size: dict[str, Any]
    arms: list[dict[str, Any]]
    taps: dict[str, Any] | None
    curve: dict[str, Any] | None
    budget: dict[str, Any]

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Choice:
        """Return the choice that `to_dict` wrote.

        Raises
        ------
        ArtefactError
            Something is missing or unknown.
        """
        try:
            return cls(**values)
        except TypeError as error:
            raise ArtefactError(f"choice.json is not what this version writes ({error}). Fit again.") from None

    def _repr_html_(self) -> str:
        rows = [[arm["name"], _share(arm["accuracy"]), arm["outcome"]] for arm in self.arms]
        return table(["way", "accuracy", "outcome"], rows, self.reason)


def _share(value: float | None) -> str:
    return "" if value is None else f"{value:.1%}"
