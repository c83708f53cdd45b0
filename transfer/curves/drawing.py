"""Drawing: a learning curve as a figure, with what the law expects of more images."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from transfer.curves.learning import LearningCurve
from transfer.errors import UsageError
from transfer.files import require_folder

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_FORMATS = (".png", ".svg")
_BLUE, _ORANGE, _GREY = "#1f5fa8", "#c2571a", "#666666"


def draw_curve(curve: LearningCurve, title: str = "Learning curve") -> Figure:
    """Draw the points with their standard errors, the law with its 95 % interval, dashed beyond the images, the target.

    The law goes on to four times the images, as far as it is asked.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 4.5), dpi=150, layout="constrained")
    axes = figure.add_subplot()
    per_class = [point.n / curve.n_classes for point in curve.points]
    accuracy = [100 * point.accuracy for point in curve.points]
    errors = [100 * point.standard_error for point in curve.points]
    axes.errorbar(
        per_class, accuracy, errors, fmt="o", color=_BLUE, capsize=3, zorder=3, label="measured, ± standard error"
    )
    if curve.law is not None:
        _draw_law(axes, curve)
    if curve.target is not None:
        axes.axhline(100 * curve.target, color=_ORANGE, linewidth=1.2, label=f"target {curve.target:.1%}")
    _scale(axes, per_class)
    axes.set_xlabel("images per class to learn from")
    axes.set_ylabel("accuracy on held-out images, %")
    axes.set_title(title, fontsize=11, parse_math=False)
    axes.grid(color="#e4e4e4", linewidth=0.6)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(loc="lower right", facecolor="white", edgecolor="none", framealpha=0.9, fontsize=9)
    return figure


def require_figure(path: str | Path) -> None:
    """Refuse a name or a folder to which `files.write_figure` could not write, before the slow part.

    Raises
    ------
    UsageError
        The name ends in neither .png nor .svg.
    ResourceError
        The folder cannot be written to.
    """
    if Path(path).suffix.lower() not in _FORMATS:
        raise UsageError(f"A plot is a .png or an .svg file, not {str(path)!r}. Choose such a name.")
    require_folder(Path(path).absolute().parent)


def _draw_law(axes: Axes, curve: LearningCurve) -> None:
    first, here = curve.points[0].n, float(curve.n_images)
    for low, high, style, label in (
        (first, here, "-", "law, 95 % interval"),
        (here, float(curve.furthest), "--", "expected of more images"),
    ):
        sizes = np.geomspace(low, high, 80)
        expected = 100 * np.array([curve.expect(min(n, curve.furthest)) for n in sizes.tolist()], float)
        axes.plot(sizes / curve.n_classes, expected[:, 0], style, color=_BLUE, linewidth=1.6, label=label)
        axes.fill_between(sizes / curve.n_classes, expected[:, 1], expected[:, 2], color=_BLUE, alpha=0.13, linewidth=0)
    axes.axvline(here / curve.n_classes, color=_GREY, linewidth=0.8, linestyle=":")
    axes.annotate(
        "all images", (here / curve.n_classes, 1), xycoords=("data", "axes fraction"), xytext=(3, -4),
        textcoords="offset points", va="top", fontsize=8, color=_GREY,
    )  # fmt: skip


def _scale(axes: Axes, per_class: list[float]) -> None:
    """Make the x axis logarithmic, with plain numbers that double."""
    axes.set_xscale("log")
    highest = axes.get_xlim()[1]
    first = max(1, round(per_class[0]))
    ticks = [first * 2**k for k in range(12) if first * 2**k <= highest] or [first]
    axes.set_xticks(ticks, [f"{tick:,}" for tick in ticks])
    axes.minorticks_off()
