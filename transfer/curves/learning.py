"""Learning curve: measured points, the law through them, and what it expects of more images."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from transfer.curves.laws import PowerLaw, fit_law
from transfer.display import table
from transfer.errors import UsageError

_FEWEST_SIZES = 3  # as many as the law has numbers
_FURTHEST = 4  # times the images that there are
_TOO_WIDE = 10  # times the lower bound of a number of images
_GRID = 400  # numbers of images at which the law is looked at


@dataclass(frozen=True)
class CurvePoint:
    """Accuracy on held-out images of heads that learned from n images; n_draws subsets of them for each fold."""

    images_per_class: float
    n: float
    accuracy: float
    standard_error: float
    n_draws: int


@dataclass(frozen=True)
class LawCheck:
    """What the law, fitted without the largest size, expected there: `low` to `high`, of which 95 in 100 are right."""

    n: float
    measured: float
    expected: float
    low: float
    high: float

    @property
    def is_inside(self) -> bool:
        return self.low <= self.measured <= self.high

    @property
    def miss(self) -> float:
        """The difference from what was measured, 0 where that is inside the interval."""
        return 0.0 if self.is_inside else abs(self.expected - self.measured)


@dataclass(frozen=True)
class ImagesNeeded:
    """How many images an accuracy takes.

    Attributes
    ----------
    outcome : 'found', 'not reachable' (with four times the images), or 'cannot tell'
    n : images to learn from, of all classes; None where it was not found
    low, high : the 95 % interval of n, None beyond four times the images
    reason : one sentence
    """

    outcome: str
    n: float | None
    low: float | None
    high: float | None
    reason: str


@dataclass(frozen=True, eq=False)
class LearningCurve:
    """How accuracy on held-out images grows with the images to learn from.

    Attributes
    ----------
    points : the sizes that were measured, ascending
    n_images, n_classes : all that there are; the largest size is smaller by the images that were held out
    law : error(n) = a + b · n^-c, or None where the sizes are fewer than three
    check : how well the law extrapolates to the largest size, or None where the others are fewer than three
    target : an accuracy that is asked for
    notes : what is to be known of these numbers, one sentence each
    """

    points: tuple[CurvePoint, ...]
    n_images: int
    n_classes: int
    kind: str
    seed: int
    law: PowerLaw | None
    check: LawCheck | None
    target: float | None = None
    notes: list[str] = field(default_factory=list)

    @property
    def furthest(self) -> int:
        """The number of images beyond which the law is not asked: four times those that there are."""
        return _FURTHEST * self.n_images

    def expect(self, n: float) -> tuple[float, float, float] | None:
        """Return the expected accuracy with n images to learn from, and its 95 % interval.

        The interval is of the accuracy on ever more images like these. None without a law, below one image, and beyond
        four times the images. Where the law missed the largest size, intervals beyond the points are wider by that
        miss for each doubling.
        """
        if self.law is None or not 1 <= n <= self.furthest:
            return None
        error, low, high = self.law.error(n)
        beyond = max(0.0, math.log2(n / self.points[-1].n))
        wider = self.check.miss * beyond if self.check else 0.0
        return 1 - error, max(0.0, 1 - high - wider), min(1.0, 1 - low + wider)

    def gain(self, factor: float) -> tuple[float, float, float] | None:
        """Return by how much accuracy is expected to rise with so many times the images, and its 95 % interval.

        Less uncertain than the level that `expect` gives, of which much is common to both sizes.
        """
        then, now = self.expect(factor * self.n_images), self.expect(self.n_images)
        if self.law is None or then is None or now is None:
            return None
        low, high = self.law.fall(self.n_images, factor * self.n_images)
        wider = self.check.miss * math.log2(factor) if self.check else 0.0
        return then[0] - now[0], max(0.0, low - wider), high + wider

    def images_for(self, accuracy: float | str) -> ImagesNeeded:
        """Return how many images to learn from an accuracy takes (0.95, 95 or '95%'), as far as the law can tell."""
        target = read_accuracy(accuracy)
        shown = f"{target:.1%}"
        if self.law is None:
            return ImagesNeeded("cannot tell", None, None, None, f"There is no law: {self._too_few}.")
        sizes = np.geomspace(self.points[0].n, self.furthest, _GRID)
        expected = np.array([self.expect(min(n, self.furthest)) for n in sizes.tolist()], float)
        n, high, low = (_first(sizes, line >= target) for line in expected.T)
        most, lowest, highest = expected[-1]
        at_most = f"with {_FURTHEST} times the images ({self.per_class(self.furthest)}) it expects {most:.1%}"
        if low is None:
            floor = 1 - self.law.a
            levels = f", and levels off at {floor:.1%}" if floor < target else ""
            return ImagesNeeded(
                "not reachable", None, None, None, f"{at_most} ({lowest:.1%} to {highest:.1%}){levels}."
            )
        if n is None or high is None or high > _TOO_WIDE * low:
            most_images = f"{high / self.n_classes:.0f}" if high else f"more than {self.furthest / self.n_classes:.0f}"
            reason = (
                f"anything from {low / self.n_classes:.0f} to {most_images} images per class is possible; {at_most} "
                f"({lowest:.1%} to {highest:.1%})."
            )
            return ImagesNeeded("cannot tell", None, low, high, reason)
        if n == sizes[0]:
            return ImagesNeeded("found", n, low, high, f"{shown} is expected from the smallest size on.")
        each = f"{low / self.n_classes:.0f} to {high / self.n_classes:.0f}"
        reason = f"{shown} takes about {n / self.n_classes:.0f} images per class ({each}) to learn from."
        return ImagesNeeded("found", n, low, high, reason)

    def per_class(self, n: float) -> str:
        """Return a number of images as so many per class, in words."""
        return f"{n / self.n_classes:.0f} per class"

    def describe(self) -> str:
        """Return what the law says in a few plain sentences, or why there is none."""
        if self.law is None:
            return f"No law: {self._too_few}."
        twice = self.expect(2 * self.n_images)
        assert twice is not None
        accuracy, low, high = twice
        sentences = [
            f"With twice the images ({self.per_class(2 * self.n_images)}), expect about {accuracy:.1%} "
            f"({low:.1%} to {high:.1%})."
        ]
        if self.target is not None:
            needed = self.images_for(self.target)
            words = {
                "found": "",
                "cannot tell": f"How many images {self.target:.1%} takes, it cannot tell: ",
                "not reachable": f"{self.target:.1%} is not in reach: ",
            }
            sentences.append(f"{words[needed.outcome]}{needed.reason}")
        return " ".join(sentences)

    def describe_law(self) -> list[str]:
        """Return the law, and how it was checked, one sentence each."""
        if self.law is None:
            return []
        low, high = self.law.floor
        lines = [
            f"Law: error(n) = {self.law.a:.3f} + {self.law.b:.3g} · n^-{self.law.c:.2f}, n images in all; "
            f"{1 - self.law.a:.1%} ({1 - high:.1%} to {1 - low:.1%}) with any number of them."
        ]
        if self.check is None:
            lines.append(f"Not checked: {len(self.points)} sizes are too few to leave one out.")
        else:
            c = self.check
            found = f"fitted without the largest size it expects {c.expected:.1%} ({c.low:.1%} to {c.high:.1%}) there"
            verdict = (
                f"and {c.measured:.1%} was measured"
                if c.is_inside
                else f"but {c.measured:.1%} was measured: beyond the points, intervals are {c.miss:.1%} wider on "
                "either side for each doubling"
            )
            lines.append(f"Checked: {found}, {verdict}.")
        return lines

    def to_dict(self) -> dict[str, Any]:
        """Return all of it as plain numbers and text, for JSON."""
        twice = self.expect(2 * self.n_images)
        return {
            "kind": self.kind,
            "seed": self.seed,
            "n_images": self.n_images,
            "n_classes": self.n_classes,
            "points": [asdict(point) for point in self.points],
            "law": None
            if self.law is None
            else {"a": self.law.a, "b": self.law.b, "c": self.law.c, "a_interval": list(self.law.floor)},
            "check": None if self.check is None else {**asdict(self.check), "is_inside": self.check.is_inside},
            "twice": None
            if twice is None
            else {"n": 2 * self.n_images, "accuracy": twice[0], "accuracy_interval": list(twice[1:])},
            "target": self.target,
            "images_needed": None if self.target is None else asdict(self.images_for(self.target)),
            "description": self.describe(),
            "notes": self.notes,
        }

    def __repr__(self) -> str:
        return f"LearningCurve({len(self.points)} sizes up to {self.points[-1].n:.0f} images. {self.describe()})"

    def _repr_html_(self) -> str:
        rows = [
            [f"{p.images_per_class:.1f}", f"{p.n:.0f}", f"{p.accuracy:.1%}", f"{p.standard_error:.1%}", p.n_draws]
            for p in self.points
        ]
        header = ["images per class", "images", "accuracy", "standard error", "draws"]
        return table(header, rows, self.describe(), [*self.describe_law(), *self.notes])

    @property
    def _too_few(self) -> str:
        n = len(self.points)
        sizes = f"{n} sizes are" if n > 1 else "one size is"
        return (
            f"{sizes} too few for it; {_FEWEST_SIZES} take 8 images to learn from in the typical class, so add images"
        )


def foretell(
    points: Sequence[CurvePoint],
    covariance: np.ndarray,
    *,
    n_images: int,
    n_classes: int,
    kind: str,
    seed: int,
    notes: Sequence[str] = (),
) -> LearningCurve:
    """Fit the law to points with this covariance, and check it on the largest size where the others suffice."""
    n, error = np.array([p.n for p in points]), np.array([1 - p.accuracy for p in points])
    law = fit_law(n, error, covariance, seed) if len(points) >= _FEWEST_SIZES else None
    check = _check(n, error, covariance, seed) if len(points) > _FEWEST_SIZES else None
    return LearningCurve(tuple(points), n_images, n_classes, kind, seed, law, check, notes=list(notes))


def _check(n: np.ndarray, error: np.ndarray, covariance: np.ndarray, seed: int) -> LawCheck:
    """Hide the largest size from the law; all sizes are judged on the same images, so that the noise is common."""
    law = fit_law(n[:-1], error[:-1], covariance[:-1, :-1], seed)
    expected, low, high = law.error(n[-1])
    return LawCheck(float(n[-1]), float(1 - error[-1]), 1 - expected, 1 - high, 1 - low)


def read_accuracy(value: float | str) -> float:
    """Return a share from 0.95, 95 or '95%'.

    >>> read_accuracy("95%"), read_accuracy(95), read_accuracy("0.95")
    (0.95, 0.95, 0.95)
    """
    text = str(value).strip()
    try:
        number = float(text.removesuffix("%"))
    except ValueError:
        number = math.nan
    share = number / 100 if text.endswith("%") or number > 1 else number
    if not 0 < share <= 1:
        raise UsageError(
            f"A target of {value!r} is no accuracy: give a share such as 0.95, or a percentage such as 95%."
        )
    return share


def _first(sizes: np.ndarray, is_reached: np.ndarray) -> float | None:
    found = np.flatnonzero(is_reached)
    return float(sizes[found[0]]) if len(found) else None
