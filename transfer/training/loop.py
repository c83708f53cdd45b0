"""Training: the only loop. It starts from a head that is already solved, and keeps the best epoch on val.

Every draw depends on (seed, epoch, position) and nothing else, so a resumed training gives the weights of one that was
never interrupted, without any generator's state on disk.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import torch
from torch import nn

from transfer.training.checkpoints import Checkpoints
from transfer.training.examples import Examples
from transfer.training.mixing import mix
from transfer.training.pace import Pace
from transfer.training.rates import rate_at
from transfer.training.signals import Interrupts
from transfer.training.trainees import Trainee

_SAVE_SECONDS = 60.0  # a killed training loses no more than this


@dataclass(frozen=True)
class TrainingSettings:
    """How the loop trains; a recipe's `train` says the same in its own words."""

    n_epochs: int
    batch_size: int
    warmup: float  # share of all steps
    clip: float  # largest norm of the gradient
    label_smoothing: float
    mixup: float  # alpha of the Beta distribution; 0: off
    cutmix: float
    ema: float  # decay per step of the averaged weights; 0: off
    patience: int  # epochs without a better one on val
    seed: int


@dataclass
class Epoch:
    """One line of the history. Epoch 0 is the solved head before any step."""

    epoch: int
    loss: float | None
    train_accuracy: float | None
    val_accuracy: float
    val_loss: float
    lr: float
    images_per_second: float | None
    seconds: float


@dataclass
class _State:
    """Where a training is; all of it is in every checkpoint."""

    epoch: int = 1  # the one in progress
    step: int = 0  # steps done in it
    n_done: int = 0  # steps done in all
    loss_sum: float = 0.0
    n_right: int = 0
    n_seen: int = 0
    seconds: float = 0.0  # of training so far
    epoch_seconds: float = 0.0
    micro_batch: int = 0
    best_epoch: int = 0
    history: list[dict[str, Any]] = field(default_factory=list)


@dataclass(frozen=True)
class Outcome:
    """What training led to: the trainee has the weights of the best epoch."""

    history: list[Epoch]
    best_epoch: int  # 0: no epoch was better than the solved head
    stopped: str  # why it ended before the last epoch; empty if it did not
    was_resumed: bool


def train(
    trainee: Trainee,
    groups: list[dict[str, Any]],
    examples: Examples,
    val: Examples,
    settings: TrainingSettings,
    pace: Pace,
    *,
    class_weights: torch.Tensor | None = None,
    checkpoints: Checkpoints | None = None,
    deadline: float = math.inf,
    say: Callable[[str], None] = lambda line: None,
    after_step: Callable[[int], None] = lambda n_done: None,
) -> Outcome:
    """Train, and leave the trainee with the weights of its best epoch on val.

    Parameters
    ----------
    groups
        Of parameters, as `rates.parameter_groups` makes them.
    pace
        Device, type and layout of the computation.
    class_weights
        (C,) in the loss.
    checkpoints
        Where to go on from, if there is one, and where to save.
    deadline
        In `time.perf_counter` seconds; training ends before it.
    after_step
        Called with the number of steps done.
    """
    pace.place(trainee)
    optimizer = torch.optim.AdamW(groups, lr=0.0, foreach=pace.device.type != "cpu")
    run = _Training(trainee, optimizer, examples, val, settings, pace, class_weights, checkpoints, say)
    was_resumed = run.resume()
    cuda = [pace.device] if pace.device.type == "cuda" else []
    with Interrupts() as interrupts, torch.random.fork_rng(devices=cuda):
        if not run.state.history:
            run.end_epoch(0)
        stopped = run.until(deadline, interrupts, after_step)
    trainee.load_state_dict(run.best)
    if checkpoints:
        checkpoints.clear()
    history = [Epoch(**row) for row in run.state.history]
    return Outcome(history, run.state.best_epoch, stopped, was_resumed)


