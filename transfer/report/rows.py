"""Rows: the frozen features of a run's images, from the cache, with what split.csv says of each image."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from transfer.backbones import Backbone, load_backbone, see
from transfer.dataset import Dataset
from transfer.errors import ArtefactError, DataError
from transfer.features import extract
from transfer.progress import Progress
from transfer.report.files import file_of, names_in_tables
from transfer.report.records import Record
from transfer.report.tables import read_rows


@dataclass(frozen=True, eq=False)
class Rows:
    """Images as columns of equal length, in the order of split.csv."""

    X: np.ndarray  # (N, d) or (N, views, d), what a head reads of the network before any training
    labels: np.ndarray  # (N,)
    parts: np.ndarray  # (N,) train, val or test
    paths: list[str]  # as in split.csv
    contents: np.ndarray  # (N,) SHA-256

    def __len__(self) -> int:
        return len(self.paths)

    @property
    def first_views(self) -> np.ndarray:
        """(N, d), of several views the first."""
        return self.X if self.X.ndim == 2 else self.X[:, 0]


def read_frozen(run: Record, progress: Progress) -> Rows:
    """Return the features of all images of a run by the network as it was before any of its layers was trained.

    They lie in the cache after a fit. Where they no longer do they are computed again, from the images where they were.

    Raises
    ------
    TransferError
        The images have gone or changed, or the weights that the training started from are not to be had.
    """
    table = read_rows(run.path / "split.csv")
    if not table or not all(row.get("sha256") for row in table):
        raise ArtefactError("split.csv does not say what the images hold.")
    index = {name: i for i, name in enumerate(run.classes)}
    stored = names_in_tables(run.classes)
    try:
        labels = np.array([index[stored.get(row["label"], row["label"])] for row in table], np.int32)
        parts = np.array([row["split"] for row in table])
    except KeyError as error:
        raise ArtefactError(f"split.csv has what the run does not know: {error}.") from None
    root = run.info["data"]["root"]
    dataset = Dataset(
        root=None if root is None else Path(root),
        paths=[file_of(row["path"], root) for row in table],
        labels=labels,
        classes=run.classes,
        parts=parts,
        hashes=[row["sha256"] for row in table],
        sizes=np.zeros(len(table), np.int64),
        unreadable=[],
        ignored=[],
        scan_notes=[],
        layout=run.info["data"]["layout"],
        min_classes=1,
    )
    read = run.representation
    extraction = extract(
        dataset,
        _frozen_backbone(run),
        read.taps,
        pool=read.pool,
        views=read.views,
        exact=run.recipe.exact,
        device=run.recipe.device,
        max_pixels=run.recipe.data.max_pixels,
        label="Features for the report",
        progress=progress,
    )
    if n_lost := len(dataset) - len(extraction.dataset):
        raise DataError(
            f"The features of {n_lost} of {len(dataset)} images are no longer cached, nor can they be read."
        )
    return Rows(extraction.represent(read), labels, parts, [row["path"] for row in table], np.array(dataset.hashes))


def _frozen_backbone(run: Record) -> Backbone:
    recipe = run.recipe
    if not recipe.is_fine_tuning:
        return run.backbone
    started_from = load_backbone(recipe.backbone, recipe.weights, seed=recipe.seed)
    return see(started_from, run.backbone.preprocessing)
