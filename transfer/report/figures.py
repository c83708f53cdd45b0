"""Figure: a chart as SVG that stands in a page and has its colours, light or dark."""

from __future__ import annotations

import colorsys
import contextlib
import io
import re
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from transfer.metrics import wilson

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# colours that stand for the page's own, which it changes with the reader's light or dark
INK, FAINT, LINE, ACCENT = "#010203", "#040506", "#070809", "#0a0b0c"
_PAGE_COLOURS = {INK: "var(--ink)", FAINT: "var(--faint)", LINE: "var(--line)", ACCENT: "var(--accent)"}
_WIDTH = 4.6  # inches
_LONGEST_NAME = 36  # characters
_N_BINS = 10
_MOST_SHAPES = 300  # points that are drawn each by itself, about 100 bytes each
MOST_RINGS = 300
_DOTS = 170  # per inch, of points that are a picture
_CLASS_COLOURS = (
    "#3f7fc4", "#e07b39", "#3d9a50", "#c8484f", "#8a67b8", "#a3714f", "#d36fae", "#8f9a2b", "#2ba3a8", "#7d828a",
)  # fmt: skip


@contextlib.contextmanager
def own_style() -> Iterator[None]:
    """Draw as it is said here, whatever style is set in the notebook or on the machine."""
    import matplotlib.style

    with matplotlib.style.context("default"):
        yield


def draw_arms(arms: Sequence[dict[str, Any]], chosen: str) -> str:
    """Draw each way of training with its accuracy and interval, in their order from above; the chosen one stands out.

    Those that were not tried have no accuracy and are left out.
    """
    from matplotlib.ticker import MaxNLocator

    shown = [arm for arm in arms if arm["accuracy"] is not None]
    figure, axes = _figure(0.55 + 0.3 * len(shown))
    for y, arm in enumerate(shown):
        colour = ACCENT if arm["name"] == chosen else FAINT
        if arm["interval"]:
            axes.plot([100 * bound for bound in arm["interval"]], [y, y], color=colour, linewidth=1.6)
        axes.plot(100 * arm["accuracy"], y, "o", color=colour, markersize=5.5)
    axes.set_yticks(range(len(shown)), [_short(arm["name"]) for arm in shown], parse_math=False)
    axes.set_ylim(len(shown) - 0.4, -0.6)
    axes.set_xlabel("accuracy in %, with its 95 % interval")
    axes.xaxis.set_major_locator(MaxNLocator(5, steps=[1, 2, 5, 10]))
    axes.grid(axis="x", color=LINE, linewidth=0.7)
    axes.spines["left"].set_visible(False)
    axes.tick_params(axis="y", length=0)
    return svg(figure, "arms")