class _Training:
    def __init__(
        self,
        trainee: Trainee,
        optimizer: torch.optim.Optimizer,
        examples: Examples,
        val: Examples,
        settings: TrainingSettings,
        pace: Pace,
        class_weights: torch.Tensor | None,
        checkpoints: Checkpoints | None,
        say: Callable[[str], None],
    ) -> None:
        self.trainee, self.optimizer, self.examples, self.val = trainee, optimizer, examples, val
        self.settings, self.pace, self.checkpoints, self.say = settings, pace, checkpoints, say
        weights = class_weights.to(pace.device) if class_weights is not None else None
        self.loss_of = nn.CrossEntropyLoss(weights, label_smoothing=settings.label_smoothing, reduction="sum")
        self.state = _State(micro_batch=settings.batch_size)
        self.best = trainee.state()
        self.averaged = trainee.state() if settings.ema else None
        self.n_steps = settings.n_epochs * len(self._order(1))
        self._saved = time.perf_counter()

    def until(self, deadline: float, interrupts: Interrupts, after_step: Callable[[int], None]) -> str:
        """Train to the last epoch, or say why it ended before."""
        state, settings = self.state, self.settings
        while state.epoch <= settings.n_epochs:
            order = self._order(state.epoch)
            started = time.perf_counter()
            self.trainee.train()
            for inputs in self.examples.batches(order[state.step :], state.epoch):
                positions = order[state.step]
                if not self._step(inputs, positions):
                    return f"the loss is no longer finite in epoch {state.epoch}: lower train.lr"
                now = time.perf_counter()
                state.seconds += now - started
                state.epoch_seconds += now - started
                started = now
                after_step(state.n_done)
                if interrupts.caught is not None:
                    self.save()
                    interrupts.stop()
                if now - self._saved > _SAVE_SECONDS:
                    self.save()
                if now > deadline:
                    self.end_epoch(state.epoch)
                    return f"the time was over in epoch {state.epoch - 1}"
            self.end_epoch(state.epoch)
            self.save()
            if state.epoch - 1 - state.best_epoch >= settings.patience:
                return f"no better epoch on val in {settings.patience}"
        return ""

    def end_epoch(self, epoch: int) -> None:
        """Judge the trainee on val, keep it where it is the best so far, and write the epoch's line."""
        state = self.state
        kept = self.trainee.state() if self.averaged else None
        if self.averaged:
            self.trainee.load_state_dict(self.averaged)
        accuracy, loss = self._judge()
        row = Epoch(
            epoch=epoch,
            loss=state.loss_sum / state.n_seen if state.n_seen else None,
            train_accuracy=state.n_right / state.n_seen if state.n_seen else None,
            val_accuracy=accuracy,
            val_loss=loss,
            lr=max(group["lr"] for group in self.optimizer.param_groups) if epoch else 0.0,
            images_per_second=state.n_seen / state.epoch_seconds if state.n_seen else None,
            seconds=state.seconds,
        )
        best = state.history[state.best_epoch] if state.history else None
        if best is None or (accuracy, -loss) > (best["val_accuracy"], -best["val_loss"]):
            state.best_epoch, self.best = epoch, self.trainee.state()
        if kept is not None:
            self.trainee.load_state_dict(kept)
        state.history.append(asdict(row))
        state.epoch, state.step = epoch + 1, 0
        state.loss_sum, state.n_right, state.n_seen, state.epoch_seconds = 0.0, 0, 0, 0.0
        self.say(_line(row, self.settings.n_epochs, epoch == state.best_epoch))

    def resume(self) -> bool:
        """Go on from the newest checkpoint, if there is one."""
        found = self.checkpoints.load() if self.checkpoints else None
        if found is None:
            return False
        tensors, about = found
        self.state = _State(**about)
        self.trainee.load_state_dict(_part(tensors, "now."))
        self.best = _part(tensors, "best.")
        if self.averaged:
            self.averaged = _part(tensors, "averaged.")
        for i, parameter in enumerate(self._parameters()):
            moments = _part(tensors, f"optimizer.{i}.")
            if moments:
                self.optimizer.state[parameter] = {
                    name: value if name == "step" else value.to(parameter.device) for name, value in moments.items()
                }
        return True

    def save(self) -> None:
        """Write a checkpoint."""
        if self.checkpoints is None:
            return
        tensors = {f"now.{name}": value for name, value in self.trainee.state().items()}
        tensors |= {f"best.{name}": value for name, value in self.best.items()}
        tensors |= {f"averaged.{name}": value for name, value in (self.averaged or {}).items()}
        for i, parameter in enumerate(self._parameters()):
            for name, value in self.optimizer.state.get(parameter, {}).items():
                tensors[f"optimizer.{i}.{name}"] = value
        self.checkpoints.save(tensors, asdict(self.state))
        self._saved = time.perf_counter()

    def _step(self, inputs: torch.Tensor, positions: np.ndarray) -> bool:
        """Take one step; return False, before anything has changed, where the loss or a gradient is not finite."""
        state, settings = self.state, self.settings
        share = rate_at(state.n_done, self.n_steps, settings.warmup)
        for group in self.optimizer.param_groups:
            group["lr"] = group["peak_lr"] * share
        torch.manual_seed(int(np.random.SeedSequence([settings.seed, state.n_done]).generate_state(1)[0]))  # dropout
        labels = torch.from_numpy(self.examples.labels[positions].astype(np.int64))
        n_classes = self.trainee.head.out_features
        inputs, targets = mix(
            inputs, labels, n_classes, settings.mixup, settings.cutmix, [settings.seed, state.epoch, state.step]
        )
        loss, n_right = self._backward(inputs.to(self.pace.device), targets.to(self.pace.device), labels)
        norm = nn.utils.clip_grad_norm_(self._parameters(), settings.clip)
        if not (math.isfinite(loss) and math.isfinite(float(norm))):
            return False
        self.optimizer.step()
        if self.averaged:
            self._average()
        state.loss_sum += loss * len(positions)
        state.n_right += n_right
        state.n_seen += len(positions)
        state.step += 1
        state.n_done += 1
        return True

    def _backward(self, inputs: torch.Tensor, targets: torch.Tensor, labels: torch.Tensor) -> tuple[float, int]:
        """Sum gradients over micro-batches, halved until they fit; return the mean loss and the number right."""
        state = self.state
        while True:
            self.optimizer.zero_grad(set_to_none=True)
            losses, right = [], 0
            try:
                for start in range(0, len(inputs), state.micro_batch):
                    some = slice(start, start + state.micro_batch)
                    with self.pace.autocast():
                        scores = self.trainee(self.pace.arranged(inputs[some]))
                    loss = self.loss_of(scores.float(), targets[some]) / len(inputs)
                    loss.backward()
                    losses.append(float(loss.detach()))
                    right += int((scores.detach().argmax(1).cpu() == labels[some]).sum())
                return math.fsum(losses), right
            except torch.OutOfMemoryError:
                if state.micro_batch == 1:
                    raise
                state.micro_batch = -(-state.micro_batch // 2)
                torch.cuda.empty_cache()
                self.say(f"Out of memory: micro-batches of {state.micro_batch}, the same effective batch.")

    def _judge(self) -> tuple[float, float]:
        """Return accuracy and mean log loss on val."""
        self.trainee.eval()
        size = max(1, self.state.micro_batch)
        order = [np.arange(i, min(i + size, len(self.val.labels))) for i in range(0, len(self.val.labels), size)]
        right, losses = 0, []
        with torch.inference_mode():
            for positions, inputs in zip(order, self.val.batches(order, 0), strict=True):
                labels = torch.from_numpy(self.val.labels[positions].astype(np.int64))
                with self.pace.autocast():
                    scores = self.trainee(self.pace.arranged(inputs.to(self.pace.device)))
                scores = scores.float().cpu()
                right += int((scores.argmax(1) == labels).sum())
                losses += nn.functional.cross_entropy(scores, labels, reduction="none").tolist()
        return right / len(losses), math.fsum(losses) / len(losses)

    def _order(self, epoch: int) -> list[np.ndarray]:
        """Return the positions of each batch; a last batch of one image joins the one before."""
        n, size = len(self.examples.labels), self.settings.batch_size
        order = np.random.default_rng([self.settings.seed, epoch]).permutation(n)
        starts = list(range(0, n, size))
        if len(starts) > 1 and n - starts[-1] == 1:  # BatchNorm has no variance of one
            starts.pop()
        return np.split(order, starts[1:])

    def _average(self) -> None:
        assert self.averaged is not None
        decay = min(self.settings.ema, (1 + self.state.n_done) / (10 + self.state.n_done))  # less while it is young
        for name, value in self.trainee.state_dict().items():
            mean = self.averaged[name]
            if mean.is_floating_point():
                mean.lerp_(value.detach().cpu(), 1 - decay)
            else:
                mean.copy_(value)

    def _parameters(self) -> list[nn.Parameter]:
        return [parameter for group in self.optimizer.param_groups for parameter in group["params"]]


def _part(tensors: dict[str, torch.Tensor], start: str) -> dict[str, torch.Tensor]:
    return {name.removeprefix(start): value for name, value in tensors.items() if name.startswith(start)}


def _line(row: Epoch, n_epochs: int, is_best: bool) -> str:
    if row.epoch == 0:
        return f"Epoch 0, the solved head: val {row.val_accuracy:.1%}"
    best = ", the best so far" if is_best else ""
    return (
        f"Epoch {row.epoch}/{n_epochs}: loss {row.loss:.3f}, train {row.train_accuracy:.1%}, val {row.val_accuracy:.1%}"
        f"{best} (rate {row.lr:.1e}, {row.images_per_second:.0f} images/s)"
    )
