"""Picture: what the first filters of a network look like, and what its maps say about one image."""

from __future__ import annotations

import io
import math
import os
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import nn

from transfer import cuts
from transfer.backbones import Backbone
from transfer.errors import UsageError
from transfer.files import write_bytes
from transfer.images import MAX_PIXELS, decode, normalise, view

_SIDE = 900  # pixels, about, of a grid: what a screen shows whole
_GAP = 2  # pixels between two tiles
_MOST_TILES = 64
_MOST_SLICES = 1024  # of filters that are not RGB
_GREY = 128
_BACKGROUND = 220  # neither black nor white, which tiles are


def draw_filters(backbone: Backbone) -> Image.Image:
    """Draw the filters of the first convolution, in order, row by row.

    Each is scaled by its own largest weight, so that grey is zero, brighter is positive and darker negative. Filters
    on red, green and blue are in colour; of others each input channel is a grey map of its own.

    Raises
    ------
    UsageError
        The network has no convolution.
    """
    weight = first_convolution(backbone)[1].weight.detach().float().cpu().numpy()
    if weight.shape[1] != 3:
        weight = weight.reshape(-1, 1, *weight.shape[2:])[:_MOST_SLICES]
    largest = np.abs(weight).max(axis=(1, 2, 3), keepdims=True)
    tiles = _GREY + np.round(weight / np.where(largest > 0, largest, 1) * 127)
    return Image.fromarray(_grid(tiles.astype(np.uint8)))


def first_convolution(backbone: Backbone) -> tuple[str, nn.Conv2d]:
    """Return the first convolution of a network with its path.

    Raises
    ------
    UsageError
        There is none.
    """
    for name, module in backbone.model.named_modules():
        if isinstance(module, nn.Conv2d):
            return name, module
    raise UsageError(f"{backbone.name} has no convolution, so there are no filters to draw.")


def draw_activations(
    backbone: Backbone, image: Any, tap: str | None = None, *, max_pixels: int = MAX_PIXELS
) -> Image.Image:
    """Draw the maps of one image at a tap, beside what the network sees of it: at most 64 channels, in order.

    Each map is scaled by its own largest value. Black is zero where no map at this tap has a negative value, as behind
    a ReLU; elsewhere grey is zero.

    Parameters
    ----------
    image
        A path, PIL image or uint8 array (height, width, 3).
    tap
        Any of `cuts.tap_names`; by default `default_tap`.

    Raises
    ------
    UsageError
        There is no such tap, or it has rows of numbers instead of maps.
    UnreadableImage
        The image cannot be decoded.
    """
    tap = tap or default_tap(backbone)
    reader = cuts.read_taps(backbone.model, [tap], backbone.input_shape)
    seen = view(decode(image, max_pixels=max_pixels), backbone.preprocessing)
    with torch.inference_mode():
        maps = reader(normalise(seen[None], backbone.preprocessing))[tap][0].float()
    if not _are_maps(maps.shape):
        raise UsageError(
            f"{tap!r} of {backbone.name} has no maps but an output of {_words(maps.shape)}. Choose a layer before its "
            "maps are pooled or made tokens; `transfer backbones NAME --layers` shows the outputs."
        )
    if _is_map_last(backbone, tap):
        maps = maps.permute(2, 0, 1)
    grid = _grid(_shades(maps[:_MOST_TILES].numpy())[:, None])
    return Image.fromarray(_side_by_side(seen.permute(1, 2, 0).numpy(), grid))


def default_tap(backbone: Backbone) -> str:
    """Return the end of the stem where it has maps, else the first convolution."""
    stages = cuts.stage_cuts(backbone.model, backbone.input_shape)
    shapes = {point.name: point.shape for point in cuts.cut_points(backbone.model, backbone.input_shape)}
    return stages[0] if stages and _are_maps(shapes[stages[0]]) else first_convolution(backbone)[0]


def write_picture(path: str | os.PathLike[str], picture: Image.Image) -> None:
    """Write a picture as PNG, whole or not at all.

    Raises
    ------
    UsageError
        The name does not end in .png.
    """
    require_png(path)
    data = io.BytesIO()
    picture.save(data, "PNG")
    write_bytes(path, data.getvalue())


def require_png(path: str | os.PathLike[str]) -> None:
    """Refuse a name that does not end in .png."""
    if Path(path).suffix.lower() != ".png":
        raise UsageError(f"Pictures are written as PNG, without loss: let {str(path)!r} end in .png.")


def _are_maps(shape: tuple[int, ...]) -> bool:
    return len(shape) == 3 and min(shape) > 0 and math.prod(shape) > max(shape)


def _is_map_last(backbone: Backbone, tap: str) -> bool:
    """Whether the channels come last; a convolution has them first also in networks that move them."""
    module = dict(backbone.model.named_modules()).get(tap.removesuffix(".pre"))
    return backbone.is_map_last and not isinstance(module, nn.Conv2d)


def _shades(maps: np.ndarray) -> np.ndarray:
    """Return maps (C, H, W) as uint8, each scaled by its own largest value; zero is black, or grey if some are < 0."""
    largest = np.abs(maps).max(axis=(1, 2), keepdims=True)
    shares = maps / np.where(largest > 0, largest, 1)
    shades = _GREY + shares * 127 if maps.min() < 0 else shares * 255
    return np.round(shades).astype(np.uint8)


def _grid(tiles: np.ndarray) -> np.ndarray:
    """Lay tiles (N, 1 or 3, height, width) out as (height, width, 3), as square as it gets."""
    n, _, height, width = tiles.shape
    n_columns = math.ceil(math.sqrt(n))
    n_rows = math.ceil(n / n_columns)
    scale = max(1, round(_SIDE / (n_columns * max(height, width))))
    height, width = scale * height, scale * width
    shape = (n_rows * (height + _GAP) + _GAP, n_columns * (width + _GAP) + _GAP, 3)
    grid = np.full(shape, _BACKGROUND, np.uint8)
    for i, tile in enumerate(tiles):
        top, left = _GAP + (i // n_columns) * (height + _GAP), _GAP + (i % n_columns) * (width + _GAP)
        grid[top : top + height, left : left + width] = _enlarged(tile.transpose(1, 2, 0), scale)
    return grid


def _enlarged(pixels: np.ndarray, scale: int) -> np.ndarray:
    return pixels.repeat(scale, axis=0).repeat(scale, axis=1)


def _side_by_side(left: np.ndarray, right: np.ndarray) -> np.ndarray:
    """Return two pictures in one; the left one is enlarged to about half the other's height."""
    left = _enlarged(left, max(1, right.shape[0] // (2 * left.shape[0])))
    height = max(left.shape[0] + 2 * _GAP, right.shape[0])
    canvas = np.full((height, left.shape[1] + 4 * _GAP + right.shape[1], 3), _BACKGROUND, np.uint8)
    canvas[_GAP : _GAP + left.shape[0], _GAP : _GAP + left.shape[1]] = left
    canvas[: right.shape[0], left.shape[1] + 4 * _GAP :] = right
    return canvas


def _words(shape: tuple[int, ...]) -> str:
    return "x".join(map(str, shape))
