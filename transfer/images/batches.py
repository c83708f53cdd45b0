"""Batch: views side by side, and the numbers that a backbone takes them as."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from transfer.images.preprocessing import Preprocessing

if TYPE_CHECKING:
    import torch


def stack(views: Sequence[torch.Tensor]) -> torch.Tensor:
    """Return views as one batch (N, 3, size, size) in channels-last memory; `torch.stack` would repack each."""
    import torch

    return torch.stack([one.permute(1, 2, 0) for one in views]).permute(0, 3, 1, 2)


def normalise(
    batch: torch.Tensor,
    preprocessing: Preprocessing,
    dtype: torch.dtype | None = None,
    memory_format: torch.memory_format | None = None,
) -> torch.Tensor:
    """Return (batch / 255 - mean) / std, computed in float32 and then cast.

    Parameters
    ----------
    batch
        uint8 views of shape (N, 3, size, size), on any device.
    dtype
        float32 when None.
    memory_format
        That of `batch` when None.
    """
    import torch

    mean, std = (
        torch.tensor(values, dtype=torch.float32, device=batch.device).view(3, 1, 1)
        for values in (preprocessing.mean, preprocessing.std)
    )
    # One pass over the memory instead of three.
    scaled = torch.addcmul(-mean / std, batch.float(), 1 / (255 * std))
    return scaled.to(dtype=dtype or torch.float32, memory_format=memory_format or torch.preserve_format)
