"""Rows 68 to 78 of docs/reliability.md: files from strangers run nothing, and names go nowhere but into text."""

from __future__ import annotations

import ast
import csv
import json
import os
import pickle
import shutil
import struct
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import pytest
import torch
from commands import run as transfer

import transfer as package
from transfer import fit, load_recipe
from transfer.comparison import charts
from transfer.comparison.results import Result
from transfer.comparison.tables import tabulate

PACKAGE = Path(package.__file__).parent
UNSAFE_MODULES = {"pickle", "cPickle", "dill", "cloudpickle", "joblib", "shelve", "marshal", "runpy", "code"}
UNSAFE_CALLS = {"eval", "exec", "compile", "__import__", "os.system", "os.popen", "torch.save", "np.save", "np.savez"}
UNSAFE_CALLS |= {"yaml.load", "yaml.load_all", "yaml.unsafe_load", "yaml.full_load", "pd.read_pickle", "torch.jit.load"}
NEEDS = {"torch.load": ("weights_only", True), "np.load": ("allow_pickle", False)}
NEEDS |= {f"axes.{name}": ("parse_math", False) for name in ("text", "annotate", "set_title")}


def calls() -> Iterator[tuple[Path, str, ast.Call]]:
    """Yield every call in the package with its file and its dotted name."""
    for path in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call):
                yield path, ast.unparse(node.func), node


def keywords(call: ast.Call) -> dict[str | None, Any]:
    return {word.arg: getattr(word.value, "value", None) for word in call.keywords}


def test_nothing_in_the_package_can_run_what_it_reads() -> None:
    for path in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, (ast.Import, ast.ImportFrom)):
                names = [alias.name for alias in node.names] + [getattr(node, "module", None) or ""]
                assert not UNSAFE_MODULES & {name.partition(".")[0] for name in names}, path
    found = [f"{path.name}: {name}" for path, name, _ in calls() if name in UNSAFE_CALLS]
    found += [f"{path.name}: {name} in a shell" for path, name, call in calls() if keywords(call).get("shell")]
    assert found == []


def test_readers_are_told_to_run_nothing_and_charts_to_read_no_formula() -> None:
    seen = set()
    for path, name, call in calls():
        if name in NEEDS:
            option, value = NEEDS[name]
            if option == "parse_math" and isinstance(call.args[2 * (name == "axes.text")], ast.Constant):
                continue  # words of ours
            assert keywords(call).get(option) is value, f"{path.name}, line {call.lineno}: {name} without {option}"
            seen.add(name)
        if name == "axes.set_yticks" and len(call.args) > 1:  # names of arms; those of the other axis are numbers
            assert keywords(call).get("parse_math") is False, f"{path.name}, line {call.lineno}"
    assert seen >= {"torch.load", "np.load", "axes.set_title", "axes.text"}


def test_every_table_is_written_by_the_one_function_that_neutralises_formulas() -> None:
    words = ("csv.writer", "csv.DictWriter", "to_csv")
    assert {path.name for path, name, _ in calls() if name.endswith(words)} == {"files.py"}


class Evil:
    """Makes a folder when it is unpickled."""

    def __init__(self, canary: Path) -> None:
        self.canary = canary

    def __reduce__(self) -> tuple[Callable[..., None], tuple[str]]:
        return os.mkdir, (str(self.canary),)


def bomb(n_header: int, header: bytes) -> bytes:
    return struct.pack("<Q", n_header) + header


def write_evil(path: Path, kind: str, evil: Evil) -> None:
    """Write a file that runs something, or takes all memory, where it is read carelessly."""
    shape = {"w": {"dtype": "F32", "shape": [2**40, 2**22], "data_offsets": [0, 8]}}
    match kind:
        case "zip":
            torch.save({"conv1.weight": evil}, path)
        case "legacy":
            torch.save({"conv1.weight": evil}, path, _use_new_zipfile_serialization=False)
        case "pickle":
            path.write_bytes(pickle.dumps({"conv1.weight": evil}))
        case "joblib":
            joblib.dump({"coef_": evil}, path)
        case "objects":
            np.save(path, np.array([evil], dtype=object), allow_pickle=True)
        case "huge header":
            path.write_bytes(bomb(2**62, b"{}"))
        case "long header":
            path.write_bytes(bomb(2**40, b"{" + b" " * 1000))
        case "deep header":
            path.write_bytes(bomb(200_000, b"[" * 200_000))
        case "huge tensor":
            header = json.dumps(shape).encode()
            path.write_bytes(bomb(len(header), header) + bytes(8))


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("w.pth", "zip"),
        ("w.pth", "legacy"),
        ("w.pt", "pickle"),
        ("svm.joblib", "joblib"),
        ("w.npy", "objects"),
        *(("w.safetensors", kind) for kind in ("zip", "huge header", "long header", "deep header", "huge tensor")),
    ],
)
def test_evil_weights_run_nothing_and_are_refused_in_one_line(
    name: str, kind: str, shapes: Path, tmp_path: Path
) -> None:
    write_evil(tmp_path / name, kind, Evil(tmp_path / "canary"))
    options = ("--recipe", "ridge", "--backbone", "test_resnet", "--out", "run", "-q")
    ended = transfer("fit", shapes, "--weights", name, *options, within=tmp_path)
    assert (ended.code, list(tmp_path.iterdir())) == (4, [tmp_path / name])
    assert name in ended.message