def page_axes(height: float, width: float = _WIDTH) -> tuple[Figure, Axes]:
    """Return an empty figure in the page's style, of so many inches, to be drawn into and handed to `svg`."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    figure, axes = _figure(height, width)
    FigureCanvasAgg(figure)
    return figure, axes


def draw_accuracies(history: Sequence[dict[str, float | None]], best_epoch: int | None) -> str:
    """Draw the accuracies on train and val after each epoch, and mark the epoch that was kept."""
    figure, axes = _draw_history(history, best_epoch, "train_accuracy", "val_accuracy", 100)
    axes.set_ylabel("accuracy in %")
    return svg(figure, "accuracies")


def draw_losses(history: Sequence[dict[str, float | None]], best_epoch: int | None) -> str:
    """Draw the losses on train and val after each epoch, and mark the epoch that was kept."""
    figure, axes = _draw_history(history, best_epoch, "loss", "val_loss", 1)
    axes.set_ylabel("loss")
    axes.set_ylim(bottom=0)
    return svg(figure, "losses")


def draw_reliability(
    probabilities: Sequence[float], hits: Sequence[bool], before: Sequence[float] | None = None
) -> str:
    """Draw how often the predicted class was right against the probability that it was given, in ten equal bins.

    The bars are Wilson's 95 % intervals; the size of a point grows with its number of images. `before` are the
    probabilities of the same classes before calibration.
    """
    figure, axes = _figure(3.4)
    axes.plot([0, 100], [0, 100], color=FAINT, linewidth=1, linestyle=(0, (3, 3)))
    if before is not None:
        _draw_bins(axes, before, hits, {"color": FAINT, "markerfacecolor": "none", "label": "before calibration"})
    _draw_bins(axes, probabilities, hits, {"color": ACCENT, "label": "after" if before is not None else None})
    axes.set_xlabel("probability of the predicted class in %")
    axes.set_ylabel("of these, right in %")
    axes.set_xlim(0, 103)
    axes.set_ylim(-3, 103)  # none of the points is cut
    axes.grid(color=LINE, linewidth=0.7)
    if before is not None:
        _legend(axes, "best")
    return svg(figure, "reliability")


def _draw_bins(axes: Axes, probabilities: Sequence[float], hits: Sequence[bool], look: dict[str, Any]) -> None:
    probability, hit = np.asarray(probabilities, float), np.asarray(hits, bool)
    bins = np.clip(np.ceil(probability * _N_BINS).astype(int) - 1, 0, _N_BINS - 1)
    for b in np.unique(bins):
        inside = bins == b
        n, n_hits, x = int(inside.sum()), int(hit[inside].sum()), 100 * float(probability[inside].mean())
        axes.plot([x, x], [100 * bound for bound in wilson(n_hits, n)], color=look["color"], linewidth=1.4)
        axes.plot(x, 100 * n_hits / n, "o", markersize=4 + 5 * (n / len(hit)) ** 0.5, **{**look, "label": None})
    axes.plot([], [], "o", markersize=5, **look)


def draw_points(points: np.ndarray, labels: np.ndarray, colours: Sequence[str], mistakes: np.ndarray) -> str:
    """Draw images as points in the colour of their class, and rings around the rows `mistakes`.

    Many points are a picture inside the figure, so that its size does not grow with them.
    """
    figure, axes = _figure(4.6, width=7.0)
    axes.set_axis_off()
    order = np.random.default_rng(0).permutation(len(points))  # no class lies above the others
    size = float(np.clip(9000 / max(1, len(points)), 2.5, 22))
    axes.scatter(
        points[order, 0],
        points[order, 1],
        s=size,
        c=np.array(colours)[labels[order]],
        alpha=0.75,
        linewidths=0,
        rasterized=len(points) > _MOST_SHAPES,
    )
    ringed = points[mistakes[:MOST_RINGS]]
    axes.scatter(ringed[:, 0], ringed[:, 1], s=2.2 * size + 14, facecolors="none", edgecolors=INK, linewidths=0.9)
    for set_limits, values in ((axes.set_xlim, points[:, 0]), (axes.set_ylim, points[:, 1])):
        # a single far-off image must not press the others together
        low, high = np.quantile(values, [0.002, 0.998])
        inside = values[(values >= low) & (values <= high)]
        margin = 0.06 * max(float(np.ptp(inside)), 1e-9)
        set_limits(inside.min() - margin, inside.max() + margin)
    return svg(figure, "map", dots=_DOTS)


def class_colours(n_classes: int) -> list[str]:
    """Return a colour for each class that stands out from white and from black; neighbours are far apart."""
    if n_classes <= len(_CLASS_COLOURS):
        return list(_CLASS_COLOURS[:n_classes])
    hues = [(i * 0.618034) % 1 for i in range(n_classes)]  # the golden ratio: the next hue is never near
    colours = [colorsys.hls_to_rgb(hue, (0.42, 0.55, 0.66)[i % 3], 0.62) for i, hue in enumerate(hues)]
    return ["#" + "".join(f"{round(255 * part):02x}" for part in colour) for colour in colours]


def draw_learning(curve: dict[str, Any]) -> str:
    """Draw a learning curve as `LearningCurve.to_dict` gives it: the points, the law, and twice the images."""
    from matplotlib.ticker import FixedLocator, NullLocator

    points, law, twice, n_classes = curve["points"], curve["law"], curve["twice"], curve["n_classes"]
    figure, axes = _figure(2.9)
    axes.errorbar(
        [point["n"] / n_classes for point in points],
        [100 * point["accuracy"] for point in points],
        [100 * point["standard_error"] for point in points],
        fmt="o",
        color=ACCENT,
        markersize=4.5,
        linewidth=1.4,
        label="measured, ± standard error",
    )
    if law and twice:
        sizes = np.geomspace(points[0]["n"], twice["n"], 80)
        expected = 100 * (1 - law["a"] - law["b"] * sizes ** -law["c"])
        axes.plot(sizes / n_classes, expected, color=FAINT, linewidth=1.2, linestyle=(0, (4, 3)), label="law")
        low, high = (100 * bound for bound in twice["accuracy_interval"])
        x, y = twice["n"] / n_classes, 100 * twice["accuracy"]
        axes.errorbar(
            x, y, [[max(0, y - low)], [max(0, high - y)]], fmt="o", color=FAINT, markerfacecolor="none",
            markersize=5, linewidth=1.4, label="expected of twice the images, 95 %",
        )  # fmt: skip
    axes.set_xscale("log")
    shown = [point["n"] / n_classes for point in points] + [twice["n"] / n_classes] * bool(twice)
    axes.xaxis.set_major_locator(FixedLocator(shown))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set_xticks(shown, [f"{n:,.0f}" if n >= 10 else f"{n:.2g}" for n in shown])
    axes.set_xlabel("images per class to learn from")
    axes.set_ylabel("accuracy in %")
    axes.grid(color=LINE, linewidth=0.7)
    _legend(axes, "lower right")
    return svg(figure, "learning")


def _legend(axes: Axes, place: Literal["best", "lower right"]) -> None:
    axes.legend(frameon=False, fontsize=9, labelcolor=INK, loc=place)


def _figure(height: float, width: float = _WIDTH) -> tuple[Figure, Axes]:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    figure.patch.set_visible(False)
    axes = figure.add_subplot()
    axes.patch.set_visible(False)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["bottom", "left"]].set_color(LINE)
    axes.tick_params(color=LINE, labelcolor=INK, labelsize=9)
    for axis in (axes.xaxis, axes.yaxis):
        axis.label.set_color(FAINT)
        axis.label.set_fontsize(9)
    return figure, axes


def _draw_history(
    history: Sequence[dict[str, float | None]], best_epoch: int | None, train: str, val: str, factor: float
) -> tuple[Figure, Axes]:
    """Draw two columns of the history, that of train and that of val."""
    from matplotlib.ticker import MaxNLocator

    figure, axes = _figure(2.5)
    for column, colour, label in ((train, FAINT, "train"), (val, ACCENT, "val")):
        points = [(row["epoch"], row[column]) for row in history if row.get(column) is not None]
        if points:
            x, y = zip(*points, strict=True)
            axes.plot(
                x, factor * np.array(y, float), color=colour, linewidth=1.6, marker="o", markersize=3, label=label
            )
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_xlabel("epoch" if best_epoch is None else f"epoch; kept: {best_epoch}")
    if best_epoch is not None:
        axes.axvline(best_epoch, color=FAINT, linewidth=0.8, linestyle=(0, (3, 3)))
    axes.grid(axis="y", color=LINE, linewidth=0.7)
    if axes.get_legend_handles_labels()[0]:
        _legend(axes, "best")
    return figure, axes


def _short(name: str) -> str:
    return name if len(name) <= _LONGEST_NAME else name[: _LONGEST_NAME - 1] + "…"


def svg(figure: Figure, name: str, dots: float = 72) -> str:
    """Return the figure as an element of a page: no header, names of its own, colours of the page.

    `dots` per inch are those of what is a picture inside it.
    """
    import matplotlib

    data = io.BytesIO()
    with matplotlib.rc_context({"svg.hashsalt": name, "svg.fonttype": "none"}):  # text stays text, bytes the same
        figure.savefig(
            data, format="svg", dpi=dots, metadata={"Date": None, "Creator": None, "Format": None, "Type": None}
        )
    text = data.getvalue().decode("utf-8")
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    text = re.sub(r"<!--.*?-->\s*", "", text, flags=re.DOTALL)
    # in a page, a name is known everywhere; and an HTML parser knows the name spaces by itself
    text = re.sub(r'\bid="', f'id="{name}-', text)
    text = re.sub(r'xlink:href="#', f'href="#{name}-', text)
    text = text.replace('xlink:href="data:', 'href="data:')
    text = re.sub(r"url\(#", f"url(#{name}-", text)
    text = re.sub(r' xmlns(:\w+)?="[^"]*"| width="[\d.]+pt"| height="[\d.]+pt"', "", text)
    for stand_in, colour in _PAGE_COLOURS.items():
        text = text.replace(stand_in, colour)
    return text.strip()
