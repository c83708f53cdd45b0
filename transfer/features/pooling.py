"""Pooling: from the map or the tokens of an image to one row of numbers."""

from __future__ import annotations

import torch

_GEM_POWER = 3.0  # generalised mean (Radenović et al., PAMI 2019): 1 is the average, infinity the maximum
_GEM_LEAST = 1e-6
_PYRAMID = 2  # parts of each side that are averaged beside the whole (Lazebnik et al., CVPR 2006)
POOLS = ("average", "max", "gem", "pyramid", "flatten", "none")


def pooled(rows: torch.Tensor, is_map_last: bool, how: str = "average") -> torch.Tensor:
    """Return activations (N, ...) pooled over the positions of a map or the tokens of a transformer: (N, d).

    Parameters
    ----------
    is_map_last
        Maps are (N, H, W, C).
    how
        ``average``, ``max``, ``gem`` (generalised mean, power 3; of ReLU-like activations), ``pyramid`` (the averages
        of the whole map and of its four quarters, 5 d numbers; of tokens, which have no quarters, the average),
        ``flatten`` (every position's numbers side by side, channel by channel) or ``none``.
    """
    if how == "none" or rows.ndim < 3:
        return rows
    if rows.ndim == 4 and is_map_last:
        rows = rows.permute(0, 3, 1, 2)
    positions = (2, 3) if rows.ndim == 4 else (1,)
    if how == "flatten":
        return rows.flatten(1)
    if how == "max":
        return rows.amax(positions)
    if how == "gem":
        return rows.clamp(min=_GEM_LEAST).pow(_GEM_POWER).mean(positions).pow(1 / _GEM_POWER)
    average = rows.mean(positions)
    if how == "pyramid" and rows.ndim == 4:
        return torch.cat([average, _quarters(rows)], dim=1)
    return average


def _quarters(maps: torch.Tensor) -> torch.Tensor:
    """Return (N, 4 d): `adaptive_avg_pool2d` to 2 x 2, which not every device has for maps of an odd size."""
    rows, columns = (
        [(i * side // _PYRAMID, -(-(i + 1) * side // _PYRAMID)) for i in range(_PYRAMID)] for side in maps.shape[2:]
    )
    cells = [maps[:, :, top:end, left:right].mean((2, 3)) for top, end in rows for left, right in columns]
    return torch.stack(cells, dim=2).flatten(1)
