"""Comparing: all recipes on the same images, each in a process of its own, and the table of what they came to."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from transfer.comparison.charts import write_chart
from transfer.comparison.pages import render_comparison
from transfer.comparison.plans import Plan, make_plan
from transfer.comparison.processes import fit_apart
from transfer.comparison.results import Result, read_result, require_same, require_same_test_images
from transfer.comparison.tables import COLUMNS, charge, describe, tabulate
from transfer.dataset import Dataset, display, require_drawable, scan
from transfer.errors import UsageError
from transfer.features import require_strictly
from transfer.files import cache_folder, remove, require_new, require_writable, scratch_folder, write_csv, write_json
from transfer.progress import Progress
from transfer.report import NAME, write_page
from transfer.runs import folder_name

if TYPE_CHECKING:
    import pandas

log = logging.getLogger(__name__)
_FORMAT = "transfer comparison 1"
_NAME = "compare"  # of the default folder, behind the data's


def compare(
    data: str | os.PathLike[str],
    recipes: Sequence[str | Path] | None = None,
    *,
    seeds: int = 1,
    out: str | Path | None = None,
    settings: Sequence[str] = (),
    quiet: bool = False,
    **changes: Any,
) -> pandas.DataFrame:
    """Fit several recipes on the very same parts of the same images, and put what they came to side by side.

    Each fit has a process of its own. A comparison that was stopped goes on when it is called again: fits that are done
    are taken, others start anew. So do further recipes or seeds. The cache of features is the comparison's own, and is
    gone at its end, so that seconds are those of a first time.

    Parameters
    ----------
    data
        A folder of images or a CSV file, as for `fit`.
    recipes
        Named recipes or YAML files; by default those in `RECIPES`.
    seeds
        How many; each draws a split of its own (where the data does not bring it), the same for all recipes.
    out
        The folder; ``runs/DATA-compare`` by default.
    settings, changes
        Changes to all recipes, as text or by name. As text (``train.epochs=3``), those of ``train`` change the recipes
        that may train layers, ``auto`` included, and those of ``choice`` change ``auto`` alone.

    Returns
    -------
    pandas.DataFrame
        A row per recipe, best first: test accuracy with its 95 % interval (see `tabulate`), the p-value that it errs as
        the best one does, val accuracy, seconds, memory, size. ``attrs["folder"]`` has the same as ``compare.csv`` and
        ``compare.json``, a chart, a page (report.html), and the run folders ``SEED/RECIPE``; ``attrs["notes"]`` says
        what to know when reading the table; ``attrs["exit_code"]`` is that of the first fit that failed, else 0.

    Raises
    ------
    TransferError
        The recipes, the data or the folder cannot be used. A fit that fails is a row of the table instead.
    """
    if not isinstance(data, (str, os.PathLike)):
        raise UsageError("A comparison reads a folder or a CSV file, since each fit has a process of its own.")
    progress = Progress(quiet)
    plan = make_plan(recipes, seeds, settings, **changes)
    dataset = scan(data)
    require_drawable(dataset)
    if limits := {recipe.data.max_pixels for recipe in plan.recipes.values() if recipe.data.strict}:
        require_strictly(dataset, min(limits), progress)
    folder = _reserve(data, out)
    done = _done(folder, plan, dataset)
    require_writable(folder)
    where = display(str(Path(data).absolute()))
    about = {"format": _FORMAT, "data": where, "seeds": seeds, "recipes": list(plan.recipes)}
    if not (folder / "compare.json").exists():
        write_json(folder / "compare.json", {**about, "status": "running"})
    results, exit_code = _fit_all(os.fspath(data), plan, folder, done, progress)
    require_same_test_images([result for result in results if not result.error])
    rows = tabulate(results)
    notes = [*plan.notes, *describe(rows, results)]
    seconds = charge(results)
    fits = [_about_fit(result, seconds) for result in results]
    _write(folder, rows, {**about, "status": "complete", "notes": notes, "fits": fits})
    _write_report(folder, where, rows, notes, results)
    return _frame(rows, folder, notes, exit_code)


def _reserve(data: str | os.PathLike[str], out: str | Path | None) -> Path:
    """Return the folder: a new one, or that of an earlier comparison to go on with.

    Raises
    ------
    UsageError
        There is something else of that name.
    """
    folder = Path(out) if out is not None else Path("runs") / folder_name(data, _NAME)
    if _is_comparison(folder):
        return folder
    require_new(folder)
    return folder


def _is_comparison(folder: Path) -> bool:
    try:
        return json.loads((folder / "compare.json").read_text(encoding="utf-8"))["format"] == _FORMAT
    except (OSError, ValueError, KeyError, TypeError):
        return False


def _done(folder: Path, plan: Plan, dataset: Dataset) -> set[tuple[int, str]]:
    """Return the fits that are there already, after making sure that they are those which are wanted."""
    done = set()
    for seed in range(plan.n_seeds):
        for name in plan.recipes:
            run = folder / str(seed) / name
            if run.is_dir() and any(run.iterdir()):
                require_same(run, plan.wanted(name, seed), dataset)
                done.add((seed, name))
    return done


def _fit_all(
    data: str, plan: Plan, folder: Path, done: set[tuple[int, str]], progress: Progress
) -> tuple[list[Result], int]:
    """Carry out what is not done yet, read everything, and return the exit code of the first fit that failed."""
    results: list[Result] = []
    exit_code = 0
    with scratch_folder(cache_folder()) as scratch:
        cache = scratch / "cache"
        for seed in range(plan.n_seeds):
            split = None  # of the first run that kept all images: the others are given it
            for name in sorted(plan.recipes, key=lambda name: (seed, name) not in done):
                run, wanted = folder / str(seed) / name, plan.wanted(name, seed)
                if (seed, name) in done:
                    progress.say(f"{name}, seed {seed}: done before.")
                else:
                    progress.say(f"{name}, seed {seed}:")
                    own = scratch / f"{name}-{seed}" if wanted.is_auto else cache
                    ending = fit_apart(data, wanted, run, split=split, cache=own, quiet=progress.quiet)
                    if ending.error:
                        progress.say(f"{name}, seed {seed}, failed: {ending.error}")
                        results.append(Result(name, seed, wanted, error=ending.error))
                        exit_code = exit_code or ending.exit_code
                        # what it had computed, and no finished run accounts for, must not be free for the next
                        remove(own)
                        continue
                results.append(read_result(run, name, wanted))
                progress.say(f"{name}, seed {seed}: {results[-1].accuracy:.1%} on test.")
                if split is None and wanted.data.per_class is None:
                    split = run / "split.csv"
    order = list(plan.recipes)
    return sorted(results, key=lambda result: (result.seed, order.index(result.recipe))), exit_code


def _write(folder: Path, rows: Sequence[dict[str, Any]], about: dict[str, Any]) -> None:
    """Write the table, the chart, and last the summary that says that all is there."""
    write_csv(folder / "compare.csv", COLUMNS, ([row[column] for column in COLUMNS] for row in rows))
    write_chart(folder, rows, f"{Path(about['data']).name}: test accuracy and time")
    write_json(folder / "compare.json", {**about, "rows": rows})


def _write_report(
    folder: Path, data: str, rows: Sequence[dict[str, Any]], notes: Sequence[str], results: Sequence[Result]
) -> None:
    try:
        write_page(folder / NAME, render_comparison(folder, data, rows, notes, results))
    except Exception as error:  # whatever it is, the comparison is there and is worth more than its page
        log.warning("No report: %s The comparison is safe in %s.", " ".join(str(error).split()), folder)


def _about_fit(result: Result, seconds: dict[tuple[str, int], float]) -> dict[str, Any]:
    """Return one fit for the summary."""
    about: dict[str, Any] = {"seed": result.seed, "recipe": result.recipe}
    if result.error:
        return {**about, "error": result.error}
    return {
        **about,
        "accuracy": result.accuracy,
        "val_accuracy": result.val_accuracy,
        "seconds": seconds[result.recipe, result.seed],
        "seconds_here": result.seconds,  # with what earlier fits had computed
        "peak_memory_bytes": result.peak_memory_bytes,
        "model_bytes": result.model_bytes,
    }


def _frame(rows: Sequence[dict[str, Any]], folder: Path, notes: list[str], exit_code: int) -> pandas.DataFrame:
    import pandas

    frame = pandas.DataFrame(list(rows), columns=list(COLUMNS))
    frame.attrs = {"folder": str(folder), "notes": notes, "exit_code": exit_code}
    return frame
