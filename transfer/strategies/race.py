"""Race: deeper layers are trained on trial, where they may still win.

Each way starts from the solved head and is judged on val, beside a linear head that has seen the same images. All
layers come first: where there is time for them, the last two stages are hardly ever better (`docs/choosing.md`). Where
there is not, the last two stages are trained, and where val is small again with other images as val, until the
difference is settled. A trial leaves its checkpoint: the training of the way that is chosen goes on from there and
costs nothing twice.
"""

from __future__ import annotations

import dataclasses
import math
import time
from dataclasses import dataclass, field

from transfer import machine
from transfer.errors import UsageError
from transfer.recipe import Recipe
from transfer.strategies.allowance import Allowance, allow, in_words
from transfer.strategies.cutting import find_cut
from transfer.strategies.development import Development, other_val
from transfer.strategies.evidence import LinearArm, read_on_val
from transfer.strategies.readings import FEWEST, Gap, Reading, gap
from transfer.strategies.tuning import Tuning
from transfer.training import Checkpoints

_ENOUGH = 400  # judged images, with which one trial is precise enough
_MOST_TRIALS = 3  # of the same way, each with other images as val
# Of what a linear head gets wrong, the share that training all layers put right on twelve full datasets (Chen et al.,
# SimCLR, ICML 2020, table B.5, supervised ResNet-50): 0.33 on average with a standard deviation of 0.31
_USUAL_SHARE = 1 / 3
# and as many images are answered right or wrong otherwise (0.70 on average on our sets, 0.41 at the least, at the end
# of a way that a blend does not go to the end of; `bench/blends.py`)
_USUALLY_DIFFERING = 0.5
_RUNAWAY = 4  # times as long as was expected, and a minute, at which a trial ends


@dataclass
class DeepArm:
    """A way of training layers, and what its trials have shown."""

    name: str
    recipe: Recipe
    is_bigger: bool = True  # the dataset is one on which small gains can be told from chance
    cut: str = ""
    reading: Reading | None = None
    flat: Reading | None = None  # of the linear head on the same images
    known: Reading | None = None  # of a linear head on all images, by cross-validation
    seconds: float = 0.0
    predicted_seconds: float = math.inf  # of the whole of it
    again: float = 0.0  # how much of the training comes after it, on train and val together (`Course.again`)
    is_begun: bool = False  # it was stopped in an earlier fit, and is gone on with whatever time is left
    n_trials: int = 0
    keeps_start: bool = False  # no epoch was better than the solved head, which is then all that its training leads to
    prior: Gap | None = None  # to the linear head, before anything is trained
    differing: float = 0.0  # share of images that it should answer otherwise than the linear head
    outcome: str = ""

    @property
    def seconds_after(self) -> float:
        """What of the whole would come after its trials."""
        return self.predicted_seconds * self.again / (1 + self.again)

    @property
    def gap(self) -> Gap | None:
        """By how much it is above the linear head."""
        return gap(self.reading, self.flat, self.known) if self.reading and self.flat else None

    @property
    def sober(self) -> Gap | None:
        """The gap, no surer than so few images make it."""
        return self.gap.no_surer_than(self.differing) if self.gap else None

    @property
    def weighed(self) -> Gap | None:
        """That, weighed with what training layers usually gains."""
        return self.sober.with_prior(self.prior) if self.sober else None

    @property
    def has_won(self) -> bool:
        """Whether it is above the linear head by enough, what is usual weighed in, with layers that have been trained.

        On a few images no gain that is worth its time can be told from chance. Most of that time has been spent on
        trial by then, so what is more likely better is taken, by however little, unless it was clearly worse
        (`docs/choosing.md`).
        """
        if self.sober is None or self.weighed is None or self.keeps_start:
            return False
        if self.is_bigger:
            return self.weighed.is_worth_it
        return self.weighed.is_known and self.weighed.mean > 0 and self.sober.can_win


@dataclass
class Race:
    """All deep arms, cheapest first, and the one that won, if one did."""

    arms: list[DeepArm]
    allowance: Allowance
    winner: DeepArm | None = None
    trials: list[Checkpoints] = field(default_factory=list)

    def has_time_for(self, arm: DeepArm) -> bool:
        """Whether an arm would be done in time; where not, both say so."""
        if arm.is_begun or self.allowance.suffices(arm.predicted_seconds):
            return True
        arm.outcome = (
            f"not tried: it takes about {in_words(arm.predicted_seconds)}, of which {in_words(self.allowance.left)} "
            "are left (--minutes M allows more)"
        )
        self.allowance.bound.append(f"{arm.name} was {arm.outcome}.")
        return False

    def has_time_for_more(self, arm: DeepArm) -> bool:
        """Whether an arm can have another trial, and then still be trained on train and val together."""
        if arm.seconds / arm.n_trials + arm.seconds_after < self.allowance.left:
            return True
        self.allowance.bound.append(f"{arm.name} had {arm.n_trials} of {_MOST_TRIALS} trials.")
        return False


def offer(recipe: Recipe, *, is_bigger: bool = False) -> list[DeepArm]:
    """Return the ways of training layers that may race, cheapest first.

    Of few images all of the way from the solved head is often too far: val chooses how far (`docs/choosing.md`). The
    trial's training is not gone through again on train and val together, which would take as long, but goes on with
    both for a few epochs. (`train.refit` says otherwise.)
    """
    asked, train = recipe.train, recipe.train.model_dump()
    if asked.refit is None and not asked.frozen_epochs:
        train["refit"] = "continue"
    if not is_bigger and recipe.choice.blend and asked.start == "solved":
        train["blend"] = "val"
    return [DeepArm(name, recipe.with_strategy(name, train=train), is_bigger) for name in ("partial", "full")]


