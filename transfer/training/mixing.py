"""Mixing: two training images and their labels become one (mixup, Zhang et al. 2018; CutMix, Yun et al. 2019)."""

from __future__ import annotations

import numpy as np
import torch

from transfer.errors import UsageError


def mix(
    inputs: torch.Tensor,
    labels: torch.Tensor,
    n_classes: int,
    mixup: float,
    cutmix: float,
    rng: np.random.Generator,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return inputs and targets, mixed as drawn; where both kinds are on, each has half of the draws.

    Parameters
    ----------
    inputs
        (B, ...) pixels or activations; for CutMix (B, C, H, W).
    labels
        (B,) class indices.
    mixup, cutmix
        Alpha of the Beta distribution that the share comes from; 0 is off.
    rng
        Where every draw comes from.

    Returns
    -------
    tuple
        Targets are (B,) class indices where nothing was mixed, else probabilities (B, C).
    """
    if not (mixup or cutmix) or len(inputs) < 2:
        return inputs, labels
    use_cutmix = cutmix > 0 and (not mixup or rng.random() < 0.5)
    alpha = cutmix if use_cutmix else mixup
    share = float(rng.beta(alpha, alpha))
    other = torch.from_numpy(rng.permutation(len(inputs)))
    if use_cutmix:
        inputs, share = _paste(inputs, inputs[other], share, rng)
    else:
        inputs = share * inputs + (1 - share) * inputs[other]
    one_hot = torch.nn.functional.one_hot(labels, n_classes).float()
    return inputs, share * one_hot + (1 - share) * one_hot[other]


def _paste(
    inputs: torch.Tensor, others: torch.Tensor, share: float, rng: np.random.Generator
) -> tuple[torch.Tensor, float]:
    """Put a rectangle of `others` into `inputs`; return the share of the first that is left."""
    if inputs.ndim != 4:
        raise UsageError("CutMix needs maps (N, C, H, W), not tokens. Use train.mixup, or cut at the pixels.")
    height, width = inputs.shape[2:]
    h, w = (round(side * (1 - share) ** 0.5) for side in (height, width))
    top, left = rng.integers(0, height - h + 1), rng.integers(0, width - w + 1)
    inputs = inputs.clone()
    inputs[:, :, top : top + h, left : left + w] = others[:, :, top : top + h, left : left + w]
    return inputs, 1 - h * w / (height * width)
