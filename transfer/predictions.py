"""Predictions: what a network with a classifier says about images, a run's or the one that ImageNet has taught it."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from transfer.backbones import DEFAULT, Backbone, load_imagenet_classifier
from transfer.dataset import display
from transfer.display import table
from transfer.features import Plans, Representation, Runner
from transfer.heads import softmax
from transfer.images import MAX_PIXELS, is_one_image
from transfer.novelty import NoveltyDetector
from transfer.progress import Progress


@dataclasses.dataclass(frozen=True)
class Predictions:
    """Probabilities of each image that could be read; iterating gives one plain dictionary an image.

    Those of a run are calibrated, those of a pretrained network are its own.
    """

    paths: list[str]
    classes: tuple[str, ...]
    probabilities: np.ndarray  # (N, C)
    unreadable: list[tuple[str, str]]  # path and reason
    is_unknown: np.ndarray | None = None  # (N,), whether the image is unlike all training images; None: not asked

    @property
    def labels(self) -> list[str]:
        """The most probable class of each image."""
        return [self.classes[i] for i in self.probabilities.argmax(1)]

    def __len__(self) -> int:
        return len(self.paths)

    def __iter__(self) -> Iterator[dict[str, Any]]:
        return iter(self.top(1))

    def __repr__(self) -> str:
        return f"Predictions({len(self)} images, {len(self.unreadable)} unreadable, {len(self.classes)} classes)"

    def _repr_html_(self) -> str:
        rows = [
            [display(row["path"]), *(cell for best in row["top"] for cell in _class_and_share(best))]
            for row in self.top(2)
        ]
        header = ["image", "class", "probability", "second", "probability"][: 1 + 2 * min(2, len(self.classes))]
        if self.is_unknown is not None:
            header += [""]
            rows = [[*row, "unknown?" * bool(unknown)] for row, unknown in zip(rows, self.is_unknown, strict=True)]
        return table(header, rows, below=[f"{display(path)}: {reason}" for path, reason in self.unreadable])

    def top(self, k: int = 5) -> list[dict[str, Any]]:
        """Return path, label, probability and `k` most probable classes of each image, and whether it is unknown."""
        k = min(k, len(self.classes))
        order = np.argsort(-self.probabilities, axis=1, kind="stable")[:, :k]
        rows = []
        for path, best, p in zip(self.paths, order, self.probabilities, strict=True):
            top = [{"class": self.classes[i], "probability": float(p[i])} for i in best]
            rows.append({"path": path, "label": top[0]["class"], "probability": top[0]["probability"], "top": top})
        if self.is_unknown is not None:
            rows = [{**row, "unknown": bool(unknown)} for row, unknown in zip(rows, self.is_unknown, strict=True)]
        return rows


def classify_imagenet(
    images: Sequence[Any] | str | Path,
    backbone: str = DEFAULT,
    *,
    weights: str | Path | None = None,
    device: str = "auto",
    exact: bool = False,
    max_pixels: int = MAX_PIXELS,
    quiet: bool = True,
) -> Predictions:
    """Classify images with a pretrained network and the classifier that it was published with.

    Parameters
    ----------
    images
        Paths, PIL images or uint8 arrays (height, width, 3); one of them stands for a list of one.
    backbone, weights
        As in `load_backbone`; a weights file has to have the classifier in it.
    exact
        Compute in float32 throughout.

    Returns
    -------
    Predictions
        In the order of `images`; those that cannot be read are in its `unreadable` and nowhere else. The probabilities
        are the softmax of the scores, over the 1,000 classes of ImageNet or those of a larger part of it. An image of
        anything else gets one of these classes too.

    Raises
    ------
    UsageError
        The weights were made without a classifier, or for classes that have no names here.
    """
    network, classes = load_imagenet_classifier(backbone, weights)
    return predict(
        network,
        Representation(),
        lambda scores: softmax(scores.astype(np.float64)),
        classes,
        images,
        device=device,
        exact=exact,
        max_pixels=max_pixels,
        quiet=quiet,
    )


def predict(
    backbone: Backbone,
    read: Representation,
    to_probabilities: Callable[[np.ndarray], np.ndarray],
    classes: tuple[str, ...],
    images: Any,  # one image or several
    *,
    detector: NoveltyDetector | None = None,
    device: str,
    exact: bool,
    max_pixels: int,
    quiet: bool,
) -> Predictions:
    """Run a network over images; make probabilities (N, C) of what is read of each, and say which are unknown."""
    sources = [images] if is_one_image(images) else list(images)
    names = [str(source) if isinstance(source, (str, Path)) else f"image {i}" for i, source in enumerate(sources)]
    good: list[int] = []
    probabilities: list[np.ndarray] = []
    unknown: list[np.ndarray] = []
    unreadable: list[tuple[str, str]] = []
    with Progress(quiet).task("Predicting", len(sources)) as advance:
        plans = Plans(backbone, read.taps, device, exact)
        options: dict[str, Any] = {"pool": read.pool, "views": read.views, "exact": exact, "max_pixels": max_pixels}
        for positions, views, bad in Runner(backbone, read.taps, plans, sources, **options).run():
            if positions:
                good += positions
                rows = read.assemble(views)
                probabilities.append(to_probabilities(rows))
                unknown += [detector.is_unknown(rows)] if detector else []
            unreadable += [(names[i], reason) for i, reason in bad]
            advance(len(positions) + len(bad))
    stacked = np.concatenate(probabilities) if probabilities else np.zeros((0, len(classes)))
    is_unknown = np.concatenate([np.zeros(0, bool), *unknown]) if detector else None
    return Predictions([names[i] for i in good], classes, stacked, unreadable, is_unknown)


def _class_and_share(best: dict[str, Any]) -> tuple[str, str]:
    return display(best["class"]), f"{best['probability']:.1%}"
