"""Training: the only loop. It starts from a head, usually a solved one, and keeps an epoch that val finds better.

Of the epochs, the last one within one standard error of the best is kept: the rate falls to zero, so late weights are
settled, while the best of many noisy readings of a small val is often an accident (`docs/defaults.md`).

Every draw depends on (seed, epoch, position) and nothing else, so a resumed training gives the weights of one that was
never interrupted, without any generator's state on disk.
"""

from __future__ import annotations

import itertools
import math
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import torch
from torch import nn

from transfer.errors import ResourceError
from transfer.images import generator_for
from transfer.training.checkpoints import Checkpoints
from transfer.training.examples import Examples
from transfer.training.mixing import mix
from transfer.training.pace import Pace
from transfer.training.rates import rate_at
from transfer.training.signals import Interrupts
from transfer.training.trainees import Trainee

_SAVE_SECONDS = 15.0  # a killed training loses no more than this


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
    patience: float  # epochs without a better one on val
    seed: int
    optimizer: str = "adamw"  # or sgd
    schedule: str = "cosine"  # or staircase
    frozen_epochs: int = 0  # first, that train the head alone
    frozen_lr: float = 0.0  # peak rate of the head in those


@dataclass
class Epoch:
    """One line of the history. Epoch 0 is the head at the start, before any step."""

    epoch: int
    loss: float | None
    train_accuracy: float | None
    val_accuracy: float
    val_loss: float
    lr: float
    images_per_second: float | None  # of the steps, without val
    seconds: float  # since the start, val included


@dataclass
class State:
    """Where a training is; all of it is in every checkpoint."""

    epoch: int = 1  # the one in progress
    step: int = 0  # steps done in it
    n_done: int = 0  # steps done in all
    loss_sum: float = 0.0
    n_right: int = 0
    n_seen: int = 0
    seconds: float = 0.0
    epoch_seconds: float = 0.0
    micro_batch: int = 0
    kept_epoch: int = 0
    peak_epoch: int = 0
    peak_hits: str = ""  # of the best epoch, one digit per image of val
    stopped: str = ""
    is_over: bool = False
    history: list[dict[str, Any]] = field(default_factory=list)


@dataclass(frozen=True)
class Outcome:
    """What training led to: the trainee has the weights of the epoch that was kept."""

    history: list[Epoch]
    best_epoch: int  # 0: no epoch was better than the start
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
    """Train, and leave the trainee with the weights of the epoch that is kept, or those it had where none is better.

    Parameters
    ----------
    groups
        Of parameters, as `rates.parameter_groups` makes them.
    pace
        Device, type and layout of the computation.
    class_weights
        (C,) in the loss.
    checkpoints
        Where to go on from, if there is one, and where to save. They stay, a finished training included: whoever has
        put the result into safety clears them.
    deadline
        In `time.perf_counter` seconds; after the step that passes it, val judges once more and training ends.
    after_step
        Called with the number of steps done.

    Raises
    ------
    ResourceError
        A single image does not fit into the device's memory.
    """
    pace.place(trainee)
    if settings.optimizer == "sgd":
        optimizer: torch.optim.Optimizer = torch.optim.SGD(groups, lr=0.0, momentum=0.9, fused=True)
    else:
        optimizer = torch.optim.AdamW(groups, lr=0.0, fused=True)
    cuda = [pace.device] if pace.device.type == "cuda" else []
    with Interrupts() as interrupts, torch.random.fork_rng(devices=cuda), pace.precision():
        run = _Training(trainee, optimizer, examples, val, settings, pace, class_weights, checkpoints, interrupts, say)
        was_resumed = run.resume()
        run.until(deadline, after_step)
    history = [Epoch(**row) for row in run.state.history]
    best_epoch = run.state.kept_epoch if _is_better(history[run.state.kept_epoch], history[0]) else 0
    trainee.load_state_dict(run.kept if best_epoch else run.start)
    return Outcome(history, best_epoch, run.state.stopped, was_resumed)


def is_as_good(hits: str, best_hits: str) -> bool:
    """Say whether an accuracy is within one standard error of the best one, image by image.

    >>> is_as_good("1110", "1111"), is_as_good("1110" * 9, "1111" * 9)
    (True, False)
    """
    gaps = [int(best) - int(hit) for hit, best in zip(hits, best_hits, strict=True)]
    mean = sum(gaps) / len(gaps)
    variance = sum((gap - mean) ** 2 for gap in gaps) / max(1, len(gaps) - 1)
    return mean <= math.sqrt(variance / len(gaps)) + 1e-12


