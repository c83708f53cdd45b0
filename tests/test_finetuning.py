import csv
import itertools
import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

import transfer
from transfer.errors import DataError, ResourceError, UsageError
from transfer.images import load_view, normalise
from transfer.strategies import courses, tuning
from transfer.training import loop

pytestmark = pytest.mark.usefixtures("one_thread")
QUICK = ["train.min_steps=0", "train.epochs=4", "train.batch_size=16", "train.augment=none"]
QUICK += ["train.lr=0.003", "train.backbone_lr=0.1", "train.layer_decay=0.9", "train.label_smoothing=0"]


@pytest.fixture
def tiny(weights: Path) -> dict:
    return {"backbone": "test_resnet", "weights": str(weights), "exact": True, "quiet": True}


def moved(run: transfer.Run, weights: Path) -> set[str]:
    """Return the names of the backbone's tensors that differ from those it started with."""
    before, after = load_file(weights), load_file(run.path / "model.safetensors")
    return {name for name in before if not torch.equal(before[name], after[name])}


def test_partial_trains_what_is_right_of_the_cut_and_nothing_else(
    shapes: Path, tiny: dict, weights: Path, tmp_path: Path
) -> None:
    run = transfer.fit(shapes, "partial", out=tmp_path / "run", settings=[*QUICK, "cut=layer2"], **tiny)
    assert run.info["training"]["best_epoch"] > 0
    changed = moved(run, weights)
    assert changed
    assert all(name.startswith(("layer3", "layer4")) for name in changed)
    assert not [name for name in changed if "running" in name]
    rows = list(csv.DictReader((run.path / "history.csv").read_text().splitlines()))
    assert [int(row["epoch"]) for row in rows] == [0, 1, 2, 3, 4]
    kept = rows[run.info["training"]["best_epoch"]]
    assert float(kept["val_accuracy"]) >= float(rows[0]["val_accuracy"])
    assert run.info["training"]["stopped"] == ""
    assert run.info["strategy"] == "partial"
    assert "Val chose the epoch" in run.info["head"]["rule"]


def test_the_usual_cut_leaves_the_last_two_stages(shapes: Path, tiny: dict, weights: Path, tmp_path: Path) -> None:
    run = transfer.fit(shapes, "partial", out=tmp_path / "run", settings=QUICK, **tiny)
    assert run.info["training"]["cut"] == "layer2"


def test_full_trains_every_layer(shapes: Path, tiny: dict, weights: Path, tmp_path: Path) -> None:
    run = transfer.fit(shapes, "full", out=tmp_path / "run", settings=QUICK, **tiny)
    assert run.info["training"]["best_epoch"] > 0
    assert {name.split(".")[0] for name in moved(run, weights)} >= {"conv1", "layer1", "layer4"}
    assert run.info["training"]["cut"] == "pixels"


@pytest.mark.parametrize("strategy", ["partial", "full"])
def test_a_tuned_run_predicts_what_was_reported_and_timm_loads_it(
    shapes: Path, tiny: dict, tmp_path: Path, strategy: str
) -> None:
    import timm

    run = transfer.fit(shapes, strategy, out=tmp_path / "run", settings=QUICK, **tiny)
    assert run.info["training"]["best_epoch"] > 0
    rows = list(csv.DictReader((run.path / "predictions.csv").read_text().splitlines()))
    predictions = transfer.load_run(run.path).predict([shapes / row["path"] for row in rows])
    assert predictions.labels == [row["predicted"] for row in rows]
    for row, p in zip(rows, predictions.probabilities, strict=True):
        assert float(row["probability"]) == pytest.approx(p.max(), abs=1e-3)
    model = timm.create_model(f"local-dir:{run.path}", pretrained=True).eval()
    views = torch.stack([load_view(shapes / row["path"], run.backbone.preprocessing) for row in rows])
    with torch.inference_mode():
        probabilities = model(normalise(views, run.backbone.preprocessing)).softmax(1).numpy()
    np.testing.assert_allclose(probabilities, predictions.probabilities, atol=1e-3)


def test_where_training_adds_nothing_the_result_is_the_linear_one(
    shapes: Path, tiny: dict, weights: Path, tmp_path: Path
) -> None:
    options = [*QUICK, "cut=layer2", "train.lr=1.0e-30"]  # too little to change a score in float32
    run = transfer.fit(shapes, "partial", out=tmp_path / "run", settings=options, **tiny)
    linear = transfer.fit(shapes, "logistic", out=tmp_path / "linear", **tiny)
    assert run.info["training"]["best_epoch"] == 0
    assert "the network stays as it was" in run.info["head"]["rule"]
    assert moved(run, weights) == set()
    assert run.metrics["test"] == linear.metrics["test"]


