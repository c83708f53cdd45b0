"""Rows 27 to 46 of docs/reliability.md: names of files and classes, and trees that are not as they should be."""

from __future__ import annotations

import csv
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from commands import Ended, run
from hostile import LATIN_1, N_GOOD, NFC, NFD, ODD_NAMES, Hostile, fill, fingerprint

import transfer as library
from transfer.dataset import Dataset, display, draw_split, read_split, scan
from transfer.report.files import file_of

LINEAR = ("--recipe", "ridge", "--no-report")


def rows_of(path: Path) -> list[dict[str, str]]:
    with open(path, encoding="utf-8", newline="") as source:
        return list(csv.DictReader(source))


# --- names


def test_a_split_with_odd_names_finds_every_image_again(hostile: Hostile, scanned: Dataset, fitted: Path) -> None:
    bad = {f"{hostile.root}/{path}" for path in hostile.of_fate("unreadable")}
    used = scanned.without([(path, "unreadable") for path in scanned.paths if path in bad])
    found = read_split(fitted / "split.csv", used)
    assert found.parts.tolist() == draw_split(used).parts.tolist()
    assert not [line for line in found.reason if "changed" in line]
    files = {file_of(row["path"], str(hostile.root)) for row in rows_of(fitted / "split.csv")}
    assert files == set(used.paths)


@pytest.mark.parametrize("command", ["inspect", "fit", "predict"])
def test_what_is_printed_is_printable_whatever_the_names(command: str, hostile: Hostile, fitted: Path) -> None:
    arguments = {
        "inspect": ("inspect", hostile.root, "-q"),
        "fit": ("fit", hostile.root, *LINEAR, "-q"),
        "predict": ("predict", fitted, hostile.root, "-q"),
    }
    ended = run(*arguments[command], within=fitted.parent)
    for line in (ended.out + ended.err).splitlines():
        assert all(character.isprintable() for character in line), ascii(line)
        line.encode("utf-8")
    if command == "predict":
        for name in ODD_NAMES:
            assert f"{hostile.root}/bee/{display(name)}: " in ended.out


def test_a_file_whose_name_begins_with_a_dash_can_be_named(hostile: Hostile, fitted: Path) -> None:
    ended = run("predict", "-q", "--", fitted, "-rf.png", within=hostile.root / "bee")
    assert (ended.code, ended.out[:10]) == (0, "-rf.png: b"), ended.err


def test_odd_names_are_text_in_every_table(hostile: Hostile, fitted: Path) -> None:
    for name in ("split.csv", "predictions.csv"):
        for row in csv.reader((fitted / name).read_text(encoding="utf-8").splitlines()):
            assert not any(cell.startswith(("=", "+", "@", "\t", "\r")) for cell in row), (name, row)
    page = (fitted / "report.html").read_text(encoding="utf-8")
    assert "\x1b" not in page
    assert display(LATIN_1) in page
    assert 'class="gone"' not in page  # every picture was found by the name in the tables


def test_a_name_that_is_no_utf_8_keeps_its_bytes(scanned: Dataset, inspected: dict[str, Any]) -> None:
    assert os.fsencode(LATIN_1) == b"\xe9t\xe9"
    assert LATIN_1 in scanned.classes
    assert inspected["classes"]["\\udce9t\\udce9"]["n"] == 3


def test_classes_that_look_the_same_are_apart_and_noted(scanned: Dataset, inspected: dict[str, Any]) -> None:
    assert {"Cat", "cat", NFC, NFD} <= set(scanned.classes)
    notes = [note for note in inspected["notes"] if "look the same" in note]
    assert len(notes) == 2
    assert ascii(NFC) in notes[1]  # the codes, since the letters look the same
    assert ascii(NFD) in notes[1]


