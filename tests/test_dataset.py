"""Tests of the dataset: layouts, accounting, hostile names, splits. Files are a format's first bytes and some text."""

from __future__ import annotations

import ast
import codecs
import csv
import graphlib
import json
import os
import shutil
import subprocess
import sys
import time
import tracemalloc
import unicodedata
from pathlib import Path

import numpy as np
import pytest
from encoded import HEIC

import transfer.dataset
from transfer.dataset import (
    PARTS,
    Dataset,
    Skipped,
    describe,
    display,
    draw_split,
    duplicates,
    find_images,
    from_lists,
    held_out_share,
    read_split,
    scan,
    sniff,
    write_split,
)
from transfer.errors import DataError, UsageError

JPEG = b"\xff\xd8\xff\xe0"
PNG = b"\x89PNG\r\n\x1a\n"


def draw(path: Path, content: str | None = None, magic: bytes = JPEG) -> Path:
    """Make a file that passes for an image; its content is its path unless given."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(magic + (str(path) if content is None else content).encode("utf-8", "surrogateescape"))
    return path


def fill(root: Path, counts: dict[str, int], tag: str = "") -> Path:
    """Make class folders below `root` whose images have contents that depend on `tag`, not on the place."""
    for name, n in counts.items():
        for i in range(n):
            draw(root / name / f"{i:04}.jpg", f"{tag}{name}{i}")
    return root


def n_files(root: Path) -> int:
    """Count everything that is not a folder, as `find` does, without following links."""
    return sum(len(names) + sum((Path(f) / d).is_symlink() for d in folders) for f, folders, names in os.walk(root))


def reasons(skipped: list[Skipped]) -> dict[str, str]:
    return {Path(s.path).name: s.reason for s in skipped}


@pytest.fixture
def pets(tmp_path: Path) -> Path:
    return fill(tmp_path / "pets", {"cats": 6, "dogs": 5})


# --- layouts


def test_class_folders_give_sorted_names_and_no_parts(pets: Path) -> None:
    dataset = scan(pets)
    assert dataset.classes == ("cats", "dogs")
    assert dataset.labels.dtype == np.int32
    assert dataset.labels.tolist() == [0] * 6 + [1] * 5
    assert set(dataset.parts.tolist()) == {""}
    assert dataset.paths == sorted(dataset.paths)
    assert dataset.relative(0) == "cats/0000.jpg"
    assert len(dataset) == len(dataset.hashes) == len(dataset.sizes) == 11
    assert dataset.notes == []


def test_numeric_class_names_are_sorted_as_text(tmp_path: Path) -> None:
    assert scan(fill(tmp_path, {"10": 5, "2": 5, "1": 5})).classes == ("1", "10", "2")


def test_images_nested_below_a_class_folder_belong_to_it(pets: Path) -> None:
    draw(pets / "cats" / "2019" / "may" / "x.jpg")
    draw(pets / "dogs" / "2019" / "x.jpg")
    dataset = scan(pets)
    assert dataset.classes == ("cats", "dogs")
    assert np.bincount(dataset.labels).tolist() == [7, 6]


@pytest.mark.parametrize("name", ["val", "valid", "Validation", "DEV", "test"])
def test_train_and_another_part_are_recognised_whatever_the_case(tmp_path: Path, name: str) -> None:
    fill(tmp_path / "Train", {"a": 5, "b": 5}, "train")
    fill(tmp_path / name, {"a": 2, "b": 2}, "other")
    dataset = scan(tmp_path)
    assert dataset.classes == ("a", "b")
    expected = "test" if name == "test" else "val"
    assert {part: int((dataset.parts == part).sum()) for part in ("train", expected)} == {"train": 10, expected: 4}


def test_a_second_part_may_have_any_name_if_it_has_the_same_classes(tmp_path: Path) -> None:
    fill(tmp_path / "train", {"a": 5, "b": 5}, "train")
    fill(tmp_path / "holdout", {"a": 2, "b": 2}, "other")
    assert int((scan(tmp_path).parts == "test").sum()) == 4


def test_train_alone_is_one_part(tmp_path: Path) -> None:
    dataset = scan(fill(tmp_path / "train", {"a": 5, "b": 5}).parent)
    assert dataset.classes == ("a", "b")
    assert set(dataset.parts.tolist()) == {"train"}


def test_a_folder_of_unlabelled_images_beside_train_is_not_a_class(tmp_path: Path) -> None:
    fill(tmp_path / "train", {"a": 5, "b": 5})
    draw(tmp_path / "unlabelled" / "1.jpg")
    dataset = scan(tmp_path)
    assert dataset.classes == ("a", "b")
    assert any("'unlabelled'" in note for note in dataset.notes)
    assert dataset.n_seen == n_files(tmp_path) == 11


def test_a_test_folder_without_classes_is_left_out_and_said_so(tmp_path: Path) -> None:
    fill(tmp_path / "train", {"a": 5, "b": 5})
    draw(tmp_path / "test" / "1.jpg")
    dataset = scan(tmp_path)
    assert set(dataset.parts.tolist()) == {"train"}
    assert any("'test' holds images but no class folders" in note for note in dataset.notes)
    assert reasons(dataset.ignored) == {"1.jpg": "image outside the class folders"}


def test_a_class_may_be_called_train(tmp_path: Path) -> None:
    assert scan(fill(tmp_path, {"train": 5, "car": 5, "plane": 5})).classes == ("car", "plane", "train")


@pytest.mark.parametrize("parts", [("train",), ("train", "val"), ("train", "test", "val")])
def test_part_folders_without_class_folders_are_not_taken_for_classes(tmp_path: Path, parts: tuple[str, ...]) -> None:
    fill(tmp_path, dict.fromkeys(parts, 3))
    with pytest.raises(DataError, match=r"'.*train' holds images but no class folders.*train/cats/1.jpg"):
        scan(tmp_path)


def test_val_and_test_without_train_is_an_error(tmp_path: Path) -> None:
    for part in ("val", "test"):
        fill(tmp_path / part, {"a": 2, "b": 2})
    with pytest.raises(DataError, match="no train folder"):
        scan(tmp_path)


def test_two_folders_for_the_same_part_are_an_error(tmp_path: Path) -> None:
    for part in ("train", "val", "valid"):
        fill(tmp_path / part, {"a": 2, "b": 2})
    with pytest.raises(DataError, match="'val', 'valid'"):
        scan(tmp_path)


def test_a_lone_folder_around_the_classes_is_entered_and_noted(tmp_path: Path) -> None:
    fill(tmp_path / "release" / "images", {"a": 5, "b": 5})
    (tmp_path / "labels").mkdir()
    (tmp_path / "labels" / "a.json").write_text("{}")
    (tmp_path / "README.md").write_text("hello")
    dataset = scan(tmp_path)
    assert dataset.classes == ("a", "b")
    assert dataset.relative(0) == "release/images/a/0000.jpg"
    assert any("'release/images'" in note for note in dataset.notes)
    assert dataset.n_seen == n_files(tmp_path) == 12


def test_a_lone_class_folder_with_subfolders_is_read_as_a_folder_around_classes_and_noted(tmp_path: Path) -> None:
    dataset = scan(fill(tmp_path / "cats", {"2019": 5, "2020": 5}).parent)
    assert dataset.classes == ("2019", "2020")
    assert any(note.startswith("Read 'cats', the only folder with images") for note in dataset.notes)


def test_val_with_a_class_that_train_lacks_is_an_error_that_lists_it(tmp_path: Path) -> None:
    fill(tmp_path / "train", {"a": 5, "b": 5})
    fill(tmp_path / "val", {"a": 2, "zebra": 2})
    with pytest.raises(DataError, match=r"1 class of the val part without a training image: 'zebra'"):
        scan(tmp_path)


def test_a_class_missing_in_test_is_noted(tmp_path: Path) -> None:
    fill(tmp_path / "train", {"a": 5, "b": 5}, "train")
    fill(tmp_path / "test", {"a": 2}, "test")
    assert "1 class has no test image: 'b'." in scan(tmp_path).notes


# --- tables


def write_table(path: Path, rows: list[list[str]], delimiter: str = ",", encoding: str = "utf-8") -> Path:
    with path.open("w", newline="", encoding=encoding) as target:
        csv.writer(target, delimiter=delimiter).writerows(rows)
    return path


@pytest.mark.parametrize(
    ("header", "delimiter", "encoding"),
    [
        (["path", "label"], ",", "utf-8"),
        (["File_Name", " Class "], ";", "utf-8-sig"),
        (["image", "label"], "\t", "utf-16"),
        (["filename", "label"], "|", "utf-8"),
    ],
)
def test_a_table_of_labels_is_read_in_usual_dialects(
    pets: Path, header: list[str], delimiter: str, encoding: str
) -> None:
    rows = [[f"cats/{i:04}.jpg", "cat"] for i in range(6)] + [[f"dogs\\{i:04}.jpg", " dog"] for i in range(5)]
    dataset = scan(write_table(pets / "labels.csv", [header, *rows], delimiter, encoding))
    assert dataset.classes == ("cat", "dog")
    assert dataset.relative(10) == "dogs/0004.jpg"
    assert dataset.n_seen == 11


def test_metadata_csv_in_a_folder_accounts_for_the_whole_folder(pets: Path) -> None:
    rows = [["file_name", "label"]] + [[f"{kind}/{i:04}.jpg", kind] for kind in ("cats", "dogs") for i in range(4)]
    write_table(pets / "metadata.csv", rows)
    dataset = scan(pets)
    assert (len(dataset), dataset.layout) == (8, "table metadata.csv")
    assert dataset.n_seen == n_files(pets) == 12
    assert reasons(dataset.ignored)["metadata.csv"] == "the table of labels"
    assert reasons(dataset.ignored)["0005.jpg"] == "not listed in metadata.csv"


def test_metadata_csv_without_labels_leaves_class_folders_in_charge(pets: Path) -> None:
    write_table(pets / "metadata.csv", [["file_name", "caption"], ["cats/0000.jpg", "a cat"]])
    dataset = scan(pets)
    assert dataset.layout == "class folders"
    assert dataset.n_seen == n_files(pets)


def hub_folder(root: Path, parts: dict[str, int], header: tuple[str, ...] = ("file_name", "label")) -> Path:
    """Make part folders of images that share their names, each with a `metadata.csv` as Hugging Face wants it."""
    for part, n in parts.items():
        rows = [[f"{i}.jpg", "ab"[i % 2]] for i in range(n)]
        for name, _ in rows:
            draw(root / part / name)
        write_table(root / part / "metadata.csv", [list(header), *(row[: len(header)] for row in rows)])
    return root


def test_metadata_csv_in_each_part_folder_is_read(tmp_path: Path) -> None:
    hub_folder(tmp_path, {"train": 6, "validation": 4, "test": 2})
    draw(tmp_path / "train" / "unlisted.jpg")
    dataset = scan(tmp_path)
    assert dataset.classes == ("a", "b")
    assert {part: int((dataset.parts == part).sum()) for part in PARTS} == {"train": 6, "val": 4, "test": 2}
    assert {dataset.relative(i).split("/")[0] for i in np.flatnonzero(dataset.parts == "val")} == {"validation"}
    assert dataset.n_seen == n_files(tmp_path) == 16
    assert reasons(dataset.ignored)["unlisted.jpg"] == "not listed in metadata.csv"
    assert dataset.layout == "tables train/metadata.csv and validation/metadata.csv and test/metadata.csv"


def test_part_folders_with_tables_are_found_below_a_lone_folder(tmp_path: Path) -> None:
    hub_folder(tmp_path / "data", {"train": 6, "test": 2})
    dataset = scan(tmp_path)
    assert int((dataset.parts == "test").sum()) == 2
    assert dataset.relative(0) == "data/test/0.jpg"
    assert any(note.startswith("Read 'data', the only folder") for note in dataset.notes)
    assert dataset.n_seen == n_files(tmp_path) == 10


def test_a_test_folder_whose_table_has_no_labels_is_left_out_and_said_so(tmp_path: Path) -> None:
    hub_folder(tmp_path, {"train": 6})
    hub_folder(tmp_path, {"test": 2}, header=("file_name",))
    dataset = scan(tmp_path)
    assert set(dataset.parts.tolist()) == {"train"}
    assert "Without a table of labels, not read: 'test'." in dataset.notes
    assert dataset.n_seen == n_files(tmp_path) == 10


def test_a_train_folder_whose_table_has_no_labels_is_told_which_columns_to_give(tmp_path: Path) -> None:
    hub_folder(tmp_path, {"train": 6, "test": 2}, header=("file_name",))
    with pytest.raises(DataError, match=r"or list file_name and label in train/metadata\.csv"):
        scan(tmp_path)


def test_a_table_in_a_part_folder_cannot_name_files_of_another_part(tmp_path: Path) -> None:
    hub_folder(tmp_path, {"train": 6, "test": 2})
    write_table(tmp_path / "test" / "metadata.csv", [["file_name", "label"], ["../train/0.jpg", "a"]])
    with pytest.raises(DataError, match="leads out of the table's folder"):
        scan(tmp_path)


def test_class_folders_stay_in_charge_where_part_tables_have_no_labels(tmp_path: Path) -> None:
    fill(tmp_path / "train", {"a": 5, "b": 5})
    write_table(tmp_path / "train" / "metadata.csv", [["file_name", "caption"], ["a/0000.jpg", "an a"]])
    assert scan(tmp_path).layout == "class folders in train/"


def test_a_class_called_test_may_hold_a_table(tmp_path: Path) -> None:
    hub_folder(fill(tmp_path, {"car": 5, "plane": 5}), {"test": 2})
    assert scan(tmp_path).classes == ("car", "plane", "test")


def test_two_tables_for_the_same_part_are_an_error(tmp_path: Path) -> None:
    hub_folder(tmp_path, {"train": 4, "val": 2, "valid": 2})
    with pytest.raises(DataError, match="Two folders for the val part: 'val', 'valid'"):
        scan(tmp_path)


def test_a_split_column_is_used(pets: Path) -> None:
    rows = [
        [f"{kind}/{i:04}.jpg", kind, ["Train", "valid", "test"][i % 3]] for kind in ("cats", "dogs") for i in range(5)
    ]
    dataset = scan(write_table(pets / "t.csv", [["path", "label", "split"], *rows]))
    assert sorted(set(dataset.parts.tolist())) == ["test", "train", "val"]


def test_a_split_column_may_call_the_second_part_anything(pets: Path) -> None:
    rows = [[f"{k}/{i:04}.jpg", k, "train" if i < 3 else "hold-out"] for k in ("cats", "dogs") for i in range(5)]
    dataset = scan(write_table(pets / "t.csv", [["path", "label", "split"], *rows]))
    assert int((dataset.parts == "test").sum()) == 4


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([["file", "kind"], ["a.jpg", "a"]], "has the columns file, kind; expected path|file_name|filename|image and"),
        ([["path", "label"]], "has no rows"),
        ([["path", "label"], ["../outside.jpg", "a"]], "line 2: '../outside.jpg' leads out of the table's folder"),
        ([["path", "label"], ["cats/0000.jpg"]], "line 2: 1 column, fewer"),
        ([["path", "label"], ["", "a"]], "line 2: the path is empty"),
        ([["path", "label"], ["no.jpg", "a"], ["nor.jpg", "b"]], "None of the 2 files"),
        ([["path", "label"], ["cats/0000.jpg", "a"], ["./cats/0000.jpg", "b"]], "two labels: 'a' on line 2 and 'b' on"),
        ([["path", "label", "split"], ["cats/0000.jpg", "a", "tset"]], "Did you mean 'test'?"),
        ([["path", "label", "split"], ["cats/0000.jpg", "a", ""], ["cats/0001.jpg", "b", "val"]], "1 of 2 entries"),
    ],
)
def test_a_table_that_cannot_be_used_is_refused_in_one_line(pets: Path, rows: list[list[str]], message: str) -> None:
    draw(pets.parent / "outside.jpg")
    table = write_table(pets / "t.csv", rows)
    with pytest.raises(DataError) as caught:
        scan(table)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_table_may_name_files_elsewhere_in_full_and_missing_ones_are_recorded(pets: Path, tmp_path: Path) -> None:
    elsewhere = draw(tmp_path / "elsewhere" / "x.jpg")
    rows = [["path", "label"], ["cats/0000.jpg", "a"], ["cats/0001.jpg", "b"], [str(elsewhere), "b"]]
    rows += [["cats/gone.jpg", "a"], ["cats", "a"], ["cats/0002.jpg", ""], ["cats/0000.jpg", "a"]]
    dataset = scan(write_table(pets / "t.csv", rows))
    assert sorted(dataset.relative(i) for i in range(3)) == sorted(["cats/0000.jpg", "cats/0001.jpg", str(elsewhere)])
    assert reasons(dataset.unreadable) == {"gone.jpg": "file not found", "cats": "not a regular file"}
    assert reasons(dataset.ignored) == {"0002.jpg": "no label in the table"}
    assert any("1 row of 't.csv' repeat" in note for note in dataset.notes)


def test_a_table_that_is_not_text_is_refused(tmp_path: Path) -> None:
    table = tmp_path / "t.csv"
    table.write_bytes(JPEG + b"\0\0\n\0" * 100)
    with pytest.raises(DataError, match=r"t\.csv"):
        scan(table)


# --- lists


def test_lists_keep_their_order_and_repeats(pets: Path) -> None:
    paths = [pets / "dogs/0001.jpg", pets / "cats/0000.jpg", pets / "dogs/0001.jpg"]
    dataset = from_lists(paths, [7, 3, 7])
    assert dataset.paths == [str(path) for path in paths]
    assert dataset.classes == ("3", "7")
    assert dataset.labels.tolist() == [1, 0, 1]
    assert dataset.root is None
    assert dataset.relative(0) == str(paths[0])


def test_lists_of_unequal_length_are_refused(pets: Path) -> None:
    with pytest.raises(UsageError, match="equally long, not 1 and 2"):
        from_lists([pets / "dogs/0001.jpg"], ["a", "b"])


def test_lists_record_missing_files(pets: Path) -> None:
    dataset = from_lists([pets / "cats/0000.jpg", pets / "gone.jpg", pets / "dogs/0000.jpg"], ["a", "a", "b"])
    assert len(dataset) == 2
    assert dataset.unreadable == [Skipped(str(pets / "gone.jpg"), "file not found")]


# --- accounting


@pytest.mark.parametrize("has_extra", [False, True])
def test_heic_images_are_used_with_the_extra_and_counted_without(pets, monkeypatch, has_extra) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: "there" if has_extra else None)
    for i in range(2):
        (pets / "cats" / f"{i}.heic").write_bytes(HEIC + bytes([i]))
    dataset = scan(pets)
    assert len(dataset.unreadable) == 2 * (not has_extra)
    told = "2 HEIC images left out: `pip install 'transfer[heic]'`, or convert to JPEG."
    assert (told in dataset.notes) is not has_extra


def test_every_file_is_used_unreadable_or_ignored_with_a_reason(pets: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)  # as without the extra for HEIC
    (pets / ".DS_Store").write_text("x")
    draw(pets / "._0000.jpg")
    draw(pets / ".ipynb_checkpoints" / "cat-checkpoint.jpg")
    draw(pets / "__MACOSX" / "cats" / "inside.jpg")
    draw(pets / "beside.jpg")
    (pets / "notes.txt").write_text("x")
    draw(pets / "cats" / ".hidden.jpg")
    draw(pets / "cats" / ".ipynb_checkpoints" / "deep" / "deep.jpg")
    (pets / "cats" / "Thumbs.db").write_text("x")
    (pets / "cats" / "boxes.XML").write_text("<a/>")
    (pets / "cats" / "empty.jpg").touch()
    (pets / "cats" / "empty.txt").touch()
    (pets / "cats" / "page.jpg").write_text("\ufeff <!DOCTYPE html><html>404")
    (pets / "cats" / "denied.png").write_text("<?xml version='1.0'?><Error>AccessDenied</Error>")
    (pets / "cats" / "words.png").write_text("Not found")
    (pets / "cats" / "noise.bmp").write_bytes(bytes(range(200)))
    (pets / "cats" / "pointer.jpg").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:1")
    (pets / "cats" / "logo.svg").write_text("<svg xmlns='http://www.w3.org/2000/svg'/>")
    (pets / "cats" / "paper.jpg").write_bytes(b"%PDF-1.7")
    (pets / "cats" / "phone.HEIC").write_bytes(b"\0\0\0\x18ftypheic\0\0\0\0mif1heic")
    (pets / "cats" / "scan.dcm").write_bytes(bytes(128) + b"DICM")
    (pets / "cats" / "raw.nef").write_bytes(b"II*\0\x08\0\0\0")
    (pets / "cats" / "clip.mp4").write_bytes(b"\0\0\0\x18ftypisom\0\0\0\0isommp42")
    os.mkfifo(pets / "cats" / "pipe.jpg")
    (pets / "cats" / "folder.jpg").mkdir()
    (pets / "cats" / "dangling.jpg").symlink_to("nowhere.jpg")
    dataset = scan(pets)
    assert len(dataset) == 11
    assert dataset.n_seen == n_files(pets)
    assert reasons(dataset.unreadable) == {
        "empty.jpg": "empty file",
        "page.jpg": "not an image (HTML)",
        "denied.png": "not an image (XML)",
        "words.png": "not an image (text)",
        "noise.bmp": "not an image",
        "pointer.jpg": "Git LFS pointer: run `git lfs pull`",
        "paper.jpg": "unsupported format PDF",
        "phone.HEIC": "HEIC: `pip install 'transfer[heic]'`, or convert to JPEG",
    }
    assert reasons(dataset.ignored) == {
        ".DS_Store": "hidden file",
        "._0000.jpg": "hidden file",
        "cat-checkpoint.jpg": "in a hidden folder",
        "inside.jpg": "in a hidden folder",
        "beside.jpg": "image outside the class folders",
        "notes.txt": "not an image (.txt)",
        ".hidden.jpg": "hidden file",
        "deep.jpg": "in a hidden folder",
        "Thumbs.db": "hidden file",
        "boxes.XML": "not an image (.xml)",
        "empty.txt": "empty file",
        "logo.svg": "unsupported format SVG",
        "scan.dcm": "unsupported format DICOM",
        "raw.nef": "unsupported format RAW",
        "clip.mp4": "unsupported format video",
        "pipe.jpg": "not a regular file",
        "dangling.jpg": "dangling symbolic link",
    }


def test_nothing_is_written_into_the_dataset(pets: Path) -> None:
    def state() -> list[tuple[str, int]]:
        return sorted((str(path), path.stat().st_mtime_ns) for path in [pets, *pets.rglob("*")])

    before = state()
    describe(scan(pets), draw_split(scan(pets)))
    assert state() == before


def test_images_are_known_by_content_not_by_extension(pets: Path) -> None:
    draw(pets / "cats" / "no_extension")
    draw(pets / "cats" / "UPPER.JPG")
    draw(pets / "cats" / "odd.dat", magic=PNG)
    draw(pets / "cats" / "wrong.jpg", magic=PNG)
    dataset = scan(pets)
    assert len(dataset) == 15
    assert [note for note in dataset.notes if "'wrong.jpg' is PNG" in note]


def test_a_set_of_files_without_extensions_is_found(tmp_path: Path) -> None:
    for name in ("a", "b"):
        for i in range(5):
            draw(tmp_path / name / str(i))
    assert len(scan(tmp_path)) == 10


@pytest.mark.parametrize(
    ("head", "expected"),
    [
        (b"GIF89a", "GIF"),
        (b"MM\0*", "TIFF"),
        (b"BM" + bytes(12) + b"\x28\0\0\0", "BMP"),
        (b"BMW is a car, not an image", None),
        (b"RIFF\0\0\0\0WEBPVP8 ", "WebP"),
        (b"RIFF\0\0\0\0WAVEfmt ", None),
        (b"\0\0\0\x1cftypmif1\0\0\0\0mif1avif", "AVIF"),
        (b"P6\n# a comment\n3 2\n255\n", "PPM"),
        (b"P6 is a processor", None),
        (b"<?xml version='1.0'?>\n<svg>", "SVG"),
        (b"%!PS-Adobe-3.0 EPSF-3.0", "EPS"),
        (b"", None),
    ],
)
def test_formats_are_told_by_their_first_bytes(head: bytes, expected: str | None) -> None:
    assert sniff(head) == expected


def test_a_file_of_blanks_after_a_magic_number_does_not_stall_the_sniffing() -> None:
    started = time.perf_counter()
    assert sniff(b"P6" + b" " * 1022) is None
    assert time.perf_counter() - started < 1


def test_a_file_that_cannot_be_opened_is_unreadable(pets: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: str) -> str:
        if path.endswith("cats/0003.jpg"):
            raise PermissionError(13, "Permission denied", path)
        return f"hash of {path}"

    monkeypatch.setattr("transfer.dataset.candidates.sha256", refuse)
    dataset = scan(pets)
    assert reasons(dataset.unreadable) == {"0003.jpg": "cannot be opened: Permission denied"}
    assert dataset.n_seen == 11


def test_a_folder_that_cannot_be_opened_is_unreadable(pets: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    draw(pets / "cats" / "locked" / "1.jpg")
    scandir = os.scandir

    def refuse(path: str) -> object:
        if path.endswith("locked"):
            raise PermissionError(13, "Permission denied", path)
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)
    assert reasons(scan(pets).unreadable) == {"locked": "folder cannot be opened: Permission denied"}


def test_an_empty_class_folder_is_dropped_with_a_note(pets: Path) -> None:
    (pets / "axolotls").mkdir()
    (pets / "birds").mkdir()
    (pets / "birds" / "broken.jpg").touch()
    dataset = scan(pets)
    assert dataset.classes == ("cats", "dogs")
    assert dataset.labels.max() == 1
    assert "2 classes without a usable image, left out: 'axolotls', 'birds'." in dataset.notes


# --- links


def test_a_directory_loop_is_read_once(pets: Path) -> None:
    (pets / "cats" / "up").symlink_to(pets)
    (pets / "cats" / "self").symlink_to(pets / "cats")
    (pets / "cats" / "above").symlink_to(pets.parent.parent)
    (pets / "cats" / "round").symlink_to("round")
    dataset = scan(pets)
    assert len(dataset) == 11
    assert dataset.n_seen == n_files(pets) == 15
    assert set(reasons(dataset.ignored).values()) == {"directory loop"}


def test_a_link_never_takes_the_place_of_the_folder_it_leads_to(pets: Path) -> None:
    (pets / "aaa").symlink_to(pets / "dogs")
    dataset = scan(pets)
    assert dataset.classes == ("cats", "dogs")
    assert reasons(dataset.ignored) == {"aaa": "link to a folder already read"}


def test_links_outside_the_root_are_followed_and_noted(pets: Path, tmp_path: Path) -> None:
    birds = fill(tmp_path / "far", {"birds": 5})
    (pets / "birds").symlink_to(birds / "birds")
    (pets / "cats" / "linked.jpg").symlink_to(draw(tmp_path / "one.jpg"))
    dataset = scan(pets)
    assert dataset.classes == ("birds", "cats", "dogs")
    assert len(dataset) == 17
    assert any(note.startswith("2 symbolic links to files or folders outside") for note in dataset.notes)


def test_links_are_left_alone_when_asked(pets: Path, tmp_path: Path) -> None:
    (pets / "birds").symlink_to(fill(tmp_path / "far", {"birds": 5}) / "birds")
    (pets / "cats" / "linked.jpg").symlink_to(draw(tmp_path / "one.jpg"))
    dataset = scan(pets, follow_links=False)
    assert len(dataset) == 11
    assert dataset.n_seen == n_files(pets) == 13
    assert reasons(dataset.ignored)["linked.jpg"] == "symbolic link, not followed"


def test_a_farm_of_links_into_a_pool_beside_the_parts_is_read(tmp_path: Path) -> None:
    fill(tmp_path / "pool", {"x": 20})
    for i in range(20):
        link = tmp_path / ("train" if i < 14 else "test") / "ab"[i % 2] / f"{i}.jpg"
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(tmp_path / "pool" / "x" / f"{i:04}.jpg")
    dataset = scan(tmp_path)
    assert len(dataset) == 20
    assert dataset.n_seen == n_files(tmp_path) == 40


# --- names


HOSTILE = ["naïve Ωμ 猫.jpg", "sp ace.jpg", "quo\"te's.jpg", "new\nline.jpg", "carriage\rreturn.jpg", "-rf.jpg"]
HOSTILE += ["=1+1.jpg", "'=1+1.jpg", "@x.jpg", "a,b;c\td.jpg", "\x1b[31mred.jpg", "<img onerror=alert(1)>.jpg"]
HOSTILE += [os.fsdecode(b"caf\xe9.jpg"), os.fsdecode(b"\xff\xfe.jpg"), "caf\\udce9.jpg", "\u202egpj.exe.jpg"]


@pytest.fixture
def hostile(tmp_path: Path) -> Path:
    root = tmp_path / "hostile"
    for label in ("=sum(a)", "-a", os.fsdecode(b"\xe9t\xe9"), "two\nlines"):
        for name in HOSTILE:
            draw(root / label / name)
    return root


def test_hostile_names_survive_a_scan_and_a_written_split(hostile: Path, tmp_path: Path) -> None:
    dataset = scan(hostile)
    assert len(dataset) == 4 * len(HOSTILE) == dataset.n_seen
    assert {Path(path).name for path in dataset.paths} == set(HOSTILE)
    split = draw_split(dataset)
    write_split(tmp_path / "split.csv", dataset, split)
    assert read_split(tmp_path / "split.csv", dataset).parts.tolist() == split.parts.tolist()
    cells = (tmp_path / "split.csv").read_text(encoding="utf-8")
    assert "'=sum(a)" in cells


def test_hostile_names_are_safe_to_show_and_to_print_as_json(hostile: Path) -> None:
    (hostile / "-a" / "x.\x1b[31m").write_text("x")
    description = describe(scan(hostile))
    json.dumps(description, ensure_ascii=False).encode("utf-8")
    assert not any("\x1b" in reason for reason in description["ignored"])
    for name in HOSTILE:
        shown = display(name)
        assert all(c.isprintable() for c in shown)
        shown.encode("utf-8")
    assert display(os.fsdecode(b"caf\xe9")) == "caf\\xe9"
    assert display("naïve 猫 \u3000 x") == "naïve 猫 \u3000 x"


def test_names_in_a_table_need_not_be_utf8(tmp_path: Path) -> None:
    draw(Path(os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9.jpg")))
    draw(tmp_path / "b.jpg")
    (tmp_path / "t.csv").write_bytes(b"path,label\ncaf\xe9.jpg,\xe9\nb.jpg,b\n")
    dataset = scan(tmp_path / "t.csv")
    assert dataset.classes == ("b", os.fsdecode(b"\xe9"))


@pytest.mark.parametrize(
    ("one", "other"), [("Cat", "cat"), (unicodedata.normalize("NFC", "café"), unicodedata.normalize("NFD", "café"))]
)
def test_classes_that_look_the_same_are_noted(tmp_path: Path, one: str, other: str) -> None:
    fill(tmp_path, {one: 5, "x": 5})
    if (tmp_path / other).exists():
        pytest.skip("this file system takes the two names for one")
    fill(tmp_path, {other: 5}, "other")
    dataset = scan(tmp_path)
    assert len(dataset.classes) == 3
    assert sum("look the same" in note for note in dataset.notes) == 1


def test_a_class_of_val_that_only_looks_like_one_of_train_is_pointed_out(tmp_path: Path) -> None:
    fill(tmp_path / "train", {"Cat": 5, "dog": 5})
    fill(tmp_path / "val", {"cat": 2})
    with pytest.raises(DataError, match="'cat' looks like 'Cat'"):
        scan(tmp_path)


# --- images without labels


def test_images_are_found_in_files_and_folders_named_by_hand(pets: Path) -> None:
    (pets / "cats" / "notes.txt").write_text("x")
    draw(pets / "cats" / ".hidden.jpg")
    (pets / "cats" / "loop").symlink_to(pets)
    named = pets / "cats" / "notes.txt"
    found = find_images([named, pets])
    assert found == [str(named), *scan(pets).paths]


def test_looking_for_images_where_there_are_none_is_refused(pets: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="Did you mean 'pets'"):
        find_images([tmp_path / "petz"])
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="holds no images"):
        find_images([tmp_path / "empty"])


# --- refusals


def test_a_missing_folder_names_the_nearest(pets: Path) -> None:
    with pytest.raises(UsageError, match=r"No such file or folder: '.*petz'\. Did you mean 'pets'\?"):
        scan(pets.parent / "petz")
    with pytest.raises(UsageError, match="Did you mean 'pets'"):
        scan(pets.parent / "petz" / "train")


def test_a_file_that_is_no_table_is_refused(pets: Path) -> None:
    with pytest.raises(UsageError, match="is a file: give a folder of images or a CSV file"):
        scan(pets / "cats" / "0000.jpg")


def test_an_empty_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"holds no images\..* DATA/cats/1.jpg, DATA/dogs/2.jpg"):
        scan(tmp_path)
    (tmp_path / "cats").mkdir()
    with pytest.raises(DataError, match="holds 1 folder but no images"):
        scan(tmp_path)


def test_images_without_class_folders_are_refused_with_an_example(pets: Path) -> None:
    with pytest.raises(DataError, match=r"holds 6 images but no class folders.* DATA/cats/1.jpg, DATA/dogs/2.jpg"):
        scan(pets / "cats")


def test_a_single_class_is_refused_unless_allowed(pets: Path) -> None:
    shutil.rmtree(pets / "dogs")
    with pytest.raises(DataError, match="single class, 'cats'"):
        scan(pets)
    assert scan(pets, min_classes=1).classes == ("cats",)


def test_a_set_of_broken_images_is_refused_with_the_reasons(tmp_path: Path) -> None:
    for i, label in enumerate(("a", "b", "b")):
        (tmp_path / label).mkdir(exist_ok=True)
        (tmp_path / label / f"{i}.jpg").write_text("<html>" if i else "")
    with pytest.raises(DataError, match=r"None of the 3 images .* 2 not an image \(HTML\), 1 empty file"):
        scan(tmp_path)


# --- without, subset, fingerprint


def test_without_moves_images_and_keeps_the_count(pets: Path) -> None:
    dataset = scan(pets)
    fewer = dataset.without([Skipped(dataset.paths[0], "truncated"), (dataset.paths[7], "truncated")])
    assert (len(fewer), len(fewer.unreadable)) == (9, 2)
    assert fewer.n_seen == dataset.n_seen
    assert fewer.paths == [path for i, path in enumerate(dataset.paths) if i not in (0, 7)]
    assert fewer.labels.tolist() == [0] * 5 + [1] * 4
    assert fewer.hashes[0] == dataset.hashes[1]
    assert fewer.fingerprint != dataset.fingerprint


def test_without_drops_a_class_that_has_become_empty(tmp_path: Path) -> None:
    dataset = scan(fill(tmp_path, {"a": 5, "b": 1, "c": 5}))
    fewer = dataset.without([(dataset.paths[5], "truncated")])
    assert fewer.classes == ("a", "c")
    assert fewer.labels.tolist() == [0] * 5 + [1] * 5
    assert any("left out: 'b'" in note for note in fewer.notes)
    with pytest.raises(DataError, match=r"single class, 'c' \(6 truncated could not be used\)"):
        dataset.without([(path, "truncated") for path in dataset.paths[:6]])


def test_without_refuses_paths_it_does_not_know(pets: Path) -> None:
    with pytest.raises(UsageError, match="'x' is not among the 11 images"):
        scan(pets).without([("x", "truncated")])


def test_without_removes_every_occurrence_in_lists(pets: Path) -> None:
    paths = [pets / "cats/0000.jpg", pets / "cats/0001.jpg", pets / "cats/0001.jpg", pets / "dogs/0000.jpg"]
    dataset = from_lists(paths, ["a", "a", "a", "b"]).without([(str(paths[1]), "truncated")])
    assert (len(dataset), dataset.n_seen) == (2, 4)


def test_a_subset_keeps_the_classes_and_the_given_order(pets: Path) -> None:
    dataset = scan(pets)
    part = dataset.subset([3, 1])
    assert part.paths == [dataset.paths[3], dataset.paths[1]]
    assert part.classes == ("cats", "dogs")


def test_the_fingerprint_follows_content_and_labels_but_not_the_place(pets: Path, tmp_path: Path) -> None:
    before = scan(pets).fingerprint
    shutil.copytree(pets, tmp_path / "copy")
    assert scan(tmp_path / "copy").fingerprint == before
    (tmp_path / "copy/cats/0000.jpg").rename(tmp_path / "copy/dogs/moved.jpg")
    assert scan(tmp_path / "copy").fingerprint != before
    draw(pets / "cats/0000.jpg", "changed")
    assert scan(pets).fingerprint != before


# --- splits


def of_class(dataset: Dataset, parts: np.ndarray, part: str) -> list[int]:
    return np.bincount(dataset.labels[parts == part], minlength=len(dataset.classes)).tolist()


def test_a_drawn_split_is_stratified(tmp_path: Path) -> None:
    dataset = scan(fill(tmp_path, {"a": 200, "b": 100, "c": 25}))
    split = draw_split(dataset)
    assert of_class(dataset, split.parts, "test") == [40, 20, 5]
    assert of_class(dataset, split.parts, "val") == [32, 16, 4]
    assert of_class(dataset, split.parts, "train") == [128, 64, 16]
    assert not split.cross_validate
    assert [line.split(":")[0] for line in split.reason] == ["test", "val", "train"]
    assert sum(len(split.indices(part)) for part in ("train", "val", "test")) == 325


def test_a_drawn_split_depends_on_content_and_seed_alone(tmp_path: Path) -> None:
    counts = {"a": 60, "b": 40}
    here = scan(fill(tmp_path / "here", counts))
    there = fill(tmp_path / "far" / "there", counts)
    for path in list(there.rglob("*.jpg")):
        path.rename(path.with_name(path.name[::-1].replace("gpj.", "") + ".jpeg"))
    moved = scan(there)

    def tested(dataset: Dataset, seed: int) -> set[str]:
        return {dataset.hashes[i] for i in draw_split(dataset, seed=seed).indices("test")}

    assert tested(here, 0) == tested(here, 0) == tested(moved, 0)
    assert tested(here, 0) != tested(here, 1)
    order = np.random.default_rng(0).permutation(len(here))
    assert tested(here.subset(order), 0) == tested(here, 0)


def test_a_grown_set_keeps_most_of_its_test_part(tmp_path: Path) -> None:
    fill(tmp_path, {"a": 100, "b": 100})
    before = scan(tmp_path)
    tested = {before.hashes[i] for i in draw_split(before).indices("test")}
    fill(tmp_path, {"a": 110, "b": 110})
    after = scan(tmp_path)
    assert len(tested & {after.hashes[i] for i in draw_split(after).indices("test")}) >= 0.8 * len(tested)


def test_exact_copies_stay_on_one_side_even_with_two_labels(tmp_path: Path) -> None:
    for i in range(60):
        draw(tmp_path / "a" / f"{i}.jpg", f"shared {i % 40}")
        draw(tmp_path / "b" / f"{i}.jpg", f"shared {i % 20}" if i < 30 else f"own {i}")
    dataset = scan(tmp_path)
    assert len(duplicates(dataset)) == 20
    for seed in range(5):
        parts = draw_split(dataset, seed=seed, test_share=0.3).parts
        assert all(len(set(parts[group].tolist())) == 1 for group in duplicates(dataset))
        assert 20 <= (parts == "test").sum() <= 44


def test_every_class_keeps_an_image_to_train_on(tmp_path: Path) -> None:
    fill(tmp_path, {f"class{n}": n for n in range(1, 6)})
    for i in range(4):
        draw(tmp_path / "copies" / f"{i}.jpg", "all the same")
    dataset = scan(tmp_path)
    for seed in range(5):
        split = draw_split(dataset, seed=seed, test_share=0.5, val_share=0.5)
        assert min(of_class(dataset, split.parts, "train")) >= 1
        assert "class1" in split.reason[1]
        assert "'class1'" in next(line for line in split.reason if "no image of" in line)
        assert len(split.indices("test")) >= 5


def test_a_class_with_one_image_goes_to_train_with_a_note(tmp_path: Path) -> None:
    dataset = scan(fill(tmp_path, {"a": 30, "b": 1}))
    split = draw_split(dataset)
    assert split.parts[-1] == "train"
    assert "test has no image of 'b': too few to spare one." in split.reason
    assert any("'b: 1'" in note for note in dataset.notes)


def test_three_given_parts_are_used_as_they_are(tmp_path: Path) -> None:
    for part, n in (("train", 5), ("dev", 3), ("test", 4)):
        fill(tmp_path / part, {"a": n, "b": n}, part)
    dataset = scan(tmp_path)
    split = draw_split(dataset)
    assert split.parts.tolist() == dataset.parts.tolist()
    assert split.reason == ["train: 10, val: 6, test: 8 images, as given."]
    assert not split.cross_validate


def test_of_two_given_parts_the_other_reports_and_val_comes_from_train(tmp_path: Path) -> None:
    fill(tmp_path / "train", {"a": 50, "b": 50}, "train")
    fill(tmp_path / "val", {"a": 10, "b": 10}, "val")
    dataset = scan(tmp_path)
    split = draw_split(dataset)
    assert (split.parts == "test").tolist() == (dataset.parts == "val").tolist()
    assert of_class(dataset, split.parts, "val") == [10, 10]
    assert "called val there" in split.reason[0]
    assert not split.cross_validate


def test_a_small_set_is_cross_validated_when_its_test_part_was_drawn(pets: Path) -> None:
    split = draw_split(scan(pets))
    assert split.cross_validate
    assert "cross-validated" in split.reason[-1]


def test_copies_across_given_parts_are_reported_not_moved(tmp_path: Path) -> None:
    fill(tmp_path / "train", {"a": 5, "b": 5})
    fill(tmp_path / "test", {"a": 2, "b": 6})
    dataset = scan(tmp_path)
    split = draw_split(dataset, val_share=0)
    assert len(split.indices("test")) == 8
    assert len(describe(dataset, split)["duplicates"]["across_splits"]) == 7
    assert any("7 images found in more than one of train, val and test" in note for note in dataset.notes)


def test_the_held_out_share_follows_the_size() -> None:
    assert [round(n * held_out_share(n)) for n in (100, 397, 2500, 4999, 5000, 25_000, 100_000)] == [
        20,
        79,
        500,
        500,
        500,
        2500,
        2500,
    ]


def test_a_share_out_of_range_is_refused_and_one_without_use_is_mentioned(tmp_path: Path) -> None:
    fill(tmp_path / "train", {"a": 5, "b": 5}, "train")
    fill(tmp_path / "test", {"a": 5, "b": 5}, "test")
    dataset = scan(tmp_path)
    with pytest.raises(UsageError, match="val_share must be at least 0 and under 1, not 20"):
        draw_split(dataset, val_share=20)
    split = draw_split(dataset, test_share=0.2)
    assert len(split.indices("test")) == 10
    assert split.reason[0] == "test_share is not used: the data comes with that part."


# --- written splits


@pytest.fixture
def written(pets: Path, tmp_path: Path) -> tuple[Dataset, Path, list[list[str]]]:
    dataset = scan(pets)
    write_split(tmp_path / "split.csv", dataset, draw_split(dataset))
    with (tmp_path / "split.csv").open(newline="", encoding="utf-8") as source:
        return dataset, tmp_path / "split.csv", list(csv.reader(source))


def test_a_written_split_is_found_again_in_any_order(written: tuple[Dataset, Path, list[list[str]]]) -> None:
    dataset, path, rows = written
    assert rows[0] == ["path", "label", "split", "sha256"]
    assert rows[1] == ["cats/0000.jpg", "cats", draw_split(dataset).parts[0], dataset.hashes[0]]
    write_table(path, [rows[0], *reversed(rows[1:])], delimiter=";")
    split = read_split(path, dataset)
    assert split.parts.tolist() == draw_split(dataset).parts.tolist()
    assert split.cross_validate == draw_split(dataset).cross_validate


def test_a_split_without_hashes_is_read(written: tuple[Dataset, Path, list[list[str]]]) -> None:
    dataset, path, rows = written
    write_table(path, [row[:3] for row in rows])
    assert read_split(path, dataset).parts.tolist() == draw_split(dataset).parts.tolist()


def test_a_written_split_that_does_not_fit_names_the_rows(written: tuple[Dataset, Path, list[list[str]]]) -> None:
    dataset, path, rows = written
    write_table(path, [*rows[:3], *rows[4:], ["cats/new.jpg", "cats", "val"]])
    with pytest.raises(DataError, match=r"lacks 'cats/0002.jpg' and lists 'cats/new.jpg', not in the data"):
        read_split(path, dataset)
    write_table(path, [rows[0], [rows[1][0], "dogs", "val"], *rows[2:]])
    with pytest.raises(DataError, match=r"line 2: 'cats/0000.jpg' has the label 'dogs', in the data it is 'cats'"):
        read_split(path, dataset)
    write_table(path, [row[:2] for row in rows])
    with pytest.raises(DataError, match=r"columns path, label; expected .*split\|part"):
        read_split(path, dataset)
    with pytest.raises(UsageError, match="Cannot read"):
        read_split(path.with_name("none.csv"), dataset)


def test_a_split_that_leaves_a_class_nothing_to_train_on_is_refused(
    written: tuple[Dataset, Path, list[list[str]]],
) -> None:
    dataset, path, rows = written
    write_table(path, [rows[0], *([p, label, "train" if label == "cats" else "test"] for p, label, *_ in rows[1:])])
    with pytest.raises(DataError, match="test part without a training image: 'dogs'"):
        read_split(path, dataset)


def test_a_split_of_two_parts_is_completed(written: tuple[Dataset, Path, list[list[str]]]) -> None:
    dataset, path, rows = written
    write_table(path, [rows[0], *([p, label, "test" if p.endswith("0.jpg") else "train"] for p, label, *_ in rows[1:])])
    split = read_split(path, dataset)
    assert [len(split.indices(part)) for part in ("test", "val")] == [2, 2]


def test_a_split_may_list_images_that_are_unreadable_now(written: tuple[Dataset, Path, list[list[str]]]) -> None:
    dataset, path, _ = written
    fewer = dataset.without([(dataset.paths[0], "truncated")])
    assert read_split(path, fewer).parts.tolist() == draw_split(dataset).parts.tolist()[1:]


def test_a_split_may_lack_images_that_are_not_decoded_yet(written: tuple[Dataset, Path, list[list[str]]]) -> None:
    dataset, path, rows = written
    write_table(path, [rows[0], *rows[2:]])
    with pytest.raises(DataError, match=r"lacks 'cats/0000.jpg'"):
        read_split(path, dataset)
    assert read_split(path, dataset, before_decoding=True).parts[0] == "train"
    write_table(path, [rows[0], ["other.jpg", "cats", "train"]])
    with pytest.raises(DataError, match=r"lists 'other.jpg'"):
        read_split(path, dataset, before_decoding=True)


def test_a_split_of_lists_with_repeats_is_found_again(pets: Path, tmp_path: Path) -> None:
    paths = [pets / "cats/0000.jpg", pets / "cats/0000.jpg", pets / "dogs/0000.jpg", pets / "dogs/0001.jpg"]
    dataset = from_lists(paths, ["a", "a", "b", "b"], ["train", "test", "train", "val"])
    write_split(tmp_path / "s.csv", dataset, draw_split(dataset))
    assert read_split(tmp_path / "s.csv", dataset).parts.tolist() == ["train", "test", "train", "val"]


# --- describing


def test_a_description_counts_everything(pets: Path) -> None:
    draw(pets / "cats" / "copy.jpg", "cats0")
    draw(pets / "dogs" / "copy.jpg", "cats1")
    (pets / "cats" / "readme.txt").write_text("x")
    (pets / "dogs" / "empty.jpg").touch()
    dataset = scan(pets)
    description = json.loads(json.dumps(describe(dataset, draw_split(dataset))))
    assert (description["n_seen"], description["n_used"]) == (15, 13)
    assert description["classes"]["cats"]["n"] == 7
    assert sum(description["parts"].values()) == 13
    assert description["imbalance"] == pytest.approx(7 / 6, abs=0.01)
    assert description["unreadable"] == {"empty file": 1}
    assert description["unreadable_files"] == [["dogs/empty.jpg", "empty file"]]
    assert description["ignored_extensions"] == {".txt": 1}
    assert description["duplicates"] == {
        "within_class": [["cats/0000.jpg", "cats/copy.jpg"]],
        "across_classes": [["cats/0001.jpg", "dogs/copy.jpg"]],
        "across_splits": [],
    }
    assert description["file_sizes"]["total"] == int(dataset.sizes.sum())
    assert description["split"]["cross_validate"]
    assert any("more than one class" in note for note in description["notes"])


def test_the_modules_of_the_package_import_each_other_in_one_direction() -> None:
    folder = Path(transfer.dataset.__file__).parent
    imports = {path.stem: set[str]() for path in folder.glob("*.py") if path.stem != "__init__"}
    for name, found in imports.items():
        for node in ast.walk(ast.parse((folder / f"{name}.py").read_text())):  # imports inside functions too
            if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("transfer.dataset."):
                found.add(node.module.rpartition(".")[2])
    assert len(list(graphlib.TopologicalSorter(imports).static_order())) == len(imports) > 5


def test_importing_the_module_loads_nothing_heavy() -> None:
    code = "import sys, transfer.dataset; print(*{'torch', 'PIL', 'sklearn', 'timm'} & set(sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, check=True).stdout.strip() == b""


def test_a_byte_order_mark_does_not_hide_the_first_column(pets: Path) -> None:
    table = pets / "t.csv"
    table.write_bytes(codecs.BOM_UTF8 + b"path,label\ncats/0000.jpg,a\ncats/0001.jpg,b\n")
    assert len(scan(table)) == 2


def test_progress_reaches_the_number_of_files(pets: Path) -> None:
    calls: list[tuple[int, int]] = []
    scan(pets, progress=lambda done, total: calls.append((done, total)))
    assert calls[-1] == (11, 11)


@pytest.mark.slow
def test_the_memory_of_a_scan_stays_below_a_kilobyte_per_file(tmp_path: Path) -> None:
    fill(tmp_path, {f"c{i}": 2000 for i in range(10)})
    tracemalloc.start()
    try:
        dataset = scan(tmp_path)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert len(dataset) == 20_000
    assert peak < 1000 * len(dataset)


@pytest.mark.real
@pytest.mark.parametrize(
    ("name", "n_images", "n_classes", "parts"),
    [
        ("hymenoptera", 397, 2, {"train": 244, "val": 153}),
        ("clothing", 1905, 10, {"train": 1192, "val": 341, "test": 372}),
        ("trashnet150", 2527, 6, {"": 2527}),
        ("signdigits", 2062, 10, {"": 2062}),
        ("neu", 1800, 6, {"": 1800}),
        ("cifar10", 12_000, 10, {"train": 10_000, "test": 2000}),
    ],
)
def test_the_shared_sets_are_read_whole(
    shared: Path, name: str, n_images: int, n_classes: int, parts: dict[str, int]
) -> None:
    dataset = scan(shared / "data" / name)
    assert len(dataset) == dataset.n_seen == n_images
    assert len(dataset.classes) == n_classes
    assert {part: int((dataset.parts == part).sum()) for part in set(dataset.parts.tolist())} == parts


@pytest.mark.real
def test_trashnet_has_three_images_with_two_labels(shared: Path) -> None:
    dataset = scan(shared / "data" / "trashnet150")
    split = draw_split(dataset)
    found = describe(dataset, split)["duplicates"]
    assert len(found["across_classes"]) == 3
    assert found["across_splits"] == []
    assert [len(split.indices(part)) for part in ("test", "val")] == [500, 405]
