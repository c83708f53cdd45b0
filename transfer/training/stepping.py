"""Step: one batch forward and backward, in pieces that fit into memory, and one move of the optimizer."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import nn

from transfer.errors import ResourceError
from transfer.images import generator_for
from transfer.training.examples import Examples
from transfer.training.mixing import mix
from transfer.training.pace import Pace
from transfer.training.rates import rate_at
from transfer.training.settings import TrainingSettings
from transfer.training.trainees import Trainee


class Stepper:
    """Takes steps with a trainee, and judges it.

    Parameters
    ----------
    groups
        Of parameters, as `rates.parameter_groups` makes them.
    steps_per_epoch
        All of them have as many.
    class_weights
        (C,) in the loss.

    Attributes
    ----------
    micro_batch
        Most images that are computed at once; halved where they do not fit.
    """

    def __init__(
        self,
        trainee: Trainee,
        groups: list[dict[str, Any]],
        settings: TrainingSettings,
        pace: Pace,
        steps_per_epoch: int,
        class_weights: torch.Tensor | None,
        say: Callable[[str], None],
    ) -> None:
        self.trainee, self.settings, self.pace, self.say = trainee, settings, pace, say
        self.optimizer = _optimizer(settings.optimizer, groups)
        self.parameters = [parameter for group in self.optimizer.param_groups for parameter in group["params"]]
        self.micro_batch = settings.batch_size + 1  # a last batch may be one larger
        self._n_frozen = settings.frozen_epochs * steps_per_epoch
        self._n_unfrozen = settings.n_epochs * steps_per_epoch - self._n_frozen
        weights = class_weights.to(pace.device) if class_weights is not None else None
        self._loss_of = nn.CrossEntropyLoss(weights, label_smoothing=settings.label_smoothing, reduction="sum")

    @property
    def rate(self) -> float:
        """The highest rate of the last step."""
        return max(float(group["lr"]) for group in self.optimizer.param_groups)

    def step(self, inputs: torch.Tensor, labels: torch.Tensor, number: int) -> tuple[float, int] | None:
        """Take step `number`, counted from 0, and return the mean loss and how many images were right.

        None, before anything has changed, where the loss or a gradient is not finite.
        """
        settings = self.settings
        self._set_rates(number)
        torch.manual_seed(int(generator_for("dropout", settings.seed, number).integers(2**62)))
        rng = generator_for("mix", settings.seed, number)
        inputs, targets = mix(inputs, labels, self.trainee.head.out_features, settings.mixup, settings.cutmix, rng)
        loss, n_right = self._backward(inputs.to(self.pace.device), targets.to(self.pace.device), labels)
        norm = nn.utils.clip_grad_norm_(self.parameters, settings.clip)
        if not (math.isfinite(loss) and math.isfinite(float(norm))):
            return None
        self.optimizer.step()
        return loss, n_right

    def judge(self, val: Examples, is_interrupted: Callable[[], bool]) -> tuple[str, float] | None:
        """Return which images of val are right, as digits, and the mean log loss; None where it was interrupted."""
        self.trainee.eval()
        n = len(val.labels)
        while True:
            try:
                order = [np.arange(n)[some] for some in self._micro_batches(n)]
                hits, losses = "", []
                with torch.inference_mode():
                    for positions, inputs in zip(order, val.batches(order, 0), strict=True):
                        if is_interrupted():
                            return None
                        labels = torch.from_numpy(val.labels[positions].astype(np.int64))
                        with self.pace.autocast():
                            scores = self.trainee(self.pace.arranged(inputs.to(self.pace.device)))
                        scores = scores.float().cpu()
                        hits += "".join("01"[hit] for hit in (scores.argmax(1) == labels).tolist())
                        losses += nn.functional.cross_entropy(scores, labels, reduction="none").tolist()
                return hits, math.fsum(losses) / n
            except torch.OutOfMemoryError as error:
                self._require_smaller(error)
            self._halve()

    def moments(self) -> dict[str, torch.Tensor]:
        """Return the optimizer's state, by the number of the parameter."""
        return {
            f"{i}.{name}": value
            for i, parameter in enumerate(self.parameters)
            for name, value in self.optimizer.state.get(parameter, {}).items()
            if value is not None
        }

    def load_moments(self, tensors: dict[str, torch.Tensor]) -> None:
        """Go on with a state that `moments` returned."""
        for key, value in tensors.items():
            number, _, name = key.partition(".")
            parameter = self.parameters[int(number)]
            # in the parameter's memory layout, which the fused optimizer takes for granted
            like = parameter if value.ndim else value
            self.optimizer.state[parameter][name] = torch.empty_like(like, device=parameter.device).copy_(value)

    def _set_rates(self, number: int) -> None:
        """Set the rate of each group: the head's alone, on a course of its own, while the others are frozen."""
        settings, is_frozen = self.settings, number < self._n_frozen
        at, of = (number, self._n_frozen) if is_frozen else (number - self._n_frozen, self._n_unfrozen)
        share = rate_at(at, of, settings.warmup, settings.schedule)
        if self._n_frozen:
            for parameter in set(self.parameters) - set(self.trainee.head.parameters()):
                parameter.requires_grad_(not is_frozen)
        for group in self.optimizer.param_groups:
            group["lr"] = share * (settings.frozen_lr if is_frozen else group["peak_lr"])

    def _backward(self, inputs: torch.Tensor, targets: torch.Tensor, labels: torch.Tensor) -> tuple[float, int]:
        """Sum gradients over micro-batches, halved until they fit; return the mean loss and the number right."""
        while True:
            self.optimizer.zero_grad(set_to_none=True)
            try:
                found = [
                    self._backward_some(inputs, targets, labels, some) for some in self._micro_batches(len(inputs))
                ]
                return math.fsum(loss for loss, _ in found), sum(n for _, n in found)
            except torch.OutOfMemoryError as error:
                self._require_smaller(error)
            self._halve()  # out here, where the failed pass has let go of its memory

    def _backward_some(
        self, inputs: torch.Tensor, targets: torch.Tensor, labels: torch.Tensor, some: slice
    ) -> tuple[float, int]:
        with self.pace.autocast():
            scores = self.trainee(self.pace.arranged(inputs[some]))
        loss = self._loss_of(scores.float(), targets[some]) / len(inputs)
        loss.backward()
        return float(loss.detach()), int((scores.detach().argmax(1).cpu() == labels[some]).sum())

    def _micro_batches(self, n: int) -> list[slice]:
        """Divide n images into pieces that fit, of nearly the same size: none of a single image beside larger ones."""
        n_pieces = math.ceil(n / self.micro_batch)
        bounds = [round(i * n / n_pieces) for i in range(n_pieces + 1)]
        return [slice(start, stop) for start, stop in itertools.pairwise(bounds)]

    def _require_smaller(self, error: torch.OutOfMemoryError) -> None:
        if self.micro_batch == 1:
            raise ResourceError(
                f"Not even one image at a time fits into the memory of {self.pace.device}. Choose a smaller backbone, "
                "a cut nearer to the features, or --device cpu."
            ) from error

    def _halve(self) -> None:
        self.micro_batch = math.ceil(self.micro_batch / 2)
        if self.pace.device.type == "cuda":
            torch.cuda.empty_cache()
        self.say(f"Out of memory: micro-batches of {self.micro_batch}, the same effective batch.")


def _optimizer(name: str, groups: list[dict[str, Any]]) -> torch.optim.Optimizer:
    if name == "sgd":
        return torch.optim.SGD(groups, lr=0.0, momentum=0.9, fused=True)
    return torch.optim.AdamW(groups, lr=0.0, fused=True)
