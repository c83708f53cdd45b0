"""Writing: a run folder, whole or not at all."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from transfer import backbones
from transfer.backbones import Backbone
from transfer.choice import Choice
from transfer.dataset import Dataset, Split, display, write_split
from transfer.errors import ArtefactError
from transfer.exporting import render_card, timm_config
from transfer.features import Representation
from transfer.files import atomic_folder, remove, sha256, write_csv, write_json, write_tensors, write_text
from transfer.heads import FittedHead, Head, LinearHead, head_to_arrays
from transfer.machine import describe_processor, versions
from transfer.novelty import KEPT, NoveltyDetector, detector_to_arrays
from transfer.recipe import Recipe, dump_recipe
from transfer.runs.run import Run, load_run
from transfer.runs.stored import COMPLETE, FORMAT

_logger = logging.getLogger(__name__)
_PREDICTIONS = ("path", "label", "predicted", "probability", "label_probability", "uncalibrated_probability")


def write_run(
    folder: Path,
    *,
    recipe: Recipe,
    dataset: Dataset,
    split: Split,
    backbone: Backbone,
    representation: Representation,
    fitted: FittedHead,
    scores: dict[str, Any],
    test_probabilities: np.ndarray,
    uncalibrated: np.ndarray,
    detector: NoveltyDetector | None = None,
    test_unknown: np.ndarray | None = None,
    computed_in: str | None = None,
    seconds: dict[str, float],
    taps: dict[str, Any] | None = None,
    history: Sequence[dict[str, Any]] = (),
    training: dict[str, Any] | None = None,
    choice: Choice | None = None,
    asked: Recipe | None = None,
) -> Run:
    """Write a run folder whole, or not at all.

    Parameters
    ----------
    uncalibrated
        (n_test,) probabilities of the predicted classes before the temperature.
    computed_in
        The type in which the network computed what the test images were classified by.
    asked
        The recipe that was asked for, where it left something to be found or chosen.
    """
    with atomic_folder(folder) as building:
        write_text(building / "recipe.yaml", dump_recipe(recipe))
        write_split(building / "split.csv", dataset, split)
        form, arrays = head_to_arrays(fitted.head)
        why_not_timm = _why_not_timm(representation, fitted.head)
        model_info = _write_model(building, backbone, arrays, dataset.classes, why_not_timm)
        _write_predictions(building, dataset, split, test_probabilities, uncalibrated)
        novelty = _write_novelty(building / "novelty.safetensors", detector, test_unknown)
        write_json(building / "metrics.json", scores)
        if choice:
            write_json(building / "choice.json", choice.to_dict())
        if history:
            write_csv(building / "history.csv", list(history[0]), (list(row.values()) for row in history))
        info = {
            "format": FORMAT,
            "classes": list(dataset.classes),
            "strategy": recipe.strategy,
            "asked": (asked or recipe).model_dump(mode="json"),
            "backbone": backbone.name,
            "representation": representation.to_dict(),
            "taps": taps,  # how they were found, where they were searched for
            "weights": {"source": backbone.source, "sha256": backbone.weights_hash},
            "preprocessing": backbone.preprocessing.to_dict(),
            "head": {
                "chosen": fitted.chosen,
                "rule": fitted.rule,
                "tried": fitted.table,
                "class_weights": fitted.class_weights,
                "temperature": fitted.head.temperature,
                "is_calibrated": fitted.is_calibrated,
                "form": form,
            },
            "training": training or None,
            "model": model_info,
            "novelty": novelty,
            "computed_in": computed_in,
            "data": {
                "root": None if dataset.root is None else str(dataset.root),
                "domains": dataclasses.asdict(dataset.domains) if dataset.domains else None,
                "fingerprint": dataset.fingerprint,
                "layout": dataset.layout,
                "n_seen": dataset.n_seen,
                "n_used": len(dataset),
                "n_ignored": len(dataset.ignored),
                "unreadable": [[display(s.path), s.reason] for s in dataset.unreadable],
                "notes": dataset.notes,
                "split": split.reason if "cross_validation" in scores else split.reasons_of_parts,
            },
            "seconds": seconds,
            "versions": versions(),
            "machine": describe_processor(),
            "sha256": {path.name: sha256(path) for path in sorted(building.iterdir()) if path.suffix != ".safetensors"},
            "status": COMPLETE,
        }
        write_json(building / "run.json", info)
        try:
            write_text(building / "README.md", render_card(Run(building, info), folder.name))
        except (ArtefactError, ValueError, LookupError, TypeError) as error:  # the run is worth more than its card
            _logger.warning("No model card: %s", " ".join(str(error).split()))
    return load_run(folder)


def check_head(run: Run, head: Head, rows: np.ndarray, tolerance: float = 1e-4) -> None:
    """Read the saved head back and compare it with the fitted one on some rows of features; on failure drop the run.

    Raises
    ------
    ArtefactError
        The saved model does not predict what was measured.
    """
    difference = float(np.abs(run.head.probabilities(rows) - head.probabilities(rows)).max(initial=0.0))
    if not difference <= tolerance:
        remove(run.path)
        raise ArtefactError(f"The saved model differs from the fitted one by {difference:.3g}. Please report this.")


def _why_not_timm(representation: Representation, head: Head) -> str:
    """Return why the network with this head is not one that timm knows; empty where it is."""
    if not isinstance(head, LinearHead):
        return "The head is not one linear layer."
    if representation.is_plain:
        return ""
    return f"The head reads {representation.describe()}, not the features that the network ends in, as they are."


def _write_model(
    folder: Path, backbone: Backbone, head: dict[str, np.ndarray], classes: Sequence[str], reason: str
) -> dict[str, Any]:
    """Write model.safetensors and config.json, in timm's layout where timm can build the network with this head."""
    name = "head"
    if not reason:
        try:
            _, name = backbones.classifier_network(backbone.name, len(classes), backbone.n_features)
        except ArtefactError as error:
            reason = str(error)
    if not reason and backbone.is_handmade:
        reason = "No library builds a hand-made backbone; load it with transfer.load_run."
    if not reason and backbone.name.startswith("torchvision/"):
        reason = "The network is torchvision's; load it with transfer.load_run."
    own = backbone.model.state_dict()
    while any(key.startswith(f"{name}.") for key in own):  # a network may have a `head` of its own
        name = f"transfer_{name}"
    tensors = {**own, **{f"{name}.{part}": torch.from_numpy(np.ascontiguousarray(head[part])) for part in head}}
    write_tensors(folder / "model.safetensors", tensors, {"format": "pt"})
    if not reason:
        write_json(folder / "config.json", timm_config(backbone, classes))
    return {"head": name, "timm": not reason, "why_not_timm": reason, "sha256": sha256(folder / "model.safetensors")}


def _write_novelty(
    path: Path, detector: NoveltyDetector | None, test_unknown: np.ndarray | None
) -> dict[str, Any] | None:
    if detector is None:
        return None
    write_tensors(path, {key: torch.from_numpy(array) for key, array in detector_to_arrays(detector).items()})
    return {
        "threshold": detector.threshold,
        "kept_of_val": KEPT,
        "n_val": detector.n_val,
        "n_references": len(detector.references),
        "unknown_of_test": None if test_unknown is None or not len(test_unknown) else float(test_unknown.mean()),
        "sha256": sha256(path),
    }


def _write_predictions(
    folder: Path, dataset: Dataset, split: Split, probabilities: np.ndarray, uncalibrated: np.ndarray
) -> None:
    rows = []
    for i, p, before in zip(split.indices("test"), probabilities, uncalibrated, strict=True):
        best, label = int(p.argmax()), int(dataset.labels[i])
        shares = (round(float(share), 4) for share in (p[best], p[label], before))
        rows.append([dataset.relative(i), dataset.classes[label], dataset.classes[best], *shares])
    write_csv(folder / "predictions.csv", _PREDICTIONS, rows)