def test_the_evil_files_are_evil(tmp_path: Path) -> None:
    for kind in ("zip", "legacy", "pickle", "joblib", "objects"):
        canary, path = tmp_path / f"canary-{kind}", tmp_path / f"{kind}.npy"
        write_evil(path, kind, Evil(canary))
        match kind:
            case "zip" | "legacy":
                torch.load(path, weights_only=False)
            case "joblib":
                joblib.load(path)
            case _:
                np.load(path, allow_pickle=True)
        assert canary.is_dir()


def test_an_array_of_objects_among_features_runs_nothing(shapes: Path, weights: Path, tmp_path: Path) -> None:
    options = ("--backbone", "test_resnet", "--weights", weights, "--out", "f", "-q")
    assert transfer("features", shapes, *options, within=tmp_path).code == 0
    write_evil(tmp_path / "f/features.npy", "objects", Evil(tmp_path / "canary"))
    manifest = json.loads((tmp_path / "f/manifest.json").read_text())
    manifest["sha256"]["features.npy"] = package.files.sha256(tmp_path / "f/features.npy")  # the forger can count
    (tmp_path / "f/manifest.json").write_text(json.dumps(manifest))
    ended = transfer("features", "--check", "f", within=tmp_path)
    assert ended.code == 4
    assert "features.npy is no array of numbers" in ended.message
    assert not (tmp_path / "canary").exists()
    manifest["taps"] = {"../../features": manifest["taps"]["features"]}
    (tmp_path / "f/manifest.json").write_text(json.dumps(manifest))
    ended = transfer("features", "--check", "f", within=tmp_path)
    assert (ended.code, "has no checksum of ../../features.npy" in ended.message) == (4, True)


