"""Rate: how fast each part of the network learns, and when.

Pretrained layers learn at a share of the head's rate that shrinks towards the image: what they know is more general
the earlier they come (Howard & Ruder 2018; timm's `param_groups_layer_decay`).
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

from torch import nn

_STAIRS = (0.4, 0.6, 0.8)  # of all steps


def parameter_groups(
    suffix: Iterable[tuple[str, nn.Parameter]],
    head: Iterable[nn.Parameter],
    depths: dict[str, int],
    *,
    lr: float,
    backbone_share: float,
    layer_decay: float,
    weight_decay: float,
) -> list[dict[str, Any]]:
    """Return AdamW's parameter groups, one for each rate and decay.

    Parameters
    ----------
    suffix
        Names and parameters of the pretrained layers that are trained.
    depths
        The block of each, as `cuts.parameter_depths` counts them.
    lr
        Of the head.
    backbone_share
        The last block's rate as a share of the head's; each block before it learns `layer_decay` times as fast.
    weight_decay
        Of matrices and kernels; norms and biases, which have one dimension, have none.
    """
    trained = [(name, parameter) for name, parameter in suffix if parameter.requires_grad]
    deepest = max((depths[name] for name, _ in trained), default=0)
    # the head in groups of its own: while it is trained alone, the optimizer must see nothing else
    groups: dict[tuple[str, float, float], list[nn.Parameter]] = {}
    for name, parameter in trained:
        rate = lr * backbone_share * layer_decay ** (deepest - depths[name])
        groups.setdefault(("suffix", rate, weight_decay if parameter.ndim > 1 else 0.0), []).append(parameter)
    for parameter in head:
        groups.setdefault(("head", lr, weight_decay if parameter.ndim > 1 else 0.0), []).append(parameter)
    return [
        {"params": parameters, "lr": rate, "peak_lr": rate, "weight_decay": decay}
        for (_, rate, decay), parameters in groups.items()
    ]


def rate_at(step: int, n_steps: int, warmup: float, schedule: str = "cosine") -> float:
    """Return the share of the peak rate at a step: a linear warm-up, then down.

    Parameters
    ----------
    schedule
        ``cosine``: half a cosine down to zero. ``staircase``: a tenth at 40, 60 and 80 % of the steps, as
        BiT-HyperRule does where there are fewer than 20,000 images (Kolesnikov et al., ECCV 2020).

    >>> [round(rate_at(step, 100, 0.1), 2) for step in (0, 9, 10, 55, 99)]
    [0.1, 1.0, 1.0, 0.5, 0.0]
    >>> [round(rate_at(step, 500, 0.2, "staircase"), 4) for step in (99, 199, 200, 300, 400)]
    [1.0, 1.0, 0.1, 0.01, 0.001]
    """
    n_warmup = round(warmup * n_steps)
    if step < n_warmup:
        return (step + 1) / n_warmup
    if schedule == "staircase":
        return 0.1 ** sum(step >= round(share * n_steps) for share in _STAIRS)
    return 0.5 * (1 + math.cos(math.pi * (step - n_warmup) / max(1, n_steps - n_warmup)))