def test_the_same_seed_gives_the_same_model(shapes: Path, tiny: dict, tmp_path: Path) -> None:
    settings = [*QUICK, "train.augment=standard", "train.views=2"]
    runs = [transfer.fit(shapes, "partial", out=tmp_path / name, settings=settings, **tiny) for name in "ab"]
    assert runs[0].info["model"]["sha256"] == runs[1].info["model"]["sha256"]


def test_without_room_for_a_cache_the_frozen_part_runs_live_to_the_same_weights(
    shapes: Path, tiny: dict, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    tiny = {**tiny, "quiet": False}
    cached = transfer.fit(shapes, "partial", out=tmp_path / "cached", settings=QUICK, **tiny)
    monkeypatch.setattr(courses, "_DISK_SHARE", 0.0)
    live = transfer.fit(shapes, "partial", out=tmp_path / "live", settings=QUICK, **tiny)
    assert "no room" in capsys.readouterr().err
    assert live.info["training"]["views"] == 0
    assert live.info["model"]["sha256"] == cached.info["model"]["sha256"]


@pytest.mark.parametrize("strategy", ["partial", "full"])
def test_where_images_are_few_those_of_val_are_trained_on_in_the_end(
    shapes: Path, tiny: dict, tmp_path: Path, strategy: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[tuple[int, bool]] = []
    train = tuning.train

    def watched(trainee, groups, examples, val, settings, *rest, **options):
        seen.append((len(examples.labels), val is None))
        return train(trainee, groups, examples, val, settings, *rest, **options)

    monkeypatch.setattr(tuning, "train", watched)
    once, again, onwards = (
        transfer.fit(shapes, strategy, out=tmp_path / name, settings=[*QUICK, f"train.refit={name}"], **tiny)
        for name in ("false", "null", "continue")
    )
    parts = [row["split"] for row in csv.DictReader((once.path / "split.csv").read_text().splitlines())]
    n_train, n_val = parts.count("train"), parts.count("val")
    assert seen == [(n_train, False), *2 * [(n_train, False), (n_train + n_val, True)]]
    assert (once.info["training"]["was_refitted"], again.info["training"]["was_refitted"]) == (False, True)
    assert "on train and val together" in again.info["head"]["rule"]
    assert "Then trained for 1 epoch more on train and val together" in onwards.info["head"]["rule"]
    assert len({run.info["model"]["sha256"] for run in (once, again, onwards)}) == 3
    # of the training that had not seen val
    assert again.metrics["val"] == onwards.metrics["val"] == once.metrics["val"]
    assert again.info["head"]["temperature"] == once.info["head"]["temperature"]
    assert (again.path / "history.csv").read_text().splitlines()[1].split(",")[:7] == (
        once.path / "history.csv"
    ).read_text().splitlines()[1].split(",")[:7]


def test_a_training_goes_on_with_val_from_where_it_was_more_slowly(
    shapes: Path, tiny: dict, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = []
    train = tuning.train

    def watched(trainee, groups, examples, val, settings, *rest, **options):
        before = trainee.state()
        outcome = train(trainee, groups, examples, val, settings, *rest, **options)
        calls.append((before, trainee.state(), groups, settings, outcome))
        return outcome

    monkeypatch.setattr(tuning, "train", watched)
    options = {"settings": [*QUICK, "train.epochs=7", "train.refit=continue"], "out": tmp_path / "run", **tiny}
    run = transfer.fit(shapes, "full", **options)
    (_, chosen, fast, *_, first), (start, end, slow, settings, _) = calls
    assert all(torch.equal(start[name], chosen[name]) for name in chosen)  # the head too: it is not solved anew
    assert not all(torch.equal(start[name], end[name]) for name in chosen)
    assert [group["peak_lr"] for group in slow] == pytest.approx([0.3 * group["peak_lr"] for group in fast])
    n_onwards = max(1, round(0.3 * first.best_epoch))
    assert settings.n_epochs == settings.last_epoch == run.info["training"]["n_onwards"] == n_onwards
    assert run.info["training"]["was_refitted"]
    assert f"for {n_onwards} more epochs, on val too" in run.report.path.read_text()


@pytest.mark.parametrize("blend", ["1", "val"])
def test_a_training_that_was_stopped_while_it_went_on_with_val_ends_the_same(
    shapes: Path, tiny: dict, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, blend: str
) -> None:
    monkeypatch.setattr(loop, "_SAVE_SECONDS", 0.0)
    tried = itertools.count()
    monkeypatch.setattr(tuning.metrics, "log_loss", lambda *_: -next(tried))  # the shortest way is the best
    options = {"settings": [*QUICK, "train.refit=continue", f"train.blend={blend}"], "resume": True, **tiny}
    straight = transfer.fit(shapes, "partial", out=tmp_path / "straight", **options)
    step = loop._Training._step

    def fails(self, *inputs):
        if self.val is None and self.state.n_done == 2:
            raise MemoryError
        return step(self, *inputs)

    monkeypatch.setattr(loop._Training, "_step", fails)
    with pytest.raises(MemoryError):
        transfer.fit(shapes, "partial", out=tmp_path / "broken", **options)
    monkeypatch.setattr(loop._Training, "_step", step)
    run = transfer.fit(shapes, "partial", out=tmp_path / "broken", **options)
    assert run.info["training"]["was_resumed"]
    assert run.info["training"]["blend"] == (0.5 if blend == "val" else 1)
    assert run.info["model"]["sha256"] == straight.info["model"]["sha256"]


def test_where_the_last_epoch_is_kept_val_is_learned_from_at_once(
    shapes: Path, tiny: dict, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[tuple[int, bool]] = []
    train = tuning.train

    def watched(trainee, groups, examples, val, *rest, **options):
        seen.append((len(examples.labels), val is None))
        return train(trainee, groups, examples, val, *rest, **options)

    monkeypatch.setattr(tuning, "train", watched)
    run = transfer.fit(shapes, "full", out=tmp_path / "run", settings=[*QUICK, "train.keep=last"], **tiny)
    parts = [row["split"] for row in csv.DictReader((run.path / "split.csv").read_text().splitlines())]
    assert seen == [(parts.count("train") + parts.count("val"), True)]
    assert set(run.metrics) == {"test"}
    assert run.info["training"]["best_epoch"] == run.info["training"]["n_epochs"]
    page = transfer.write_report(run, tmp_path / "page.html").path.read_text()
    assert "nothing was chosen, and val was learned from" in page
    assert "Val chose the epoch" not in page
    assert "and not calibrated" in page
    assert "The probabilities are not calibrated" in (run.path / "README.md").read_text()


def test_a_blend_lies_between_the_solved_head_and_the_last_epoch(
    shapes: Path, tiny: dict, weights: Path, tmp_path: Path
) -> None:
    def tensors(name: str, *settings: str) -> dict[str, torch.Tensor]:
        options = [*QUICK, "train.keep=last", *settings]
        run = transfer.fit(shapes, "full", out=tmp_path / name, settings=options, report=False, **tiny)
        return load_file(run.path / "model.safetensors")

    start, end, blended = load_file(weights), tensors("end"), tensors("quarter", "train.blend=0.25")
    trained = [name for name in end if name in start and not torch.equal(start[name], end[name])]
    assert len(trained) > 10
    for name in trained:
        torch.testing.assert_close(blended[name], start[name] + 0.25 * (end[name] - start[name]))


def test_val_chooses_the_blend_with_the_least_log_loss(
    shapes: Path, tiny: dict, weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    offered = (1.0, 0.75, 0.5)
    seen: dict[float, float] = {}
    measure = tuning.metrics.log_loss

    def watched(probabilities: np.ndarray, labels: np.ndarray) -> float:
        if len(seen) == len(offered):  # that of the run's scores
            return measure(probabilities, labels)
        share = offered[len(seen)]
        seen[share] = measure(probabilities, labels) if chosen is None else float(share != chosen)
        return seen[share]

    def fit(name: str, *settings: str):
        seen.clear()
        return transfer.fit(shapes, "full", out=tmp_path / name, settings=[*QUICK, *settings], report=False, **tiny)

    monkeypatch.setattr(tuning.metrics, "log_loss", watched)
    chosen = None
    run = fit("own", "train.blend=val")
    assert len(seen) == 3
    assert run.info["training"]["blend"] == min(offered, key=seen.get)
    assert f"Weights {run.info['training']['blend']:g} of the way" in run.info["head"]["rule"]
    assert "lie" in transfer.write_report(run, tmp_path / "page.html").path.read_text()

    start, tensors = load_file(weights), {}
    for refit in ("false", "true", "continue"):  # half of the whole way, what comes with val included
        for chosen in (1.0, 0.5):
            half = fit(f"{chosen}-{refit}", "train.blend=val", f"train.refit={refit}")
            tensors[chosen] = load_file(half.path / "model.safetensors")
        for name in start.keys() & tensors[1.0].keys():
            if start[name].is_floating_point():
                torch.testing.assert_close(tensors[0.5][name], (start[name] + tensors[1.0][name]) / 2)


def test_an_epoch_below_the_start_is_not_called_kept(
    shapes: Path, tiny: dict, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    settings = ["train.epochs=1", "train.min_steps=0", "train.lr=1", "train.clip=1e6"]
    run = transfer.fit(shapes, "partial", out=tmp_path / "run", settings=settings, **{**tiny, "quiet": False})
    assert run.info["training"]["best_epoch"] == 0
    assert "What 1 epoch led to" in run.info["head"]["rule"]
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("Epoch 1/1")]
    assert len(lines) == 1
    assert "kept" not in lines[0]


def test_without_time_for_it_nothing_is_trained_again(
    shapes: Path, tiny: dict, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    tiny = {**tiny, "quiet": False}
    once = transfer.fit(shapes, "partial", out=tmp_path / "once", settings=[*QUICK, "train.refit=false"], **tiny)
    run_through = tuning.Tuning.run

    def late(self):
        outcome = run_through(self)
        self.job.clock.deadline = time.perf_counter()
        return outcome

    monkeypatch.setattr(tuning.Tuning, "run", late)
    run = transfer.fit(shapes, "partial", out=tmp_path / "run", settings=QUICK, **tiny)
    assert "No time is left" in capsys.readouterr().err
    assert not run.info["training"]["was_refitted"]
    assert run.info["model"]["sha256"] == once.info["model"]["sha256"]


def test_a_float16_cache_changes_little(shapes: Path, tiny: dict, tmp_path: Path) -> None:
    exact = transfer.fit(shapes, "partial", out=tmp_path / "exact", settings=QUICK, **tiny)
    half = transfer.fit(shapes, "partial", out=tmp_path / "half", settings=QUICK, **{**tiny, "exact": False})
    assert half.info["training"]["best_epoch"] > 0
    low, high = exact.metrics["val"]["accuracy_interval"]
    assert low <= half.metrics["val"]["accuracy"] <= high


def test_it_says_before_the_work_what_it_will_do(
    shapes: Path, tiny: dict, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    transfer.fit(shapes, "partial", out=tmp_path / "run", settings=QUICK, **{**tiny, "quiet": False})
    said = capsys.readouterr().err
    plan = said[: said.index("Epoch 0")]
    assert "Cut at 'layer2'" in plan
    assert "are trained" in plan
    assert "stay frozen" in plan
    assert "Cached on disk: 1 view of each training image" in plan
    assert "4 epochs of" in plan
    assert " s of training" in plan


def test_a_time_budget_means_fewer_epochs(shapes: Path, tiny: dict, tmp_path: Path) -> None:
    settings = ["train.epochs=100000", "train.minutes=0.12", "train.augment=none"]
    started = time.perf_counter()
    run = transfer.fit(shapes, "partial", out=tmp_path / "run", settings=settings, **tiny)
    assert time.perf_counter() - started < 15
    assert run.info["training"]["n_epochs"] < 100_000


def test_fewer_images_per_class(shapes: Path, tiny: dict, tmp_path: Path) -> None:
    few = transfer.fit(shapes, "partial", out=tmp_path / "few", settings=[*QUICK, "data.per_class=5"], **tiny)
    all_of_them = transfer.fit(shapes, "linear-svm", out=tmp_path / "all", **tiny)
    rows = list(csv.DictReader((few.path / "split.csv").read_text().splitlines()))
    n_train = [sum(row["split"] == "train" and row["label"] == name for row in rows) for name in few.classes]
    assert n_train == [5, 5, 5]
    assert few.metrics["test"]["n"] == all_of_them.metrics["test"]["n"]


def test_a_cut_may_be_called_by_the_block_that_ends_there(shapes: Path, tiny: dict, tmp_path: Path) -> None:
    by_block = transfer.fit(shapes, out=tmp_path / "a", settings=[*QUICK, "cut=layer2.0"], **tiny)
    by_stage = transfer.fit(shapes, out=tmp_path / "b", settings=[*QUICK, "cut=layer2"], **tiny)
    assert by_block.info["training"]["cut"] == "layer2"
    assert by_block.info["model"]["sha256"] == by_stage.info["model"]["sha256"]


def test_an_interrupted_fit_goes_on_with_what_it_decided_at_its_start(
    shapes: Path, tiny: dict, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    settings = [*QUICK, "train.epochs=6", "train.augment=standard"]
    straight = transfer.fit(shapes, "partial", out=tmp_path / "straight", settings=settings, **tiny)
    step = loop._Training._step

    def interrupted(self, *args):
        if self.state.n_done == 9:
            signal.raise_signal(signal.SIGINT)
        return step(self, *args)

    monkeypatch.setattr(loop._Training, "_step", interrupted)
    with pytest.raises(KeyboardInterrupt):
        transfer.fit(shapes, "partial", out=tmp_path / "run", settings=settings, **tiny)
    assert not (tmp_path / "run").exists()
    monkeypatch.setattr(loop._Training, "_step", step)
    monkeypatch.setattr(courses, "_DISK_SHARE", 0.0)  # would now choose no view
    run = transfer.fit(
        shapes, "partial", out=tmp_path / "run", settings=settings, resume=True, **{**tiny, "quiet": False}
    )
    assert "Going on from step" in capsys.readouterr().err
    assert run.info["training"]["views"] == straight.info["training"]["views"] == 4
    assert run.info["model"]["sha256"] == straight.info["model"]["sha256"]
    transfer.fit(shapes, "partial", out=tmp_path / "anew", settings=settings, resume=True, **{**tiny, "quiet": False})
    assert "No checkpoint of this very training" in capsys.readouterr().err  # a finished run leaves none


def test_fitting_leaves_the_callers_draws_alone(shapes: Path, tiny: dict, tmp_path: Path) -> None:
    torch.manual_seed(3)
    expected = torch.rand(1)
    torch.manual_seed(3)
    transfer.fit(shapes, "partial", out=tmp_path / "run", settings=QUICK, **tiny)
    assert torch.equal(torch.rand(1), expected)


def test_wrong_settings_are_refused_in_words(shapes: Path, tiny: dict, tmp_path: Path) -> None:
    def refused(error: type[Exception], match: str, strategy: str, *settings: str) -> None:
        with pytest.raises(error, match=match):
            transfer.fit(shapes, strategy, out=tmp_path / "run", settings=[*QUICK, *settings], **tiny)

    refused(UsageError, "has no cut 'layer9'.*Did you mean 'layer", "partial", "cut=layer9")
    refused(UsageError, "`full` cuts at the pixels", "full", "cut=layer2")
    refused(UsageError, "leave out tap and features", "partial", "tap=layer2")
    refused(UsageError, "head.multiclass", "partial", "head.multiclass=pairs")
    refused(UsageError, "train.blend=NUMBER goes with train.keep=last", "full", "train.blend=0.5")
    refused(UsageError, "train.blend.* should be less than or equal to 1", "full", "train.blend=2")
    refused(UsageError, "val cannot choose train.blend", "full", "train.keep=last", "train.blend=val")
    refused(UsageError, "leave out train.refit and train.patience", "full", "train.keep=last", "train.patience=3")
    refused(UsageError, "train.refit=continue goes on", "full", "train.refit=continue", "train.frozen_epochs=1")
    refused(UsageError, "train.refit is 'maybe': .*'continue'", "full", "train.refit=maybe")
    refused(UsageError, "CutMix needs maps", "partial", "train.cutmix=1", "backbone=test_vit", "weights=random")
    refused(UsageError, "goes with --recipe partial", "linear-svm", "cut=layer2")
    refused(UsageError, "go with --recipe partial or full", "logistic")
    refused(UsageError, "Did you mean 'epochs'", "partial", "train.epoch=3")
    refused(UsageError, "train.augment is 'heavy'", "partial", "train.augment=heavy")
    assert not (tmp_path / "run").exists()
    names = ("circle", "square")
    two_each = [
        sorted((shapes / name).glob("*.png"))[i] for name in names for i in (0, 1)
    ]  # one for test, none for val
    with pytest.raises(DataError, match="validation images"):
        transfer.fit((two_each, [path.parent.name for path in two_each]), "partial", out=tmp_path / "run", **tiny)


@pytest.mark.slow
def test_killed_trainings_go_on_exactly(shapes: Path, weights: Path, tmp_path: Path) -> None:
    """Kill at random moments, again and again, until one gets through: the weights are those of a quiet run."""
    settings = ["train.min_steps=0", "train.epochs=12", "train.batch_size=8", "train.views=2", "cut=layer1"]
    command = [sys.executable, "-c", _SLOWLY, "fit", str(shapes), "--recipe", "partial", "--exact", "-q", "--resume"]
    command += ["--backbone", "test_resnet", "--weights", str(weights)]
    command += [word for setting in settings for word in ("--set", setting)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}

    def run(name: str, kill: bool) -> bool:
        own = {**environment, "TRANSFER_CACHE": str(tmp_path / f"cache-{name}")}
        running = subprocess.Popen([*command, "--out", str(tmp_path / name)], env=own)
        if kill:
            folder = tmp_path / f"cache-{name}" / "training"
            while running.poll() is None and not list(folder.glob("*/*.safetensors")):
                time.sleep(0.02)
            time.sleep(random.Random(len(list(tmp_path.rglob("*")))).uniform(0, 0.6))
            running.kill()
        return running.wait() == 0

    assert run("straight", kill=False)
    n_killed = 0
    while n_killed < 4 and not run("broken", kill=True):
        n_killed += 1
    assert n_killed >= 2
    if not (tmp_path / "broken").exists():
        assert run("broken", kill=False)
    expected, found = (load_file(tmp_path / name / "model.safetensors") for name in ("straight", "broken"))
    assert all(torch.equal(expected[name], found[name]) for name in expected)
    assert json.loads((tmp_path / "broken/run.json").read_text())["training"]["was_resumed"]
    assert not list(tmp_path.rglob("*.partial"))


# a step takes a while, so that there is time to be killed; a checkpoint after every step
_SLOWLY = """
import sys, time
from transfer.training import loop
loop._SAVE_SECONDS = 0.0
step = loop._Training._step
def slow(self, *args):
    time.sleep(0.03)
    return step(self, *args)
loop._Training._step = slow
from transfer.cli import main
main()
"""


@pytest.mark.real
def test_deeper_layers_help_far_from_imagenet(shared: Path, tmp_path: Path) -> None:
    data = shared / "data/signdigits"
    settings = ["data.per_class=15", "train.epochs=15", "train.views=2"]
    frozen = transfer.fit(data, "linear-svm", out=tmp_path / "frozen", settings=settings[:1], quiet=True)
    tuned = transfer.fit(data, "partial", out=tmp_path / "tuned", settings=settings, quiet=True)
    assert tuned.metrics["test"]["n"] == frozen.metrics["test"]["n"] == 412
    assert tuned.metrics["test"]["accuracy"] > frozen.metrics["test"]["accuracy"] + 0.02


def test_a_log_for_tensorboard_has_every_epoch_of_the_history(
    shapes: Path, tiny: dict, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    monkeypatch.chdir(tmp_path)
    run = transfer.fit(shapes, "partial", out="runs/mine", log="tensorboard", settings=QUICK, **tiny)
    events = EventAccumulator("runs/tensorboard/mine")
    events.Reload()
    rows = list(csv.DictReader((run.path / "history.csv").read_text().splitlines()))
    for tag, column in (("accuracy/val", "val_accuracy"), ("loss/train", "loss"), ("rate", "lr")):
        found = {event.step: event.value for event in events.Scalars(tag)}
        expected = {int(row["epoch"]): float(row[column]) for row in rows if row[column]}
        assert found == pytest.approx(expected), tag


def test_a_log_is_refused_where_there_is_nothing_to_log_or_nothing_to_log_with(
    shapes: Path, tiny: dict, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(UsageError, match="has no epochs"):
        transfer.fit(shapes, "ridge", out=tmp_path / "run", log="tensorboard", **tiny)
    monkeypatch.setattr("transfer.training.logs.find_spec", lambda name: None)
    with pytest.raises(ResourceError, match="pip install"):
        transfer.fit(shapes, "partial", out=tmp_path / "run", log="tensorboard", **tiny)
    assert not (tmp_path / "run").exists()
