import csv
import dataclasses
import json
import os
import shutil
import signal
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest
from PIL import Image

import transfer
from transfer import cli
from transfer.comparison import RECIPES, charts, comparing, processes
from transfer.comparison.plans import make_plan
from transfer.comparison.results import Result, require_same, require_same_test_images
from transfer.comparison.tables import COLUMNS, charge, describe, tabulate
from transfer.dataset import scan
from transfer.errors import ArtefactError, UsageError
from transfer.metrics import paired_p_value, wilson


def result(recipe: str, right: str, seed: int = 0, first: int = 0, **more: object) -> Result:
    """A fit that was right on some of the images `first`, `first` + 1, ...: "1101" on all but the third."""
    tested = tuple((f"{first + i:03d}.jpg", "ant") for i in range(len(right)))
    values = {"val_accuracy": 0.5, "seconds": 1.0, "model_bytes": 2_000_000, "peak_memory_bytes": 5_000_000, **more}
    settings = transfer.load_recipe(recipe, seed=seed)
    return Result(recipe, seed, settings, tested, tuple(mark == "1" for mark in right), **values)


def by_recipe(results: list[Result]) -> dict[str, dict]:
    return {row["recipe"]: row for row in tabulate(results)}


def test_the_best_on_test_comes_first_and_a_tie_goes_to_the_faster() -> None:
    slow, fast = result("frozen", "1110", seconds=2.0), result("ridge", "0111", seconds=1.0)
    rows = tabulate([result("knn", "1100"), slow, fast])
    assert [row["recipe"] for row in rows] == ["ridge", "frozen", "knn"]
    assert all(tuple(row) == COLUMNS for row in rows)
    assert rows[0]["p_value"] is None
    assert rows[0]["model_mb"] == 2
    assert rows[0]["peak_memory_mb"] == 5


def test_with_one_seed_the_interval_is_wilsons() -> None:
    row = by_recipe([result("ridge", "1" * 9 + "0")])["ridge"]
    assert (row["accuracy_low"], row["accuracy_high"]) == pytest.approx(wilson(9, 10))
    assert row["accuracy_deviation"] is None


def test_seeds_that_test_the_same_images_do_not_narrow_the_interval_and_others_do() -> None:
    right = "1" * 8 + "0" * 2
    same = by_recipe([result("ridge", right, seed) for seed in (0, 1)])["ridge"]
    other = by_recipe([result("ridge", right, seed, first=100 * seed) for seed in (0, 1)])["ridge"]
    assert (same["accuracy_low"], same["accuracy_high"]) == pytest.approx(wilson(8, 10))
    assert (other["accuracy_low"], other["accuracy_high"]) == pytest.approx(wilson(16, 20))
    assert (same["n_test"], other["n_test"]) == (10, 20)


def test_the_deviation_is_over_seeds() -> None:
    row = by_recipe([result("ridge", "1100", 0), result("ridge", "1110", 1)])["ridge"]
    assert row["accuracy"] == pytest.approx(0.625)
    assert row["accuracy_deviation"] == pytest.approx(0.125 * 2**0.5)


def test_p_is_of_the_test_images_of_all_seeds_together() -> None:
    best = [result("ridge", "111111", seed) for seed in (0, 1)]
    worse = [result("knn", "000111", seed) for seed in (0, 1)]
    row = by_recipe([*worse, *best])["knn"]
    assert row["p_value"] == 2 / 2**6 == paired_p_value([0] * 6, [1] * 6)
    assert not row["covers_best"]
    assert by_recipe([*worse, *best])["ridge"]["covers_best"]


def test_a_recipe_that_failed_with_one_seed_has_a_reason_and_no_numbers() -> None:
    failed = Result("knn", 1, transfer.load_recipe("knn"), error="No neighbours.")
    rows = tabulate([result("knn", "1111", 0), failed, result("ridge", "0011", 0), result("ridge", "0001", 1)])
    assert [row["recipe"] for row in rows] == ["ridge", "knn"]
    assert rows[1]["error"] == "No neighbours."
    assert rows[1]["accuracy"] is None
    assert tabulate([failed])[0]["accuracy"] is None
    assert describe(tabulate([failed]), [failed]) == []


