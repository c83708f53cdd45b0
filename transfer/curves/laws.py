"""Law: error(n) = a + b · n^-c, fitted to points, and which other laws these points allow."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.optimize import minimize_scalar

_EXPONENTS = np.linspace(0.05, 1.0, 96)  # between hardly any gain and that of a parametric model
# Five points rarely determine c, so it is pulled to 1/2; four real sets measured whole have 0.42 to 0.64
_TYPICAL, _SPREAD = 0.5, 0.2
# One or two degrees of freedom say little of the noise: as many more count as if they said that it is as measured.
# Without, intervals were up to twice as wide, and as often right (`bench/curves.py` on four sets: 46 of 48 inside)
_AS_KNOWN = 2
_N_SAMPLES = 1000
_TAILS = (2.5, 97.5)  # percent


@dataclass(frozen=True, eq=False)
class PowerLaw:
    """Error(n) = a + b · n^-c with a >= 0, b >= 0 and 0 < c <= 1, and a sample of the laws that fit as well.

    Attributes
    ----------
    a : the error that is left with any number of images
    b, c : how much there is to learn, and how fast it is learned
    sample : (S, 3) a, b and c of laws fitted to points with as much noise again as these have
    """

    a: float
    b: float
    c: float
    sample: np.ndarray

    def error(self, n: float) -> tuple[float, float, float]:
        """Return the error at n images, and its 95 % interval."""
        a, b, c = self.sample.T
        low, high = np.percentile(np.clip(a + b * n**-c, 0, 1), _TAILS)
        error = float(min(1.0, self.a + self.b * n**-self.c))
        return error, min(error, float(low)), max(error, float(high))

    def fall(self, n: float, more: float) -> tuple[float, float]:
        """Return the 95 % interval of how much lower the error is at more images than n."""
        a, b, c = self.sample.T
        falls = np.clip(a + b * n**-c, 0, 1) - np.clip(a + b * more**-c, 0, 1)
        low, high = np.percentile(falls, _TAILS)
        return float(low), float(high)

    @property
    def floor(self) -> tuple[float, float]:
        """The 95 % interval of `a`."""
        low, high = np.percentile(self.sample[:, 0], _TAILS)
        return float(low), float(high)


def fit_law(n: np.ndarray, error: np.ndarray, covariance: np.ndarray, seed: int = 0) -> PowerLaw:
    """Fit the law by weighted least squares, and again to noisy copies of the points: the parametric bootstrap.

    Where the law misses the points by more than their noise, the noise of the copies is larger too.

    Parameters
    ----------
    n, error, covariance
        Three points at least: numbers of images (S,), errors (S,), and how far these may be off, together (S, S).
    """
    n, error = np.asarray(n, float), np.asarray(error, float)
    weights = 1 / np.diag(covariance)
    near = float(_fit(n, error[None], weights, np.array([_TYPICAL]))[2][0])
    a, b, c = _refine(n, error, weights, near)
    residual = error - a - b * n**-c
    degrees = len(n) - 3
    misfit = float(residual @ np.linalg.solve(covariance, residual))
    larger = max(1.0, (misfit + _AS_KNOWN) / (degrees + _AS_KNOWN))
    random = np.random.default_rng(seed)
    copies = random.multivariate_normal(error, larger * covariance, _N_SAMPLES, method="eigh")
    typical = np.clip(random.normal(_TYPICAL, _SPREAD, _N_SAMPLES), _EXPONENTS[0], _EXPONENTS[-1])
    sample = np.stack(_fit(n, np.clip(copies, 0, 1), weights, typical), axis=1)
    return PowerLaw(a, b, c, sample)


def _fit(
    n: np.ndarray, errors: np.ndarray, weights: np.ndarray, typical: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return a, b and c, each (m,), of m sets of errors (m, S): the best of all exponents for each."""
    found = [_fit_at(c, n, errors, weights, typical) for c in _EXPONENTS]
    best = np.argmin([loss for _, _, loss in found], axis=0)
    every = np.arange(len(errors))
    a, b = (np.stack([each[i] for each in found])[best, every] for i in (0, 1))
    return a, b, _EXPONENTS[best]


def _refine(n: np.ndarray, error: np.ndarray, weights: np.ndarray, near: float) -> tuple[float, float, float]:
    """Return the law between the two exponents that are neighbours of the best one."""
    step, typical = _EXPONENTS[1] - _EXPONENTS[0], np.array([_TYPICAL])
    bounds = (max(_EXPONENTS[0], near - step), min(_EXPONENTS[-1], near + step))
    found = minimize_scalar(
        lambda c: _fit_at(c, n, error[None], weights, typical)[2][0],
        bounds=bounds,
        method="bounded",
        options={"xatol": 1e-9},
    )
    a, b, _ = _fit_at(found.x, n, error[None], weights, typical)
    return float(a[0]), float(b[0]), float(found.x)


def _fit_at(
    c: float, n: np.ndarray, errors: np.ndarray, weights: np.ndarray, typical: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return a, b and the loss, each (m,), for one exponent, at which the law is linear."""
    x = n**-c
    total, first, second = weights.sum(), weights @ x, weights @ x**2
    level, slope = errors @ weights, errors @ (weights * x)
    determinant = total * second - first**2
    a, b = (second * level - first * slope) / determinant, (total * slope - first * level) / determinant

    def loss(a: np.ndarray, b: np.ndarray) -> np.ndarray:
        return ((errors - a[:, None] - b[:, None] * x) ** 2) @ weights

    nothing = np.zeros(len(errors))
    no_floor, flat = np.maximum(0, slope / second), np.maximum(0, level / total)  # where a or b would be negative
    is_flat = loss(flat, nothing) < loss(nothing, no_floor)
    is_inside = (a >= 0) & (b >= 0)
    a = np.where(is_inside, a, np.where(is_flat, flat, 0))
    b = np.where(is_inside, b, np.where(is_flat, 0, no_floor))
    return a, b, loss(a, b) + ((c - typical) / _SPREAD) ** 2
