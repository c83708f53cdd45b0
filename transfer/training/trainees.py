"""Trainee: what is trained, everything right of the cut and the head on it."""

from __future__ import annotations

import torch
from torch import fx, nn
from torch.nn.modules.batchnorm import _BatchNorm

from transfer import fusion
from transfer.backbones import Backbone
from transfer.features import pooled


class Trainee(nn.Module):
    """The trainable suffix of a backbone with a head of C classes: activations at the cut to scores (N, C).

    Its layers are those of the backbone's own model, which therefore is trained with it.

    Parameters
    ----------
    freeze_batchnorm
        Keep the running statistics of ImageNet, in training too: those of a small batch are noise.

    Attributes
    ----------
    is_folded
        Whether the forward pass goes through `fusion.fold`, which computes the same with less work. It can where the
        suffix is a graph and its BatchNorms are frozen: `can_fold`.
    """

    def __init__(self, backbone: Backbone, suffix: nn.Module, head: nn.Linear, *, freeze_batchnorm: bool) -> None:
        super().__init__()
        self.suffix = suffix
        self.head = head
        self.freeze_batchnorm = freeze_batchnorm
        self.is_folded = False
        self._is_map_last = backbone.is_map_last
        # in a tuple, so that its parameters, which are those of the suffix, are not counted twice
        self._folded: tuple[nn.Module, ...] = ()
        if freeze_batchnorm and isinstance(suffix, fx.GraphModule):
            self._folded = (fusion.fold(suffix),)

    @property
    def can_fold(self) -> bool:
        """Whether there is a folded way through the suffix."""
        return bool(self._folded)

    def forward(self, activations: torch.Tensor) -> torch.Tensor:
        suffix = self._folded[0] if self.is_folded else self.suffix
        return self.head(pooled(suffix(activations), self._is_map_last))

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
