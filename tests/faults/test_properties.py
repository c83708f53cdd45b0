"""Whatever names, labels and images there are: what holds for all of them, tried on drawn ones.

Nothing is drawn by chance: every run tries the same examples, so that a failure is one of the change that is tested.
"""

from __future__ import annotations

import functools
import io
import json
import os
import tempfile
import unicodedata
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from encoded import encode
from hostile import picture
from hypothesis import Phase, example, given, settings
from hypothesis import strategies as st
from PIL import Image, features

import transfer
from transfer import metrics
from transfer.dataset import Dataset, describe, display, draw_split, read_split, scan, write_split
from transfer.errors import DataError
from transfer.images import decode

CLUTTER = {"__macosx", "thumbs.db", "ehthumbs.db", "desktop.ini", "icon\r", "@eadir", "$recycle.bin"}
#: What a name may begin with so that something takes it for more than a name.
STARTS = ("", "=cmd|' /C calc'!A1", "+1", "-rf", "@sum", "\t=1", "\r", "..", "..\\..\\", "~", "%2e%2e", "'=1", "NUL")
#: And what may stand in it: markup, templates, formulas of charts, line breaks, other directions, bytes, escapes.
PIECES = (
    "<script>alert(1)<", '"><img src=x onerror=alert(1)>', "'><b>", "&lt;i&gt;", "{{ 7*7 }}", "$x$", "a$b$",
    "\n", "\r\n", "\u2028", "\x1b[31m", "\u202egnp", "\u05e9\u05dc\u05d5\u05dd", "e\u0301", "\u00e9", "\udce9",
    "\\udce9", "\\x1b", ";", ",", '"', "|", " ", "\ufeff", "\U0001f600", "]]>", "-->", "</style>", "#", "?", "%00",
)  # fmt: skip


def is_name(text: str) -> bool:
    """Say whether a file may be called so, and be none that is hidden on purpose."""
    return (
        0 < len(os.fsencode(text)) <= 200
        and not text.startswith(".")
        and text.casefold() not in CLUTTER
        and text.casefold() not in ("train", "test", "val", "dev", "valid", "validation", "training", "testing")
    )


letters = st.characters(codec="utf-8", exclude_characters="/\0") | st.sampled_from("\udc80\udce9\udcff")
names = st.builds(
    lambda start, parts: (start + "".join(parts)).replace("/", ":"),
    st.sampled_from(STARTS),
    st.lists(st.sampled_from(PIECES) | st.text(letters, max_size=8), max_size=4),
).filter(is_name)
trees = st.dictionaries(names, st.lists(names, min_size=2, max_size=3, unique=True), min_size=2, max_size=5)


def examples(n: int) -> settings:
    """Try so many, the same in every run, and stop at one that fails: to look for a smaller one takes minutes."""
    phases = (Phase.explicit, Phase.generate)
    return settings(
        max_examples=n, derandomize=True, deadline=None, database=None, phases=phases, report_multiple_bugs=False
    )


@contextmanager
def planted(tree: dict[str, list[str]]) -> Iterator[tuple[Path, set[tuple[str, str]]]]:
    """Make class folders of pictures, all different, and tell every pair of class and file."""
    seeds = iter(range(10_000))
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder) / "data"
        for label, files in tree.items():
            (root / label).mkdir(parents=True)
            for name in files:
                (root / label / f"{name}.png").write_bytes(encode(picture(next(seeds)), "PNG"))
        yield root, {(label, f"{name}.png") for label, files in tree.items() for name in files}


def pairs(dataset: Dataset) -> set[tuple[str, str]]:
    """Return class and file of every image, and make sure that a path tells the same class."""
    found = set()
    for path, label in zip(dataset.paths, dataset.labels.tolist(), strict=True):
        above, name = os.path.split(path)
        assert Path(above).name == dataset.classes[label]
        found.add((dataset.classes[label], name))
    return found


