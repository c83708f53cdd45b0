"""Runs: the folder that `fit` makes and everything else reads. Plain files that a person can open."""

from __future__ import annotations

import csv
import dataclasses
import functools
import json
import logging
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from torch import nn

from transfer import backbones, metrics, predictions
from transfer.backbones import Backbone
from transfer.choice import Choice
from transfer.dataset import Dataset, Source, Split, display, reported_part, scan, stop_on_bad, write_split
from transfer.display import table
from transfer.errors import ArtefactError, DataError, UsageError
from transfer.exporting import Export, export, render_card, timm_config
from transfer.features import NormalisedRows, Representation, extract, require_strictly
from transfer.files import atomic_folder, remove, require_new, sha256, write_csv, write_json, write_tensors, write_text
from transfer.heads import FittedHead, Head, LinearHead, head_from_arrays, head_to_arrays
from transfer.images import MAX_PIXELS, Preprocessing
from transfer.machine import describe_processor, versions
from transfer.novelty import KEPT, NoveltyDetector, detector_from_arrays, detector_to_arrays
from transfer.predictions import Predictions
from transfer.progress import Progress
from transfer.recipe import Recipe, dump_recipe
from transfer.report import Report, write_report

_logger = logging.getLogger(__name__)
_FORMAT = "transfer run 2"
_COMPLETE = "complete"
_PREDICTIONS = ("path", "label", "predicted", "probability", "label_probability", "uncalibrated_probability")


class _StoredModel(BaseModel):
    head: str
    timm: bool
    why_not_timm: str
    sha256: str


class _StoredHead(BaseModel):
    form: dict[str, Any]


class _StoredNovelty(BaseModel):
    n_val: int
    sha256: str


class _Stored(BaseModel):
    """What run.json must have for its model to be read; it may come from a stranger. The rest is for pages."""

    model_config = ConfigDict(strict=True)
    classes: list[str] = Field(min_length=1)
    backbone: str
    model: _StoredModel
    head: _StoredHead
    representation: dict[str, Any]
    preprocessing: dict[str, Any]
    novelty: _StoredNovelty | None = None
    sha256: dict[str, str] = {}  # of tables and settings; runs of earlier versions have none


