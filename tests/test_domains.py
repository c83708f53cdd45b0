"""Tests of two domains: one is trained on, the other reported on. Files that are not decoded only pass for images."""

from __future__ import annotations

import csv
import json
import signal
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageOps

import transfer
from transfer.dataset import Dataset, draw_few, draw_split, join_domains, scan
from transfer.errors import DataError, UsageError
from transfer.training import loop

SHAPES = ("circle", "square", "stripes")
QUICK = ["train.min_steps=0", "train.epochs=2", "train.batch_size=16", "train.views=1"]


def fill(root: Path, counts: dict[str, int], tag: str) -> Path:
    """Make class folders of files that pass for JPEGs; equal tags give equal contents."""
    for name, n in counts.items():
        (root / name).mkdir(parents=True, exist_ok=True)
        for i in range(n):
            (root / name / f"{i:02d}.jpg").write_bytes(b"\xff\xd8\xff\xe0" + f"{tag} {name} {i}".encode())
    return root


def copy(path: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_bytes(path.read_bytes())


def below(dataset: Dataset, positions: np.ndarray) -> list[str]:
    """Return the paths of images from the name of their domain's folder on."""
    return ["/".join(Path(dataset.paths[i]).parts[-3:]) for i in positions]


def split_of(run: transfer.Run) -> dict[str, str]:
    with (run.path / "split.csv").open(newline="") as source:
        return {row["path"]: row["split"] for row in csv.DictReader(source)}


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    return fill(tmp_path / "photos", {"cats": 10, "dogs": 10}, "photo")


@pytest.fixture
def drawings(tmp_path: Path) -> Path:
    return fill(tmp_path / "drawings", {"cats": 6, "dogs": 5}, "drawing")


@pytest.fixture(scope="module")
def negatives(shapes: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The shapes as another domain: 10 of each class, inverted and smaller."""
    root = tmp_path_factory.mktemp("domains") / "negatives"
    for path in sorted(shapes.glob("*/1?.png")):
        (root / path.parent.name).mkdir(parents=True, exist_ok=True)
        ImageOps.invert(Image.open(path)).resize((48, 48)).save(root / path.parent.name / path.name)
    return root


@pytest.fixture(scope="module")
def tiny(weights: Path) -> dict:
    return {"backbone": "test_resnet", "weights": str(weights), "quiet": True}


# --- joining


def test_the_target_is_the_test_part_and_val_is_of_the_source(photos: Path, drawings: Path) -> None:
    joined = join_domains(scan(photos), scan(drawings))
    split = draw_split(joined)
    assert below(joined, split.indices("test")) == [f"drawings/{p.parent.name}/{p.name}" for p in images(drawings)]
    assert len(split.indices("val")) == 4
    assert all(path.startswith("photos/") for path in below(joined, split.indices("val")))
    assert not split.cross_validate
    assert joined.paths == [str(path) for path in [*images(photos), *images(drawings)]]
    assert any("trained on the source" in note and "drawings" in note for note in joined.notes)
    assert joined.domains
    assert joined.domains.source.fingerprint == scan(photos).fingerprint
    assert joined.domains.target.root == str(drawings)


def images(root: Path) -> list[Path]:
    return sorted(root.rglob("*.jpg"))


def test_classes_are_matched_by_name_and_the_target_may_lack_some(photos: Path, tmp_path: Path) -> None:
    joined = join_domains(scan(photos), scan(fill(tmp_path / "drawings", {"dogs": 3}, "drawing"), min_classes=1))
    assert joined.labels[-3:].tolist() == [1, 1, 1]
    assert "1 class has no test image: 'cats'." in joined.notes


def test_a_class_that_the_source_lacks_is_named(photos: Path, drawings: Path) -> None:
    fill(drawings, {"Cats": 3, "birds": 3}, "more")
    for few_target in (0, 2):
        with pytest.raises(DataError, match=r"2 classes without a training image.*'Cats', 'birds'.*looks like 'cats'"):
            join_domains(scan(photos), scan(drawings), few_target)


def test_an_image_in_both_domains_is_tested_on_and_not_trained_on(photos: Path, drawings: Path) -> None:
    copy(photos / "cats/03.jpg", drawings / "cats/copy.jpg")
    copy(photos / "dogs/04.jpg", drawings / "cats/mistaken.jpg")
    joined = join_domains(scan(photos), scan(drawings))
    split = draw_split(joined)
    assert len(split.indices("test")) == 13
    trained = {joined.hashes[i] for part in ("train", "val") for i in split.indices(part)}
    assert len(trained) == 18
    assert trained.isdisjoint(joined.hashes[i] for i in split.indices("test"))
    assert "2 source images found in the target too: left out of training, kept in the target." in joined.notes
    assert [skipped.path for skipped in joined.ignored] == [str(photos / "cats/03.jpg"), str(photos / "dogs/04.jpg")]
    assert joined.n_seen == 20 + 13


def test_a_source_inside_the_target_is_refused(photos: Path) -> None:
    with pytest.raises(DataError, match="nothing is left to train on"):
        join_domains(scan(photos), scan(photos))


def test_the_test_part_of_the_source_is_left_out_and_its_val_part_is_val(tmp_path: Path, drawings: Path) -> None:
    for part, n in (("train", 8), ("val", 3), ("test", 4)):
        fill(tmp_path / "photos" / part, {"cats": n, "dogs": n}, part)
    joined = join_domains(scan(tmp_path / "photos"), scan(drawings))
    split = draw_split(joined)
    assert {part: len(split.indices(part)) for part in ("train", "val", "test")} == {"train": 16, "val": 6, "test": 11}
    assert any("own test part, 8 images" in note for note in joined.notes)
    assert {skipped.reason for skipped in joined.ignored} == {"test part of the source"}


@pytest.mark.parametrize("name", ["test", "val"])
def test_a_target_with_a_part_to_report_on_keeps_it(photos: Path, tmp_path: Path, name: str) -> None:
    fill(tmp_path / "drawings/train", {"cats": 6, "dogs": 6}, "train")
    fill(tmp_path / "drawings" / name, {"cats": 3, "dogs": 3}, "other")
    copy(tmp_path / "drawings" / name / "cats/00.jpg", tmp_path / "drawings/train/cats/leaked.jpg")
    target = scan(tmp_path / "drawings")
    joined = join_domains(scan(photos), target)
    assert int((joined.parts == "test").sum()) == 6
    assert len(joined) == 26
    joined = join_domains(scan(photos), target, 6)
    drawn, rest = draw_few(joined, seed=0)
    assert len(drawn) == 12
    assert all("/train/" in joined.paths[i] and "leaked" not in joined.paths[i] for i in drawn)
    assert set(joined.parts[rest]) == {"train", "test"}
    with pytest.raises(DataError, match=r"6 distinct images of the class 'cats' outside its .* part: .* 7 needs 7\."):
        join_domains(scan(photos), target, 7)


def test_few_target_images_are_seeded_by_content_and_nested(photos: Path, drawings: Path) -> None:
    def drawn(n: int, seed: int) -> set[str]:
        joined = join_domains(scan(photos), scan(drawings), n)
        few, rest = draw_few(joined, seed)
        assert sorted([*few, *rest]) == list(range(len(joined)))
        assert Counter(joined.labels[few].tolist()) == {0: n, 1: n}
        return {joined.hashes[i] for i in few}

    assert drawn(2, 0) < drawn(3, 0)
    assert len({frozenset(drawn(2, seed)) for seed in range(5)}) > 1
    before = drawn(3, 0)
    for path in images(drawings):
        path.rename(path.with_name(f"x{99 - int(path.stem)}.jpg"))
    assert drawn(3, 0) == before


def test_copies_in_the_target_are_not_parted(photos: Path, drawings: Path) -> None:
    for i in range(6):
        copy(drawings / f"cats/{i:02d}.jpg", drawings / f"cats/copy{i}.jpg")
    copy(drawings / "cats/00.jpg", drawings / "dogs/contradiction.jpg")
    joined = join_domains(scan(photos), scan(drawings), 3)
    for seed in range(5):
        few, rest = draw_few(joined, seed)
        contents = {joined.hashes[i] for i in few}
        assert contents.isdisjoint(joined.hashes[i] for i in rest)
        assert Counter(joined.labels[few].tolist()) == {0: 6, 1: 3}
        assert len(contents) == 6
        assert not any(name.endswith(("cats/00.jpg", "contradiction.jpg")) for name in below(joined, few))


def test_too_few_distinct_target_images_are_refused_with_the_class_and_its_number(photos: Path, drawings: Path) -> None:
    assert len(draw_few(join_domains(scan(photos), scan(drawings), 4), 0)[0]) == 8
    copy(drawings / "dogs/00.jpg", drawings / "dogs/again.jpg")
    with pytest.raises(DataError, match="5 distinct images of the class 'dogs': --few-target 5 needs 6, one of them"):
        join_domains(scan(photos), scan(drawings), 5)


# --- fitting


def test_a_fit_reports_on_the_target_and_on_nothing_else(
    shapes: Path, negatives: Path, tiny: dict, tmp_path: Path
) -> None:
    run = transfer.fit(shapes, "linear-svm", test=negatives, out=tmp_path / "run", **tiny)
    parts = split_of(run)
    assert {path for path, part in parts.items() if part == "test"} == {str(p) for p in negatives.glob("*/*.png")}
    assert {path for path, part in parts.items() if part != "test"} == {str(p) for p in shapes.glob("*/*.png")}
    with (run.path / "predictions.csv").open(newline="") as source:
        rows = list(csv.DictReader(source))
    assert {row["path"] for row in rows} == {str(path) for path in negatives.glob("*/*.png")}
    assert all(Path(row["path"]).parent.name == row["label"] for row in rows)
    hits = sum(row["label"] == row["predicted"] for row in rows)
    assert run.metrics["test"]["accuracy"] == pytest.approx(hits / 30)
    assert "cross_validation" not in run.metrics
    data = json.loads((run.path / "run.json").read_text())["data"]
    assert data["root"] is None
    assert data["domains"]["source"]["root"] == str(shapes)
    assert data["domains"]["target"]["fingerprint"] == scan(negatives).fingerprint
    assert data["n_used"] == data["n_seen"] == 90
    assert run.evaluate(negatives, quiet=True)["accuracy"] == run.metrics["test"]["accuracy"]
    assert run.evaluate(negatives, quiet=True)["n_seen_in_training"] == 0


def test_few_target_images_are_trained_on_and_never_tested_on(
    shapes: Path, negatives: Path, tiny: dict, tmp_path: Path
) -> None:
    run = transfer.fit(shapes, "linear-svm", test=negatives, few_target=3, out=tmp_path / "run", **tiny)
    of_target = {path: part for path, part in split_of(run).items() if path.startswith(str(negatives))}
    trained = {path for path, part in of_target.items() if part == "train"}
    assert Counter(Path(path).parent.name for path in trained) == dict.fromkeys(SHAPES, 3)
    assert Counter(of_target.values()) == {"test": 21, "train": 9}
    assert run.metrics["test"]["n"] == 21
    assert run.evaluate(negatives, quiet=True)["n_seen_in_training"] == 9
    assert any("9 target images" in line and "val is of the source alone" in line for line in run.info["data"]["split"])
    without = transfer.fit(shapes, "linear-svm", test=negatives, out=tmp_path / "without", **tiny)
    assert {path for path, part in split_of(run).items() if part == "val"} == {
        path for path, part in split_of(without).items() if part == "val"
    }
    assert run.info["model"]["sha256"] != without.info["model"]["sha256"]
    again = transfer.fit(shapes, "linear-svm", test=negatives, few_target=3, out=tmp_path / "again", **tiny)
    assert again.info["model"]["sha256"] == run.info["model"]["sha256"]
    other = transfer.fit(shapes, "linear-svm", test=negatives, few_target=3, seed=1, out=tmp_path / "other", **tiny)
    assert trained != {path for path, part in split_of(other).items() if part == "train"} & of_target.keys()


@pytest.mark.usefixtures("one_thread")
@pytest.mark.parametrize("strategy", ["linear-svm", "partial"])
def test_labels_of_the_target_change_no_weight_and_no_choice(
    shapes: Path, negatives: Path, tiny: dict, tmp_path: Path, strategy: str
) -> None:
    poisoned = tmp_path / "poisoned"
    for path in negatives.glob("*/*.png"):
        wrong = SHAPES[(SHAPES.index(path.parent.name) + 1 + int(path.stem) % 2) % 3]
        copy(path, poisoned / wrong / f"{path.parent.name}{path.name}")
    settings = QUICK if strategy == "partial" else []
    honest, misled = (
        transfer.fit(shapes, strategy, test=target, out=tmp_path / name, settings=settings, **tiny)
        for name, target in (("a", negatives), ("b", poisoned))
    )
    assert (honest.path / "model.safetensors").read_bytes() == (misled.path / "model.safetensors").read_bytes()
    assert honest.info["head"] == misled.info["head"]
    assert honest.metrics["val"] == misled.metrics["val"]
    assert honest.metrics["test"] != misled.metrics["test"]


@pytest.mark.usefixtures("one_thread")
def test_deeper_layers_are_trained_on_the_few_target_images_too_and_go_on_after_a_stop(
    shapes: Path, negatives: Path, tiny: dict, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = {"test": negatives, "few_target": 2, "settings": QUICK, **tiny, "exact": True}
    straight = transfer.fit(shapes, "partial", out=tmp_path / "straight", **options)
    step = loop._Training._step

    def interrupted(self, *args):
        if self.state.n_done == 5:
            signal.raise_signal(signal.SIGINT)
        return step(self, *args)

    monkeypatch.setattr(loop._Training, "_step", interrupted)
    with pytest.raises(KeyboardInterrupt):
        transfer.fit(shapes, "partial", out=tmp_path / "run", **options)
    monkeypatch.setattr(loop._Training, "_step", step)
    run = transfer.fit(shapes, "partial", out=tmp_path / "run", resume=True, **options)
    assert run.info["training"]["was_resumed"]
    assert run.info["model"]["sha256"] == straight.info["model"]["sha256"]
    assert run.metrics["val"]["n"] == 12
    assert Counter(split_of(run).values()) == {"train": 48 + 6, "val": 12, "test": 24}


def test_fewer_source_images_leave_the_target_images_whole(
    shapes: Path, negatives: Path, tiny: dict, tmp_path: Path
) -> None:
    """As Saenko et al. do: 8 or 20 source images of each class and 3 of the target."""
    options = {"test": negatives, "few_target": 3, "settings": ["data.per_class=8"], **tiny}
    run = transfer.fit(shapes, "linear-svm", out=tmp_path / "run", **options)
    trained = [path for path, part in split_of(run).items() if part == "train"]
    assert Counter(path.startswith(str(shapes)) for path in trained) == {True: 24, False: 9}
    assert run.metrics["test"]["n"] == 21
    data = run.info["data"]
    assert data["n_used"] + data["n_ignored"] == data["n_seen"] == 90


def test_a_broken_target_image_is_neither_drawn_nor_scored(
    shapes: Path, negatives: Path, tiny: dict, tmp_path: Path
) -> None:
    for path in negatives.glob("*/*.png"):
        copy(path, tmp_path / "target" / path.parent.name / path.name)
    broken = tmp_path / "target/circle/10.png"
    broken.write_bytes(broken.read_bytes()[:-40])
    joined = join_domains(scan(shapes), scan(tmp_path / "target"), 2)
    position = joined.paths.index(str(broken))
    seed = next(seed for seed in range(100) if position in draw_few(joined, seed)[0])  # had it been whole
    run = transfer.fit(
        shapes, "linear-svm", test=tmp_path / "target", few_target=2, seed=seed, out=tmp_path / "run", **tiny
    )
    assert str(broken) not in split_of(run)
    assert Counter(split_of(run).values()) == {"train": 48 + 6, "val": 12, "test": 23}
    assert [path for path, _ in run.info["data"]["unreadable"]] == [str(broken)]


def test_the_split_of_a_run_on_two_domains_is_data_itself(
    shapes: Path, negatives: Path, tiny: dict, tmp_path: Path
) -> None:
    run = transfer.fit(shapes, "linear-svm", test=negatives, few_target=3, out=tmp_path / "run", **tiny)
    again = transfer.fit(run.path / "split.csv", "linear-svm", out=tmp_path / "again", **tiny)
    assert again.metrics["test"]["n"] == 21
    assert run.evaluate(run.path / "split.csv", quiet=True)["accuracy"] == run.metrics["test"]["accuracy"]
    assert split_of(again) == split_of(run)


def test_lists_serve_as_domains(shapes: Path, negatives: Path, tiny: dict, tmp_path: Path) -> None:
    source, target = (
        (paths, [path.parent.name for path in paths]) for paths in (sorted(d.glob("*/*")) for d in (shapes, negatives))
    )
    run = transfer.fit(source, "linear-svm", test=target, out=tmp_path / "run", **tiny)
    assert run.metrics["test"]["n"] == 30
    assert run.info["data"]["domains"]["target"]["root"] is None


def test_what_is_asked_for_must_fit_together(photos: Path, drawings: Path, tiny: dict, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="--few-target 3 goes with --test"):
        transfer.fit(photos, "linear-svm", few_target=3, out=tmp_path / "run", **tiny)
    with pytest.raises(UsageError, match="both say what is reported on"):
        transfer.fit(photos, "linear-svm", test=drawings, split="split.csv", out=tmp_path / "run", **tiny)
    with pytest.raises(UsageError, match="at least 0, not -1"):
        transfer.fit(photos, "linear-svm", test=drawings, few_target=-1, out=tmp_path / "run", **tiny)
