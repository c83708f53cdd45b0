"""Auto: choose what is trained, by the size of the dataset and by measurement on images that are not reported on.

First what the size says, then what linear heads on the frozen network show, then a race of deeper layers. The cheaper
way is taken unless a dearer one wins by more than one standard error, image by image on the same images. Nothing of the
test part takes part (`development`).
"""

from __future__ import annotations

import dataclasses
from typing import Any

from transfer.choice import Choice
from transfer.curves import LearningCurve
from transfer.features import Representation
from transfer.strategies.development import Development, put_test_aside
from transfer.strategies.evidence import Evidence, LinearArm, gather
from transfer.strategies.jobs import Job
from transfer.strategies.prior import Prior, judge_size
from transfer.strategies.race import DeepArm, Race, enter, run_race
from transfer.strategies.readings import Gap, Reading
from transfer.strategies.tapping import TapChoice
from transfer.training import Checkpoints


def choose(job: Job) -> tuple[Job, Choice, list[Checkpoints]]:
    """Choose what is trained; return the job with it, why, and the checkpoints of trials, to be cleared at the end."""
    development = put_test_aside(job)
    settings, say = job.recipe.choice, job.progress.say
    prior = judge_size(development.dataset.labels, len(job.dataset.classes), settings)
    for line in prior.describe():
        say(line)
    evidence = gather(development, is_few=prior.is_few)
    for arm in evidence.arms:
        say(f"{arm.name}: {_score(arm)} by cross-validation.")
    race = Race([])
    if prior.is_few:
        why = f"with {prior.per_class:g} images per class, any choice would pick noise"
    elif evidence.headroom < prior.headroom:
        why = f"it gets {evidence.headroom:.1%} wrong, which leaves too little to gain by training layers"
    elif settings.race:
        race = run_race(development, evidence.best)
        why = _why_of_race(race)
    else:
        race = _decide_without_race(development, evidence)
        why = f"without a race: it gets {evidence.headroom:.1%} wrong"
    winner: LinearArm | DeepArm = race.winner or evidence.best
    choice = _record(winner, why, prior, evidence, race)
    say(choice.reason)
    return _job_for(job, winner, evidence.taps), choice, race.trials


def _job_for(job: Job, winner: LinearArm | DeepArm, taps: TapChoice | None) -> Job:
    """Return the job of the arm that was chosen; a training goes on from its trial."""
    if isinstance(winner, DeepArm):
        return dataclasses.replace(job, recipe=winner.recipe, cut=winner.cut, resume=True)
    recipe = winner.recipe
    if recipe.taps == job.recipe.taps:
        return dataclasses.replace(job, recipe=recipe)
    read = Representation.from_settings(recipe.taps, recipe.features)
    return dataclasses.replace(job, recipe=recipe, representation=read, X=job.rows(read), taps=taps)


def _decide_without_race(development: Development, evidence: Evidence) -> Race:
    """Take the deepest arm that what is left to gain is worth, and that can be done in time."""
    settings = development.recipe.choice
    least = {"partial": settings.partial_headroom, "full": settings.full_headroom}
    race = enter(development)
    for arm in race.arms:
        if arm.outcome:
            continue
        if evidence.headroom < least[arm.name]:
            arm.outcome = f"not taken: less than {least[arm.name]:.0%} is left to gain"
            continue
        if race.lacks_time_for(arm):
            development.progress.say(f"{arm.name}: {arm.outcome}.")
            continue
        arm.outcome = f"taken where the linear head gets at least {least[arm.name]:.0%} wrong"
        race.winner = arm
    return race


def _why_of_race(race: Race) -> str:
    if race.winner is not None:
        return f"it is {race.winner.gap} above the linear head on the same validation images"
    tried = [arm for arm in race.arms if arm.reading is not None]
    if not tried:
        return "no deeper layers could be tried"
    return f"training deeper layers is no better by more than one standard error ({tried[-1].gap})"


def _score(arm: LinearArm) -> str:
    if not len(arm.reading.images):
        return "not known how many"
    low, high = arm.reading.interval
    return f"{arm.reading.accuracy:.1%} ({low:.1%} to {high:.1%})"


def _record(winner: LinearArm | DeepArm, why: str, prior: Prior, evidence: Evidence, race: Race) -> Choice:
    rows = [_linear_row(arm, winner, evidence) for arm in evidence.arms] + [_deep_row(arm, winner) for arm in race.arms]
    curve = evidence.curve
    outlook = f" {_outlook(curve)}" if curve is not None else ""
    reason = (
        f"{winner.name} was chosen among {len(rows)} for {prior.n_images} images of {prior.n_classes} classes "
        f"({prior.per_class:g} per class): {why}. The best linear head, {evidence.best.name}, gets "
        f"{_score(evidence.best)} of the images right that it has not learned from.{outlook}"
    )
    budget = {"seconds": race.seconds_allowed, "was_bound": race.was_bound}
    return Choice(winner.name, reason, prior.to_dict(), rows, curve.to_dict() if curve else None, budget)


def _outlook(curve: LearningCurve) -> str:
    """Say what more images would give: a difference, since the curve is that of a ridge head."""
    now, twice = curve.expect(curve.n_images), curve.expect(2 * curve.n_images)
    if now is None or twice is None:
        return f"What more images would give, it cannot tell: {curve.describe()}"
    gain, least, most = (100 * (value - now[0]) for value in twice)
    return f"With twice the images, expect {gain:+.1f} points of a linear head ({least:+.1f} to {most:+.1f})."


def _linear_row(arm: LinearArm, winner: LinearArm | DeepArm, evidence: Evidence) -> dict[str, Any]:
    outcome = f"{arm.gap} against the best before it" if arm.gap else "the first, with which the others were compared"
    if arm is evidence.best:
        outcome = "the best linear head, with which deeper layers were compared"
    judged_on = "train and val, each image by a head that had not seen it"
    return {
        "name": arm.name,
        "recipe": arm.recipe.strategy,
        **_numbers(arm.reading, arm.gap),
        "judged_on": judged_on,
        "seconds": round(arm.seconds, 3),
        "outcome": "chosen" if arm is winner else outcome,
    }


def _deep_row(arm: DeepArm, winner: LinearArm | DeepArm) -> dict[str, Any]:
    return {
        "name": arm.name,
        "recipe": arm.recipe.strategy,
        **_numbers(arm.reading, arm.gap),
        "judged_on": f"val, {arm.n_trials} times with other images" if arm.n_trials > 1 else "val",
        "seconds": round(arm.seconds, 3),
        "outcome": f"chosen: {arm.outcome}" if arm is winner else arm.outcome,
    }


def _numbers(reading: Reading | None, gap: Gap | None) -> dict[str, Any]:
    judged = reading if reading and len(reading.images) else None
    return {
        "accuracy": judged.accuracy if judged else None,
        "interval": list(judged.interval) if judged else None,
        "n_judged": len(judged.images) if judged else 0,
        "gap": gap.mean if gap else None,
        "standard_error": gap.standard_error if gap else None,
    }