class Run:
    """A finished run: its settings, its numbers, and its model.

    Examples
    --------
    ``run = transfer.load_run("runs/flowers"); run.predict(["a.jpg"]).labels``
    """

    def __init__(self, path: Path, info: dict[str, Any]) -> None:
        self.path = path
        self.info = info
        self.classes: tuple[str, ...] = tuple(info["classes"])
        self.metrics: dict[str, Any] = _read_json(path / "metrics.json")

    def __repr__(self) -> str:
        return f"Run({str(self.path)!r}: {self.summary})"

    def _repr_html_(self) -> str:
        rows = [
            [display(row["name"]), row["n"], *map(_percent, (row["recall"], *(row["recall_interval"] or [None] * 2)))]
            for row in self.metrics["test"]["per_class"]
        ]
        header = ["class", "test images", "found", "95 % from", "to"]
        trust = [f"Trust {self.metrics['trust']}"] if "trust" in self.metrics else []
        why = [self.choice.reason] if self.choice else []
        return table(header, rows, self.summary, [display(str(self.path)), *trust, *why])

    @property
    def summary(self) -> str:
        """The answer in one line."""
        return _one_line(self.metrics["test"], len(self.classes))

    @functools.cached_property
    def recipe(self) -> Recipe:
        """The settings of the run, with every default."""
        import yaml

        path = self.path / "recipe.yaml"
        try:
            return Recipe.model_validate(yaml.safe_load(path.read_text(encoding="utf-8")))
        except (OSError, ValueError, yaml.YAMLError) as error:  # pydantic's is a ValueError
            why = " ".join(str(error).split())
            raise ArtefactError(f"{path} is not what this version writes ({why}). Fit again.") from None

    @functools.cached_property
    def asked(self) -> Recipe:
        """The settings as they were asked for, before anything was found or chosen."""
        return Recipe.model_validate(self.info["asked"]) if "asked" in self.info else self.recipe

    @functools.cached_property
    def choice(self) -> Choice | None:
        """Which strategy was chosen and why, where the recipe was `auto`."""
        path = self.path / "choice.json"
        return Choice.from_dict(_read_json(path)) if path.exists() else None

    @functools.cached_property
    def report(self) -> Report:
        """The run as a page, report.html in its folder; it is written when first asked for, and a notebook shows it."""
        return write_report(self)

    @functools.cached_property
    def backbone(self) -> Backbone:
        """The run's network without its head."""
        return self._model[0]

    @functools.cached_property
    def head(self) -> Head:
        """The run's head; where it is linear, the temperature is in its weights."""
        return self._model[1]

    @functools.cached_property
    def representation(self) -> Representation:
        """What of an image the head reads."""
        return Representation.from_dict(self.info["representation"])

    @property
    def model(self) -> nn.Module:
        """The whole network, from normalised images (N, 3, S, S) to calibrated log-odds (N, C)."""
        if not self.representation.is_network_output or not isinstance(self.head, LinearHead):
            raise UsageError(f"{self.info['model']['why_not_timm']} Use run.predict.")
        weight, bias = (torch.from_numpy(array) for array in self.head.folded())
        if self.representation.is_plain:
            return backbones.with_head(self.backbone, weight, bias)
        last = nn.Linear(weight.shape[1], len(bias))
        last.weight.data, last.bias.data = weight, bias
        return nn.Sequential(self.backbone.model, NormalisedRows(self.representation), last).eval()

    @functools.cached_property
    def novelty(self) -> NoveltyDetector | None:
        """What tells images that are unlike the training images; None where val was too small to say."""
        info = self.info.get("novelty")
        if info is None:
            return None
        tensors = self._tensors("novelty.safetensors", info["sha256"])
        return detector_from_arrays({key: tensor.numpy() for key, tensor in tensors.items()}, info["n_val"])

    def _tensors(self, name: str, checksum: str) -> dict[str, torch.Tensor]:
        path = self.path / name
        if not path.is_file() or sha256(path) != checksum:
            raise ArtefactError(f"{path} is missing or has changed since the run was written. Fit again.")
        return backbones.read_weights(path)

    @functools.cached_property
    def _model(self) -> tuple[Backbone, Head]:
        tensors = self._tensors("model.safetensors", self.info["model"]["sha256"])
        prefix = f"{self.info['model']['head']}."
        arrays = {key.removeprefix(prefix): tensors.pop(key).numpy() for key in list(tensors) if key.startswith(prefix)}
        name = self.info["backbone"]
        try:
            model = backbones.build(name)
            backbones.load_weights(model, tensors, str(self.path / "model.safetensors"))
            preprocessing = Preprocessing.from_dict(self.info["preprocessing"])
            backbone = backbones.finish(name, model, preprocessing, str(self.path))
        except UsageError as error:  # nobody asked for it: the file did
            raise ArtefactError(f"{self.path / 'run.json'}: {error}") from error
        if backbone.is_handmade and backbone.weights_hash != self.info["weights"]["sha256"]:
            raise ArtefactError(f"{name} is defined in another way now than when {self.path} was fitted. Fit again.")
        head = head_from_arrays(self.info["head"]["form"], arrays)
        n_classes = len(head.bias) if isinstance(head, LinearHead) else head.n_classes
        if n_classes != len(self.classes):
            raise ArtefactError(
                f"{self.path / 'run.json'} names {len(self.classes)} classes, and the head has {n_classes}. Fit again."
            )
        return backbone, head

    def predict(
        self,
        images: Sequence[Any] | str | Path,
        *,
        device: str = "auto",
        exact: bool | None = None,
        unknown: bool = True,
        max_pixels: int = MAX_PIXELS,
        quiet: bool = True,
    ) -> Predictions:
        """Classify images.

        Parameters
        ----------
        images
            Paths, PIL images or uint8 arrays (height, width, 3); one of them stands for a list of one.
        exact
            Compute in float32 throughout; by default as the run was fitted.
        unknown
            Also say of each image whether it is unlike all training images, as one in twenty of val's is.

        Returns
        -------
        Predictions
            In the order of `images`; those that cannot be read are in its `unreadable` and nowhere else.
        """
        return predictions.predict(
            self.backbone,
            self.representation,
            self.head.probabilities,
            self.classes,
            images,
            detector=self.novelty if unknown else None,
            device=device,
            exact=self.recipe.exact if exact is None else exact,
            max_pixels=max_pixels,
            quiet=quiet,
        )

    def export(
        self,
        to: str,
        out: str | Path | None = None,
        *,
        images: str | Path | None = None,
        with_preprocessing: bool = False,
        force: bool = False,
    ) -> Export:
        """Write the run for another library: `transfer.exporting.export`, which says what each format holds.

        Parameters
        ----------
        to
            ``timm``, ``onnx`` or ``torch``.
        out
            The folder; by default one in the run that is called like the format.
        images
            A folder of images to compare on, instead of the run's own.
        with_preprocessing
            The ONNX model takes uint8 images of any size.
        force
            Replace an earlier export.

        Returns
        -------
        Export
            Where it is, and how far it agrees with the run on real images; one that does not is not kept.
        """
        return export(self, to, out, images=images, with_preprocessing=with_preprocessing, force=force)

    def evaluate(
        self,
        data: Source,
        *,
        device: str = "auto",
        on_bad: str = "skip",
        strict: bool = False,
        max_pixels: int = MAX_PIXELS,
        quiet: bool = False,
    ) -> dict[str, Any]:
        """Score the run on other labelled images; classes are matched by name.

        Where `data` has a test part, or one other beside train, that part is scored, otherwise all of it. Images that
        the run was fitted on are counted in ``n_seen_in_training``; the numbers are then no estimate for new images.
        `strict` refuses data with any fault before anything is computed.

        Raises
        ------
        DataError
            A class of the data is unknown to the run.
        """
        dataset = scan(data, min_classes=1)
        if strict:
            require_strictly(dataset, max_pixels, Progress(quiet))
        if reported := reported_part(dataset.parts):  # as `fit` reports on the other part of two
            dataset = dataset.subset(np.flatnonzero(dataset.parts == reported))
        here = {dataset.classes[i] for i in np.unique(dataset.labels)}
        if unknown := sorted(here - set(self.classes)):
            raise DataError(
                f"The run does not know the class {display(unknown[0])!r}"
                f"{f' and {len(unknown) - 1} more' if len(unknown) > 1 else ''}; it knows "
                f"{', '.join(display(name) for name in self.classes[:20])}. Rename the folders, or fit on this data."
            )
        extraction = extract(
            dataset,
            self.backbone,
            self.representation.taps,
            pool=self.representation.pool,
            views=self.representation.views,
            exact=self.recipe.exact,
            device=device,
            max_pixels=max_pixels,
            progress=Progress(quiet),
        )
        dataset = extraction.dataset
        stop_on_bad(dataset, on_bad, self.recipe.data.max_bad_share)
        position = {name: i for i, name in enumerate(self.classes)}
        labels = np.array([position[dataset.classes[label]] for label in dataset.labels])
        probabilities = self.head.probabilities(extraction.represent(self.representation))
        result = metrics.evaluate(probabilities, labels, self.classes)
        trained_on = self._contents("train") | self._contents("val")
        result["n_seen_in_training"] = sum(content in trained_on for content in dataset.hashes)
        result["unreadable"] = [[display(s.path), s.reason] for s in dataset.unreadable]
        return result

    def _contents(self, part: str) -> set[str]:
        with open(self.path / "split.csv", encoding="utf-8", newline="") as source:
            return {row["sha256"] for row in csv.DictReader(source) if row["split"] == part}