def enter(development: Development, arms: list[DeepArm]) -> Race:
    """Return a race in which nothing has been tried yet, with the time that the arms have.

    Those that the network does not offer say why.
    """
    machine.keep_memory()
    seconds_per_image = 0.0
    n_val = len(development.split.indices("val"))
    for arm in arms:
        try:
            arm.cut = find_cut(arm.recipe, development.backbone)
        except UsageError as error:
            arm.outcome = f"not offered: {error}"
        if not arm.recipe.train.learns_from_val and n_val < FEWEST:
            arm.outcome = f"not offered: {n_val or 'no'} validation images are too few to judge on"
        if not arm.outcome:
            tuning = Tuning(_job_of(development, arm))
            arm.predicted_seconds, arm.is_begun = tuning.seconds, tuning.is_begun
            seconds_per_image, arm.again = tuning.course.seconds_per_image, tuning.course.again
    n_train = len(development.split.indices("train"))
    again = max(arm.again for arm in arms)
    allowance = allow(development.clock, seconds_per_image, n_train, again=again)
    if not all(arm.outcome for arm in arms):
        most = in_words(allowance.seconds)
        development.progress.say(f"Deeper layers may take {most} (--minutes M allows more or less).")
    return Race(arms, allowance)


def run_race(development: Development, linear: LinearArm, known: Reading, *, is_bigger: bool) -> Race:
    """Try all layers, or the last two stages where there is no time for all.

    Parameters
    ----------
    linear
        The best of the linear arms.
    known
        What a linear head on the last features got right of all images.
    is_bigger
        The dataset is a bigger one, on which a training takes long.
    """
    race = enter(development, offer(development.recipe, is_bigger=is_bigger))
    headroom = 1 - linear.reading.accuracy
    usual = _USUAL_SHARE * headroom
    for arm in reversed(race.arms):
        arm.known, arm.prior, arm.differing = known, Gap(usual, usual), _USUALLY_DIFFERING * headroom
        if arm.outcome:
            continue
        if any(other.reading for other in race.arms):
            arm.outcome = "not tried: there was time for all layers"
        elif race.has_time_for(arm):
            with development.clock.time(f"trial of {arm.name}"):
                _try(race, development, arm, linear)
        development.progress.say(f"{arm.name}: {arm.outcome}.")
    race.winner = next((arm for arm in race.arms if arm.has_won), None)
    return race


def _try(race: Race, development: Development, arm: DeepArm, linear: LinearArm) -> None:
    """Train an arm on trial, again with other images as val where that is cheap and the first reading is not clear."""
    most = _MOST_TRIALS if arm.name == "partial" else 1
    started = time.perf_counter()
    for number in range(most):
        part = other_val(development, number)
        if part is None or (number and not race.has_time_for_more(arm)):
            break
        again = f", trial {number + 1} with other images as val" if number else ""
        part.progress.say(f"Trying {arm.name}{again}.")
        reading = _read(race, part, arm)
        flat = read_on_val(part, linear.recipe)
        arm.reading = reading if arm.reading is None else arm.reading.joined(reading)
        arm.flat = flat if arm.flat is None else arm.flat.joined(flat)
        arm.n_trials = number + 1
        arm.seconds = time.perf_counter() - started
        assert arm.gap is not None
        if arm.keeps_start or arm.gap.is_settled or not arm.gap.can_win or len(arm.reading.images) >= _ENOUGH:
            break
    assert arm.reading is not None
    assert arm.gap is not None
    arm.outcome = f"{arm.gap} against the linear head on {len(arm.reading.images)} validation images"
    if arm.gap.is_set_right:
        arm.outcome += ", hard ones counted as often as there are among all images"
    arm.outcome += f"; weighed with what is usual {arm.weighed}"
    if arm.keeps_start:
        arm.outcome += "; no epoch was better than the solved head"


def _read(race: Race, part: Development, arm: DeepArm) -> Reading:
    """Train on train and judge on val; the network is as before afterwards."""
    clock = part.clock.aside(60 + _RUNAWAY * arm.predicted_seconds)
    tuning = Tuning(dataclasses.replace(_job_of(part, arm), progress=part.progress.terse(), clock=clock))
    race.trials.append(tuning.checkpoints)
    try:
        outcome = tuning.run()
        _, probabilities = tuning.calibrate(outcome)
    finally:
        tuning.undo()
    if not arm.n_trials:  # that of the split as it is, from which the training of a winner goes on
        arm.keeps_start = not outcome.best_epoch
    if tuning.is_shortened:
        race.allowance.bound.append(f"{arm.name} was tried with {tuning.course.n_epochs} epochs.")
    if outcome.stopped:
        race.allowance.bound.append(f"A trial of {arm.name} ended early: {outcome.stopped}.")
    val = part.split.indices("val")
    return Reading(val, probabilities.argmax(axis=1) == part.dataset.labels[val])


def _job_of(development: Development, arm: DeepArm) -> Development:
    return Development(dataclasses.replace(development, recipe=arm.recipe, cut=arm.cut))
