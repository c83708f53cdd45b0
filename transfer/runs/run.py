"""Run: what `fit` has made, opened again: its settings, its numbers, and its model."""

from __future__ import annotations

import csv
import functools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pydantic import ValidationError
from torch import nn

from transfer import backbones, metrics, predictions
from transfer.backbones import Backbone
from transfer.choice import Choice
from transfer.dataset import Source, display, reported_part, scan, stop_on_bad
from transfer.display import table
from transfer.errors import ArtefactError, DataError, UsageError
from transfer.exporting import Export, export
from transfer.features import NormalisedRows, Representation, extract, require_strictly
from transfer.files import sha256
from transfer.heads import Head, LinearHead, head_from_arrays
from transfer.images import MAX_PIXELS, Preprocessing
from transfer.novelty import NoveltyDetector, detector_from_arrays
from transfer.predictions import Predictions
from transfer.progress import Progress
from transfer.recipe import Recipe
from transfer.report import Report, write_report
from transfer.runs.stored import COMPLETE, FORMAT, Stored, read_json, require_unchanged


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
        self.metrics: dict[str, Any] = read_json(path / "metrics.json")

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
        return Choice.from_dict(read_json(path)) if path.exists() else None

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
    info = read_json(path / "run.json")
    if not isinstance(info, dict):
        raise ArtefactError(f"{path / 'run.json'} lacks what a run has. Fit again.")
    if info.get("format") != FORMAT or info.get("status") != COMPLETE:
        raise ArtefactError(f"{path} is not a complete run of this version ({info.get('format')}). Fit again.")
    try:
        Stored.model_validate(info)
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


def _percent(share: float | None) -> str:
    return "" if share is None else f"{share:.1%}"


def _one_line(scores: dict[str, Any], n_classes: int) -> str:
    low, high = scores["accuracy_interval"]
    return (
        f"{scores['accuracy']:.1%} accuracy (95 % interval {low:.1%} to {high:.1%}) on {scores['n']} test images "
        f"of {n_classes} classes"
    )
