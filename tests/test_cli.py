import csv
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

from transfer import cli


def transfer(
    *arguments: object, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> tuple[int, str, str]:
    """Run the command line in this process as `transfer ARGUMENTS` would; return exit code, stdout and stderr."""
    monkeypatch.setattr(sys, "argv", ["transfer", *map(str, arguments)])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    out, err = capsys.readouterr()
    return int(ended.value.code or 0), out, err


@pytest.fixture
def run_cli(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture, tmp_path: Path):
    monkeypatch.chdir(tmp_path)
    return lambda *arguments: transfer(*arguments, monkeypatch=monkeypatch, capsys=capsys)


@pytest.fixture(scope="module")
def run(shapes: Path, weights: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    import transfer

    out = tmp_path_factory.mktemp("runs") / "shapes"
    return transfer.fit(shapes, "linear-svm", out=out, backbone="test_resnet", weights=str(weights), quiet=True).path


def test_help_imports_nothing_heavy() -> None:
    code = (
        "import sys; sys.argv = ['transfer', '--help']\n"
        "from transfer.cli import main\n"
        "try: main()\n"
        "except SystemExit: pass\n"
        "heavy = {'torch', 'timm', 'sklearn', 'numpy', 'PIL', 'pydantic', 'rich', 'yaml'} & set(sys.modules)\n"
        "print('HEAVY', sorted(heavy))"
    )
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert "HEAVY []" in shown
    assert "fit" in shown


def test_every_command_has_help_and_describes_its_options() -> None:
    for name, command in cli.cli.commands.items():
        shown = CliRunner().invoke(command, ["--help"])
        assert shown.exit_code == 0, name
        assert command.help
        assert all(option.help for option in command.params if option.param_type_name == "option"), name


def test_fit_predict_evaluate(run_cli, shapes: Path, weights: Path, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("TRANSFER_CACHE", str(tmp_path / "cache"))
    tiny = ("--backbone", "test_resnet", "--weights", weights)
    code, out, err = run_cli("fit", shapes, "--recipe", "linear-svm", *tiny)
    assert code == 0
    assert re.search(r"Test: accuracy \d+\.\d% \(95 % interval \d+\.\d% to \d+\.\d%\)", out)
    assert "Run: runs/shapes-linear-svm" in out
    assert "Report: runs/shapes-linear-svm/report.html" in out
    assert "60/60 images" in err

    code, out, _ = run_cli("predict", "runs/shapes-linear-svm", shapes / "circle", "--top", 2, "--csv", "out.csv", "-q")
    assert code == 0
    rows = list(csv.DictReader((tmp_path / "out.csv").read_text().splitlines()))
    assert len(rows) == 20
    assert set(rows[0]) == {"path", "class_1", "probability_1", "class_2", "probability_2"}

    code, out, _ = run_cli("predict", "runs/shapes-linear-svm", shapes / "circle/00.png", "--json", "-q")
    assert json.loads(out)["predictions"][0]["label"] in ("circle", "square", "stripes")

    code, out, err = run_cli("evaluate", "runs/shapes-linear-svm", shapes, "-q")
    assert code == 0
    assert "stripes" in out
    assert "fitted on" in err

    code, out, _ = run_cli("fit", shapes, "--recipe", "linear-svm", *tiny, "-q", "--json")
    assert json.loads(out)["run"] == "runs/shapes-linear-svm-2"
    assert Path(json.loads(out)["report"]).is_file()
    code, out, _ = run_cli("fit", shapes, "--recipe", "linear-svm", *tiny, "-q", "--no-report")
    assert "Report:" not in out
    assert not (tmp_path / "runs" / "shapes-linear-svm-3" / "report.html").exists()


def test_what_a_cross_validation_covers_is_said(run_cli, shapes: Path, weights: Path, tmp_path: Path) -> None:
    tiny = ("--recipe", "ridge", "--backbone", "test_resnet", "--weights", weights, "-q", "--no-report")
    assert "small, and it covers every image." in run_cli("fit", shapes, *tiny)[1]
    folder = Path(shutil.copytree(shapes, tmp_path / "data"))
    (folder / "dot").mkdir()
    Image.new("RGB", (64, 64), "blue").save(folder / "dot/1.png")
    assert "small, and it covers 60 images, none of 'dot'." in run_cli("fit", folder, *tiny)[1]


def test_another_domain_is_reported_on(run_cli, shapes: Path, weights: Path, tmp_path: Path) -> None:
    for path in shapes.glob("*/0*.png"):
        target = tmp_path / "gray" / path.parent.name / path.name
        target.parent.mkdir(parents=True, exist_ok=True)
        Image.open(path).convert("L").save(target)
    options = ("--recipe", "linear-svm", "--backbone", "test_resnet", "--weights", weights, "--test", "gray")
    code, out, err = run_cli("fit", shapes, *options)
    assert code == 0
    assert "30 images" in next(line for line in out.splitlines() if line.startswith("Test:"))
    assert f"Validation is of {shapes}, test of gray." in out
    assert "Run: runs/shapes-to-gray-linear-svm" in out
    assert "Two domains: trained on the source" in err
    code, out, _ = run_cli("fit", shapes, *options, "--few-target", 4, "-q", "--json")
    assert json.loads(out)["test"]["n"] == 18


def test_features_are_exported_and_checked(run_cli, shapes: Path, weights: Path) -> None:
    backbone = ("--backbone", "test_resnet", "--weights", weights)
    code, out, _ = run_cli("features", shapes, "--out", "f", "--tap", "layer2", "--tap", "features", *backbone)
    assert code == 0
    assert "60 x" in out
    assert np.load("f/layer2.npy", mmap_mode="r", allow_pickle=False).shape[0] == 60
    assert run_cli("features", "--check", "f")[0] == 0
    data = bytearray(Path("f/features.npy").read_bytes())
    data[-1] ^= 1
    Path("f/features.npy").write_bytes(data)
    code, _, err = run_cli("features", "--check", "f")
    assert code == 4
    assert "features.npy has changed" in err


def test_inspect_describes_and_plans(run_cli, shapes: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(shapes, tmp_path / "data"))
    shutil.copy(folder / "circle/00.png", folder / "square/copy.png")
    (folder / "circle/bad.png").write_bytes((folder / "circle/01.png").read_bytes()[:-40])
    code, out, _ = run_cli("inspect", folder, "-q")
    assert code == 0
    assert "61 images used, 1 unreadable" in out
    assert "truncated PNG" in out
    assert "Exact duplicates across classes" in out
    assert "64 x 64" in out
    described = json.loads(run_cli("inspect", folder, "--json", "-q")[1])
    assert described["n_used"] + described["n_unreadable"] + described["n_ignored"] == described["n_seen"] == 62


def test_inspect_divides_the_images_as_fit_will(run_cli, shapes: Path, weights: Path, tmp_path: Path) -> None:
    recipe = tmp_path / "mine.yaml"
    recipe.write_text("strategy: ridge\nseed: 3\ndata: {test_share: 0.4, per_class: 2}\n")
    plan = json.loads(run_cli("inspect", shapes, "--recipe", recipe, "--json", "-q")[1])["plan"]
    fit = ["fit", shapes, "--recipe", recipe, "--backbone", "test_resnet", "--weights", weights, "--no-report"]
    code, _, told = run_cli(*fit, "--out", tmp_path / "run")
    assert code == 0
    counts = re.search(r"a head of \d+ classes on \d+ images; \d+ check it, \d+ are reported on", plan[0])
    assert counts
    assert counts.group() in told


@pytest.mark.parametrize(
    ("options", "expected"),
    [(["linear-svm"], True), (["partial"], False), (["auto"], False)],  # of auto it is not known yet
)
def test_inspect_promises_a_cross_validation_only_where_there_will_be_one(
    run_cli, shapes: Path, options: list[str], expected: bool
) -> None:
    plan = json.loads(run_cli("inspect", shapes, "--recipe", *options, "--json", "-q")[1])["plan"]
    assert any("trust the cross-validated result" in line for line in plan) == expected


def test_cache_lists_what_a_fit_has_kept_and_deletes_it(
    run_cli, shapes: Path, weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TRANSFER_CACHE", str(tmp_path / "cache"))
    fit = ["fit", shapes, "--recipe", "ridge", "--backbone", "test_resnet", "--weights", weights, "-q", "--no-report"]
    assert run_cli(*fit)[0] == 0
    code, out, _ = run_cli("cache")
    assert code == 0
    assert "activations of test_resnet at features" in out
    assert "--clear deletes it" in out
    assert json.loads(run_cli("cache", "--json", "--unused-for", 1)[1])["holdings"] == []
    found = json.loads(run_cli("cache", "--json")[1])
    assert found["bytes"] == sum(holding["bytes"] for holding in found["holdings"]) > 0
    assert run_cli("cache", "--clear")[1].endswith(f"in {tmp_path / 'cache'}.\n")
    assert json.loads(run_cli("cache", "--json")[1])["holdings"] == []
    assert run_cli(*fit)[0] == 0


def test_backbones_lists_names_and_cuts(run_cli) -> None:
    code, out, _ = run_cli("backbones", "test_resnet*")
    assert code == 0
    assert re.search(r"test_resnet +timm +0\.\d M +160 +\d+  hub", out)
    code, out, _ = run_cli("backbones")
    lines = out.splitlines()
    assert len(lines) > 1000
    assert all(
        re.search(r" \d+\.\d M +\d+ +\d+  (hub|none|on this machine|no weights needed)$", line) for line in lines[1:]
    )
    assert len(json.loads(run_cli("backbones", "--json")[1])) == len(lines) - 1
    code, out, _ = run_cli("backbones", "test_resnet")
    assert [name for name in ("pixels", "layer1", "layer4", "features") if name in out] == [
        "pixels",
        "layer1",
        "layer4",
        "features",
    ]
    assert run_cli("backbones", "pixels")[1].startswith("pixels: no weights needed. Cuts in order:")
    points = json.loads(run_cli("backbones", "test_resnet", "--json")[1])
    assert points[0]["parameters_left"] == 0
    assert points[-1]["parameters_right"] == 0


def test_recipes_are_listed_and_shown(run_cli) -> None:
    assert "linear-svm" in run_cli("recipes")[1]
    assert "strategy: linear-svm" in run_cli("recipes", "show", "linear-svm")[1]


def test_a_recipe_is_copied_changed_and_checked(run_cli, tmp_path: Path) -> None:
    mine = str(tmp_path / "mine.yaml")
    assert f"--recipe {mine}" in run_cli("recipes", "copy", "ridge", mine)[1]
    assert run_cli("recipes", "check", mine)[0] == 0
    text = Path(mine).read_text().replace("tf_efficientnet_lite0", "resnet8")
    Path(mine).write_text(text)
    code, out, err = run_cli("recipes", "check", mine)
    assert code == 2
    assert "resnet8" in out
    assert "1 problem" in err
    Path(mine).write_text(text + "sede: 1\nfolds: 2\n")
    code, out, err = run_cli("recipes", "check", mine)
    assert code == 2
    assert len(out.splitlines()) == 2
    assert "line" in out


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["fi", "x"], 2, "Did you mean 'fit'"),
        (["fit"], 2, "Missing argument 'DATA'. `transfer fit --help` says more."),
        (["fit", "{shapes}", "--sede", "3"], 2, "--seed"),
        (["fit", "{shapes}", "--seed", "x"], 2, "'x' is not a valid integer"),
        (["fit", "{shapes}", "--set", "head.grid=[0]"], 2, "head.grid.0 is 0"),
        (["fit", "no/such/folder"], 2, "no/such/folder"),
        (["fit", "{shapes}", "--recipe", "linear_svm"], 2, "Did you mean 'linear-svm'"),
        (["fit", "{shapes}", "--set", "head.fold=3"], 2, "Did you mean 'folds'"),
        (["fit", "{shapes}", "--backbone", "resnet19"], 2, "Did you mean 'resnet1"),
        (["fit", "{shapes}", "--backbone", "test_vit", "--weights", "{weights}"], 4, "do not fit the network"),
        (["fit", "{shapes}", "--weights", "nothing.pth"], 4, "nothing.pth"),
        (["fit", "{shapes}", "--backbone", "resnet18"], 5, "Here without network: tf_efficientnet_lite0"),
        (["fit", "{shapes}", "--device", "cuda:9"], 2, "cuda:9"),
        (["fit", "{shapes}", "--out", "{shapes}"], 2, "exists"),
        (["fit", "{shapes}/circle"], 3, "DATA/"),
        (["fit", "{empty}"], 3, "empty"),
        (["fit", "{shapes}", "--recipe", "ridge", "--resume"], 2, "--resume goes with --recipe partial, full or auto"),
        (["fit", "{shapes}", "--few-target", "3"], 2, "goes with --test"),
        (["fit", "{shapes}", "--test", "{shapes}"], 3, "nothing is left to train on"),
        (["fit", "{shapes}", "--test", "{shapes}", "--split", "s.csv"], 2, "give one"),
        (["fit", "{shapes}", "--test", "{empty}"], 3, "empty"),
        (["fit", "{shapes}", "--out", "{weights}/run"], 5, "Cannot write"),
        (["predict", "nothing", "x.jpg"], 2, "No run folder"),
        (["predict", "{shapes}", "x.jpg"], 4, "not a run folder"),
        (["predict", "{run}", "nothing.jpg"], 2, "nothing.jpg"),
        (["predict", "{run}", "{shapes}", "--csv", "nowhere/out.csv"], 5, "nowhere"),
        (["evaluate", "{run}", "{empty}"], 3, "empty"),
        (["evaluate", "{run}", "{shapes}", "--max-pixels", "100"], 3, "megapixels"),
        (["features", "{shapes}", "--out", "{shapes}"], 2, "exists"),
        (["features", "{shapes}", "--out", "f", "--tap", "fc9"], 2, "fc9"),
        (["features", "--check", "{empty}"], 4, "manifest.json"),
        (["features", "{shapes}", "--check", "{empty}"], 2, "Give DATA and --out DIR, or --check DIR."),
        (["features", "--out", "f", "--check", "{empty}"], 2, "Give DATA and --out DIR, or --check DIR."),
    ],
)
def test_bad_input_is_one_line_with_its_own_exit_code(
    run_cli, shapes: Path, weights: Path, run: Path, tmp_path: Path, arguments: list[str], code: int, message: str
) -> None:
    (tmp_path / "empty").mkdir()
    places = {"shapes": shapes, "weights": weights, "run": run, "empty": tmp_path / "empty"}
    before = sorted(tmp_path.rglob("*"))
    got, out, err = run_cli(*(argument.format(**places) for argument in arguments))
    lines = [line for line in err.splitlines() if not line.startswith("Extracting")]
    assert got == code, err
    assert len(lines) == 1, err
    assert lines[0].startswith("transfer: ")
    assert message in lines[0]
    assert "Traceback" not in err + out
    assert sorted(tmp_path.rglob("*")) == before


def test_debug_shows_the_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    from transfer.errors import UsageError

    monkeypatch.setattr(sys, "argv", ["transfer", "fit", "nowhere", "--debug"])
    with pytest.raises(UsageError):
        cli.main()


def test_a_closed_pipe_ends_it_quietly(tmp_path: Path) -> None:
    command = f"{sys.executable} -m transfer.cli backbones | head -n 1"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, cwd=tmp_path)
    assert done.stdout.startswith("name")
    assert done.stderr == ""


