"""Auto: what the size says, what linear heads show, the race, and that test images take part in nothing."""

from __future__ import annotations

import csv
import dataclasses
import json
import math
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import transfer
from transfer.choice import Choice
from transfer.errors import ArtefactError, UsageError
from transfer.progress import Progress
from transfer.recipe import ChoiceSettings, load_recipe
from transfer.strategies import courses, race
from transfer.strategies.allowance import Allowance, allow
from transfer.strategies.auto import _deep_row, choose
from transfer.strategies.development import Development, other_val, put_test_aside
from transfer.strategies.evidence import LinearArm
from transfer.strategies.jobs import Clock, Job
from transfer.strategies.preparing import prepare
from transfer.strategies.prior import judge_size
from transfer.strategies.race import DeepArm, Race
from transfer.strategies.readings import Gap, Reading, gap

QUICK = ["train.epochs=1", "train.min_steps=4", "train.refit=false"]


@pytest.fixture
def job(shapes: Path, weights: Path, tmp_path: Path) -> Job:
    recipe = load_recipe("auto", QUICK, backbone="test_resnet", weights=str(weights))
    return prepare(shapes, None, 0, recipe, tmp_path / "run", None, Progress(quiet=True))[0]


def reading(hits: str, first: int = 0) -> Reading:
    return Reading(np.arange(first, first + len(hits)), np.array([hit == "1" for hit in hits]))


def test_the_size_says_what_is_worth_trying() -> None:
    settings = ChoiceSettings()
    labels = np.repeat([0, 1, 2], [4, 3, 9])
    few = judge_size(labels, 3, settings)
    assert (few.per_class, few.least, few.column, few.is_few) == (4, 3, 2, True)
    some = judge_size(np.repeat([0, 1], 20), 2, settings)
    assert (some.column, some.is_few) == (2, False)
    many = judge_size(np.repeat([0, 1], 500), 2, settings)
    assert (many.column, many.headroom) == (3, settings.headroom_bigger)
    assert "Column 3" in many.describe()[1]


def test_a_gap_is_taken_image_by_image() -> None:
    one, other = reading("1110111111"), reading("1010101111")
    found = gap(one, other)
    assert found.mean == pytest.approx(0.2)
    differences = np.array([0, 1, 0, 0, 0, 1, 0, 0, 0, 0])
    assert found.standard_error == pytest.approx(differences.std(ddof=1) / math.sqrt(10))
    assert found.is_won
    assert not found.is_settled
    assert gap(reading("11", first=8), one).mean == 0  # of the two images that both have


def test_a_gap_on_easy_images_counts_the_hard_ones_as_often_as_there_are() -> None:
    """A quarter of the judged images are hard, half of all are: what is gained on those is gained twice as often."""
    linear, deep = reading("1" * 15 + "0" * 5), reading("1" * 20)
    everything = reading("1" * 15 + "0" * 5 + "1" * 35 + "0" * 45)
    assert gap(deep, linear).mean == pytest.approx(0.25)
    found = gap(deep, linear, everything)
    assert found.mean == pytest.approx(0.5)
    assert found.standard_error == pytest.approx(0.05)  # that of the share of hard ones: the rest is the same for all
    few = reading("1" * 16 + "0" * 4 + "1" * 34 + "0" * 46)  # four hard images tell too little of all of them
    assert gap(deep, linear, few) == gap(deep, linear)
    assert gap(deep, linear, everything.on(np.arange(10))).mean == pytest.approx(0.25)  # not all are known


