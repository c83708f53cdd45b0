"""Average: of weights, those of the last steps (Polyak & Juditsky 1992) or those of start and end (WiSE-FT)."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping

import torch
from torch import nn


class Average:
    """An exponential moving average of all tensors of a module, on the module's device."""

    def __init__(self, module: nn.Module, decay: float) -> None:
        self._module, self._decay = module, decay
        self.tensors = {name: value.detach().clone() for name, value in module.state_dict().items()}

    def update(self, n_done: int) -> None:
        """Take in the weights after step number `n_done`."""
        decay = min(self._decay, (1 + n_done) / (10 + n_done))  # less while it is young
        for name, value in self._module.state_dict().items():
            if value.is_floating_point():
                self.tensors[name].lerp_(value.detach(), 1 - decay)
            else:
                self.tensors[name].copy_(value)

    def load(self, tensors: Mapping[str, torch.Tensor]) -> None:
        """Go on from an average that was saved."""
        for name, value in tensors.items():
            self.tensors[name].copy_(value)

    @contextlib.contextmanager
    def in_place(self) -> Iterator[None]:
        """Have the module compute with the average inside the block."""
        own = {name: value.detach().clone() for name, value in self._module.state_dict().items()}
        self._module.load_state_dict(self.tensors)
        try:
            yield
        finally:
            self._module.load_state_dict(own)


def blend(start: Mapping[str, torch.Tensor], end: Mapping[str, torch.Tensor], share: float) -> dict[str, torch.Tensor]:
    """Return the weights that lie so far on the way from start to end (WiSE-FT, Wortsman et al., CVPR 2022).

    Half way, a network has much of what training gained where it gained something, and less of what it lost where it
    lost. Counters are those of the end.
    """
    return {name: start[name].lerp(value, share) if value.is_floating_point() else value for name, value in end.items()}
