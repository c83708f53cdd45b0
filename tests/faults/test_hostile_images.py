"""Rows 1 to 26 of docs/reliability.md: what becomes of every odd or broken image in the hostile folder."""

from __future__ import annotations

import base64
import csv
import io
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from commands import Ended, run
from encoded import draw, encode
from hostile import MARKUP, Fault, Hostile, count_files, fingerprint, links, odd_images, odd_names, picture
from PIL import Image

from transfer.dataset import Dataset, display
from transfer.dataset.names import storable
from transfer.features import check_features, export_features
from transfer.images import decode


@pytest.mark.parametrize("fault", [*odd_images(), *odd_names(), *links()], ids=lambda fault: ascii(fault.path)[1:40])
def test_every_file_is_used_or_told_with_its_reason(
    fault: Fault, hostile: Hostile, scanned: Dataset, inspected: dict[str, Any]
) -> None:
    unreadable = dict(inspected["unreadable_files"])
    ignored = {Path(skipped.path): skipped.reason for skipped in scanned.ignored}
    told = {
        "unreadable": unreadable.get(storable(fault.path)),
        "ignored": ignored.get(hostile.root / fault.path),
    }
    assert [fate for fate, why in told.items() if why is not None] == [fault.fate] * (fault.fate != "used")
    if fault.fate == "used":
        assert fault.path in {scanned.relative(i) for i in range(len(scanned))}
    else:
        assert (told[fault.fate] or "").startswith(fault.why)


def test_used_unreadable_and_ignored_add_up_to_all_files(
    hostile: Hostile, scanned: Dataset, inspected: dict[str, Any], fitted: Path
) -> None:
    of_run = json.loads((fitted / "run.json").read_text())["data"]
    told = {
        "scan": (len(scanned), len(scanned.unreadable), len(scanned.ignored), scanned.n_seen),
        "inspect": tuple(inspected[f"n_{key}"] for key in ("used", "unreadable", "ignored", "seen")),
        "fit": (of_run["n_used"], len(of_run["unreadable"]), of_run["n_ignored"], of_run["n_seen"]),
    }
    for command, (used, unreadable, ignored, seen) in told.items():
        assert used + unreadable + ignored == seen == count_files(hostile.root), command
    assert told["inspect"] == told["fit"]
    assert told["fit"][1] == len(hostile.of_fate("unreadable"))
    assert told["fit"][2] == len(hostile.of_fate("ignored"))


def test_no_command_writes_into_the_folder(hostile: Hostile, inspected: dict[str, Any], fitted: Path) -> None:
    run("predict", fitted, hostile.root, "-q", within=fitted.parent)
    run("evaluate", fitted, hostile.root, "-q", within=fitted.parent)
    run("report", fitted, "--out", "again.html", within=fitted.parent)
    assert fingerprint(hostile.root) == hostile.before


@pytest.mark.parametrize("command", ["fit", "features"])
def test_more_than_one_in_twenty_unreadable_stops_it_and_says_how_to_go_on(
    command: str, hostile: Hostile, tiny: tuple[str, ...], transfer: Callable[..., Ended], tmp_path: Path
) -> None:
    recipe = ("--recipe", "linear-svm") if command == "fit" else ()
    ended = transfer(command, hostile.root, "--out", "new", *recipe, *tiny)
    assert ended.code == 3
    assert f"{hostile.root}/bee/bomb.png (400 megapixels" in ended.message
    n_bad = len(hostile.of_fate("unreadable"))
    assert re.search(rf"{n_bad} of \d+ images \(\d+%\) are unreadable", ended.message)
    assert ("--set data.max_bad_share=0" in ended.message) == (command == "fit")
    assert not (tmp_path / "new").exists()

    ended = transfer(command, hostile.root, "--out", "new", "--on-bad", "fail", *recipe, *tiny)
    assert ended.code == 3
    assert "Remove them, or use --on-bad skip" in ended.message
    assert not (tmp_path / "new").exists()


