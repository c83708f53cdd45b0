"""Reading: which images a way of training got right that it had not learned from, and what two readings tell."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from transfer.metrics import wilson


@dataclass(frozen=True, eq=False)
class Reading:
    """Images of the development part that were judged, sorted by position, and whether each was right."""

    images: np.ndarray  # (m,)
    hits: np.ndarray  # bool (m,)

    @property
    def accuracy(self) -> float:
        """The share of hits; NaN where nothing was judged."""
        return float(self.hits.mean()) if len(self.hits) else math.nan

    @property
    def interval(self) -> tuple[float, float]:
        """Wilson's 95 % interval of the accuracy."""
        return wilson(int(self.hits.sum()), len(self.hits))

    def joined(self, other: Reading) -> Reading:
        """Return a reading of the images of both, which have none in common."""
        images = np.concatenate([self.images, other.images])
        order = np.argsort(images, kind="stable")
        return Reading(images[order], np.concatenate([self.hits, other.hits])[order])

    def on(self, images: np.ndarray) -> Reading:
        """Return the reading of some images only."""
        here = np.isin(self.images, images)
        return Reading(self.images[here], self.hits[here])


_POINT = 0.01
FEWEST = 10  # judged images, below which a difference says nothing
_FEWEST_OF_A_KIND = 5  # easy or hard ones, whose mean says something


@dataclass(frozen=True)
class Gap:
    """By how much one accuracy is above another, from what both get right of the same images."""

    mean: float
    standard_error: float  # infinite where too few images were judged
    n: int = 0  # images that both have
    is_set_right: bool = False  # easy and hard images count as often as there are among all, not among these

    @property
    def is_known(self) -> bool:
        """Whether enough images were judged to say anything."""
        return math.isfinite(self.standard_error)

    @property
    def is_won(self) -> bool:
        """Whether it is above zero by more than one standard error: the rule by which the dearer way is taken."""
        return self.mean > self.standard_error + 1e-9  # one image more is exactly one standard error

    @property
    def is_worth_it(self) -> bool:
        """Whether it is above zero by one standard error, of which no more is asked than one point.

        On few images a standard error is many points, and to ask for all of it would throw away most of what is gained
        on average; on many it is less than a point, which is what the dearer way should bring at least.
        """
        return self.is_known and self.mean > min(self.standard_error, _POINT) + 1e-9

    @property
    def is_settled(self) -> bool:
        """Whether more images would hardly turn it around: it is two standard errors away from zero."""
        return abs(self.mean) > 2 * self.standard_error

    @property
    def can_win(self) -> bool:
        """Whether it may still come to be above zero: it is not below by more than one standard error."""
        return self.mean >= -self.standard_error

    def no_surer_than(self, differing: float) -> Gap:
        """Return it with no smaller standard error than where this share of all images is answered differently.

        Of a few images by chance nearly all may be answered alike, which says little about the others.
        """
        least = math.sqrt(differing / self.n) if self.n else 0.0
        return Gap(self.mean, max(self.standard_error, least), self.n)

    def with_prior(self, prior: Gap | None) -> Gap:
        """Return what prior knowledge and this say together, weighted by the inverse of their variances.

        The standard error counts as that of two images that were answered differently, at least: of none it would be
        zero, and nothing is certain because a few dozen images were answered alike.
        """
        if prior is None or not prior.standard_error:
            return self
        error = max(self.standard_error, math.sqrt(2) / self.n) if self.n else self.standard_error
        weight, before = error**-2, prior.standard_error**-2
        mean = (weight * self.mean + before * prior.mean) / (weight + before)
        return Gap(mean, (weight + before) ** -0.5, self.n)

    def __str__(self) -> str:
        if not self.is_known:
            return f"{100 * self.mean:+.1f} points on too few images to tell"
        return f"{100 * self.mean:+.1f} ± {100 * self.standard_error:.1f} points"


def gap(one: Reading, other: Reading, known: Reading | None = None) -> Gap:
    """Compare two readings on the images that both have.

    Parameters
    ----------
    known
        What a head got right of all images, these and more. Where these happen to be easier or harder for it than all
        are, the difference is set right: the mean on images that the head gets right and that on those that it gets
        wrong count by how many there are of each among all (post-stratification). With fewer than five of either it is
        left as it is.

    References
    ----------
    Cochran, Sampling Techniques, 3rd ed. 1977, section 5A.9; for shares that are themselves read, section 12.3 (double
    sampling for stratification).
    """
    images, here, there = np.intersect1d(one.images, other.images, return_indices=True)
    differences = one.hits[here].astype(float) - other.hits[there]
    n = len(differences)
    if n < FEWEST:
        return Gap(float(differences.mean()) if n else 0.0, math.inf, n)
    plain = Gap(float(differences.mean()), float(differences.std(ddof=1)) / math.sqrt(n), n)
    easy = known.on(images).hits if known else np.empty(0, bool)
    if known is None or len(easy) < n or min(easy.sum(), n - easy.sum()) < _FEWEST_OF_A_KIND:
        return plain
    share = known.accuracy
    kinds = [(share, differences[easy]), (1 - share, differences[~easy])]
    mean = sum(part * each.mean() for part, each in kinds)
    variance = sum(part**2 * each.var(ddof=1) / len(each) for part, each in kinds)
    variance += (kinds[0][1].mean() - kinds[1][1].mean()) ** 2 * share * (1 - share) / len(known.hits)
    return Gap(float(mean), math.sqrt(variance), n, is_set_right=True)