@pytest.fixture(scope="module")
def run(shapes: Path, weights: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("runs") / "run"
    return fit(shapes, "ridge", out=out, backbone="test_resnet", weights=str(weights), quiet=True).path


def inside(*keys: str, value: Any) -> Callable[[dict[str, Any]], None]:
    """Return what sets a value somewhere in a run.json."""

    def change(info: dict[str, Any]) -> None:
        for key in keys[:-1]:
            info = info[key]
        info[keys[-1]] = value

    return change


HOSTILE_VALUES = {
    "a path": inside("backbone", value="../../etc/passwd"),
    "a hub": inside("backbone", value="hf-hub:evil/model"),
    "a folder": inside("backbone", value="local-dir:/tmp/evil"),
    "code": inside("backbone", value="__import__('os').mkdir('canary')"),
    "a private name": inside("backbone", value="torchvision/_api"),
    "a number": inside("backbone", value=7),
    "a zero byte": inside("backbone", value="a\0b"),
    "no model": inside("model", value="x"),
    "no checksum": inside("model", "sha256", value=None),
    "another head": inside("model", "head", value="../../x"),
    "another form": inside("head", "form", value={"kind": "os.system", "n_classes": [], "temperature": {}}),
    "no head": inside("head", value=None),
    "a key of Python's": inside("preprocessing", "__class__", value="os.system"),
    "no size": inside("preprocessing", "input_size", value="224"),
    "a pool that is code": inside("representation", "pool", value="eval"),
    "another representation": inside("representation", value={"__class__": "x"}),
    "classes that are none": inside("classes", value=5),
    "classes that are numbers": inside("classes", value=[1, 2, 3]),
    "too few classes": inside("classes", value=["../../a"]),
    "a novelty that is none": inside("novelty", value=7),
}


@pytest.mark.parametrize("change", HOSTILE_VALUES.values(), ids=HOSTILE_VALUES)
def test_a_hostile_run_is_refused_in_one_line(
    change: Callable[[dict[str, Any]], None], run: Path, shapes: Path, tmp_path: Path
) -> None:
    copy = Path(shutil.copytree(run, tmp_path / "copy"))
    info = json.loads((copy / "run.json").read_text())
    change(info)
    (copy / "run.json").write_text(json.dumps(info))
    ended = transfer("predict", "copy", shapes / "circle/00.png", "-q", within=tmp_path)
    assert ended.code == 4
    assert len(ended.message) < 500
    assert list(tmp_path.iterdir()) == [copy]


@pytest.mark.parametrize("name", ["../../etc/passwd", "hf-hub:evil/model", 7, ["a"]])
def test_a_hostile_run_does_not_serve_as_weights(name: Any, run: Path, shapes: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(run, tmp_path / "copy"))
    info = json.loads((copy / "run.json").read_text())
    (copy / "run.json").write_text(json.dumps(info | {"backbone": name}))
    ended = transfer("fit", shapes, "--weights", "copy", "--out", "run", "-q", within=tmp_path)
    assert ended.code == 4
    assert "run.json" in ended.message


@pytest.mark.parametrize("file", ["run.json", "metrics.json"])
def test_json_that_is_nested_too_deeply_is_refused(file: str, run: Path, shapes: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(run, tmp_path / "copy"))
    (copy / file).write_text("[" * 200_000)
    for words in (("predict", "copy"), ("report", "copy")):
        ended = transfer(*words, *([shapes] if words[0] == "predict" else []), within=tmp_path)
        assert (ended.code, file in ended.message) == (4, True)


NAMES = ["../../up", "/tmp/absolute", "CON", "C:\\x", "x" * 300, "a/../../b", ".."]
NAMES += ["=cmd()", "a$b$ $\\frac$", "\x1b[2J"]


def test_names_of_classes_make_no_path_whatever_they_are(shapes: Path, weights: Path, tmp_path: Path) -> None:
    pictures = sorted(shapes.rglob("*.png"))
    save = tmp_path / "data"
    save.mkdir()
    with open(save / "labels.csv", "w", newline="") as target:
        rows = [[str(path), NAMES[i % len(NAMES)]] for i, path in enumerate(pictures)]
        csv.writer(target).writerows([["path", "label"], *rows])
    before = sorted(tmp_path.iterdir())
    network = ("--backbone", "test_resnet", "--weights", weights, "-q")
    ended = transfer("fit", "data/labels.csv", "--recipe", "ridge", "--out", "run", *network, within=tmp_path)
    assert ended.code == 0, ended.err
    assert transfer("features", "data/labels.csv", "--out", "features", *network, within=tmp_path).code == 0
    assert transfer("predict", "run", shapes, "-q", "--csv", "p.csv", within=tmp_path).code == 0
    assert transfer("export", "run", "--to", "timm", "--out", "timm", within=tmp_path).code == 0
    made = {tmp_path / name for name in ("run", "features", "p.csv", "timm")}
    assert set(tmp_path.iterdir()) == {*before, *made}
    assert json.loads((tmp_path / "run/run.json").read_text())["classes"] == sorted(NAMES)
    files = [path.relative_to(tmp_path) for folder in made for path in folder.rglob("*")]
    assert all(len(path.parts) == 2 and path.name.replace("_", "").replace(".", "").isalnum() for path in files), files


def test_no_table_has_a_cell_that_a_spreadsheet_would_run(shapes: Path, weights: Path, tmp_path: Path) -> None:
    for i, path in enumerate(sorted(shapes.rglob("*.png"))):
        folder = tmp_path / "data" / ["=1+1", "+x", "-y", "@z", "\t=a"][i % 5]
        folder.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, folder / f"={path.parent.name}{path.name}")
    shutil.copy(next((tmp_path / "data/=1+1").iterdir()), tmp_path / "data/@z/-copy.png")
    network = ("--backbone", "test_resnet", "--weights", weights, "-q")
    (tmp_path / "data/@z/=copy.png").write_bytes(b"not an image")
    options = ("--recipe", "ridge", "--out", "run", "--set", "data.max_bad_share=0.5")
    assert transfer("fit", "data", *options, *network, within=tmp_path).code == 0
    assert transfer("features", "data", "--out", "features", *network, within=tmp_path).code == 0
    tables = [*tmp_path.rglob("*.csv")]
    assert {"split.csv", "predictions.csv", "index.csv"} <= {path.name for path in tables}
    dangerous = 0
    for path in tables:
        with open(path, newline="", encoding="utf-8") as source:
            for cell in (cell for row in csv.reader(source) for cell in row):
                assert cell[:1] not in tuple("=+@\t\r-") or is_number(cell), f"{path.name}: {cell}"
                dangerous += cell.startswith("'")
    assert dangerous > 60


def is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return True


def test_a_message_has_no_control_characters_whatever_was_named(tmp_path: Path) -> None:
    ended = transfer("predict", "\x1b[31mrun\n", "x.jpg", within=tmp_path)
    assert ended.code == 2
    assert ended.message.isprintable()
    assert "\\x1b[31mrun\\n" in ended.message


def test_weights_for_other_classes_are_told_from_a_run_for_them(run: Path, shapes: Path, tmp_path: Path) -> None:
    """A run's network serves as weights, without its head; its head never serves other classes."""
    copy = Path(shutil.copytree(run, tmp_path / "copy"))
    info = json.loads((copy / "run.json").read_text())
    (copy / "run.json").write_text(json.dumps(info | {"classes": ["a", "b", "c", "d"]}))
    ended = transfer("predict", "copy", shapes, "-q", within=tmp_path)
    assert (ended.code, "names 4 classes, and the head has 3" in ended.message) == (4, True)


def test_a_chart_of_data_whose_name_is_a_broken_formula_is_drawn(tmp_path: Path) -> None:
    failed = Result("knn", 0, load_recipe("knn"), error="failed")
    charts.write_chart(tmp_path, tabulate([failed]), "a$b$ $\\frac$")
    assert "a$b$ $\\frac$" in (tmp_path / "accuracy-time.svg").read_text()