def test_setting_a_gap_right_is_nearer_to_the_truth() -> None:
    """One head gets 70 % right, a deeper one half of the rest and loses a tenth of it."""
    rng = np.random.default_rng(0)
    plain, right, claimed = [], [], []
    for _ in range(2000):
        known = rng.random(200) < 0.7
        deep = np.where(known, rng.random(200) < 0.9, rng.random(200) < 0.5)
        judged = np.arange(40)
        one, other = Reading(judged, deep[judged]), Reading(judged, known[judged])
        plain.append(gap(one, other).mean)
        found = gap(one, other, Reading(np.arange(200), known))
        right.append(found.mean)
        claimed.append(found.standard_error)
    truth = 0.3 * 0.5 - 0.7 * 0.1
    assert np.mean(right) == pytest.approx(truth, abs=0.005)
    assert np.std(right) < 0.9 * np.std(plain)
    assert np.mean(claimed) == pytest.approx(np.std(right), rel=0.1)


def test_a_dearer_way_has_to_win_by_more_than_one_standard_error() -> None:
    assert not Gap(0.02, 0.02).is_won
    assert Gap(0.021, 0.02).is_won
    assert not Gap(-0.021, 0.02).can_win
    assert Gap(-0.02, 0.02).can_win
    assert Gap(0.0, 0.0).can_win


def test_of_what_is_weighed_no_more_is_asked_than_a_point() -> None:
    assert Gap(0.011, 0.05).is_worth_it
    assert not Gap(0.009, 0.05).is_worth_it
    assert not Gap(0.009, 0.01).is_worth_it  # on many images it is one standard error
    assert Gap(0.009, 0.008).is_worth_it
    assert not Gap(0.5, math.inf).is_worth_it


def test_readings_of_different_images_join() -> None:
    both = reading("10", first=5).joined(reading("011"))
    assert both.images.tolist() == [0, 1, 2, 5, 6]
    assert both.hits.tolist() == [False, True, True, True, False]
    assert both.accuracy == 0.6


def test_every_number_has_other_images_as_val(job: Job) -> None:
    development = put_test_aside(job)
    seen: set[int] = set()
    for number in range(4):
        part = other_val(development, number)
        assert part is not None
        val = set(part.split.indices("val").tolist())
        assert len(val) >= len(part.dataset.classes)
        assert not seen & val
        seen |= val
    assert other_val(development, 100) is None


def test_what_is_chosen_on_has_nothing_of_test(job: Job) -> None:
    development = put_test_aside(job)
    test = {job.dataset.paths[i] for i in job.split.indices("test")}
    assert test
    assert not test & set(development.dataset.paths)
    assert len(development.X) == len(development.dataset) == len(job.dataset) - len(test)
    assert not len(development.split.indices("test"))
    assert development.extraction is not None
    assert not test & set(development.extraction.dataset.paths)


def test_a_job_with_test_images_is_of_the_wrong_type_for_a_selector(tmp_path: Path) -> None:
    snippet = tmp_path / "snippet.py"
    snippet.write_text(
        textwrap.dedent(
            """
            from transfer.strategies.development import put_test_aside
            from transfer.strategies.evidence import gather
            from transfer.strategies.jobs import Job

            def right(job: Job) -> None:
                gather(put_test_aside(job), only_first=False)

            def wrong(job: Job) -> None:
                gather(job, only_first=False)
            """
        )
    )
    root = Path(__file__).resolve().parents[1]
    command = [sys.executable, "-m", "mypy", "--config-file", str(root / "pyproject.toml"), str(snippet)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=root)
    errors = [line for line in done.stdout.splitlines() if "snippet.py" in line]
    assert len(errors) == 1, done.stdout
    assert 'has incompatible type "Job"; expected "Development"' in errors[0]


