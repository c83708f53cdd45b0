"""Figure: a chart as SVG that stands in a page and has its colours, light or dark."""

from __future__ import annotations

import contextlib
import io
import re
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from transfer.metrics import wilson

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# colours that stand for the page's own, which it changes with the reader's light or dark
_INK, _FAINT, _LINE, _ACCENT = "#010203", "#040506", "#070809", "#0a0b0c"
_PAGE_COLOURS = {_INK: "var(--ink)", _FAINT: "var(--faint)", _LINE: "var(--line)", _ACCENT: "var(--accent)"}
_WIDTH = 4.6  # inches
_LONGEST_NAME = 36  # characters
_N_BINS = 10


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
        colour = _ACCENT if arm["name"] == chosen else _FAINT
        if arm["interval"]:
            axes.plot([100 * bound for bound in arm["interval"]], [y, y], color=colour, linewidth=1.6)
        axes.plot(100 * arm["accuracy"], y, "o", color=colour, markersize=5.5)
    axes.set_yticks(range(len(shown)), [_short(arm["name"]) for arm in shown], parse_math=False)
    axes.set_ylim(len(shown) - 0.4, -0.6)
    axes.set_xlabel("accuracy in %, with its 95 % interval")
    axes.xaxis.set_major_locator(MaxNLocator(5, steps=[1, 2, 5, 10]))
    axes.grid(axis="x", color=_LINE, linewidth=0.7)
    axes.spines["left"].set_visible(False)
    axes.tick_params(axis="y", length=0)
    return _svg(figure, "arms")


def draw_accuracies(history: Sequence[dict[str, float | None]], best_epoch: int | None) -> str:
    """Draw the accuracies on train and val after each epoch, and mark the epoch that was kept."""
    figure, axes = _draw_history(history, best_epoch, "train_accuracy", "val_accuracy", 100)
    axes.set_ylabel("accuracy in %")
    return _svg(figure, "accuracies")


def draw_losses(history: Sequence[dict[str, float | None]], best_epoch: int | None) -> str:
    """Draw the losses on train and val after each epoch, and mark the epoch that was kept."""
    figure, axes = _draw_history(history, best_epoch, "loss", "val_loss", 1)
    axes.set_ylabel("loss")
    axes.set_ylim(bottom=0)
    return _svg(figure, "losses")


def draw_reliability(probabilities: Sequence[float], hits: Sequence[bool]) -> str:
    """Draw how often the predicted class was right against the probability that it was given, in ten equal bins.

    The bars are Wilson's 95 % intervals; the size of a point grows with its number of images.
    """
    probability, hit = np.asarray(probabilities, float), np.asarray(hits, bool)
    bins = np.clip(np.ceil(probability * _N_BINS).astype(int) - 1, 0, _N_BINS - 1)
    figure, axes = _figure(3.4)
    axes.plot([0, 100], [0, 100], color=_FAINT, linewidth=1, linestyle=(0, (3, 3)))
    for b in np.unique(bins):
        inside = bins == b
        n, n_hits, x = int(inside.sum()), int(hit[inside].sum()), 100 * float(probability[inside].mean())
        axes.plot([x, x], [100 * bound for bound in wilson(n_hits, n)], color=_ACCENT, linewidth=1.4)
        axes.plot(x, 100 * n_hits / n, "o", color=_ACCENT, markersize=4 + 5 * (n / len(hit)) ** 0.5)
    axes.set_xlabel("probability of the predicted class in %")
    axes.set_ylabel("of these, right in %")
    axes.set_xlim(0, 103)
    axes.set_ylim(0, 103)
    axes.grid(color=_LINE, linewidth=0.7)
    return _svg(figure, "reliability")


def _figure(height: float) -> tuple[Figure, Axes]:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(_WIDTH, height), layout="constrained")
    figure.patch.set_visible(False)
    axes = figure.add_subplot()
    axes.patch.set_visible(False)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["bottom", "left"]].set_color(_LINE)
    axes.tick_params(color=_LINE, labelcolor=_INK, labelsize=9)
    for axis in (axes.xaxis, axes.yaxis):
        axis.label.set_color(_FAINT)
        axis.label.set_fontsize(9)
    return figure, axes


def _draw_history(
    history: Sequence[dict[str, float | None]], best_epoch: int | None, train: str, val: str, factor: float
) -> tuple[Figure, Axes]:
    """Draw two columns of the history, that of train and that of val."""
    from matplotlib.ticker import MaxNLocator

    figure, axes = _figure(2.5)
    for column, colour, label in ((train, _FAINT, "train"), (val, _ACCENT, "val")):
        points = [(row["epoch"], row[column]) for row in history if row.get(column) is not None]
        if points:
            x, y = zip(*points, strict=True)
            axes.plot(
                x, factor * np.array(y, float), color=colour, linewidth=1.6, marker="o", markersize=3, label=label
            )
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_xlabel("epoch" if best_epoch is None else f"epoch; kept: {best_epoch}")
    if best_epoch is not None:
        axes.axvline(best_epoch, color=_FAINT, linewidth=0.8, linestyle=(0, (3, 3)))
    axes.grid(axis="y", color=_LINE, linewidth=0.7)
    if axes.get_legend_handles_labels()[0]:
        axes.legend(frameon=False, fontsize=9, labelcolor=_INK)
    return figure, axes


def _short(name: str) -> str:
    return name if len(name) <= _LONGEST_NAME else name[: _LONGEST_NAME - 1] + "…"


def _svg(figure: Figure, name: str) -> str:
    """Return the figure as an element of a page: no header, names of its own, colours of the page."""
    import matplotlib

    data = io.BytesIO()
    with matplotlib.rc_context({"svg.hashsalt": name, "svg.fonttype": "none"}):  # text stays text, bytes the same
        figure.savefig(data, format="svg", metadata={"Date": None, "Creator": None, "Format": None, "Type": None})
    text = data.getvalue().decode("utf-8")
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    text = re.sub(r"<!--.*?-->\s*", "", text, flags=re.DOTALL)
    # in a page, a name is known everywhere; and an HTML parser knows the name spaces by itself
    text = re.sub(r'\bid="', f'id="{name}-', text)
    text = re.sub(r'xlink:href="#', f'href="#{name}-', text)
    text = re.sub(r"url\(#", f"url(#{name}-", text)
    text = re.sub(r' xmlns(:\w+)?="[^"]*"| width="[\d.]+pt"| height="[\d.]+pt"', "", text)
    for stand_in, colour in _PAGE_COLOURS.items():
        text = text.replace(stand_in, colour)
    return text.strip()
