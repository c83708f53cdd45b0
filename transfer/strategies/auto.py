"""Auto: choose what is trained, by the size of the dataset and by measurement on images that are not reported on.

First what the size says, then what linear heads on the frozen network show, then a race of deeper layers: a dearer way
has to be better than the linear head on the same images, weighed with what is usual (`race.DeepArm.has_won`).
Where classes have too few images, nothing is chosen: the weights of both ways are averaged. Nothing of the test part
takes part (`development`).
"""

from __future__ import annotations

import dataclasses
from typing import Any

from transfer.choice import Choice
from transfer.curves import LearningCurve
from transfer.dataset.names import count
from transfer.recipe import load_recipe
from transfer.strategies.allowance import Allowance
from transfer.strategies.development import Development, put_test_aside
from transfer.strategies.evidence import FIRST, Evidence, LinearArm, gather
from transfer.strategies.jobs import Job
from transfer.strategies.prior import Prior, judge_size
from transfer.strategies.race import DeepArm, Race, enter, offer, run_race
from transfer.strategies.readings import Gap, Reading
from transfer.training import Checkpoints

_HALF_WAY = "wise-ft"  # the recipe that says how far


def choose(job: Job) -> tuple[Job, Choice, list[Checkpoints]]:
    """Choose what is trained; return the job with it, why, and the checkpoints of trials, to be cleared at the end."""
    development = put_test_aside(job)
    say = job.progress.say
    prior = judge_size(development.dataset.labels, len(job.dataset.classes), job.recipe.choice)
    for line in prior.describe():
        say(line)
    is_chosen = not prior.is_few and job.dataset.domains is None
    evidence = gather(development, only_first=not is_chosen)
    for arm in evidence.arms:
        say(f"{arm.name}: {_score(arm)} right by cross-validation.")
    race, why = _decide(development, prior, evidence)
    winner: LinearArm | DeepArm = race.winner or evidence.best
    choice = _record(winner, why, prior, evidence, race)
    say(choice.reason)
    return _job_for(job, winner, evidence, is_chosen=is_chosen), choice, race.trials


def _decide(development: Development, prior: Prior, evidence: Evidence) -> tuple[Race, str]:
    """Return the race, which may have no arms, and why its winner, or the linear head, is chosen."""
    settings, headroom = development.recipe.choice, evidence.headroom
    nobody = Race([], Allowance(0.0))
    if development.dataset.domains is not None:
        return nobody, "what is chosen on images of the source may be wrong for the target, so nothing is"
    if prior.is_few:
        return _average(development, prior)
    if evidence.most_headroom < prior.headroom:
        most = f"{evidence.most_headroom:.1%} at most by a 95 % interval"
        return nobody, f"it gets {headroom:.1%} wrong, {most}, which leaves too little to gain by training layers"
    if settings.race:
        race = run_race(development, evidence.best, evidence.first.reading, is_bigger=prior.is_bigger)
        return race, _why_of_race(race)
    least = {"partial": settings.partial_headroom, "full": settings.full_headroom}
    race = enter(development, offer(development.recipe, is_bigger=prior.is_bigger))
    for arm in race.arms:
        if arm.outcome:
            continue
        if headroom < least[arm.name]:
            arm.outcome = f"not taken: the linear head gets less than {least[arm.name]:.0%} wrong"
        elif race.has_time_for(arm):
            arm.outcome = f"for a linear head that gets at least {least[arm.name]:.0%} wrong"
            race.winner = arm
    return race, f"decided without a race, by what the linear head gets wrong, {headroom:.1%}"


def _average(development: Development, prior: Prior) -> tuple[Race, str]:
    """Return what lies half way between the linear head and training all layers, where none of them can be chosen.

    Far from ImageNet training layers gains much even of two images per class, near to it it loses as much, and so few
    images do not tell which it is (`docs/choosing.md`).
    """
    recipe = development.recipe
    noise = f"with {prior.per_class:g} images per class, any choice would pick noise"
    if recipe.train.refit is False or recipe.train.start == "zero":
        asked = "train.refit=false" if recipe.train.refit is False else "train.start=zero"
        return Race([], Allowance(0.0)), f"{noise}, and {asked} does not go with averaging the ways"
    if prior.n_images < recipe.choice.least:
        return Race([], Allowance(0.0)), f"{noise}, and of {prior.n_images} images in all layers learn next to nothing"
    half_way = load_recipe(_HALF_WAY).train.model_dump(include={"keep", "blend", "refit", "patience"})
    train = {**recipe.train.model_dump(), **half_way}
    if recipe.train.patience is not None:
        development.progress.say("train.patience has no effect here: nothing is judged that could end the training.")
    arm = DeepArm(_HALF_WAY, recipe.with_strategy("full", train=train))
    race = enter(development, [arm])
    if not arm.outcome and race.has_time_for(arm):
        race.winner = arm
        arm.outcome = "nothing was read of it: every image is learned from"
        return race, (
            f"{noise}, so it is half way between the linear head and all layers trained from there: the average of the "
            "weights of both"
        )
    return race, noise