def test_auto_chooses_and_says_why(shapes: Path, weights: Path, tmp_path: Path) -> None:
    run = transfer.fit(
        shapes, settings=QUICK, backbone="test_resnet", weights=str(weights), out=tmp_path / "run", quiet=True
    )
    choice = run.choice
    assert choice is not None
    assert run.recipe.strategy in {arm["recipe"] for arm in choice.arms}
    assert [arm["name"] for arm in choice.arms if arm["outcome"].startswith("chosen")] == [choice.chosen]
    assert choice.arms[0]["name"] == "linear-svm"
    assert {"partial", "full"} <= {arm["name"] for arm in choice.arms}
    assert choice.reason.startswith(f"{choice.chosen} was chosen")
    assert "48 images of 3 classes (16 per class)" in choice.reason
    assert choice.size["n_images"] == 48
    assert "chosen" in choice._repr_html_()
    assert Choice.from_dict(json.loads((run.path / "choice.json").read_text())) == choice
    advises = any("cross-validated" in line for line in run.info["data"]["split"])
    assert advises == ("cross_validation" in run.metrics)  # there is nothing else to trust
    again = transfer.load_run(run.path)
    assert again.evaluate(shapes, quiet=True)["n"] == 60


def test_a_choice_of_another_version_is_refused() -> None:
    with pytest.raises(ArtefactError, match="Fit again"):
        Choice.from_dict({"chosen": "full"})


def with_random_test_labels(shapes: Path, tmp_path: Path, run: Any) -> Path:
    """Return a table of the same images in the same parts, with the labels of the test part shuffled."""
    with open(run.path / "split.csv", newline="") as source:
        rows = list(csv.DictReader(source))
    test = [row for row in rows if row["split"] == "test"]
    labels = [row["label"] for row in test]
    for row, label in zip(test, labels[1:] + labels[:1], strict=True):
        row["label"] = label
    table = tmp_path / "poisoned.csv"
    with open(table, "w", newline="") as out:
        writer = csv.writer(out)
        writer.writerow(["path", "label", "split"])
        writer.writerows([shapes / row["path"], row["label"], row["split"]] for row in rows)
    return table


def test_wrong_labels_in_the_test_part_change_no_choice(shapes: Path, weights: Path, tmp_path: Path) -> None:
    options = {"settings": QUICK, "backbone": "test_resnet", "weights": str(weights), "quiet": True}
    clean = transfer.fit(shapes, out=tmp_path / "clean", **options)
    poisoned = transfer.fit(with_random_test_labels(shapes, tmp_path, clean), out=tmp_path / "poisoned", **options)
    assert poisoned.metrics["test"]["accuracy"] != clean.metrics["test"]["accuracy"]

    def without_seconds(run: Any) -> dict[str, Any]:
        values = run.choice.to_dict()
        return {**values, "budget": None, "arms": [{**arm, "seconds": None} for arm in values["arms"]]}

    assert without_seconds(poisoned) == without_seconds(clean)
    assert poisoned.info["model"]["sha256"] == clean.info["model"]["sha256"]


def test_with_many_images_only_the_last_layer_is_read(job: Job, monkeypatch: pytest.MonkeyPatch) -> None:
    assert job.extraction is not None
    last = dataclasses.replace(job.extraction, views=[{"features": job.extraction.caches["features"]}])
    settings = ChoiceSettings(race=False, partial_headroom=1, full_headroom=1)
    recipe = job.recipe.model_copy(update={"choice": settings})
    _, choice, _ = choose(dataclasses.replace(job, recipe=recipe, extraction=last))
    assert choice.taps is None
    assert [arm["name"] for arm in choice.arms][:2] == ["linear-svm", "frozen"]


def fit_few(per_class: int, shapes: Path, weights: Path, tmp_path: Path) -> tuple[transfer.Run, Choice]:
    options = {"backbone": "test_resnet", "weights": str(weights), "quiet": True}
    run = transfer.fit(shapes, settings=[f"data.per_class={per_class}"], out=tmp_path / "run", **options)
    assert run.choice is not None
    return run, run.choice


def test_with_few_images_nothing_is_chosen(shapes: Path, weights: Path, tmp_path: Path) -> None:
    run, choice = fit_few(3, shapes, weights, tmp_path)
    assert (choice.chosen, run.recipe.strategy) == ("wise-ft", "full")
    assert (run.recipe.train.keep, run.recipe.train.blend) == ("last", 0.5)
    assert "would pick noise" in choice.reason
    assert [(arm["name"], arm["judged_on"] == "nothing") for arm in choice.arms] == [
        ("linear-svm", False),
        ("wise-ft", True),
    ]
    assert "val" not in run.metrics  # it was learned from
    assert "Nothing was chosen, and val was learned from" in run.info["head"]["rule"]