def test_features_from_the_cache_cost_what_they_cost_where_they_were_computed() -> None:
    first = result("linear-svm", "1", seconds=11.0, steps={"features": 10.0, "head": 1.0})
    later = result("frozen", "1", seconds=2.5, steps={"features": 0.5, "head": 2.0})
    again = result("frozen", "1", seed=1, seconds=2.0, steps={"features": 0.25, "head": 1.75})
    other = result("pixels", "1", seconds=0.5, steps={"features": 0.25, "head": 0.25})
    seconds = charge([first, later, again, other])
    assert seconds == {("linear-svm", 0): 11.0, ("frozen", 0): 12.0, ("frozen", 1): 11.75, ("pixels", 0): 0.5}


def test_a_view_more_costs_a_pass_more_and_cross_validation_nothing() -> None:
    one = result("ridge", "1", seconds=4.0, steps={"features": 3.0, "cross-validation": 0.5})
    ten = transfer.load_recipe("ridge", ["features.views=10"])
    many = dataclasses.replace(result("ridge", "1"), recipe="ten", settings=ten, seconds=30.0, steps={"features": 27.0})
    assert charge([one, many]) == {("ridge", 0): 3.5, ("ten", 0): 33.0}


def test_views_drawn_by_another_seed_are_not_shared_and_decoded_images_are() -> None:
    partial = [result("partial", "1", seed, seconds=5.0, steps={"views": 4.0 - seed}) for seed in (0, 1)]
    full = [result("full", "1", seed, seconds=5.0, steps={"views": 4.0 - seed}) for seed in (0, 1)]
    seconds = charge([*partial, *full])
    assert seconds["partial", 1] == 5.0
    assert seconds["full", 1] == 6.0


def test_the_notes_say_who_is_flattered_and_whom_val_chooses() -> None:
    results = [result("ridge", "1110", val_accuracy=0.6), result("partial", "1100", val_accuracy=0.7)]
    notes = " ".join(describe(tabulate(results), results))
    assert "best of 2 by test accuracy is flattered" in notes
    assert "Val chooses partial: 50.0% on test." in notes
    assert "Val chose the epoch of partial too" in notes
    assert "share test images" not in notes


def test_where_val_is_equal_the_first_one_named_is_taken_whatever_the_seconds() -> None:
    seconds = {"knn": 2.0, "ridge": 1.0, "frozen": 0.5}
    results = [result(name, "1110", seconds=seconds[name]) for name in ("knn", "ridge")]
    results.append(result("frozen", "1111", val_accuracy=0.25, seconds=0.5))
    notes = " ".join(describe(tabulate(results), results))
    assert (
        "Val cannot tell knn and ridge apart (50.0% each). The first one named is taken, knn: 75.0% on test." in notes
    )
    assert "Val chooses" not in notes


def test_seeds_that_share_test_images_are_named_as_not_independent() -> None:
    shared = [result("ridge", "10", seed) for seed in (0, 1)]
    apart = [result("ridge", "10", seed, first=10 * seed) for seed in (0, 1)]
    assert any("share test images" in note for note in describe(tabulate(shared), shared))
    assert not any("share test images" in note for note in describe(tabulate(apart), apart))


def test_results_on_different_test_images_are_not_put_into_one_table() -> None:
    with pytest.raises(ArtefactError, match="knn and ridge were reported on different images with seed 1"):
        require_same_test_images([result("ridge", "11", 1), result("knn", "11", 1, first=1)])
    require_same_test_images([result("ridge", "11", 0), result("knn", "11", 1, first=1)])


def test_the_strategies_are_compared_where_nothing_is_named() -> None:
    plan = make_plan(None, 2)
    assert tuple(plan.recipes) == RECIPES
    assert plan.wanted("full", 1).seed == 1


