"""Page: a run as HTML. Whatever comes from a file or a folder is text there, never markup."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from transfer.dataset import display
from transfer.errors import ArtefactError
from transfer.images import MAX_PIXELS
from transfer.recipe import dump_recipe
from transfer.report import figures
from transfer.report.confusions import MOST_CLASSES, matrix_rows, top_confusions
from transfer.report.predictions import Prediction, least_sure, read_predictions, surest_mistakes
from transfer.report.records import Record
from transfer.report.reproduction import command
from transfer.report.tables import read_history, read_parts
from transfer.report.thumbnails import thumbnail

MARK = '<meta name="generator" content="transfer report">'
_N_THUMBNAILS = 24  # of a kind
_NEEDED = {"backbone", "data", "head", "machine", "model", "seconds", "strategy", "versions", "weights"}
_N_LISTED = 100  # files that could not be read


def render_page(run: Record) -> str:
    """Return the report of a run as one HTML document, which needs no other file, no script and no network.

    Raises
    ------
    ArtefactError
        The run's tables are damaged.
    """
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"display": display, "percent": _percent, "points": _points, "duration": _duration}
    if lacking := _NEEDED - run.info.keys() or {"test"} - run.metrics.keys():
        raise ArtefactError(f"{run.path} lacks {min(lacking)!r}, which a run of this version has. Fit again.")
    try:
        with figures.own_style():
            content = _content(run)
        return environment.get_template("page.html.j2").render(content, mark=MARK).lstrip()
    except (KeyError, TypeError, ValueError, jinja2.UndefinedError) as error:
        raise ArtefactError(f"{run.path} is not what this version writes ({error}). Fit again.") from error


def _content(run: Record) -> dict[str, Any]:
    """Return what the template shows; a section without data is None or empty."""
    test, predictions, parts = run.metrics["test"], read_predictions(run), read_parts(run.path / "split.csv")
    history = read_history(run.path / "history.csv")
    data = run.info["data"]
    is_matrix = len(run.classes) <= MOST_CLASSES
    return {
        "name_of_data": display(Path(data["root"]).name if data["root"] else run.path.absolute().name),
        "info": run.info,
        "test": test,
        "trusted": run.metrics.get(run.metrics.get("trust", "")),
        "n_classes": len(run.classes),
        "parts": parts,
        "parts_in_words": ", ".join(f"{parts.n[p]:,} {p}" for p in ("train", "val", "test") if p in parts.n),
        "seconds": sum(run.info["seconds"].values()),
        "choice": run.choice,
        "arms_figure": _arms_figure(run),
        "training_figures": _training_figures(history, (run.info.get("training") or {}).get("best_epoch")),
        "per_class": _worst_first(test["per_class"]),
        "classes": run.classes,
        "matrix": matrix_rows(test["confusion"], run.classes) if is_matrix else None,
        "confusions": None if is_matrix else top_confusions(test["confusion"], run.classes),
        "mistakes": _pictures(run, surest_mistakes(predictions, _N_THUMBNAILS)),
        "unsure": _pictures(run, least_sure(predictions, _N_THUMBNAILS)),
        "reliability_figure": figures.draw_reliability(
            [p.probability for p in predictions], [p.is_right for p in predictions]
        )
        if predictions
        else None,
        "unreadable": data["unreadable"][:_N_LISTED],
        "n_unreadable": len(data["unreadable"]),
        "command": command(run),
        "recipe": [display(line) for line in dump_recipe(run.recipe).splitlines()],
        "starts_solved": run.recipe.train.start == "solved",
        "is_calibrated": "Not calibrated" not in run.info["head"]["rule"],
    }


def _arms_figure(run: Record) -> str | None:
    """Return the figure of the arms, where at least two have something to show."""
    arms = run.choice.arms if run.choice else []
    is_figure = sum(arm["accuracy"] is not None for arm in arms) > 1
    return figures.draw_arms(arms, run.choice.chosen) if run.choice and is_figure else None


def _training_figures(history: list[dict[str, float | None]], best_epoch: int | None) -> list[str]:
    if len(history) < 2:
        return []
    return [figures.draw_accuracies(history, best_epoch), figures.draw_losses(history, best_epoch)]


def _worst_first(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the classes by F1, worst first; those without test images come last."""
    return sorted(rows, key=lambda row: (row["f1"] is None, row["f1"] or 0.0))


def _pictures(run: Record, predictions: Sequence[Prediction]) -> list[dict[str, Any]]:
    root = run.info["data"]["root"]
    max_pixels = min(run.recipe.data.max_pixels, MAX_PIXELS)
    return [
        {
            "prediction": p,
            "source": thumbnail(p.file(None if root is None else Path(root)), p.content, max_pixels)
            if p.content
            else None,
        }
        for p in predictions
    ]


def _percent(share: float | None, digits: int = 1) -> str:
    if share is None:
        return "–"
    text, smallest = f"{100 * share:.{digits}f}", 10.0**-digits
    if share < 1 and float(text) == 100:  # nothing is rounded to perfection
        text = f"> {100 - smallest:.{digits}f}"
    elif share > 0 and float(text) == 0:
        text = f"< {smallest:.{digits}f}"
    return f"{text}\N{NARROW NO-BREAK SPACE}%"


def _points(gap: float | None, error: float | None) -> str:
    """Return a difference of accuracies in points, with its standard error."""
    if gap is None:
        return "–"
    text = f"{100 * gap:+.1f}".replace("-", "−")
    return text if error is None else f"{text} ± {100 * error:.1f}"


def _duration(seconds: float) -> str:
    """Return a time in words, as coarse as one says it.

    >>> _duration(8.3), _duration(61), _duration(4000)
    ('8 seconds', '1 minute', '67 minutes')
    >>> _duration(36000)
    '10.0 hours'
    """
    n, unit = (seconds / 60, "minute") if seconds >= 59.5 else (seconds, "second")
    if n >= 90 and unit == "minute":
        return f"{n / 60:.1f} hours"
    shown = max(1, round(n)) if n >= 1 else round(n, 1)
    return f"{shown} {unit}{'' if shown == 1 else 's'}"