def load_run(path: str | Path) -> Run:
    """Open a run folder.

    Raises
    ------
    UsageError
        There is no such folder.
    ArtefactError
        The folder is not a complete run, or a file in it has changed. The model is looked at when it is used.
    """
    path = Path(path)
    if not path.is_dir():
        raise UsageError(f"No run folder {path}. `transfer fit DATA` makes one.")
    if not (path / "run.json").is_file():
        raise ArtefactError(f"{path} is not a run folder: it has no run.json. `transfer fit DATA` makes one.")
    info = _read_json(path / "run.json")
    if not isinstance(info, dict):
        raise ArtefactError(f"{path / 'run.json'} lacks what a run has. Fit again.")
    if info.get("format") != _FORMAT or info.get("status") != _COMPLETE:
        raise ArtefactError(f"{path} is not a complete run of this version ({info.get('format')}). Fit again.")
    try:
        _Stored.model_validate(info)
        Representation.from_dict(info["representation"])
        Preprocessing.from_dict(info["preprocessing"])
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise ArtefactError(f"{path / 'run.json'} lacks what a run has ({where}: {first['msg']}). Fit again.") from None
    except (ValueError, KeyError, TypeError, UsageError) as error:
        raise ArtefactError(f"{path / 'run.json'} lacks what a run has ({error}). Fit again.") from None
    require_unchanged(path, info)
    return Run(path, info)