def test_settings_of_training_change_those_that_train_layers_and_no_others() -> None:
    plan = make_plan(["linear-svm", "partial"], 1, ["train.epochs=2", "head.folds=3"])
    assert plan.recipes["partial"].train.epochs == 2
    assert {recipe.head.folds for recipe in plan.recipes.values()} == {3}
    assert plan.notes == ["train.epochs=2: for partial only; the others train no layers."]
    assert make_plan(["partial"], 1, ["train.epochs=2"]).notes == []


@pytest.mark.parametrize(
    ("names", "seeds", "settings", "message"),
    [
        (["linear-svm", "linear-svn"], 1, [], "Did you mean 'linear-svm'"),
        (["ridge", "knn", "ridge"], 1, [], "ridge is named twice"),
        ([], 1, [], "no recipes"),
        (None, 0, [], "0 seeds"),
        (["ridge"], 1, ["train.epochs=2"], "train.epochs is a setting of partial, full and auto"),
        (["ridge", "partial"], 1, ["train.epoch=2"], "Did you mean 'epochs'"),
        (["ridge", "partial"], 1, ["cut=layer3"], "cut=layer3 goes with"),
        (["ridge"], 1, ["choice.race=false"], "setting of auto"),
        (["ridge"], 1, ["seed=3"], "seed cannot be set for all"),
        (["ridge"], 1, ["strategy=knn"], "strategy cannot be set for all"),
        (["ridge"], 1, ["backbone=resnet19"], "resnet1"),
    ],
)
def test_what_cannot_be_compared_is_refused_before_any_work(
    names: list[str] | None, seeds: int, settings: list[str], message: str, shapes: Path, tmp_path: Path, monkeypatch
) -> None:
    monkeypatch.setattr(comparing, "scan", None)
    with pytest.raises(UsageError, match=message) as caught:
        transfer.compare(shapes, names, seeds=seeds, out=tmp_path / "out", settings=settings)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "out").exists()


def test_a_folder_of_something_else_is_never_touched(shapes: Path, tmp_path: Path) -> None:
    (tmp_path / "precious.txt").write_text("mine")
    with pytest.raises(UsageError, match="exists"):
        transfer.compare(shapes, ["ridge"], out=tmp_path, quiet=True)
    (tmp_path / "compare.json").write_text("[]")
    with pytest.raises(UsageError, match="exists"):
        transfer.compare(shapes, ["ridge"], out=tmp_path, quiet=True)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["compare.json", "precious.txt"]


def test_lists_are_refused_with_the_reason(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="folder or a CSV file"):
        transfer.compare((["a.jpg"], ["a"]), ["ridge"], out=tmp_path)  # type: ignore[arg-type]


def test_the_chart_shows_every_recipe_and_no_name_hides_another(tmp_path: Path, monkeypatch) -> None:
    results = [result(name, "1110", seconds=10 + i) for i, name in enumerate(("ridge", "frozen", "partial", "full"))]
    rows = tabulate([*results, Result("knn", 0, transfer.load_recipe("knn"), error="failed")])
    rows[0]["recipe"] = "$cheap & <fast>--$"
    places = []
    monkeypatch.setattr(charts, "_hidden", lambda *some, was=charts._hidden: places.append(some) or was(*some))
    charts.write_chart(tmp_path, rows, "a & b")
    svg = tmp_path / "accuracy-time.svg"
    assert ElementTree.parse(svg).getroot().tag.endswith("svg")
    assert "partial" in svg.read_text()
    assert "knn" not in svg.read_text()
    with Image.open(tmp_path / "accuracy-time.png") as picture:
        assert picture.size == (1600, 1000)
    taken = places[-1][1][len(results) * 2 :]  # behind the points and intervals: the names
    assert len(taken) == len(results)
    assert not any(a.overlaps(b) for i, a in enumerate(taken) for b in taken[:i])
    before = svg.read_bytes()
    charts.write_chart(tmp_path, rows, "a & b")
    assert svg.read_bytes() == before


