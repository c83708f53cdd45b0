"""Representation: what of an image the head reads, as one row of numbers for each view."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import nn

from transfer.cuts import FEATURES
from transfer.features.pooling import POOLS
from transfer.images import FIXED_VIEWS, FixedView
from transfer.recipe import FeatureSettings

_LEAST_NORM = 1e-12


@dataclasses.dataclass(frozen=True)
class Representation:
    """What of an image the head reads: which taps, how their maps are pooled, in which views, how rows are normalised.

    Attributes
    ----------
    taps : tuple of str
        Layers whose rows stand side by side.
    pool : str
        One of `POOLS` but ``none``.
    n_views : int
        One of `FIXED_VIEWS`. Each view has a row of its own; a head learns from all and adds up its scores of them.
    norm : str
        ``l2`` brings the row of each tap to unit length, before the power and after it; ``none``.
    power : float
        To which every number is raised, its sign kept: 1/2 as in most later work, 2 as in Razavian et al. (2014).
    """

    taps: tuple[str, ...] = (FEATURES,)
    pool: str = "average"
    n_views: int = 1
    norm: str = "none"
    power: float = 1.0

    @classmethod
    def from_settings(cls, taps: Sequence[str], settings: FeatureSettings) -> Representation:
        """Return what a recipe asks for."""
        norm = settings.norm
        if norm == "auto":
            norm = "l2" if len(taps) > 1 else "none"
        return cls(tuple(taps), settings.pool, settings.views, norm, settings.power)

    @property
    def views(self) -> tuple[FixedView, ...]:
        """The views, in the order of rows."""
        return FIXED_VIEWS[self.n_views]

    @property
    def is_network_output(self) -> bool:
        """Whether a row is made of what the network ends in, seen once."""
        return self.taps == (FEATURES,) and self.n_views == 1 and self.pool == "average"

    @property
    def is_plain(self) -> bool:
        """Whether a row is what the network ends in, as it is."""
        return self.is_network_output and self.norm == "none" and self.power == 1

    def assemble(self, views: Iterable[Mapping[str, np.ndarray]]) -> np.ndarray:
        """Return rows (N, d), or (N, V, d) where there are several views, from those of each view and tap."""
        seen = np.empty((0, 0, 0), np.float32)
        for k, by_tap in enumerate(views):
            rows = [self.normalise(torch.from_numpy(np.asarray(by_tap[tap], np.float32))) for tap in self.taps]
            joined = torch.cat(rows, dim=1).numpy() if len(rows) > 1 else rows[0].numpy()
            if self.n_views == 1:
                return joined
            if not k:
                seen = np.empty((len(joined), self.n_views, joined.shape[1]), np.float32)
            seen[:, k] = joined
        return seen

    def normalise(self, rows: torch.Tensor) -> torch.Tensor:
        """Return the rows (N, d) of one tap, normalised."""
        if self.norm == "l2":
            rows = nn.functional.normalize(rows, dim=1, eps=_LEAST_NORM)
        if self.power != 1:
            rows = rows.sign() * rows.abs().pow(self.power)
            if self.norm == "l2":
                rows = nn.functional.normalize(rows, dim=1, eps=_LEAST_NORM)
        return rows

    def describe(self) -> str:
        """Return one line for people."""
        words = [f"{self.n_views} views" if self.n_views > 1 else "1 view", " and ".join(self.taps)]
        if self.pool != "average":
            words.append({"gem": "generalised mean", "flatten": "whole map"}.get(self.pool, f"{self.pool} pooling"))
        if self.norm == "l2":
            words.append("rows of unit length")
        if self.power != 1:
            words.append(f"to the power {self.power:g}")
        return ", ".join(words)

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        return {**dataclasses.asdict(self), "taps": list(self.taps)}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Representation:
        """Return the representation that `to_dict` wrote.

        Raises
        ------
        KeyError, TypeError, ValueError
            It did not.
        """
        found = cls(**{**values, "taps": tuple(values["taps"])})
        if found.pool not in POOLS or found.n_views not in FIXED_VIEWS:
            raise ValueError(f"pool {found.pool!r} with {found.n_views!r} views")
        return found


class NormalisedRows(nn.Module):
    """The normalisation of a representation as a layer of a network."""

    def __init__(self, representation: Representation) -> None:
        super().__init__()
        self.representation = representation

    def forward(self, rows: torch.Tensor) -> torch.Tensor:
        return self.representation.normalise(rows)