@pytest.mark.slow
def test_the_demo_runs_with_the_embedded_weights(tmp_path: Path) -> None:
    environment = {**os.environ, "TRANSFER_CACHE": str(tmp_path / "cache"), "HF_HUB_OFFLINE": "1"}
    command = [sys.executable, "-m", "transfer.cli", "demo"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, env=environment, check=True)
    assert "1797 images" in done.stdout
    accuracy = float(re.search(r"(\d+\.\d)% accuracy", done.stdout)[1])
    assert accuracy > 90
    assert len(list((tmp_path / "digits").glob("*/*.png"))) == 1797
    assert "transfer predict runs/digits-linear-svm" in done.stdout


def test_backbones_shows_the_layers_with_their_sums(run_cli) -> None:
    code, out, _ = run_cli("backbones", "alexnet", "--layers")
    assert code == 0
    assert re.search(r"features\.0 \(conv1\) +conv 11x11, stride 4, pad 2 \* +64x55x55 +23,296 +70,276,800 +11", out)
    assert re.search(r"classifier\.4 \(fc7\) +linear +4096 +16,781,312 +16,777,216 +all", out)
    assert re.search(r"total +57,003,840 +710,092,480", out)
    assert "A backbone has no classifier" in out
    assert "1,000 classes) has 4,097,000 parameters and 4,096,000 multiply-adds more." in out
    found = json.loads(run_cli("backbones", "test_resnet", "--layers", "--json")[1])
    assert found["layers"][0]["name"] == "conv1.0"
    assert found["classifier"]["classes"] == 1000