def test_a_chart_without_a_finished_recipe_is_empty_and_no_error(tmp_path: Path) -> None:
    charts.write_chart(tmp_path, tabulate([Result("knn", 0, transfer.load_recipe("knn"), error="failed")]), "none")
    ElementTree.parse(tmp_path / "accuracy-time.svg")


@pytest.mark.parametrize(
    ("code", "said", "error", "exit_code"),
    [
        (0, 'chatter\n{"error": "", "exit_code": 0}\n', "", 0),
        (3, '{"error": "No images.", "exit_code": 3}\n', "No images.", 3),
        (-9, "", "ended by signal 9, as when memory runs out", 5),
        (1, "", "exit code 1 and no message", 1),
    ],
)
def test_how_a_process_ended_is_read_from_its_code_and_its_last_line(
    code: int, said: str, error: str, exit_code: int
) -> None:
    ending = processes._ending(code, said)
    assert error in ending.error
    assert ending.exit_code == exit_code


@pytest.fixture(scope="module")
def compared(shapes: Path, weights: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A comparison of two recipes on the toy pictures."""
    folder = tmp_path_factory.mktemp("compared") / "out"
    compare(shapes, weights, folder, ["linear-svm", "frozen"])
    return folder


def compare(data: Path, weights: Path, out: Path, recipes: list[str], **more: object):
    return transfer.compare(data, recipes, out=out, backbone="test_resnet", weights=str(weights), quiet=True, **more)


@pytest.mark.slow
def test_every_recipe_is_reported_on_the_same_images(compared: Path) -> None:
    one, other = ((compared / "0" / name / "split.csv").read_text() for name in ("linear-svm", "frozen"))
    assert one == other
    rows = list(csv.DictReader((compared / "compare.csv").read_text().splitlines()))
    assert tuple(rows[0]) == COLUMNS
    summary = json.loads((compared / "compare.json").read_text())
    assert [row["recipe"] for row in summary["rows"]] == [row["recipe"] for row in rows]
    assert [float(row["accuracy"]) for row in rows] == [row["accuracy"] for row in summary["rows"]]  # to the last digit
    assert summary["status"] == "complete"
    for row in summary["rows"]:
        scores = transfer.load_run(compared / "0" / row["recipe"]).metrics
        assert row["accuracy"] == pytest.approx(scores["test"]["accuracy"])
        assert [row["accuracy_low"], row["accuracy_high"]] == pytest.approx(scores["test"]["accuracy_interval"])
        assert row["val_accuracy"] == scores["val"]["accuracy"]
        assert row["peak_memory_mb"] > 50
    assert (compared / "accuracy-time.png").is_file()
    ElementTree.parse(compared / "accuracy-time.svg")


@pytest.mark.slow
def test_what_is_done_is_not_done_again_and_more_may_be_added(
    compared: Path, shapes: Path, weights: Path, tmp_path: Path, monkeypatch
) -> None:
    folder = Path(shutil.copytree(compared, tmp_path / "out"))
    shutil.rmtree(folder / "0/frozen")
    fitted = []

    def fit_apart(data: str, recipe: transfer.Recipe, out: Path, **more: object) -> processes.Ending:
        fitted.append((recipe.strategy, more["split"]))
        return processes.fit_apart(data, recipe, out, **more)

    monkeypatch.setattr(comparing, "fit_apart", fit_apart)
    frame = compare(shapes, weights, folder, ["frozen", "ridge", "linear-svm"])
    split = folder / "0/linear-svm/split.csv"
    assert fitted == [("frozen", split), ("ridge", split)]
    assert set(frame["recipe"]) == {"linear-svm", "frozen", "ridge"}
    assert frame.attrs["folder"] == str(folder)
    assert frame.attrs["exit_code"] == 0


@pytest.mark.slow
def test_runs_of_other_settings_or_images_are_refused(
    compared: Path, shapes: Path, weights: Path, tmp_path: Path
) -> None:
    with pytest.raises(UsageError, match=r"head\.folds=5, not 3"):
        compare(shapes, weights, compared, ["linear-svm"], settings=["head.folds=3"])
    changed = Path(shutil.copytree(shapes, tmp_path / "changed"))
    (changed / "circle/00.png").unlink()
    with pytest.raises(UsageError, match="other images"):
        compare(changed, weights, compared, ["linear-svm"])
    Image.new("RGB", (64, 64), "blue").save(changed / "circle/00.png")
    with pytest.raises(UsageError, match="other images"):
        compare(changed, weights, compared, ["linear-svm"])
    shutil.copy(shapes / "circle/00.png", changed / "circle/00.png")
    shutil.copy(shapes / "circle/00.png", changed / "circle/more.png")
    with pytest.raises(UsageError, match="other images"):
        compare(changed, weights, compared, ["linear-svm"])
    run = compared / "0/linear-svm"
    require_same(run, transfer.load_run(run).recipe, scan(shapes))


@pytest.mark.slow
def test_a_recipe_that_fails_is_a_row_and_the_others_go_on(
    shapes: Path, weights: Path, tmp_path: Path, monkeypatch, capsys
) -> None:
    (tmp_path / "odd.yaml").write_text("strategy: ridge\nbackbone: test_resnet\ntap: nowhere\n")
    command = ["compare", shapes, "--recipes", f"{tmp_path}/odd.yaml,ridge", "--out", tmp_path / "out", "-q", "--json"]
    command += ["--backbone", "test_resnet", "--weights", weights, "--per-class", 8]
    monkeypatch.setattr(sys, "argv", ["transfer", *map(str, command)])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    out, err = capsys.readouterr()
    assert ended.value.code == 2
    assert err.startswith("transfer: odd: ")
    assert err.count("\n") == 1
    ridge, odd = json.loads(out)["rows"]
    assert ridge["accuracy"] > 0.5
    assert "nowhere" in odd["error"]


@pytest.mark.slow
def test_partial_and_linear_share_a_table_with_two_seeds(
    shapes: Path, weights: Path, tmp_path: Path, monkeypatch, capsys
) -> None:
    command = ["compare", shapes, "--recipes", "linear-svm,partial", "--seeds", 2, "--out", tmp_path / "out"]
    command += ["--backbone", "test_resnet", "--weights", weights]
    command += ["--set", "train.epochs=1", "--set", "train.min_steps=0"]
    monkeypatch.setattr(sys, "argv", ["transfer", *map(str, command)])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    out = capsys.readouterr().out
    assert not ended.value.code
    assert "…" not in out
    assert "for partial only" in out
    assert "is flattered" in out
    folder = tmp_path / "out"
    assert out.splitlines()[-2:] == [f"Comparison: {folder}", f"Report: {folder / 'report.html'}"]
    assert {path.name for path in (tmp_path / "out").glob("[01]/*")} == {"linear-svm", "partial"}


@pytest.mark.slow
@pytest.mark.skipif(os.name == "nt", reason="the signals are POSIX's")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_whoever_stops_the_comparison_stops_the_fit(number: int, shapes: Path, weights: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "transfer.cli", "compare", shapes, "--recipes", "full", "--out", tmp_path / "out"]
    command += ["--backbone", "test_resnet", "--weights", weights, "--set", "train.epochs=5000"]
    with subprocess.Popen(
        list(map(str, command)), stderr=subprocess.PIPE, text=True, start_new_session=True
    ) as running:
        assert running.stderr is not None
        next(line for line in running.stderr if "epochs of" in line)
        os.kill(running.pid, number)  # the parent alone
        said = running.stderr.read()  # which ends when the fit, too, has closed it
    assert running.returncode == (130 if number == signal.SIGINT else -signal.SIGKILL)
    assert ("the same command goes on" in said) == (number == signal.SIGINT)
    assert not list((tmp_path / "out").glob("0/full"))
