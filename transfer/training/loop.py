"""Training: the only loop. It starts from a head, usually a solved one, and keeps an epoch that val finds better.

Of the epochs, the last one within one standard error of the best is kept: the rate falls to zero, so late weights are
settled, while the best of many noisy readings of a small val is often an accident (`docs/defaults.md`). With
`chooses_epoch=False` it is the very last.

Every draw depends on (seed, epoch, position) and nothing else, so a resumed training gives the weights of one that was
never interrupted, without any generator's state on disk.
"""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import torch

from transfer.images import generator_for
from transfer.training.averaging import Average, blend
from transfer.training.checkpoints import Checkpoints
from transfer.training.examples import Examples
from transfer.training.history import Epoch, is_as_good
from transfer.training.pace import Pace
from transfer.training.settings import TrainingSettings
from transfer.training.signals import Interrupts
from transfer.training.stepping import Stepper
from transfer.training.trainees import Trainee

_SAVE_SECONDS = 15.0  # a killed training loses no more than this


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
    val: Examples | None,
    settings: TrainingSettings,
    pace: Pace,
    *,
    class_weights: torch.Tensor | None = None,
    checkpoints: Checkpoints | None = None,
    deadline: float = math.inf,
    say: Callable[[str], None] = lambda line: None,
    after_step: Callable[[int], None] = lambda n_done: None,
    after_epoch: Callable[[Epoch], None] = lambda row: None,
) -> Outcome:
    """Train, and leave the trainee with the weights of the epoch that is kept, or those it had where none is better.

    With `settings.blend` below 1 they are a blend of the two.

    Parameters
    ----------
    groups
        Of parameters, as `rates.parameter_groups` makes them.
    val
        Judges each epoch. None: nothing does, and the last epoch is kept.
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
    after_epoch
        Called with each line of the history, epoch 0 included, not again with those before a checkpoint.

    Raises
    ------
    ResourceError
        A single image does not fit into the device's memory.
    """
    pace.place(trainee)
    cuda = [pace.device] if pace.device.type == "cuda" else []
    with Interrupts() as interrupts, torch.random.fork_rng(devices=cuda), pace.precision():
        orders = _Orders(len(examples.labels), settings)
        stepper = Stepper(trainee, groups, settings, pace, len(orders.of(1)), class_weights, say)
        run = _Training(stepper, orders, examples, val, checkpoints, interrupts, say)
        was_resumed = run.resume()
        run.until(deadline, after_step, after_epoch)
    history = [Epoch(**row) for row in run.state.history]
    best_epoch = run.state.kept_epoch
    if val is not None and settings.chooses_epoch and not history[best_epoch].is_better_than(history[0]):
        best_epoch = 0
    kept = run.kept if best_epoch else run.start
    trainee.load_state_dict(blend(run.start, kept, settings.blend) if settings.blend < 1 else kept)
    return Outcome(history, best_epoch, run.state.stopped, was_resumed)


class _Orders:
    """In which order each epoch sees the images."""

    def __init__(self, n_images: int, settings: TrainingSettings) -> None:
        self._n_images, self._settings = n_images, settings

    def of(self, epoch: int) -> list[np.ndarray]:
        """Return the positions of each batch; a last batch of one image joins the one before."""
        n, size = self._n_images, self._settings.batch_size
        order = generator_for("order", self._settings.seed, epoch).permutation(n)
        starts = list(range(0, n, size))
        if len(starts) > 1 and n - starts[-1] == 1:  # BatchNorm has no variance of one
            starts.pop()
        return np.split(order, starts[1:])