def test_of_a_handful_of_images_no_layers_are_trained(shapes: Path, weights: Path, tmp_path: Path) -> None:
    run, choice = fit_few(2, shapes, weights, tmp_path)
    assert choice.chosen == run.recipe.strategy == "linear-svm"
    assert "learn next to nothing" in choice.reason


def test_without_a_race_what_is_left_to_gain_decides(job: Job, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(race.Race, "has_time_for", lambda race, arm: True)
    for least, expected in ((0.0, "full"), (1.0, "linear")):
        settings = ChoiceSettings(race=False, headroom=0, partial_headroom=0, full_headroom=least)
        recipe = job.recipe.model_copy(update={"choice": settings})
        chosen, choice, trials = choose(dataclasses.replace(job, recipe=recipe))
        assert not trials
        assert chosen.recipe.strategy == ("full" if expected == "full" else "partial")
        assert choice.chosen == chosen.recipe.strategy


def arm(name: str, hits: str, flat: str) -> DeepArm:
    return DeepArm(name, load_recipe(name), reading=reading(hits), flat=reading(flat))


FLAT = "1010101010"


@pytest.mark.parametrize(
    ("read", "expected"),
    [
        ("1111111110", True),
        ("1010101011", True),  # one image more is within one standard error, but ten points
        ("1010101010", False),
        ("0101010110", False),
    ],
)
def test_an_arm_wins_by_what_is_gained(read: str, expected: bool) -> None:
    assert arm("full", read, FLAT).has_won == expected


@pytest.mark.parametrize(
    ("has_time", "gained", "expected"),
    [
        (True, True, ["full"]),  # all layers at once, and nothing after them
        (True, False, ["full"]),
        (False, True, ["partial"]),
        (False, False, ["partial"]),
    ],
)
def test_where_there_is_time_all_layers_are_tried(
    job: Job, monkeypatch: pytest.MonkeyPatch, has_time: bool, gained: bool, expected: list[str]
) -> None:
    tried = []

    def read(entered: Race, development: Development, tried_arm: DeepArm, linear: LinearArm) -> None:
        tried.append(tried_arm.name)
        tried_arm.reading, tried_arm.flat = reading("1" * 40 if gained else "0" * 40), reading("10" * 20)

    monkeypatch.setattr(race, "_try", read)
    monkeypatch.setattr(race.Race, "has_time_for", lambda entered, arm: has_time or arm.name == "partial")
    linear = LinearArm("linear-svm", job.recipe, reading("10" * 20), 0.0)
    winner = race.run_race(put_test_aside(job), linear, linear.reading, is_bigger=False).winner
    assert tried == expected
    assert (winner.name if winner else None) == (expected[0] if gained else None)


@pytest.mark.parametrize(
    ("settings", "is_bigger", "expected"),
    [
        ([], False, ("val", "continue")),  # to train again from the start would take as long again
        ([], True, (1.0, "continue")),
        (["train.refit=true"], True, (1.0, True)),
        (["train.refit=true"], False, ("val", True)),
        (["train.blend=val"], True, ("val", "continue")),
        (["train.frozen_epochs=1"], True, (1.0, None)),
        (["choice.blend=false"], False, (1.0, "continue")),
        (["train.start=zero"], False, (1.0, "continue")),  # there is nothing half way to zeros
    ],
)
def test_how_layers_are_trained_that_race(settings: list[str], is_bigger: bool, expected: tuple) -> None:
    arms = race.offer(load_recipe("auto", settings), is_bigger=is_bigger)
    assert {(arm.recipe.train.blend, arm.recipe.train.refit) for arm in arms} == {expected}


def test_what_is_usual_counts_as_much_as_it_is_certain() -> None:
    usual = Gap(0.1, 0.1)
    assert Gap(0.03, 0.07).with_prior(usual).is_worth_it  # a small gain on few images
    assert not Gap(-0.06, 0.07).with_prior(usual).is_worth_it
    assert not Gap(0.003, 0.004).with_prior(usual).is_worth_it  # many images: it no longer matters
    assert Gap(0.005, 0.004).with_prior(usual).is_worth_it
    assert Gap(0.05, 0.05, n=20).with_prior(usual).is_worth_it  # one image more of twenty ...
    assert not Gap(0.001, 0.001, n=1000).with_prior(usual).is_worth_it  # ... and of a thousand
    both = Gap(0.0, 0.1).with_prior(usual)
    assert (both.mean, both.standard_error) == (pytest.approx(0.05), pytest.approx(0.1 / math.sqrt(2)))


def test_a_difference_on_too_few_images_is_nothing_in_the_record() -> None:
    deep = arm("partial", "11111111", "11111110")  # eight images
    deep.prior = Gap(0.0, 0.0)  # beside a linear head that gets nothing wrong
    assert deep.weighed is not None
    assert not deep.weighed.is_known
    row = _deep_row(deep, deep)
    assert row["gap"] is row["weighed_gap"] is row["weighed_standard_error"] is None
    json.dumps(row, allow_nan=False)


def test_an_arm_may_win_by_what_is_usual() -> None:
    partial = arm("partial", FLAT, FLAT)
    assert not partial.has_won
    partial.prior = Gap(0.2, 0.2)
    assert partial.has_won


def test_few_images_that_are_answered_alike_are_no_certainty() -> None:
    deep = arm("full", "1111111111" + "1110" + "0" * 6, "1111111111" + "1111" + "0" * 6)  # one of 20 images worse
    deep.prior = Gap(0.12, 0.12)
    assert deep.weighed is not None
    assert not deep.has_won
    deep.differing = 0.2  # on all images every fifth is answered differently
    assert deep.weighed.standard_error > deep.gap.standard_error
    assert deep.has_won
    many = Gap(-0.01, 0.02, n=1000)
    assert many.no_surer_than(0.2) == many


def test_of_few_images_what_is_more_likely_better_is_taken() -> None:
    deep = arm("full", "1" * 18, "1" * 18)
    deep.prior = Gap(0.004, 0.004)  # beside a linear head that gets hardly anything wrong
    assert not deep.has_won
    deep.is_bigger = False
    assert deep.has_won
    deep.reading = reading("1" * 15 + "000")
    assert deep.weighed is not None
    assert deep.weighed.mean > 0  # what is usual is surer than three images, ...
    assert not deep.has_won  # ... which are clearly worse
    deep.differing = 0.5  # on all images
    assert deep.has_won


def test_an_arm_that_leads_back_to_the_solved_head_is_not_taken() -> None:
    partial = arm("partial", "1111111111", FLAT)
    assert partial.has_won
    partial.keeps_start = True
    assert not partial.has_won


def test_an_arm_that_would_not_be_done_in_time_is_left_out_and_that_is_recorded() -> None:
    entered = Race([], Allowance(300.0))
    late = DeepArm("full", load_recipe("full"), predicted_seconds=600.0)
    assert not entered.has_time_for(late)
    assert "about 10 minutes" in late.outcome
    assert entered.allowance.to_dict()["was_bound"]
    begun = DeepArm("full", load_recipe("full"), predicted_seconds=600.0, is_begun=True)
    assert entered.has_time_for(begun)


@pytest.mark.parametrize(("left", "again", "expected"), [(80.0, 1.0, True), (60.0, 1.0, False), (60.0, 0.25, True)])
def test_another_trial_leaves_time_for_the_end(left: float, again: float, expected: bool) -> None:
    partial = DeepArm("partial", load_recipe("partial"), seconds=20.0, n_trials=1, predicted_seconds=100.0, again=again)
    entered = Race([partial], Allowance(left))
    assert entered.has_time_for_more(partial) == expected
    assert bool(entered.allowance.bound) == (not expected)


def test_where_the_user_gave_a_time_a_training_may_be_shorter() -> None:
    assert Allowance(300.0, is_asked=True).suffices(590.0)
    assert not Allowance(300.0, is_asked=True).suffices(610.0)
    assert not Allowance(300.0).suffices(310.0)


@pytest.mark.parametrize("n_train", [200, 500, 800, 1200, 1999, 2200, 4000])
def test_the_usual_time_suffices_for_all_layers(n_train: int) -> None:
    n_val = n_train // 5
    epochs = max(10, math.ceil(200 / math.ceil(n_train / 32)))
    again = 1.0 if n_train + n_val < 1000 else courses._ONWARDS
    n_steps = epochs * (n_train + n_val / 3 + again * (n_train + n_val))
    assert 0.03 * n_steps <= allow(Clock(), 0.03, n_train, again=again).seconds
    assert 1.1 * 0.025 * n_steps <= allow(Clock(), 0.025, n_train, again=again).seconds  # with time to spare


def test_a_time_that_was_given_is_the_allowance() -> None:
    allowance = allow(Clock(minutes=2), 0.03, 1000, again=1.0)
    assert allowance.is_asked
    assert 119 < allowance.seconds <= 120


def test_a_trial_leaves_the_network_as_it_was_and_is_gone_on_from(job: Job, monkeypatch: pytest.MonkeyPatch) -> None:
    development = put_test_aside(job)
    before = {name: tensor.clone() for name, tensor in job.backbone.model.state_dict().items()}
    race.machine.keep_memory()
    entered = race.enter(development, race.offer(development.recipe))
    partial = entered.arms[0]
    race._read(entered, development, partial)
    after = job.backbone.model.state_dict()
    assert all((tensor == after[name]).all() for name, tensor in before.items())
    taken = []
    monkeypatch.setattr("transfer.strategies.tuning.Checkpoints.save", lambda *_: taken.append("a step"))
    final = dataclasses.replace(job, recipe=partial.recipe, cut=partial.cut, resume=True)
    trained = transfer.strategies.finetuning.fine_tune(final)
    assert trained.about["was_resumed"]
    assert not taken  # everything was done already


def test_a_killed_race_goes_on_where_it_was(
    shapes: Path, weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TRANSFER_CACHE", str(tmp_path / "cache"))
    options = {"settings": QUICK, "backbone": "test_resnet", "weights": str(weights), "quiet": True}
    whole = transfer.fit(shapes, out=tmp_path / "whole", **options)

    def killed(part: Development, recipe: Any) -> Reading:
        raise KeyboardInterrupt

    with monkeypatch.context() as during:
        during.setattr(race, "read_on_val", killed)  # what comes after the first trial
        with pytest.raises(KeyboardInterrupt):
            transfer.fit(shapes, out=tmp_path / "run", **options)
    assert list((tmp_path / "cache" / "training").glob("*/*.safetensors"))
    again = transfer.fit(shapes, out=tmp_path / "run", resume=True, **options)
    assert again.info["model"]["sha256"] == whole.info["model"]["sha256"]
    assert [arm["accuracy"] for arm in again.choice.arms] == [arm["accuracy"] for arm in whole.choice.arms]
    assert not list((tmp_path / "cache" / "training").glob("*"))


def test_the_recipe_of_the_run_makes_the_same_model_without_choosing(
    shapes: Path, weights: Path, tmp_path: Path
) -> None:
    options = {"backbone": "test_resnet", "weights": str(weights), "quiet": True}
    chosen = transfer.fit(shapes, settings=QUICK, out=tmp_path / "chosen", **options)
    again = transfer.fit(shapes, chosen.path / "recipe.yaml", out=tmp_path / "again", quiet=True)
    assert again.choice is None
    assert again.info["model"]["sha256"] == chosen.info["model"]["sha256"]
    assert chosen.asked.strategy == "auto"


def test_for_another_domain_nothing_is_chosen(shapes: Path, weights: Path, tmp_path: Path) -> None:
    target = tmp_path / "target"
    for path in shapes.glob("*/*0.png"):
        (target / path.parent.name).mkdir(parents=True, exist_ok=True)
        Image.open(path).convert("L").save(target / path.parent.name / path.name)
    options = {"backbone": "test_resnet", "weights": str(weights), "quiet": True}
    run = transfer.fit(shapes, "auto", test=target, out=tmp_path / "run", **options)
    assert run.choice is not None
    assert run.choice.chosen == "linear-svm"
    assert "may be wrong for the target" in run.choice.reason


def test_a_handful_of_images_tells_nothing() -> None:
    found = gap(reading("1"), reading("0"))
    assert not found.is_known
    assert not found.is_won
    assert not found.is_settled
    assert "too few" in str(found)


def test_auto_leaves_no_checkpoints(shapes: Path, weights: Path, tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setenv("TRANSFER_CACHE", str(tmp_path / "cache"))
    transfer.fit(shapes, settings=QUICK, backbone="test_resnet", weights=str(weights), out=tmp_path / "run", quiet=True)
    assert not list((tmp_path / "cache" / "training").glob("*"))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (["head.dropout=0.5"], "leave out head.dropout"),
        (["tap=layer3"], "leave out tap"),
        (["train.keep=last"], "leave out train.keep"),
        (["features.views=2"], "leave out tap and features"),
        (["strategy=ridge", "choice.race=false"], "settings of choice go with --recipe auto"),
    ],
)
def test_what_auto_cannot_take_is_refused(settings: list[str], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        load_recipe("auto", settings)


@pytest.mark.parametrize(
    ("changes", "settings", "expected"),
    [
        ({}, [], "auto"),
        ({"seed": 1}, ["train.epochs=2"], "auto"),
        ({"cut": "layer2"}, [], "partial"),
        ({"tap": "layer2"}, [], "linear-svm"),
        ({}, ["features.views=2"], "linear-svm"),
        ({}, ["features.image_size=128"], "auto"),
        ({}, ["head.dropout=0.5"], "linear-svm"),
    ],
)
def test_where_no_recipe_is_named_the_settings_say_which_is_meant(
    changes: dict[str, Any], settings: list[str], expected: str
) -> None:
    assert load_recipe(None, settings, **changes).strategy == expected


def test_a_cut_that_does_not_exist_is_refused_before_the_work(shapes: Path, weights: Path, tmp_path: Path) -> None:
    options = {"backbone": "test_resnet", "weights": str(weights), "quiet": True}
    with pytest.raises(UsageError, match="layer9"):
        transfer.fit(shapes, "auto", cut="layer9", out=tmp_path / "run", **options)


def test_one_image_of_each_class_gives_a_run_and_valid_json(shapes: Path, weights: Path, tmp_path: Path) -> None:
    run = transfer.fit(
        shapes, settings=["data.per_class=1", "data.val_share=0.01"], backbone="test_resnet", weights=str(weights),
        out=tmp_path / "run", quiet=True,
    )  # fmt: skip
    assert run.choice is not None
    json.loads((run.path / "choice.json").read_text(), parse_constant=pytest.fail)


def test_hand_made_features_have_no_deeper_layers(shapes: Path, tmp_path: Path) -> None:
    run = transfer.fit(shapes, backbone="pixels", out=tmp_path / "run", quiet=True)
    assert run.choice is not None
    assert run.choice.chosen in ("linear-svm", "frozen")
    assert all("not offered" in arm["outcome"] for arm in run.choice.arms if arm["name"] in ("partial", "full"))


def test_a_development_part_is_a_job(job: Job) -> None:
    development: Development = put_test_aside(job)
    assert isinstance(development, Job)
