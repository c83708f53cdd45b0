"""Page: a run as HTML. Whatever comes from a file or a folder is text there, never markup."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from transfer.dataset import display
from transfer.errors import ArtefactError
from transfer.images import MAX_PIXELS
from transfer.likeness import NEAR
from transfer.metrics import calibration_error, wilson
from transfer.recipe import FINE_TUNING, dump_recipe
from transfer.report import figures
from transfer.report.confusions import MOST_CLASSES, matrix_rows, top_confusions
from transfer.report.files import file_of
from transfer.report.findings import Findings, Place
from transfer.report.looks import look
from transfer.report.predictions import Prediction, least_sure, surest_mistakes
from transfer.report.records import Record
from transfer.report.reproduction import command
from transfer.report.tables import read_history, read_parts
from transfer.report.templates import fill
from transfer.report.thumbnails import thumbnail

_N_THUMBNAILS = 24  # of a kind
_N_PAIRS = 12
_N_LISTED = 100  # files that could not be read


def render_page(run: Record, findings: Findings, predictions: Sequence[Prediction], folder: Path | None) -> str:
    """Return the report of a run as one HTML document, which needs no other file, no script and no network.

    Parameters
    ----------
    findings
        What a second look at the images has shown.
    folder
        Where the tables of the findings lie; None where they are not written.

    Raises
    ------
    ArtefactError
        The run's tables are damaged.
    """
    import jinja2

    try:
        with figures.own_style():
            content = {**_content(run, predictions), **_second_look(run, findings), "has_tables": folder is not None}
        return fill("page.html.j2", {**content, "looks": look(run, predictions)})
    except (KeyError, TypeError, ValueError, jinja2.UndefinedError) as error:
        raise ArtefactError(f"{run.path} is not what this version writes ({error}). Fit again.") from error


def _content(run: Record, predictions: Sequence[Prediction]) -> dict[str, Any]:
    """Return what the template shows of the run's tables; a section without data is None or empty."""
    test, parts = run.metrics["test"], read_parts(run.path / "split.csv")
    arms = run.choice.arms if run.choice else []
    history = read_history(run.path / "history.csv")
    data, training = run.info["data"], run.info.get("training") or {}
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
        "is_flattered": any(arm["n_judged"] and arm["recipe"] in FINE_TUNING for arm in arms),
        "arms_figure": _arms_figure(run),
        "training_figures": _training_figures(history, training.get("best_epoch")),
        "per_class": _worst_first(test["per_class"]),
        "classes": run.classes,
        "matrix": matrix_rows(test["confusion"], run.classes) if is_matrix else None,
        "confusions": None if is_matrix else top_confusions(test["confusion"], run.classes),
        "mistakes": _pictures(run, surest_mistakes(predictions, _N_THUMBNAILS)),
        "unsure": _pictures(run, least_sure(predictions, _N_THUMBNAILS)),
        **_reliability(predictions),
        "novelty": _novelty(run),
        "is_unknown_tried": "novelty" in run.info,
        "learning_figure": _learning_figure(run),
        "learning": run.choice.curve if run.choice else None,
        "unreadable": data["unreadable"][:_N_LISTED],
        "n_unreadable": len(data["unreadable"]),
        "command": command(run),
        "recipe": [display(line) for line in dump_recipe(run.recipe).splitlines()],
        "starts_solved": run.recipe.train.start == "solved",
        "keeps_last": run.recipe.train.learns_from_val,
        "blend": training.get("blend", 1.0),
        "val_blends": run.recipe.train.blend == "val",
        "is_calibrated": run.info["head"]["is_calibrated"],
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


def _reliability(predictions: Sequence[Prediction]) -> dict[str, Any]:
    """Return the figure, and the calibration error before the temperature where the run knows it."""
    if not predictions:
        return {"reliability_figure": None, "error_before": None}
    hits = [p.is_right for p in predictions]
    before = [p.uncalibrated for p in predictions if p.uncalibrated is not None]
    is_known = len(before) == len(predictions)
    figure = figures.draw_reliability([p.probability for p in predictions], hits, before if is_known else None)
    error = calibration_error(np.array(before), np.array(hits)) if is_known else None
    return {"reliability_figure": figure, "error_before": error}


def _novelty(run: Record) -> dict[str, Any] | None:
    """Return what tells unknown images and the share of the test images that it marks, where the run has it."""
    novelty, n = run.info.get("novelty"), run.metrics["test"]["n"]
    if not novelty:
        return None
    share = novelty["unknown_of_test"]
    n_unknown = None if share is None else round(share * n)
    interval = None if n_unknown is None else wilson(n_unknown, n)
    return {**novelty, "share": share, "n_unknown": n_unknown, "interval": interval}


def _learning_figure(run: Record) -> str | None:
    """Return the learning curve that `auto` has measured, where it has."""
    curve = run.choice.curve if run.choice else None
    return figures.draw_learning(curve) if curve and len(curve["points"]) > 1 else None


def _second_look(run: Record, findings: Findings) -> dict[str, Any]:
    """Return what the template shows of the findings."""
    shown = findings.look_alikes[:_N_PAIRS]
    drawn = findings.map
    colours = figures.class_colours(len(run.classes))
    return {
        "findings": findings,
        "doubts": [{"doubt": d, "source": _picture(run, d.image)} for d in findings.doubts[:_N_THUMBNAILS]],
        "pairs": [{"pair": p, "sources": [_picture(run, p.later), _picture(run, p.earlier)]} for p in shown],
        "near": NEAR,
        "n_test_alike": sum(pair.later.part == "test" for pair in findings.look_alikes),
        "map_figure": figures.draw_points(drawn.plane.points, drawn.labels, colours, drawn.mistakes) if drawn else None,
        "map": drawn,
        "most_rings": figures.MOST_RINGS,
        "legend": list(zip(run.classes, colours, strict=True)) if len(run.classes) <= MOST_CLASSES else None,
    }


def _pictures(run: Record, predictions: Sequence[Prediction]) -> list[dict[str, Any]]:
    return [{"prediction": p, "source": _picture(run, p)} for p in predictions]


def _picture(run: Record, image: Place | Prediction) -> str | None:
    if not image.content:
        return None
    max_pixels = min(run.recipe.data.max_pixels, MAX_PIXELS)
    return thumbnail(file_of(image.path, run.info["data"]["root"]), image.content, max_pixels)
