"""Trainee: what is trained, everything right of the cut and the head on it."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from transfer.backbones import Backbone
from transfer.features import pooled


class Trainee(nn.Module):
    """The trainable suffix of a backbone with a head of C classes: activations at the cut to scores (N, C).

    Its layers are those of the backbone's own model, which therefore is trained with it.

    Parameters
    ----------
    freeze_batchnorm
        Keep the running statistics of ImageNet, in training too: those of a small batch are noise.
    """

    def __init__(self, backbone: Backbone, suffix: nn.Module, head: nn.Linear, *, freeze_batchnorm: bool) -> None:
        super().__init__()
        self.suffix = suffix
        self.head = head
        self.freeze_batchnorm = freeze_batchnorm
        self._is_map_last = backbone.is_map_last

    def forward(self, activations: torch.Tensor) -> torch.Tensor:
        return self.head(pooled(self.suffix(activations), self._is_map_last))

    def train(self, mode: bool = True) -> Trainee:
        super().train(mode)
        if self.freeze_batchnorm:
            for module in self.suffix.modules():
                if isinstance(module, _BatchNorm):
                    module.eval()
        return self

    def state(self) -> dict[str, torch.Tensor]:
        """Return copies of all tensors that training can change, by name, on the CPU."""
        return {name: tensor.detach().to("cpu", copy=True) for name, tensor in self.state_dict().items()}