def require_unchanged(path: Path, info: dict[str, Any]) -> None:
    """Compare the tables and settings of a run with their checksums, which runs of earlier versions lack.

    Raises
    ------
    ArtefactError
        A file is missing or has changed.
    """
    for name, checksum in info.get("sha256", {}).items():
        if Path(name).name != name or not (path / name).is_file() or sha256(path / name) != checksum:
            raise ArtefactError(f"{path / name} is missing or has changed since the run was written. Fit again.")


def require_as_written(source: Source | None) -> None:
    """Where a table lies in a run folder, such as its split.csv, compare it with its checksum there.

    Raises
    ------
    ArtefactError
        It has changed.
    """
    if not isinstance(source, (str, os.PathLike)) or not Path(source).is_file():
        return
    try:
        known = _read_json(Path(source).parent / "run.json")["sha256"][Path(source).name]
    except (ArtefactError, LookupError, TypeError):
        return  # no run lies there, or one of an earlier version
    if sha256(source) != known:
        raise ArtefactError(f"{source} has changed since its run was written. To use it so, copy it elsewhere.")


def reserve(data: Source, strategy: str, out: str | Path | None, *, test: Source | None = None) -> Path:
    """Return the folder that a new run will get, after one trial write beside it.

    By default it is named after the data, of both domains where there are two, and the strategy.

    Raises
    ------
    UsageError
        The folder exists and is not empty.
    ResourceError
        It cannot be written.
    """
    if out is not None:
        folder = Path(out)
    else:
        stem = folder_name(data, strategy, test=test)
        taken = (Path("runs") / (f"{stem}-{i}" if i > 1 else stem) for i in range(1, 10_000))
        folder = next(candidate for candidate in taken if not candidate.exists())
    require_new(folder)
    return folder


def folder_name(data: Source, what: str, *, test: Source | None = None) -> str:
    """Return the name of the folder of what is made of some data, or of two domains."""
    name = _name(data) if test is None else f"{_name(data)}-to-{_name(test)}"
    return f"{name}-{what}"


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
            "format": _FORMAT,
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
            "status": _COMPLETE,
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


def _read_json(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise ArtefactError(f"Cannot read {path}: {error}. Fit again.") from error


def _name(data: Source) -> str:
    if isinstance(data, (str, os.PathLike)):
        return _harmless(Path(data).absolute().name.removesuffix(".csv") or "data")
    return "lists"


def _harmless(name: str) -> str:
    """Return a folder name made of letters, digits, dot, dash and underscore."""
    return "".join(c if c.isalnum() or c in "._-" else "_" for c in display(name))[:80].lstrip(".-") or "data"


def _percent(share: float | None) -> str:
    return "" if share is None else f"{share:.1%}"


def _one_line(scores: dict[str, Any], n_classes: int) -> str:
    low, high = scores["accuracy_interval"]
    return (
        f"{scores['accuracy']:.1%} accuracy (95 % interval {low:.1%} to {high:.1%}) on {scores['n']} test images "
        f"of {n_classes} classes"
    )