def test_backbones_draws_filters_and_maps(run_cli, shapes: Path, weights: Path) -> None:
    image = shapes / "circle/00.png"
    drawing = ("--filters", "f.png", "--activations", image, "a.png", "--tap", "layer2", "--weights", weights)
    code, out, _ = run_cli("backbones", "test_resnet", *drawing)
    assert code == 0
    assert "f.png: the 16 filters of conv1.0, 3x3x3" in out
    assert "test_resnet at layer2" in out
    assert sorted(path.name for path in Path().glob("*.png")) == ["a.png", "f.png"]


def test_predict_with_a_pretrained_network_shows_five_classes_of_imagenet(
    run_cli, shapes: Path, imagenet_weights: Path
) -> None:
    network = ("--backbone", "test_resnet", "--weights", imagenet_weights)
    code, out, _ = run_cli("predict", *network, shapes / "circle/00.png", shapes / "square", "-q")
    assert code == 0
    assert len(out.splitlines()) == 21
    assert out.splitlines()[0].count("%") == 5
    found = json.loads(run_cli("predict", *network, shapes / "circle/00.png", "-q", "--json", "--top", 2)[1])
    assert len(found["predictions"][0]["top"]) == 2
    assert run_cli("predict", *network, shapes / "circle", "-q", "--csv", "out.csv")[0] == 0
    assert "class_5" in Path("out.csv").read_text().splitlines()[0]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["backbones", "test_resnet", "--tap", "layer2"], "--tap says which maps"),
        (["backbones", "test_resnet", "--weights", "random"], "--weights are looked at by --filters"),
        (["backbones", "test_resnet", "--weights", "random", "--filters", "f.jpg"], "let 'f.jpg' end in .png"),
        (["backbones", "test_resnet", "--filters", "f.png", "--json"], "--json prints numbers"),
        (["predict", "a.jpg", "--weights", "w.pth"], "A run has its own weights"),
        (["predict", "a.jpg"], "Give a run and images"),
        (["predict", "a.jpg", "--backbone", "test_resnet", "--weights", "random"], "Random weights know no classes"),
    ],
)
def test_options_that_do_not_go_together_are_refused(run_cli, arguments: list[str], message: str) -> None:
    Path("a.jpg").write_bytes(b"")
    code, _, err = run_cli(*arguments)
    assert code == 2
    assert message in err
    assert err.count("\n") == 1