class Tags(HTMLParser):
    """The tags of a page, with the names of their attributes, and its text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.attributes: set[str] = set()
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.attributes |= {name for name, _ in attrs}

    def handle_data(self, data: str) -> None:
        self.text += data


@examples(60)
@given(trees)
def test_every_file_of_a_folder_is_found_whatever_it_is_called(tree: dict[str, list[str]]) -> None:
    with planted(tree) as (root, planted_pairs):
        dataset = scan(root)
        assert pairs(dataset) == planted_pairs
        assert dataset.n_seen == len(planted_pairs)
        assert dataset.classes == tuple(sorted(tree))
        told = json.loads(json.dumps(describe(dataset)).encode())  # no name keeps it from being UTF-8
        assert sum(row["n"] for row in told["classes"].values()) == len(planted_pairs)
        for line in [*dataset.notes, repr(dataset)]:
            assert not {unicodedata.category(letter) for letter in line} & {"Cc", "Cs", "Zl", "Zp"}
            assert "\u202e" not in line


@examples(60)
@given(trees, st.integers(0, 3))
def test_a_split_is_read_as_it_was_written_whatever_the_names(tree: dict[str, list[str]], seed: int) -> None:
    with planted(tree) as (root, _):
        dataset = scan(root)
        split = draw_split(dataset, seed=seed)
        write_split(root.parent / "split.csv", dataset, split)
        again = read_split(root.parent / "split.csv", dataset, seed=seed + 1)
        assert again.parts.tolist() == split.parts.tolist()
        assert not [line for line in again.reason if "changed" in line]


@examples(15)
@given(trees)
def test_exported_features_name_every_image_so_that_it_is_found_again(
    weights: Path, tree: dict[str, list[str]]
) -> None:
    with planted(tree) as (root, planted_pairs):
        out = root.parent / "features"
        settings = {"weights": weights, "exact": True, "quiet": True}
        transfer.export_features(root, out, "test_resnet", **settings)
        manifest = transfer.check_features(out)
        dataset = scan(root)
        assert manifest["classes"] == sorted(tree)
        assert np.load(out / "labels.npy").tolist() == dataset.labels.tolist()
        # the index beside the images is a table of labels like any other
        (root / "index.csv").write_bytes((out / "index.csv").read_bytes())
        listed = scan(root / "index.csv")
        assert listed.unreadable == []
        assert listed.hashes == dataset.hashes
        assert len(listed) == len(planted_pairs)
        raw = (out / "index.csv").read_text(encoding="utf-8")
        assert not [cell for cell in raw.split(",") if cell.lstrip('"')[:1] in ("=", "+", "-", "@")]


@examples(6)
@given(st.dictionaries(names, st.lists(names, min_size=3, max_size=3, unique=True), min_size=4, max_size=4))
def test_a_report_has_no_tag_and_no_attribute_of_a_name(tree: dict[str, list[str]]) -> None:
    with planted(tree) as (root, _):
        page = tags_of_a_report(root)
    assert page.tags <= plain_report().tags
    assert page.attributes <= plain_report().attributes
    for name in tree:
        assert display(name).strip() in page.text


@functools.cache
def plain_report() -> Tags:
    with planted({f"plain {i}": [f"file {j}" for j in range(3)] for i in range(4)}) as (root, _):
        return tags_of_a_report(root)


def tags_of_a_report(root: Path) -> Tags:
    run = transfer.fit(root, "ridge", out=root.parent / "run", backbone="hog-color", quiet=True)
    return Tags(run.report.path.read_text(encoding="utf-8"))


@examples(40)
@given(st.lists(st.tuples(names | st.just("../../etc/passwd"), st.integers(0, 30)), min_size=3, max_size=60), st.data())
def test_any_labels_split_into_parts_and_are_scored(rows: list[tuple[str, int]], data: st.DataObject) -> None:
    with tempfile.TemporaryDirectory() as folder:
        paths = []
        for i, (_, content) in enumerate(rows):  # equal numbers are copies, also under several labels
            paths.append(Path(folder) / f"{i}.png")
            paths[-1].write_bytes(b"\x89PNG\r\n\x1a\n" + bytes([content]))
        labels = [label for label, _ in rows]
        if len(set(labels)) < 2:
            with pytest.raises(DataError, match="a single class"):
                scan((paths, labels))
            return
        dataset = scan((paths, labels))
    split = draw_split(dataset, seed=data.draw(st.integers(0, 5)))
    part_of: dict[str, set[str]] = {}
    for content, part in zip(dataset.hashes, split.parts.tolist(), strict=True):
        part_of.setdefault(content, set()).add(part)
    assert all(len(parts) == 1 for parts in part_of.values())
    assert set(dataset.labels[split.indices("train")].tolist()) == set(range(len(dataset.classes)))
    raw = data.draw(st.lists(st.floats(0, 1), min_size=len(dataset.classes), max_size=len(dataset.classes)))
    scores = np.tile(np.array(raw) + 1e-9, (len(dataset), 1))
    scores = np.roll(scores, 1, axis=0) + np.eye(len(dataset.classes))[dataset.labels] * data.draw(st.floats(0, 2))
    probabilities = scores / scores.sum(axis=1, keepdims=True)
    result = metrics.evaluate(probabilities, dataset.labels, dataset.classes)
    json.dumps(result, allow_nan=False)
    assert result["accuracy"] == pytest.approx(np.mean(probabilities.argmax(1) == dataset.labels))
    assert sum(row["n"] for row in result["per_class"]) == np.sum(result["confusion"]) == len(dataset)
    counts = Counter(labels)
    assert {row["name"]: row["n"] for row in result["per_class"]} == dict(counts)


MODES = (
    "1",
    "L",
    "LA",
    "P",
    "PA",
    "RGB",
    "RGBA",
    "RGBa",
    "La",
    "RGBX",
    "CMYK",
    "YCbCr",
    "LAB",
    "HSV",
    "I;16",
    "I",
    "F",
)
FORMATS = ("PNG", "JPEG", "GIF", "BMP", "TIFF", "PPM", *(["WEBP"] if features.check("webp") else []))
sides = st.integers(1, 40) | st.sampled_from((1, 257, 1000))


def drawn_image(mode: str, width: int, height: int, seed: int) -> Image.Image:
    dice = np.random.default_rng(seed)
    if mode == "I;16":
        return Image.fromarray(dice.integers(0, 65536, (height, width)).astype(np.uint16))
    if mode in ("I", "F"):
        scale = float(dice.choice([1, 255, 70_000]))
        return Image.fromarray((dice.normal(size=(height, width)) * scale).astype(np.int32 if mode == "I" else "f4"))
    bands = len(Image.new(mode, (1, 1)).getbands())
    if mode == "1":
        return Image.fromarray((dice.random((height, width)) > 0.5).astype(np.uint8) * 255).convert("1")
    image = Image.frombytes(mode, (width, height), dice.integers(0, 256, width * height * bands).astype(np.uint8))
    if mode in ("P", "PA"):
        image.putpalette(dice.integers(0, 256, 768).tolist())
    return image


@examples(250)
@given(
    mode=st.sampled_from(MODES), file_format=st.sampled_from(FORMATS), width=sides, height=sides,
    seed=st.integers(0, 9), transparent=st.booleans(),
)  # fmt: skip
@example(mode="P", file_format="PNG", width=1, height=1, seed=0, transparent=True)
@example(mode="F", file_format="TIFF", width=1, height=1000, seed=0, transparent=False)
def test_an_image_of_any_mode_and_size_becomes_rgb(
    mode: str, file_format: str, width: int, height: int, seed: int, transparent: bool
) -> None:
    image = drawn_image(mode, width, height, seed)
    options = {"transparency": seed} if transparent and mode in ("1", "L", "P") and file_format == "PNG" else {}
    target = io.BytesIO()
    try:
        image.save(target, file_format, **options)
        Image.open(target).load()
    except (OSError, ValueError, KeyError):  # a format that has no such mode, or of which this Pillow writes too little
        pass
    else:
        assert_rgb(target.getvalue(), (height, width, 3))
    assert_rgb(image, (height, width, 3))  # as somebody hands it over


def assert_rgb(source: bytes | Image.Image, shape: tuple[int, ...]) -> None:
    pixels = decode(source)  # UnreadableImage would fail it: what Pillow wrote is sound
    assert (pixels.dtype, pixels.shape) == (np.uint8, shape)
    assert pixels.flags.c_contiguous


def test_a_table_of_ours_gives_names_that_look_like_formulas_back() -> None:
    with planted({"=1+1": ["-a", "@b"], "'quoted'": ["'c'", "=d"]}) as (root, planted_pairs):
        dataset = scan(root)
        write_split(root / "split.csv", dataset, draw_split(dataset))
        again = scan(root / "split.csv")
        assert pairs(again) == planted_pairs
        assert again.classes == dataset.classes
