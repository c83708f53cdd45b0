"""Result: what one fit of a comparison came to, read from its run folder."""

from __future__ import annotations

import csv
import json
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from transfer.comparison.processes import MEASURED
from transfer.dataset import Dataset, display
from transfer.errors import ArtefactError, UsageError
from transfer.recipe import Recipe
from transfer.runs import Run, load_run


@dataclass(frozen=True)
class Result:
    """The numbers of one recipe and one seed; of a fit that failed, the reason and nothing else."""

    recipe: str
    seed: int
    settings: Recipe
    tested: tuple[tuple[str, str], ...] = ()  # path and label of each test image, sorted
    is_right: tuple[bool, ...] = ()  # of each
    val_accuracy: float | None = None
    seconds: float = 0.0  # of the whole fit, as it was: with what earlier fits had left in the cache
    steps: dict[str, float] = field(default_factory=dict)  # the seconds by step
    peak_memory_bytes: int | None = None
    model_bytes: int = 0
    error: str = ""

    @property
    def accuracy(self) -> float:
        """The share of the test images that the run names rightly."""
        return sum(self.is_right) / len(self.is_right)


def read_result(folder: Path, name: str, wanted: Recipe) -> Result:
    """Read a finished run."""
    run = load_run(folder)
    with open(folder / "predictions.csv", encoding="utf-8", newline="") as source:
        rows = sorted(csv.DictReader(source), key=lambda row: (row["path"], row["label"]))
    steps = {step: float(seconds) for step, seconds in run.info["seconds"].items()}
    measured = _measured(folder)
    return Result(
        recipe=name,
        seed=wanted.seed,
        settings=wanted,
        tested=tuple((row["path"], row["label"]) for row in rows),
        is_right=tuple(row["label"] == row["predicted"] for row in rows),
        val_accuracy=run.metrics["val"]["accuracy"] if "val" in run.metrics else None,
        seconds=measured.get("seconds", sum(steps.values())),
        steps=steps,
        peak_memory_bytes=measured.get("peak_memory_bytes"),
        model_bytes=(folder / "model.safetensors").stat().st_size,
    )


def require_same(folder: Path, wanted: Recipe, dataset: Dataset) -> None:
    """Make sure that a run that is there is the one that would be made.

    Raises
    ------
    UsageError
        It was fitted with other settings, or on other images.
    ArtefactError
        It is no complete run.
    """
    run = load_run(folder)
    if differing := _differences(run.asked, wanted):
        key, there, here = differing[0]
        raise UsageError(f"{folder} was fitted with {key}={there}, not {here}. Choose another --out, or delete it.")
    if not _is_of(run, dataset):
        raise UsageError(f"{folder} was fitted on other images than are there now. Choose another --out, or delete it.")


def require_same_test_images(results: list[Result]) -> None:
    """Refuse results of one seed that were not reported on the very same images.

    Raises
    ------
    ArtefactError
        It names the recipes.
    """
    first: dict[int, Result] = {}
    for result in results:
        other = first.setdefault(result.seed, result)
        if result.tested != other.tested:
            raise ArtefactError(
                f"{result.recipe} and {other.recipe} were reported on different images with seed {result.seed}, so "
                "their numbers do not compare. Choose another --out, and leave the data alone meanwhile."
            )


def _differences(there: Recipe, wanted: Recipe) -> list[tuple[str, Any, Any]]:
    """Return each setting in which two recipes differ, with both values."""
    old, new = _flat(there.model_dump(mode="json")), _flat(wanted.model_dump(mode="json"))
    return [(key, old.get(key), value) for key, value in new.items() if old.get(key) != value]


def _flat(values: dict[str, Any], above: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in values.items():
        flat |= _flat(value, f"{above}{key}.") if isinstance(value, dict) else {f"{above}{key}": value}
    return flat


def _is_of(run: Run, dataset: Dataset) -> bool:
    """Tell whether a run was fitted on these images; those that only decoding finds unreadable are not known here."""
    with open(run.path / "split.csv", encoding="utf-8", newline="") as source:
        used = Counter(row["sha256"] for row in csv.DictReader(source))
    if used - Counter(dataset.hashes):
        return False
    if run.recipe.data.per_class:  # which leaves images out
        return True
    data = run.info["data"]
    kept = dataset.subset([i for i, content in enumerate(dataset.hashes) if content in used])
    n_images = len(dataset) + len(dataset.unreadable)
    return kept.fingerprint == data["fingerprint"] and n_images == data["n_used"] + len(data["unreadable"])


def _measured(folder: Path) -> dict[str, Any]:
    """Return what was measured of the run's process; nothing where the comparison was killed at its very end."""
    try:
        return json.loads((folder / MEASURED).read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise ArtefactError(f"Cannot read {display(str(folder / MEASURED))}: {error}. Delete the run.") from error
