"""Network: a whole run as one module, from normalised images to calibrated probabilities."""

from __future__ import annotations

import copy

import numpy as np
import torch
from torch import nn

from transfer import cuts
from transfer.errors import UsageError
from transfer.exporting.records import Record
from transfer.features import pooled
from transfer.heads import Head, LinearHead, NeighbourHead, PairwiseHead
from transfer.heads.neighbours import NO_VOTE, SHARPNESS

_MIRRORED = 2  # views: the image and its mirror image, which can be made of what the network is given


class Network(nn.Module):
    """Normalised images (N, 3, S, S), float32, to probabilities (N, C) that are calibrated as the run's are."""

    def __init__(self, run: Record) -> None:
        super().__init__()
        backbone, read = run.backbone, run.representation
        # the network itself where its output is all that is read: a program of it is as its library wrote it
        self.reader = (
            backbone.model
            if read.taps == (cuts.FEATURES,)
            else cuts.read_taps(backbone.model, list(read.taps), backbone.input_shape)
        )
        self.scores = _scores(run.head)
        self._read = read
        self._is_map_last = backbone.is_map_last
        self._is_mirrored = read.n_views == _MIRRORED

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        scores = self._look(images)
        if self._is_mirrored:
            scores = (scores + self._look(images.flip(3))) / 2
        return self.scores.probabilities(scores)

    def _look(self, images: torch.Tensor) -> torch.Tensor:
        seen = self.reader(images)
        by_tap = seen if isinstance(seen, dict) else {cuts.FEATURES: seen}
        rows = [
            self._read.normalise(pooled(by_tap[tap], self._is_map_last, self._read.pool)) for tap in self._read.taps
        ]
        return self.scores(torch.cat(rows, dim=1) if len(rows) > 1 else rows[0])


def build_network(run: Record) -> Network:
    """Return the run as a module in eval mode that shares nothing with it."""
    return copy.deepcopy(Network(run)).eval().requires_grad_(False)


def require_expressible(run: Record) -> None:
    """Make sure that what a run does to a normalised image can be said as one network.

    Raises
    ------
    UsageError
        It cannot; the message says why, and what can be done.
    """
    name = run.info["backbone"]
    if name == "hog-color":
        raise UsageError(
            f"{name} is computed with NumPy and scikit-image, which no exported model holds: fit on a network "
            "(--backbone), or use run.predict."
        )
    n_views = run.representation.n_views
    if n_views > _MIRRORED:
        raise UsageError(
            f"The head reads {n_views} crops of the whole image, and an exported model is given one: fit with "
            "--set features.views=1 or 2, or use run.predict."
        )


class _Scores(nn.Module):
    """Rows (N, d) to scores (N, C'), of the classes that had training images; and these to probabilities (N, C)."""

    def __init__(self, temperature: float, present: np.ndarray, n_classes: int) -> None:
        super().__init__()
        self.temperature = temperature
        self.places: torch.Tensor | None
        places = None
        if len(present) < n_classes:
            places = torch.zeros(len(present), n_classes)
            places[torch.arange(len(present)), torch.from_numpy(present.astype(np.int64))] = 1
        self.register_buffer("places", places)

    def probabilities(self, scores: torch.Tensor) -> torch.Tensor:
        found = (scores / self.temperature).softmax(1)
        return found if self.places is None else found @ self.places


class _Linear(_Scores):
    def __init__(self, head: LinearHead) -> None:
        n_classes, width = head.weight.shape
        super().__init__(1.0, np.arange(n_classes), n_classes)
        self.linear = nn.Linear(width, n_classes)
        weight, bias = head.folded()
        self.linear.weight.data, self.linear.bias.data = torch.from_numpy(weight), torch.from_numpy(bias)

    def forward(self, rows: torch.Tensor) -> torch.Tensor:
        return self.linear(rows)

    def probabilities(self, scores: torch.Tensor) -> torch.Tensor:
        return scores.softmax(1)


class _Pairs(_Scores):
    """Votes of the pairs, as `heads.pairs.count_votes` counts them."""

    weight: torch.Tensor
    bias: torch.Tensor
    first: torch.Tensor
    second: torch.Tensor

    def __init__(self, head: PairwiseHead) -> None:
        super().__init__(head.temperature, head.present, head.n_classes)
        one_hot = np.eye(len(head.present), dtype=np.float32)
        first, second = np.triu_indices(len(head.present), 1)
        for name, value in (
            ("weight", head.weight),
            ("bias", head.bias),
            ("first", one_hot[first]),
            ("second", one_hot[second]),
        ):
            self.register_buffer(name, torch.from_numpy(np.array(value, np.float32)))

    def forward(self, rows: torch.Tensor) -> torch.Tensor:
        decisions = rows @ self.weight.T + self.bias
        wins = (decisions > 0).to(rows.dtype)
        votes = wins @ self.first + (1 - wins) @ self.second
        sums = decisions @ (self.first - self.second)
        return votes + sums / (3 * (sums.abs() + 1))


class _Neighbours(_Scores):
    """Votes of the nearest training images, as `heads.neighbours` counts them."""

    rows: torch.Tensor
    one_hot: torch.Tensor

    def __init__(self, head: NeighbourHead) -> None:
        present, places = np.unique(head.labels, return_inverse=True)
        super().__init__(head.temperature, present, head.n_classes)
        self.k = min(head.k, len(head.rows))
        self.register_buffer("rows", torch.from_numpy(np.array(head.rows, np.float32)))
        self.register_buffer("one_hot", torch.eye(len(present))[torch.from_numpy(places)])

    def forward(self, rows: torch.Tensor) -> torch.Tensor:
        similarity = nn.functional.normalize(rows, dim=1) @ self.rows.T
        similar, nearest = similarity.topk(self.k, dim=1)
        votes = (SHARPNESS * (similar - similar[:, :1])).exp()
        counted = (votes.unsqueeze(2) * self.one_hot[nearest]).sum(1)
        return (counted / counted.sum(1, keepdim=True) + NO_VOTE).log()


def _scores(head: Head) -> _Scores:
    if isinstance(head, LinearHead):
        return _Linear(head)
    return _Pairs(head) if isinstance(head, PairwiseHead) else _Neighbours(head)