class _Training:
    def __init__(
        self,
        stepper: Stepper,
        orders: _Orders,
        examples: Examples,
        val: Examples | None,
        checkpoints: Checkpoints | None,
        interrupts: Interrupts,
        say: Callable[[str], None],
    ) -> None:
        self.stepper, self.orders, self.examples, self.val = stepper, orders, examples, val
        self.checkpoints, self.interrupts, self.say = checkpoints, interrupts, say
        self.trainee, self.settings = stepper.trainee, stepper.settings
        self.state = State()
        self.start = self.kept = self.trainee.state()
        self.average = Average(self.trainee, self.settings.ema) if self.settings.ema else None
        self._saved = time.perf_counter()

    def until(self, deadline: float, after_step: Callable[[int], None], after_epoch: Callable[[Epoch], None]) -> None:
        """Train to the last epoch, or to where there is a reason to end before."""
        state = self.state
        last_epoch = self.settings.last_epoch or self.settings.n_epochs
        if not state.history:
            self._end_epoch(0, after_epoch)
        while not state.is_over:
            stopped = self._train_epoch(deadline, after_step)
            is_whole = state.step == len(self.orders.of(state.epoch))
            if "finite" not in stopped:
                self._end_epoch(state.epoch, after_epoch)
            is_last = state.epoch > last_epoch
            since_peak = state.epoch - 1 - state.peak_epoch
            if not (stopped or is_last) and since_peak >= self.settings.patience:
                stopped = f"no better epoch on val in {since_peak}"
            if is_last and is_whole and "time" in stopped:
                stopped = ""  # all was done when the time was over
            state.stopped, state.is_over = stopped, bool(stopped or is_last)
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
        if self.average:
            self.average.load(_part(tensors, "averaged."))
        self.stepper.load_moments(_part(tensors, "optimizer."))
        self.stepper.micro_batch = self.state.micro_batch
        at = f"step {self.state.step} of epoch {self.state.epoch}"
        self.say("All epochs are done already." if self.state.is_over else f"Going on from {at}.")
        return True

    def save(self) -> None:
        """Write a checkpoint."""
        if self.checkpoints is None:
            return
        parts = {
            "now": self.trainee.state_dict(),
            "kept": self.kept,
            "averaged": self.average.tensors if self.average else {},
            "optimizer": self.stepper.moments(),
        }
        tensors = {f"{part}.{name}": value for part, named in parts.items() for name, value in named.items()}
        self.state.micro_batch = self.stepper.micro_batch
        self.checkpoints.save(tensors, asdict(self.state))
        self._saved = time.perf_counter()

    def _train_epoch(self, deadline: float, after_step: Callable[[int], None]) -> str:
        """Take the steps that are left of the epoch, or say why not all of them."""
        state = self.state
        order = self.orders.of(state.epoch)
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

    def _step(self, inputs: torch.Tensor, positions: np.ndarray) -> bool:
        state = self.state
        labels = torch.from_numpy(self.examples.labels[positions].astype(np.int64))
        done = self.stepper.step(inputs, labels, state.n_done)
        if done is None:
            return False
        loss, n_right = done
        if self.average:
            self.average.update(state.n_done)
        state.loss_sum += loss * len(positions)
        state.n_right += n_right
        state.n_seen += len(positions)
        state.step += 1
        state.n_done += 1
        return True

    def _end_epoch(self, epoch: int, after_epoch: Callable[[Epoch], None]) -> None:
        """Judge the trainee on val, keep it where it is as good as the best so far, and write the epoch's line."""
        state = self.state
        started = time.perf_counter()
        judgement = None
        with self.average.in_place() if self.average else contextlib.nullcontext():
            if self.val is not None:
                judgement = self.stepper.judge(self.val, lambda: self.interrupts.caught is not None)
            judged = self.trainee.state()
        if self.val is not None and judgement is None:  # interrupted: the steps are done, it will be judged again
            self._heed()
            return
        hits, loss = judgement or ("", None)
        state.seconds += time.perf_counter() - started
        row = Epoch(
            epoch=epoch,
            loss=state.loss_sum / state.n_seen if state.n_seen else None,
            train_accuracy=state.n_right / state.n_seen if state.n_seen else None,
            val_accuracy=hits.count("1") / len(hits) if hits else None,
            val_loss=loss,
            lr=self.stepper.rate if epoch else 0.0,
            images_per_second=state.n_seen / state.epoch_seconds if state.n_seen else None,
            seconds=state.seconds,
        )
        if epoch and hits.count("1") > state.peak_hits.count("1"):
            state.peak_epoch, state.peak_hits = epoch, hits
        chooses = self.val is not None and self.settings.chooses_epoch
        is_kept = epoch > 0 and (not chooses or is_as_good(hits, state.peak_hits or hits))
        if is_kept:
            state.kept_epoch, self.kept = epoch, judged
        state.history.append(asdict(row))
        state.epoch, state.step = epoch + 1, 0
        state.loss_sum, state.n_right, state.n_seen, state.epoch_seconds = 0.0, 0, 0, 0.0
        if self.val is not None:
            is_chosen = chooses and is_kept and row.is_better_than(Epoch(**state.history[0]))
            self.say(row.describe(self.settings.n_epochs, is_chosen))
        after_epoch(row)

    def _heed(self) -> None:
        """Where a signal has come, save and do what it asks for."""
        if self.interrupts.caught is not None:
            self.save()
            self.interrupts.stop()


def _part(tensors: dict[str, torch.Tensor], start: str) -> dict[str, torch.Tensor]:
    return {name.removeprefix(start): value for name, value in tensors.items() if name.startswith(start)}
