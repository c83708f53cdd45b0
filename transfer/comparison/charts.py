"""Chart: accuracy against time, a point per recipe."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from transfer.files import write_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.transforms import Bbox

CHART = "accuracy-time"
_INCHES = (8.0, 5.0)
_DOTS = {"svg": 100, "png": 200}  # per inch: the PNG is sharp where 800 pixels show it, and twice as large
# a name has its point's colour; dark enough to be read on white
_COLOURS = ("#1f5fa8", "#b3401a", "#2a7a2a", "#7a3fa0", "#8a6400", "#00767a", "#a8205f", "#444444")
_DISTANCES = (9, 18, 30, 44, 60)  # points from a point to its label, tried in this order
_ANGLES = (35, -35, 145, -145, 0, 180, 65, -65, 115, -115)  # degrees


class Look(NamedTuple):
    """How a chart looks: the colour of each point and name, one after the other, of lines, and the sizes of text."""

    colours: Sequence[str]
    names: str | None  # None: as their points
    grid: str
    text: float  # points
    marker: float


_ON_WHITE = Look(_COLOURS, None, "#e4e4e4", 11, 7)


def write_chart(folder: Path, rows: Sequence[dict[str, Any]], title: str) -> None:
    """Draw test accuracy with its 95 % interval against seconds, as SVG and PNG; recipes that failed are left out."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    shown = [row for row in rows if row["error"] is None]
    figure = Figure(figsize=_INCHES, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    axes.set_title(title, loc="left", fontsize=13, parse_math=False)
    axes.spines[["top", "right"]].set_visible(False)
    draw_points(axes, shown, _ON_WHITE)
    for kind, dots in _DOTS.items():
        write_figure(folder / f"{CHART}.{kind}", figure, dots)


def draw_points(axes: Axes, rows: Sequence[dict[str, Any]], look: Look) -> None:
    """Draw finished recipes into axes whose figure has a canvas: accuracy with its interval against seconds."""
    _set_axes(axes, rows, look)
    for row, colour in zip(rows, itertools.cycle(look.colours), strict=False):
        y, low, high = (100 * row[key] for key in ("accuracy", "accuracy_low", "accuracy_high"))
        axes.errorbar(
            row["seconds"], y, [[y - low], [high - y]], fmt="o", color=colour, markersize=look.marker,
            capsize=0.6 * look.marker, elinewidth=1.2,
        )  # fmt: skip
    _label(axes, rows, look)


def _set_axes(axes: Axes, rows: Sequence[dict[str, Any]], look: Look) -> None:
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    axes.set_xlabel("seconds, from an empty cache to the finished run (logarithmic)", fontsize=look.text)
    axes.set_ylabel("test accuracy in %, with its 95 % interval", fontsize=look.text)
    axes.set_xscale("log")
    seconds = [row["seconds"] for row in rows] or [1.0]
    shortest, longest = min(seconds), max(seconds)
    axes.set_xlim(shortest / 2, longest * 2)
    axes.xaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0) if longest / shortest < 200 else (1.0,)))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,g}"))
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.margins(y=0.12)
    axes.grid(color=look.grid)
    axes.set_axisbelow(True)
    axes.tick_params(labelsize=look.text)


def _label(axes: Axes, rows: Sequence[dict[str, Any]], look: Look) -> None:
    """Write each recipe's name beside its point, where it hides no other name, point or interval.

    Places are tried from near to far, for the most crowded layout as for the simplest; a name that is not next to its
    point is joined to it by a line. Where no place is free, the one that hides least is taken.
    """
    from matplotlib.transforms import Bbox

    figure = axes.get_figure()
    assert figure is not None
    canvas: Any = figure.canvas
    canvas.draw()  # fixes the layout that the places are measured in
    scale = figure.dpi / 72
    points = [axes.transData.transform((row["seconds"], 100 * row["accuracy"])) for row in rows]
    taken: list[Bbox] = []
    for row, (x, y) in zip(rows, points, strict=True):
        low, high = (
            axes.transData.transform((row["seconds"], 100 * row[key]))[1] for key in ("accuracy_low", "accuracy_high")
        )
        taken += [
            Bbox.from_extents(x - 2 * scale, low, x + 2 * scale, high),
            Bbox.from_extents(x - 5 * scale, y - 5 * scale, x + 5 * scale, y + 5 * scale),
        ]
    frame = axes.get_window_extent()
    for row, point, colour in zip(rows, points, itertools.cycle(look.colours), strict=False):
        name = str(row["recipe"])
        text = axes.text(0, 0, name, fontsize=look.text, parse_math=False)
        size = text.get_window_extent(canvas.get_renderer())
        text.remove()
        places = [_place(point, distance * scale, angle, size) for distance in _DISTANCES for angle in _ANGLES]
        n, place = min(enumerate(places), key=lambda item: (_hidden(item[1], taken, frame), item[0]))
        taken.append(place)
        line = {"arrowstyle": "-", "color": colour, "linewidth": 0.8} if n >= len(_ANGLES) else None
        axes.annotate(
            name,
            (row["seconds"], 100 * row["accuracy"]),
            xytext=((place.x0 - point[0]) / scale, (place.y0 + place.height / 4 - point[1]) / scale),
            textcoords="offset points",
            arrowprops=line,
            color=look.names or colour,
            fontsize=look.text,
            parse_math=False,
        )


def _place(point: Any, distance: float, angle: float, size: Bbox) -> Bbox:
    """Return the box of a name of this size, at this distance from its point."""
    from matplotlib.transforms import Bbox

    x = point[0] + distance * math.cos(math.radians(angle))
    y = point[1] + distance * math.sin(math.radians(angle))
    left = x if abs(angle) < 90 else x - size.width
    bottom = y if angle > 40 and angle < 140 else y - size.height if -140 < angle < -40 else y - size.height / 2
    return Bbox.from_bounds(left, bottom, size.width, size.height)


def _hidden(place: Bbox, taken: Sequence[Bbox], frame: Bbox) -> float:
    """Return how many square pixels a name at this place would hide, or hang over the edge."""
    from matplotlib.transforms import Bbox

    hidden = sum(both.width * both.height for other in taken if (both := Bbox.intersection(place, other)))
    inside = Bbox.intersection(place, frame)
    area = place.width * place.height
    return hidden + area - (inside.width * inside.height if inside else 0.0)
