"""Domain: one of the two places that images come from, where one is trained on and the other reported on."""

from __future__ import annotations

from dataclasses import dataclass

from transfer.dataset.names import display


@dataclass(frozen=True)
class Domain:
    """A dataset as it was scanned, before anything of it was left out."""

    root: str | None  # None: the images came as lists
    layout: str
    fingerprint: str
    n_images: int

    def __str__(self) -> str:
        return f"'{display(self.root)}'" if self.root else "the lists"


@dataclass(frozen=True)
class Domains:
    """The source, which is trained on, and the target, which is reported on (Saenko et al., ECCV 2010)."""

    source: Domain
    target: Domain
    reported: str  # the part of the target that is the test part, as it is called there; empty: all of it
    few_target: int  # so many target images of each class are trained on too

    def __str__(self) -> str:
        return f"{self.source} and {self.target}"
