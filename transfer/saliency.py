"""Saliency: which parts of an image speak for a class.

Two ways, which any network takes one of. Where the head is linear on what the network ends in, each place of the last
feature map has its share in the score: gradient times activation, summed over the channels (HiResCAM: Draelos and
Carin, arXiv 2011.08891). Where the network ends in the average of its last map that is class activation mapping and
Grad-CAM (Selvaraju et al., ICCV 2017); elsewhere Grad-CAM would average gradients over places that differ. Tokens of a
transformer are laid out as the map that they come from. For all other heads and networks: how the probability falls
when a square is covered (Zeiler and Fergus, ECCV 2014).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
import torch

from transfer import cuts, machine
from transfer.backbones import Backbone
from transfer.cuts import FEATURES, PIXELS, CutPoint
from transfer.features import Representation, pooled
from transfer.heads import Head, LinearHead
from transfer.images import normalise

_FEWEST_PLACES = 16  # of a map that says where
_GRID = 6  # cells along each side of an image that is covered piece by piece
_WINDOW = 2  # cells that are covered at once, along each side


def has_gradient_maps(backbone: Backbone, representation: Representation, head: Head) -> bool:
    """Whether the score of a class is a linear map of what the network ends in, and the network can be cut."""
    is_linear = isinstance(head, LinearHead) and representation.taps == (FEATURES,)
    return is_linear and not backbone.is_handmade and bool(_maps_of(backbone))


def gradient_map(
    backbone: Backbone, representation: Representation, head: LinearHead, seen: torch.Tensor, label: int
) -> np.ndarray | None:
    """Return (h, w) from 0 to 1: how much each place of the last map speaks for a class rather than for the others.

    Parameters
    ----------
    seen
        uint8 (3, S, S), the view of an image.
    label
        Class index.

    Returns
    -------
    array or None
        None where no place speaks for the class. A map whose places have no gradient is passed over for an earlier one:
        behind the last block of a ViT only the class token has one.
    """
    weight = torch.from_numpy(head.weight[label] - head.weight.mean(axis=0)).float()
    image = normalise(seen[None], backbone.preprocessing)
    with torch.inference_mode(False), torch.enable_grad(), machine.torch_threads(1):
        for at in reversed(_maps_of(backbone)):
            prefix, suffix = cuts.cut(backbone.model, at, backbone.input_shape)
            activation = prefix(image.clone()).float().requires_grad_()
            rows = pooled(suffix(activation), backbone.is_map_last, representation.pool)
            score = (representation.normalise(rows) @ weight).sum()
            (gradient,) = torch.autograd.grad(score, activation)
            product = _as_map(backbone, (gradient * activation.detach())[0]).sum(dim=0)
            if bool((product != 0).any()):
                return _scaled(product.numpy())
    return None


def occlusion_map(
    pixels: np.ndarray, label: int, probabilities: Callable[[Sequence[np.ndarray]], np.ndarray]
) -> np.ndarray | None:
    """Return (6, 6) from 0 to 1: how far the probability of a class falls when a place is covered by the mean colour.

    Parameters
    ----------
    pixels
        uint8 (height, width, 3).
    probabilities
        Of some images (n, C).
    """
    edges = [np.linspace(0, side, _GRID + 1).round().astype(int) for side in pixels.shape[:2]]
    places = [(i, j) for i in range(_GRID - _WINDOW + 1) for j in range(_GRID - _WINDOW + 1)]
    colour = pixels.reshape(-1, 3).mean(axis=0)
    covered = []
    for i, j in places:
        image = pixels.copy()
        image[edges[0][i] : edges[0][i + _WINDOW], edges[1][j] : edges[1][j + _WINDOW]] = colour
        covered.append(image)
    p = probabilities([pixels, *covered])[:, label]
    falls, times = np.zeros((2, _GRID, _GRID))
    for (i, j), fall in zip(places, p[0] - p[1:], strict=True):
        falls[i : i + _WINDOW, j : j + _WINDOW] += fall
        times[i : i + _WINDOW, j : j + _WINDOW] += 1
    return _scaled(falls / times)


def draw_saliency(pixels: np.ndarray, shares: np.ndarray) -> np.ndarray:
    """Return uint8 (height, width, 3): the image as it is where `shares` (h, w) is 1, dimmed and grey where 0."""
    height, width = pixels.shape[:2]
    smooth = torch.nn.functional.interpolate(
        torch.from_numpy(shares.astype(np.float32))[None, None], (height, width), mode="bicubic", align_corners=False
    )
    share = smooth[0, 0].clamp(0, 1).numpy()[:, :, None]
    grey = pixels.mean(axis=2, keepdims=True)
    return np.round(share * pixels + (1 - share) * (0.3 * grey + 32)).astype(np.uint8)


def _maps_of(backbone: Backbone) -> list[str]:
    """Return the cuts at which there is a map, or a token for each place of one, in order."""
    points = cuts.cut_points(backbone.model, backbone.input_shape)
    return [point.name for point in points if point.name not in (PIXELS, FEATURES) and _has_places(backbone, point)]


def _has_places(backbone: Backbone, point: CutPoint) -> bool:
    if len(point.shape) not in (2, 3):
        return False
    _, height, width = _map_shape(backbone, point.shape)
    return height * width >= _FEWEST_PLACES and min(height, width) > 1


def _map_shape(backbone: Backbone, shape: tuple[int, ...]) -> tuple[int, int, int]:
    """Return (tokens before those of places, height, width); of a map in whatever order there are none before."""
    if len(shape) == 3:
        return (0, *(shape[:2] if _is_last(backbone, shape) else shape[1:]))
    declared = getattr(backbone.model, "num_prefix_tokens", None)
    for n_before in (0, 1, 2) if declared is None else (declared,):
        side = math.isqrt(max(0, shape[0] - n_before))
        if side * side == shape[0] - n_before:
            return n_before, side, side
    return 0, 0, 0


def _is_last(backbone: Backbone, shape: tuple[int, ...]) -> bool:
    """Whether channels come last: images are square, so that the two sides of a map are equal."""
    first, middle, last = shape
    return backbone.is_map_last if first == middle == last else first == middle


def _as_map(backbone: Backbone, values: torch.Tensor) -> torch.Tensor:
    """Return (C, h, w) of a map in whatever order, or of tokens."""
    shape = tuple(values.shape)
    n_before, height, width = _map_shape(backbone, shape)
    if len(shape) == 2:
        return values[n_before:].T.reshape(-1, height, width)
    return values.permute(2, 0, 1) if _is_last(backbone, shape) else values


def _scaled(values: np.ndarray) -> np.ndarray | None:
    largest = float(values.max())
    return np.clip(values / largest, 0, 1) if largest > 0 else None