def _why_of_race(race: Race) -> str:
    if race.winner is not None:
        return f"it is {_compared(race.winner)} above the linear head on validation images"
    tried = [arm for arm in race.arms if arm.reading is not None]
    if not tried:
        return "no deeper layers could be tried"
    if all(arm.keeps_start for arm in tried):
        return "training deeper layers found no epoch that was better than the linear head"
    return f"training deeper layers is not better by enough ({_compared(tried[-1])})"


def _compared(arm: DeepArm) -> str:
    """Say by how much an arm is above the linear head, as read and weighed with what is usual."""
    return f"{arm.gap} (weighed with what training layers usually gains: {arm.weighed})" if arm.prior else f"{arm.gap}"


def _job_for(job: Job, winner: LinearArm | DeepArm, evidence: Evidence, *, is_chosen: bool) -> Job:
    """Return the job of the arm that was chosen; a training goes on from its trial."""
    recipe = winner.recipe
    if isinstance(winner, DeepArm):
        return dataclasses.replace(job, recipe=recipe, cut=winner.cut, resume=job.resume or winner.n_trials > 0)
    taps = None if recipe.taps == job.recipe.taps else evidence.taps
    return dataclasses.replace(job.with_head(recipe), is_chosen=is_chosen and winner.name != FIRST, taps=taps)


def _record(winner: LinearArm | DeepArm, why: str, prior: Prior, evidence: Evidence, race: Race) -> Choice:
    rows = [_linear_row(arm, winner, evidence) for arm in evidence.arms] + [_deep_row(arm, winner) for arm in race.arms]
    n_read = sum(row["n_judged"] > 0 for row in rows)
    best, curve, bound = evidence.best, evidence.curve, [*evidence.bound, *race.allowance.bound]
    is_read = isinstance(winner, LinearArm) or winner.reading is not None
    tried = f", of {count(n_read, 'way that was', 'ways that were')} tried" * is_read
    sentences = [
        f"{winner.name} was chosen for {prior.n_images} images of {prior.n_classes} classes ({prior.per_class:g} per "
        f"class){tried}: {why}.",
        f"The best linear head, {best.name}, gets {_score(best)} of the images right that it has not learned from.",
        *([_outlook(curve)] if curve is not None else []),
        *([f"Time bound the choice: {' '.join(bound)}"] if bound else []),
    ]
    budget = {**race.allowance.to_dict(), "was_bound": bool(bound), "bound": bound}
    taps = evidence.taps._asdict() if evidence.taps else None
    return Choice(
        winner.name, " ".join(sentences), prior.to_dict(), rows, taps, curve.to_dict() if curve else None, budget
    )


def _outlook(curve: LearningCurve) -> str:
    """Say what more images would give: a difference, since the curve is that of a ridge head."""
    gain = curve.gain(2)
    if gain is None:
        return f"What more images would give, it cannot tell. {curve.describe()}"
    points, least, most = (100 * value for value in gain)
    return f"With twice the images, expect about {points:.1f} points more of a linear head ({least:.1f} to {most:.1f})."


def _linear_row(arm: LinearArm, winner: LinearArm | DeepArm, evidence: Evidence) -> dict[str, Any]:
    outcome = f"{arm.gap} against the best before it" if arm.gap else "the first, with which the others were compared"
    if arm is evidence.best:
        outcome += "; the best linear head"
    return {
        "name": arm.name,
        "recipe": arm.recipe.strategy,
        **_numbers(arm.reading, arm.gap),
        "judged_on": "train and val, each image by a head that had not seen it",
        "seconds": round(arm.seconds, 3),
        "outcome": f"chosen: {outcome}" if arm is winner else outcome,
    }


def _deep_row(arm: DeepArm, winner: LinearArm | DeepArm) -> dict[str, Any]:
    times = f", {arm.n_trials} times with other images" if arm.n_trials > 1 else ""
    weighed_gap, weighed_error = _known(arm.weighed)
    return {
        "name": arm.name,
        "recipe": arm.recipe.strategy,
        **_numbers(arm.reading, arm.gap),
        "weighed_gap": weighed_gap,
        "weighed_standard_error": weighed_error,
        "judged_on": f"val{times}, which chose epoch or blend: that flatters a little" if arm.reading else "nothing",
        "seconds": round(arm.seconds, 3),
        "outcome": f"chosen: {arm.outcome}" if arm is winner else arm.outcome,
    }


def _numbers(reading: Reading | None, gap: Gap | None) -> dict[str, Any]:
    judged = reading if reading and len(reading.images) else None
    mean, error = _known(gap)
    return {
        "accuracy": judged.accuracy if judged else None,
        "interval": list(judged.interval) if judged else None,
        "n_judged": len(judged.images) if judged else 0,
        "gap": mean,
        "standard_error": error,
    }


def _known(gap: Gap | None) -> tuple[float | None, float | None]:
    """Return a gap and its standard error as JSON has them: nothing where too few images were judged."""
    return (gap.mean, gap.standard_error) if gap and gap.is_known else (None, None)


def _score(arm: LinearArm) -> str:
    if not len(arm.reading.images):
        return "an unknown share"
    low, high = arm.reading.interval
    return f"{arm.reading.accuracy:.1%} ({low:.1%} to {high:.1%})"
