"""Page: a comparison as HTML, its arms side by side. Whatever comes from a file or a folder is text there."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from transfer import __version__
from transfer.comparison.charts import Look, draw_points
from transfer.comparison.results import Result
from transfer.comparison.tables import best_by_val
from transfer.dataset import display
from transfer.images import MAX_PIXELS
from transfer.report import figures
from transfer.report.files import file_of
from transfer.report.predictions import Prediction, read_predictions
from transfer.report.templates import fill
from transfer.report.thumbnails import thumbnail
from transfer.runs import Run, load_run

_N_THUMBNAILS = 24
_MOST_CLASSES = 60  # of the table, the worst ones
_HEIGHT = 3.5  # inches, of the chart


def render_comparison(
    folder: Path, data: str, rows: Sequence[dict[str, Any]], notes: Sequence[str], results: Sequence[Result]
) -> str:
    """Return the page of a comparison as one HTML document, without script and without any request.

    Parameters
    ----------
    folder
        Of the comparison; the runs lie in it.
    data
        Where the images came from.
    rows, notes
        Of `tabulate` and `describe`.
    results
        Of all fits.
    """
    finished = [row for row in rows if row["error"] is None]
    best = best_by_val(rows, results)
    chosen = best[0] if best else None
    names = [row["recipe"] for row in finished]
    runs = {
        name: [load_run(folder / str(r.seed) / name) for r in results if r.recipe == name and not r.error]
        for name in names
    }
    with figures.own_style():
        figure = _figure(finished, chosen) if len(finished) > 1 else None
    classes = _classes(runs)
    content = {
        "name_of_data": display(Path(data).name),
        "data": data,
        "folder": str(folder.absolute()),
        "rows": rows,
        "n_finished": len(finished),
        "chosen": chosen or (finished[0] if finished else None),
        "n_best_by_val": len(best),
        "n_seeds": max((row["n_seeds"] for row in rows), default=0),
        "figure": figure,
        "names": names,
        "classes": classes[:_MOST_CLASSES],
        "n_classes": len(classes),
        "hard": _missed_by_all(runs),
        "runs": [str(run.path) for of_one in runs.values() for run in of_one],
        "notes": notes,
        "version": __version__,
    }
    return fill("comparison.html.j2", content)


def _figure(rows: Sequence[dict[str, Any]], chosen: dict[str, Any] | None) -> str:
    rows = sorted(rows, key=lambda row: row is chosen)  # above the others
    colours = [figures.ACCENT if row is chosen else figures.FAINT for row in rows]
    figure, axes = figures.page_axes(_HEIGHT)
    draw_points(axes, rows, Look(colours, figures.INK, figures.LINE, 9, 5.5))
    return figures.svg(figure, "accuracy-time")


def _classes(runs: dict[str, list[Run]]) -> list[dict[str, Any]]:
    """Return each class with its recall by each recipe, means over the seeds, the worst class first."""
    if not runs:
        return []
    first = next(iter(runs.values()))[0]
    rows = []
    for i, name in enumerate(first.classes):
        recalls = [[run.metrics["test"]["per_class"][i] for run in of_one] for of_one in runs.values()]
        shares = [[each["recall"] for each in of_one if each["recall"] is not None] for of_one in recalls]
        means = [float(np.mean(of_one)) if of_one else None for of_one in shares]
        known = [mean for mean in means if mean is not None]
        rows.append({"name": name, "recalls": means, "n": recalls[0][0]["n"], "best": max(known, default=None)})
    return sorted(rows, key=lambda row: np.mean([mean for mean in row["recalls"] if mean is not None] or [2.0]))


def _missed_by_all(runs: dict[str, list[Run]]) -> dict[str, Any]:
    """Return the test images of the first seed that no recipe names rightly, by the probability of the first recipe."""
    firsts = [of_one[0] for of_one in runs.values()]
    told = [{p.path: p for p in read_predictions(run)} for run in firsts]
    if len(told) < 2:
        return {"n": 0, "n_test": 0, "shown": []}
    missed = [path for path, p in told[0].items() if not any(of_one[path].is_right for of_one in told)]
    missed.sort(key=lambda path: (-told[0][path].probability, path))
    shown = [_picture(firsts[0], [of_one[path] for of_one in told]) for path in missed[:_N_THUMBNAILS]]
    return {"n": len(missed), "n_test": len(told[0]), "shown": shown}


def _picture(run: Run, told: Sequence[Prediction]) -> dict[str, Any]:
    first = told[0]
    max_pixels = min(run.recipe.data.max_pixels, MAX_PIXELS)
    source = (
        thumbnail(file_of(first.path, run.info["data"]["root"]), first.content, max_pixels) if first.content else None
    )
    answers = list(dict.fromkeys(p.predicted for p in told))
    return {"path": first.path, "label": first.label, "answers": answers, "source": source}