def test_classes_with_numbers_for_names_are_told_by_name(
    shapes: Path, tiny: tuple[str, ...], tmp_path: Path, transfer: Callable[..., Ended]
) -> None:
    names = {"circle": "1", "square": "2", "stripes": "10"}  # sorted: 1, 10, 2
    for shape, name in names.items():
        shutil.copytree(shapes / shape, tmp_path / "data" / name)
    assert transfer("fit", "data", *LINEAR, *tiny, "--out", "run").code == 0
    assert json.loads((tmp_path / "run/run.json").read_text())["classes"] == ["1", "10", "2"]
    for shape, name in names.items():
        told = transfer("predict", "run", shapes / shape, "--csv", f"{shape}.csv", "-q")
        assert told.code == 0
        guesses = [row["class_1"] for row in rows_of(tmp_path / f"{shape}.csv")]
        assert guesses.count(name) >= 15
    scores = json.loads(transfer("evaluate", "run", "data", "--json", "-q").out)
    assert scores["accuracy"] > 0.8


# --- classes and parts


def test_a_class_of_val_that_train_lacks_is_named(tmp_path: Path, transfer: Callable[..., Ended]) -> None:
    fill(tmp_path / "data/train", {"a": 3, "b": 3})
    fill(tmp_path / "data/val", {"a": 2, "zebra": 2}, 2000)
    for command in ("inspect", "fit"):
        ended = transfer(command, "data", "-q")
        assert ended.code == 3
        assert "1 class of the val part without a training image: 'zebra'" in ended.message
        assert "Rename or remove, or add images to train" in ended.message


def test_a_class_that_val_lacks_shifts_no_label(tmp_path: Path, transfer: Callable[..., Ended]) -> None:
    fill(tmp_path / "data/train", {"a": 3, "b": 3, "c": 3})
    fill(tmp_path / "data/val", {"a": 2, "c": 2}, 2000)
    told = json.loads(transfer("inspect", "data", "--json", "-q").out)
    assert "1 class has no val image: 'b'." in told["notes"]
    assert {name: counts["test"] for name, counts in told["classes"].items()} == {"a": 2, "b": 0, "c": 2}


def test_empty_classes_are_left_out_by_name_and_one_image_is_trained_on(
    scanned: Dataset, inspected: dict[str, Any], fitted: Path
) -> None:
    assert "2 classes without a usable image, left out: 'hopeless', 'nothing'." in inspected["notes"]
    assert not {"hopeless", "nothing"} & set(scanned.classes)
    assert [row["split"] for row in rows_of(fitted / "split.csv") if row["label"] == "single"] == ["train"]
    test = json.loads((fitted / "metrics.json").read_text())["test"]["per_class"]
    assert next(row for row in test if row["name"] == "single") | {"precision": None} == {
        **{"name": "single", "n": 0, "precision": None, "recall": None, "recall_interval": None, "f1": None}
    }
    assert any("'single'" in line for line in inspected["split"]["reason"])


@pytest.mark.parametrize(
    ("tree", "code", "words"),
    [
        ({"cats": 3}, 3, "single class, 'cats': a classifier needs at least 2, such as DATA/cats/1.jpg"),
        ({".": 3}, 3, "holds 3 images but no class folders. Put each class in a folder of its own: DATA/cats/1.jpg"),
        ({"cats": 0}, 3, "holds 1 folder but no images. Put each class in a folder of its own"),
        ({"train": 3, "val": 3}, 3, "'{root}/train' holds images but no class folders"),
        ({"val/a": 3, "test/a": 3}, 3, "has a val and a test folder but no train folder"),
        ({"train/a": 1, "train/b": 1, "val/a": 1, "valid/a": 1}, 3, "Two folders for the val part: 'val', 'valid'"),
        ({}, 2, "No such file or folder: '{root}'. Did you mean 'date'?"),
    ],
    ids=["one class", "flat", "no images", "flat parts", "no train", "two vals", "missing"],
)
def test_a_tree_that_is_no_dataset_is_refused_in_one_line(
    tree: dict[str, int], code: int, words: str, tmp_path: Path, transfer: Callable[..., Ended]
) -> None:
    (tmp_path / "date").mkdir()
    if tree:
        fill(tmp_path / "data", tree)
    before, names = fingerprint(tmp_path / "data") if tree else "", sorted(tmp_path.rglob("*"))
    for command in ("inspect", "fit"):
        ended = transfer(command, "data", "-q")
        assert ended.code == code
        assert words.format(root=tmp_path / "data") in ended.message
    assert sorted(tmp_path.rglob("*")) == names
    assert not tree or fingerprint(tmp_path / "data") == before