def test_predictions_are_of_what_can_be_read_and_the_rest_is_named(
    hostile: Hostile, scanned: Dataset, fitted: Path
) -> None:
    ended = run("predict", fitted, hostile.root, "--csv", "told.csv", "-q", within=fitted.parent)
    assert ended.code == 0
    with open(fitted.parent / "told.csv", encoding="utf-8", newline="") as source:
        told = [row["path"] for row in csv.DictReader(source)]
    unreadable = hostile.of_fate("unreadable")
    expected = {storable(path) for path in scanned.paths if path not in {f"{hostile.root}/{bad}" for bad in unreadable}}
    assert set(told) == expected | {f"{hostile.root}/beside.png"}  # an image all the same
    named = [line.split(": unreadable: ")[0] for line in ended.err.splitlines()]
    assert sorted(named) == sorted(display(f"{hostile.root}/{path}") for path in unreadable)


def test_row_i_of_features_is_image_i_of_the_index(hostile: Hostile, weights: Path, tmp_path: Path) -> None:
    export_features(
        hostile.root, tmp_path / "f", "test_resnet", weights=weights, exact=True, max_bad_share=1, quiet=True
    )
    assert check_features(tmp_path / "f")["n_images"] == len(np.load(tmp_path / "f/features.npy"))
    with open(tmp_path / "f/index.csv", encoding="utf-8", newline="") as source:
        paths = [row["path"] for row in csv.DictReader(source)]
    assert not {storable(path) for path in hostile.of_fate("unreadable")} & set(paths)
    rows = np.load(tmp_path / "f/features.npy")
    copies = [paths.index(path) for path in ("ant/00.png", "bee/also_an_ant.png")]
    others = [paths.index(path) for path in ("ant/01.png", "bee/-rf.png", "ant/rotten.jpg")]
    assert np.allclose(rows[copies[0]], rows[copies[1]], atol=1e-6)
    assert not any(np.allclose(rows[copies[0]], rows[other], atol=1e-3) for other in others)


def composited(image: Image.Image, alpha: Image.Image) -> np.ndarray:
    share = np.asarray(alpha, float)[..., None] / 255
    return np.asarray(image, float) * share + 255 * (1 - share)


def expected_pixels() -> dict[int, dict[str, np.ndarray]]:
    """Return what rows 4 to 26 have to look like, by path; worked out without Pillow's conversions."""
    whole = draw(48, 32)
    rgb, grey = np.asarray(whole), np.repeat(np.asarray(whole.convert("L"))[..., None], 3, 2)
    levels = grey.astype(float) - grey.min()
    return {
        4: {"ant/really_a_png.jpg": np.asarray(picture(100))},
        5: {"ant/no_extension": np.asarray(picture(101)), "ant/UPPER.PNG": np.asarray(picture(102))},
        8: {"ant/cmyk.jpg": rgb, "ant/ycc.jpg": rgb},
        9: {"ant/sixteen.png": grey},
        10: {"ant/float.tif": levels * 255 / levels.max()},
        11: {
            "ant/rgba.png": composited(whole, whole.convert("L")),
            "ant/la.png": composited(Image.fromarray(grey), whole.convert("L")),
        },
        12: {"ant/grey.jpg": grey, "ant/one_bit.png": np.repeat(np.asarray(whole.convert("1"))[..., None], 3, 2) * 255},
        13: {"ant/moving.gif": rgb, "ant/moving.webp": rgb, "ant/moving.png": rgb},
        14: {"ant/pages.tif": rgb, "ant/two.jpg": rgb},
        19: {"ant/turned.jpg": np.rot90(rgb, -1)},
        25: {"ant/profile.png": np.asarray(picture(105))},
    }