def _is_better(row: Epoch, other: Epoch) -> bool:
    return (row.val_accuracy, -row.val_loss) > (other.val_accuracy, -other.val_loss)


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
        interrupts: Interrupts,
        say: Callable[[str], None],
    ) -> None:
        self.trainee, self.optimizer, self.examples, self.val = trainee, optimizer, examples, val
        self.settings, self.pace, self.checkpoints = settings, pace, checkpoints
        self.interrupts, self.say = interrupts, say
        weights = class_weights.to(pace.device) if class_weights is not None else None
        self.loss_of = nn.CrossEntropyLoss(weights, label_smoothing=settings.label_smoothing, reduction="sum")
        self.state = State(micro_batch=settings.batch_size + 1)  # a last batch may be one larger
        self.start = self.kept = trainee.state()
        self.averaged = trainee.state() if settings.ema else None
        self.n_steps = settings.n_epochs * len(self._order(1))
        self._saved = time.perf_counter()

    def until(self, deadline: float, after_step: Callable[[int], None]) -> None:
        """Train to the last epoch, or to where there is a reason to end before."""
        state = self.state
        if not state.history:
            self._end_epoch(0)
        while not state.is_over:
            stopped = self._train_epoch(deadline, after_step)
            if "finite" not in stopped:
                self._end_epoch(state.epoch)
            is_last = state.epoch > self.settings.n_epochs
            since_peak = state.epoch - 1 - state.peak_epoch
            if not (stopped or is_last) and since_peak >= self.settings.patience:
                stopped = f"no better epoch on val in {since_peak}"
            state.stopped, state.is_over = "" if is_last and "time" in stopped else stopped, bool(stopped or is_last)
            if state.is_over or time.perf_counter() - self._saved > _SAVE_SECONDS:
                self.save()
            self._heed()

    def resume(self) -> bool:
        """Go on from the newest checkpoint, if there is one."""
        found = self.checkpoints.load() if self.checkpoints else None
        if found is None:
            return False
        tensors, about = found
        self.state = State(**about)
        self.trainee.load_state_dict(_part(tensors, "now."))
        self.kept = _part(tensors, "kept.")
        if self.averaged:
            self.averaged = _part(tensors, "averaged.")
        for i, parameter in enumerate(self._parameters()):
            moments = _part(tensors, f"optimizer.{i}.")
            if moments:
                # in the parameter's memory layout, which the fused optimizer takes for granted
                self.optimizer.state[parameter] = {
                    name: torch.empty_like(parameter if value.ndim else value, device=parameter.device).copy_(value)
                    for name, value in moments.items()
                }
        self.say(f"Going on from step {self.state.step} of epoch {self.state.epoch}.")
        return True

    def save(self) -> None:
        """Write a checkpoint."""
        if self.checkpoints is None:
            return
        tensors = {f"now.{name}": value for name, value in self.trainee.state().items()}
        tensors |= {f"kept.{name}": value for name, value in self.kept.items()}
        tensors |= {f"averaged.{name}": value for name, value in (self.averaged or {}).items()}
        for i, parameter in enumerate(self._parameters()):
            for name, value in self.optimizer.state.get(parameter, {}).items():
                tensors[f"optimizer.{i}.{name}"] = value
        self.checkpoints.save(tensors, asdict(self.state))
        self._saved = time.perf_counter()

    def _train_epoch(self, deadline: float, after_step: Callable[[int], None]) -> str:
        """Take the steps that are left of the epoch, or say why not all of them."""
        state = self.state
        order = self._order(state.epoch)
        self.trainee.train()
        started = time.perf_counter()
        for inputs in self.examples.batches(order[state.step :], state.epoch):
            if not self._step(inputs, order[state.step]):
                return f"the loss is no longer finite in epoch {state.epoch}: lower train.lr"
            now = time.perf_counter()
            state.seconds += now - started
            state.epoch_seconds += now - started
            started = now
            after_step(state.n_done)
            self._heed()
            if now - self._saved > _SAVE_SECONDS:
                self.save()
            if now > deadline:
                return f"the time was over in epoch {state.epoch}"
        return ""

    def _end_epoch(self, epoch: int) -> None:
        """Judge the trainee on val, keep it where it is as good as the best so far, and write the epoch's line."""
        state = self.state
        started = time.perf_counter()
        kept = self.trainee.state() if self.averaged else None
        if self.averaged:
            self.trainee.load_state_dict(self.averaged)
        judgement = self._judge()
        judged = self.trainee.state() if judgement else {}
        if kept is not None:
            self.trainee.load_state_dict(kept)
        if judgement is None:  # interrupted: the epoch's steps are done, its judgement will be made again
            self._heed()
            return
        hits, loss = judgement
        state.seconds += time.perf_counter() - started
        row = Epoch(
            epoch=epoch,
            loss=state.loss_sum / state.n_seen if state.n_seen else None,
            train_accuracy=state.n_right / state.n_seen if state.n_seen else None,
            val_accuracy=hits.count("1") / len(hits),
            val_loss=loss,
            lr=max(group["lr"] for group in self.optimizer.param_groups) if epoch else 0.0,
            images_per_second=state.n_seen / state.epoch_seconds if state.n_seen else None,
            seconds=state.seconds,
        )
        if epoch and hits.count("1") > state.peak_hits.count("1"):
            state.peak_epoch, state.peak_hits = epoch, hits
        is_kept = epoch > 0 and (not state.peak_hits or is_as_good(hits, state.peak_hits))
        if is_kept:
            state.kept_epoch, self.kept = epoch, judged
        state.history.append(asdict(row))
        state.epoch, state.step = epoch + 1, 0
        state.loss_sum, state.n_right, state.n_seen, state.epoch_seconds = 0.0, 0, 0, 0.0
        self.say(_line(row, self.settings.n_epochs, is_kept))

    def _heed(self) -> None:
        """Where a signal has come, save and do what it asks for."""
        if self.interrupts.caught is not None:
            self.save()
            self.interrupts.stop()

    def _step(self, inputs: torch.Tensor, positions: np.ndarray) -> bool:
        """Take one step; return False, before anything has changed, where the loss or a gradient is not finite."""
        state, settings = self.state, self.settings
        self._set_rates()
        torch.manual_seed(int(generator_for("dropout", settings.seed, state.n_done).integers(2**62)))
        labels = torch.from_numpy(self.examples.labels[positions].astype(np.int64))
        rng = generator_for("mix", settings.seed, state.epoch, state.step)
        inputs, targets = mix(inputs, labels, self.trainee.head.out_features, settings.mixup, settings.cutmix, rng)
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

    def _set_rates(self) -> None:
        """Set the rate of each group for the step to come: the head's alone, on a course of its own, while frozen."""
        settings, n_frozen = self.settings, self.settings.frozen_epochs * len(self._order(1))
        is_frozen = self.state.n_done < n_frozen
        step, n_steps = (
            (self.state.n_done, n_frozen) if is_frozen else (self.state.n_done - n_frozen, self.n_steps - n_frozen)
        )
        share = rate_at(step, n_steps, settings.warmup, settings.schedule)
        if n_frozen:
            head = set(self.trainee.head.parameters())
            for parameter in set(self._parameters()) - head:
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
        loss = self.loss_of(scores.float(), targets[some]) / len(inputs)
        loss.backward()
        return float(loss.detach()), int((scores.detach().argmax(1).cpu() == labels[some]).sum())

    def _judge(self) -> tuple[str, float] | None:
        """Return which images of val are right, as digits, and the mean log loss; None where a signal came."""
        self.trainee.eval()
        n = len(self.val.labels)
        while True:
            try:
                order = [np.arange(n)[some] for some in self._micro_batches(n)]
                hits, losses = "", []
                with torch.inference_mode():
                    for positions, inputs in zip(order, self.val.batches(order, 0), strict=True):
                        if self.interrupts.caught is not None:
                            return None
                        labels = torch.from_numpy(self.val.labels[positions].astype(np.int64))
                        with self.pace.autocast():
                            scores = self.trainee(self.pace.arranged(inputs.to(self.pace.device)))
                        scores = scores.float().cpu()
                        hits += "".join("01"[hit] for hit in (scores.argmax(1) == labels).tolist())
                        losses += nn.functional.cross_entropy(scores, labels, reduction="none").tolist()
                return hits, math.fsum(losses) / n
            except torch.OutOfMemoryError as error:
                self._require_smaller(error)
            self._halve()

    def _micro_batches(self, n: int) -> list[slice]:
        """Divide n images into pieces that fit, of nearly the same size: none of a single image beside larger ones."""
        n_pieces = math.ceil(n / self.state.micro_batch)
        bounds = [round(i * n / n_pieces) for i in range(n_pieces + 1)]
        return [slice(start, stop) for start, stop in itertools.pairwise(bounds)]

    def _require_smaller(self, error: torch.OutOfMemoryError) -> None:
        if self.state.micro_batch == 1:
            raise ResourceError(
                f"Not even one image at a time fits into the memory of {self.pace.device}. Choose a smaller backbone, "
                "a cut nearer to the features, or --device cpu."
            ) from error

    def _halve(self) -> None:
        self.state.micro_batch = math.ceil(self.state.micro_batch / 2)
        if self.pace.device.type == "cuda":
            torch.cuda.empty_cache()
        self.say(f"Out of memory: micro-batches of {self.state.micro_batch}, the same effective batch.")

    def _order(self, epoch: int) -> list[np.ndarray]:
        """Return the positions of each batch; a last batch of one image joins the one before."""
        n, size = len(self.examples.labels), self.settings.batch_size
        order = generator_for("order", self.settings.seed, epoch).permutation(n)
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


def _line(row: Epoch, n_epochs: int, is_kept: bool) -> str:
    if row.epoch == 0:
        return f"Epoch 0, before any step: val {row.val_accuracy:.1%}"
    kept = ", kept" if is_kept else ""
    speed = f", {row.images_per_second:.0f} images/s" if row.images_per_second else ""
    return (
        f"Epoch {row.epoch}/{n_epochs}: loss {row.loss or 0:.3f}, train {row.train_accuracy or 0:.1%}, "
        f"val {row.val_accuracy:.1%}{kept} (rate {row.lr:.1e}{speed})"
    )