def test_the_parent_of_train_and_val_is_read_as_parts_and_said_so(
    tmp_path: Path, transfer: Callable[..., Ended]
) -> None:
    fill(tmp_path / "data/train", {"a": 4, "b": 4})
    fill(tmp_path / "data/val", {"a": 2, "b": 2}, 2000)
    fill(tmp_path / "data/raw", {".": 2}, 3000)
    ended = transfer("inspect", "data", "-q")
    assert ended.code == 0
    assert "class folders in train/ and val/" in ended.out
    assert "test: 4 images, as given (called val there)." in ended.out
    assert "Note: Beside the train folder, not read: 'raw'." in ended.out


# --- trees


def test_clutter_is_counted_by_reason_and_by_extension(hostile: Hostile, inspected: dict[str, Any]) -> None:
    told = inspected["ignored"]
    assert (told["hidden file"], told["in a hidden folder"], told["not an image (.txt)"]) == (3, 2, 1)
    assert sum(told.values()) == sum(inspected["ignored_extensions"].values()) == inspected["n_ignored"]
    assert inspected["ignored_extensions"][".txt"] == 1


def test_links_count_once_and_one_out_of_the_folder_is_noted(hostile: Hostile, inspected: dict[str, Any]) -> None:
    assert inspected["classes"]["ant"]["n"] == N_GOOD + sum(
        fault.fate == "used" and fault.path.startswith("ant/") for fault in hostile.faults
    )
    assert f"1 symbolic link to files or folders outside '{hostile.root}'." in inspected["notes"]
    unfollowed = scan(hostile.root, follow_links=False)
    assert {Path(s.path).name for s in unfollowed.ignored if s.reason == "symbolic link, not followed"} == {
        *("outside.png", "dangling.png", "device.png", "up")
    }


def test_copies_stay_in_one_part_and_those_with_two_labels_are_listed(
    hostile: Hostile, inspected: dict[str, Any], fitted: Path, tmp_path: Path, transfer: Callable[..., Ended]
) -> None:
    assert inspected["duplicates"]["across_classes"] == [["ant/00.png", "bee/also_an_ant.png"]]
    parts = {row["path"]: row["split"] for row in rows_of(fitted / "split.csv")}
    assert parts["ant/00.png"] == parts["bee/also_an_ant.png"]

    fill(tmp_path / "data/train", {"a": 4, "b": 4})
    fill(tmp_path / "data/test", {"a": 2, "b": 2}, 1000 + 4 - 2)  # the last two of a and the first two of b
    told = json.loads(transfer("inspect", "data", "--json", "-q").out)
    assert len(told["duplicates"]["across_splits"]) == 4
    assert any("4 images found in more than one of train, val and test" in note for note in told["notes"])


def test_a_rare_class_counts_as_much_as_a_frequent_one(shapes: Path, weights: Path, tmp_path: Path) -> None:
    counts = {"circle": 20, "square": 20, "stripes": 4}
    for name, n in counts.items():
        for path in sorted((shapes / name).iterdir())[:n]:
            (tmp_path / "data" / name).mkdir(parents=True, exist_ok=True)
            shutil.copy(path, tmp_path / "data" / name)
    fit = library.fit(
        tmp_path / "data", "ridge", out=tmp_path / "run", backbone="test_resnet", weights=str(weights), quiet=True
    )
    balance = fit.info["head"]["class_weights"]
    assert balance["2"] > 3 * balance["0"]
    assert {"balanced_accuracy", "macro_f1"} <= fit.metrics["test"].keys()
    assert fit.metrics["test"]["per_class"][2]["n"] == 1