@pytest.mark.parametrize(("row", "path"), [(row, path) for row, of_row in expected_pixels().items() for path in of_row])
def test_odd_images_have_the_pixels_that_a_person_sees(row: int, path: str, hostile: Hostile) -> None:
    expected = expected_pixels()[row][path]
    pixels = decode(hostile.root / path)
    assert pixels.shape == expected.shape
    assert np.abs(pixels.astype(float) - expected).mean() < (12 if path.endswith((".jpg", ".gif", ".webp")) else 1)


def test_a_rotten_image_decodes_and_is_told_by_its_content_alone(
    hostile: Hostile, fitted: Path, tiny: tuple[str, ...], tmp_path: Path, transfer: Callable[..., Ended]
) -> None:
    sound = encode(draw(48, 32), "JPEG", quality=90)
    assert not np.array_equal(decode(hostile.root / "ant/rotten.jpg"), decode(sound))  # and no error
    for name in ("ant", "bee"):
        (tmp_path / "data" / name).mkdir(parents=True)
        for i in range(8):
            (tmp_path / "data" / name / f"{i}.png").write_bytes(encode(picture(i + 20 * (name == "bee")), "PNG"))
    (tmp_path / "data/ant/0.jpg").write_bytes(sound)
    fit = ("fit", "data", "--recipe", "ridge", *tiny[:-1], "--no-report")
    assert transfer(*fit, "--out", "first").code == 0
    assert "have changed" not in transfer(*fit, "--split", "first/split.csv").err
    (tmp_path / "data/ant/0.jpg").write_bytes((hostile.root / "ant/rotten.jpg").read_bytes())
    told = transfer(*fit, "--split", "first/split.csv").err
    assert "1 image has changed since the split was written: 'ant/0.jpg'." in told


def test_nothing_of_an_images_metadata_gets_into_the_report(hostile: Hostile, fitted: Path) -> None:
    assert MARKUP in (hostile.root / "ant/metadata.jpg").read_bytes().decode("latin-1")
    page = (fitted / "report.html").read_text(encoding="utf-8")
    assert MARKUP not in page
    assert "<script" not in page
    thumbnails = [Image.open(io.BytesIO(base64.b64decode(data))) for data in re.findall(r"base64,([^\"']+)", page)]
    assert len(thumbnails) > 10
    assert not any(dict(thumbnail.getexif()) or "icc_profile" in thumbnail.info for thumbnail in thumbnails)


def test_tiny_and_odd_shaped_images_are_used_and_noted(inspected: dict[str, Any]) -> None:
    assert inspected["pixels"]["smallest"] == "1 x 1"
    assert inspected["pixels"]["largest"] == "20000 x 1"
    notes = " ".join(inspected["notes"])
    assert "2 images with a side under 10 pixels, such as 'ant/dot.png' (1 x 1)" in notes
    assert "1 image more than 8 times as long as wide, such as 'ant/line.png' (20000 x 1)" in notes


def test_a_raw_photograph_is_never_taken_for_its_thumbnail(
    hostile: Hostile, fitted: Path, tmp_path: Path, transfer: Callable[..., Ended]
) -> None:
    thumbnail = encode(draw(48, 32), "TIFF")  # a .nef starts as a TIFF file of a small picture
    for name in ("1.NEF", "2.tif"):
        (tmp_path / "photos").mkdir(exist_ok=True)
        (tmp_path / "photos" / name).write_bytes(thumbnail)
    ended = transfer("predict", fitted, "photos", "-q")
    assert (ended.code, len(ended.out.splitlines()), ended.err) == (0, 1, "")
    ended = transfer("predict", fitted, "photos/1.NEF", "-q")
    assert ended.code == 3
    assert "photos/1.NEF: unreadable: unsupported format (RAW)" in ended.err


def test_the_limit_of_pixels_is_the_users(hostile: Hostile, transfer: Callable[..., Ended]) -> None:
    ended = transfer("inspect", hostile.root, "--max-pixels", 10_000, "--json", "-q")
    assert dict(json.loads(ended.out)["unreadable_files"])["ant/line.png"] == (
        "0.02 megapixels, limit 0.01 (--max-pixels)"
    )