def fit_with_failing_report(run_cli, shapes: Path, weights: Path, monkeypatch, error: BaseException):
    def fail(run: object) -> None:
        raise error

    monkeypatch.setattr("transfer.runs.run.write_report", fail)
    return run_cli("fit", shapes, "--recipe", "ridge", "--backbone", "test_resnet", "--weights", weights)


@pytest.mark.parametrize("error", [OSError("disk full"), ValueError("bad backend"), MemoryError("none left")])
def test_a_report_that_fails_leaves_the_run_and_its_scores(
    run_cli, shapes: Path, weights: Path, monkeypatch, error: Exception
) -> None:
    code, out, err = fit_with_failing_report(run_cli, shapes, weights, monkeypatch, error)
    assert code == 0
    assert "Test: accuracy" in out
    assert "Run: runs/shapes-ridge" in out
    assert "The run is safe in runs/shapes-ridge; `transfer report runs/shapes-ridge` writes its page." in err


def test_an_interrupt_during_the_report_does_not_advise_to_fit_again(
    run_cli, shapes: Path, weights: Path, monkeypatch
) -> None:
    code, _, err = fit_with_failing_report(run_cli, shapes, weights, monkeypatch, KeyboardInterrupt())
    assert code == 130
    assert "The run is safe" in err
    assert "the same command" not in err


def test_no_arguments_show_the_help_as_it_is(run_cli):
    code, _, err = run_cli()
    assert code == 2
    assert len(err.splitlines()) > 10
