"""Learning curves: accuracy against the number of images, measured, and what more images would give.

* `subsets` draws fewer and fewer images, each set within the next larger one.
* `measuring` fits a head on each, judges it on images that were held out, and says how far the points may be off.
* `laws` fits error(n) = a + b · n^-c (Hoiem et al., "Learning Curves for Analysis of Deep Networks", ICML 2021), and
  again to noisy copies of the points.
* `learning` holds the points and the law, and what it expects of more images.
* `drawing` makes the figure.
"""

from __future__ import annotations

from transfer.curves.drawing import draw_curve, require_figure
from transfer.curves.laws import PowerLaw, fit_law
from transfer.curves.learning import CurvePoint, ImagesNeeded, LawCheck, LearningCurve, foretell, read_accuracy
from transfer.curves.measuring import measure_curve

__all__ = [
    "CurvePoint",
    "ImagesNeeded",
    "LawCheck",
    "LearningCurve",
    "PowerLaw",
    "draw_curve",
    "fit_law",
    "foretell",
    "measure_curve",
    "read_accuracy",
    "require_figure",
]
