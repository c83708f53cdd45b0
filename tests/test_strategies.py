import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import transfer
from transfer import features
from transfer.errors import ArtefactError, DataError, ResourceError, UsageError
from transfer.features import planning
from transfer.strategies import preparing

HEADS = ("linear-svm", "logistic", "ridge", "frozen")


@pytest.fixture(scope="module")
def tiny(weights: Path) -> dict:
    return {"backbone": "test_resnet", "weights": str(weights), "quiet": True}


@pytest.mark.parametrize("strategy", HEADS)
def test_every_head_learns_the_shapes(strategy: str, shapes: Path, tiny: dict, tmp_path: Path) -> None:
    run = transfer.fit(shapes, strategy, out=tmp_path / "run", **tiny)
    assert run.metrics["test"]["accuracy"] > 0.6  # chance is a third
    assert run.metrics["cross_validation"]["n"] == 60
    assert run.info["head"]["rule"]


def test_the_same_seed_gives_the_same_model(shapes: Path, tiny: dict, tmp_path: Path) -> None:
    first, second = (transfer.fit(shapes, "linear-svm", out=tmp_path / name, **tiny) for name in "ab")
    assert first.info["model"]["sha256"] == second.info["model"]["sha256"]
    assert first.metrics == second.metrics
    other = transfer.fit(shapes, "linear-svm", out=tmp_path / "c", seed=1, **tiny)
    assert (tmp_path / "a/split.csv").read_text() != (other.path / "split.csv").read_text()


def test_the_test_part_takes_part_in_no_choice(shapes: Path, tiny: dict, tmp_path: Path) -> None:
    """With other images and labels in the test part, everything but the report stays the same, bit for bit."""
    for name in ("a", "b"):
        for i, path in enumerate(sorted(shapes.glob("*/*.png"))):
            part = "test" if i % 4 == 0 else "train"
            label = path.parent.name if name == "a" or part == "train" else ("circle", "square", "stripes")[i % 3]
            target = tmp_path / name / part / label / f"{path.parent.name}{path.name}"
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(path, target)
    first, second = (
        transfer.fit(tmp_path / name, "linear-svm", out=tmp_path / f"run-{name}", **tiny) for name in ("a", "b")
    )
    assert first.info["model"]["sha256"] == second.info["model"]["sha256"]
    assert first.info["head"] == second.info["head"]
    assert first.metrics["val"] == second.metrics["val"]
    assert first.metrics["test"] != second.metrics["test"]


def test_a_split_can_be_given_back(shapes: Path, tiny: dict, tmp_path: Path) -> None:
    first = transfer.fit(shapes, "linear-svm", out=tmp_path / "a", seed=3, **tiny)
    second = transfer.fit(shapes, "linear-svm", out=tmp_path / "b", split=first.path / "split.csv", **tiny)
    assert (second.path / "split.csv").read_text() == (first.path / "split.csv").read_text()


def test_the_frozen_network_is_bit_identical_in_the_run(shapes: Path, tiny: dict, tmp_path: Path) -> None:
    from safetensors.torch import load_file

    run = transfer.fit(shapes, "frozen", out=tmp_path / "run", **tiny)
    before, after = load_file(tiny["weights"]), load_file(run.path / "model.safetensors")
    assert all(torch.equal(after[name], tensor) for name, tensor in before.items())


def test_images_that_turn_out_broken_are_accounted_for(shapes: Path, tiny: dict, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(shapes, tmp_path / "shapes"))
    (folder / "circle/03.png").write_bytes((folder / "circle/03.png").read_bytes()[:-40])
    (folder / "circle/notes.txt").write_text("not an image")
    run = transfer.fit(folder, "linear-svm", out=tmp_path / "run", **tiny)
    data = run.info["data"]
    assert data["n_used"] == 59
    assert data["n_ignored"] == 1
    assert data["n_used"] + data["n_ignored"] + len(data["unreadable"]) == data["n_seen"] == 61
    assert "circle/03.png" not in (run.path / "split.csv").read_text()


def test_the_dataset_is_never_written_to(shapes: Path, tiny: dict, tmp_path: Path) -> None:
    def state() -> list[tuple[str, int]]:
        return sorted((str(p), p.stat().st_mtime_ns) for p in shapes.rglob("*"))

    before = state()
    transfer.fit(shapes, "linear-svm", out=tmp_path / "run", **tiny)
    assert state() == before


def test_the_second_fit_runs_no_network_for_its_features(shapes: Path, tiny: dict, tmp_path: Path, monkeypatch) -> None:
    transfer.fit(shapes, "linear-svm", out=tmp_path / "a", **tiny)
    monkeypatch.setattr(features.extracting, "Runner", None)
    transfer.fit(shapes, "linear-svm", out=tmp_path / "b", **tiny)


def test_features_in_bfloat16_give_a_run_too(shapes: Path, tiny: dict, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("TRANSFER_CACHE", str(tmp_path / "not/yet/there"))
    monkeypatch.setattr(planning, "_WORTH_MEASURING", 1)
    monkeypatch.setattr(planning.machine, "narrow_types", lambda device: ["bfloat16"])
    monkeypatch.setattr(features.Runner, "_views_per_second", lambda self, plan: float(plan.dtype == "bfloat16"))
    run = transfer.fit(shapes, "linear-svm", out=tmp_path / "run", **tiny)
    assert run.metrics["test"]["accuracy"] > 0.5


def test_a_recipe_and_changes_to_it_are_not_mixed_silently(shapes: Path) -> None:
    with pytest.raises(UsageError, match="not both"):
        transfer.fit(shapes, transfer.load_recipe("ridge"), seed=7)


def test_an_existing_run_is_never_touched(shapes: Path, tiny: dict, tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run/precious.txt").write_text("mine")
    with pytest.raises(UsageError, match="exists"):
        transfer.fit(shapes, "linear-svm", out=tmp_path / "run", **tiny)
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["precious.txt"]


def test_an_unwritable_place_is_found_before_the_work(shapes: Path, tiny: dict, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(ResourceError, match="Cannot write"):
        transfer.fit(shapes, "linear-svm", out=tmp_path / "file/run", **tiny)


def test_a_failed_fit_leaves_nothing_behind(shapes: Path, tiny: dict, tmp_path: Path, monkeypatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise ArtefactError("for the test")

    monkeypatch.setattr("transfer.runs.writing.write_json", fail)
    with pytest.raises(ArtefactError):
        transfer.fit(shapes, "linear-svm", out=tmp_path / "runs/run", **tiny)
    assert list((tmp_path / "runs").iterdir()) == []


def test_a_class_of_one_image_trains_and_is_noted(shapes: Path, tiny: dict, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(shapes, tmp_path / "shapes"))
    (folder / "dot").mkdir()
    Image.new("RGB", (64, 64), "blue").save(folder / "dot/1.png")
    run = transfer.fit(folder, "linear-svm", out=tmp_path / "run", **tiny)
    assert run.classes == ("circle", "dot", "square", "stripes")
    row = run.metrics["test"]["per_class"][1]
    assert row["n"] == 0
    assert row["recall"] is None
    assert "NaN" not in (run.path / "metrics.json").read_text()


def test_imbalance_is_weighted_and_said(shapes: Path, tiny: dict, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(shapes, tmp_path / "shapes"))
    for i in range(5, 20):
        (folder / f"circle/{i:02d}.png").unlink()
    run = transfer.fit(folder, "linear-svm", out=tmp_path / "run", **tiny)
    weights = run.info["head"]["class_weights"]
    assert weights["0"] > 2 * weights["1"]


def test_one_class_is_refused_in_one_line(shapes: Path, tiny: dict, tmp_path: Path) -> None:
    shutil.copytree(shapes / "circle", tmp_path / "data/circle")
    with pytest.raises(DataError, match="class") as caught:
        transfer.fit(tmp_path / "data", "linear-svm", out=tmp_path / "run", **tiny)
    assert "\n" not in str(caught.value)


@pytest.fixture
def copies(shapes: Path, tmp_path: Path) -> Path:
    """Two classes, each of one image and its copy."""
    for name in ("circle", "square"):
        (tmp_path / "copies" / name).mkdir(parents=True)
        for i in range(2):
            shutil.copy(shapes / name / "00.png", tmp_path / "copies" / name / f"{i}.png")
    return tmp_path / "copies"


def test_images_of_which_none_can_be_held_out_are_refused_before_the_work(
    copies: Path, tiny: dict, tmp_path: Path, monkeypatch
) -> None:
    monkeypatch.setattr(preparing, "load_backbone", None)
    why = "No class has two different images: none can be held out to report on. Add images"
    with pytest.raises(DataError, match=why):
        transfer.fit(copies, "ridge", out=tmp_path / "run", **tiny)
    with pytest.raises(DataError, match=why):
        transfer.compare(copies, ["ridge"], out=tmp_path / "compared", quiet=True)
    assert transfer.inspect(copies, quiet=True)["plan"][0].startswith(f"Refuse this dataset: {why}")
    assert [path.name for path in tmp_path.iterdir()] == ["copies"]


def test_a_share_too_small_for_a_test_part_is_refused(shapes: Path, tiny: dict, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"Of 60 images none is held out .* or data.test_share is too small"):
        transfer.fit(shapes, "ridge", out=tmp_path / "run", settings=["data.test_share=0.001"], **tiny)


def test_copies_with_a_test_part_of_their_own_are_fitted(copies: Path, tiny: dict, tmp_path: Path) -> None:
    parts = (("0.png", "train"), ("1.png", "test"))
    rows = [f"{name}/{file},{name},{part}" for name in ("circle", "square") for file, part in parts]
    (tmp_path / "split.csv").write_text("\n".join(["path,label,split", *rows]))
    run = transfer.fit(copies, "knn", split=tmp_path / "split.csv", out=tmp_path / "run", **tiny)
    assert run.metrics["test"]["n"] == 2
    assert transfer.extract_features(copies, "test_resnet", weights=tiny["weights"], quiet=True).X.shape[0] == 4


def test_all_images_broken_is_refused(tiny: dict, tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / "data" / name).mkdir(parents=True)
        for i in range(3):
            (tmp_path / "data" / name / f"{i}.jpg").write_bytes(b"\xff\xd8\xff\xe0 broken")
    with pytest.raises(DataError):
        transfer.fit(tmp_path / "data", "linear-svm", out=tmp_path / "run", **tiny)
    assert not (tmp_path / "run").exists()


@pytest.mark.real
def test_ants_and_bees_reach_what_the_tutorial_reaches(shared: Path, tmp_path: Path) -> None:
    run = transfer.fit(shared / "data/hymenoptera", "linear-svm", out=tmp_path / "run", quiet=True)
    assert run.metrics["test"]["n"] == 153
    assert run.metrics["test"]["accuracy"] >= 0.94
    low, high = run.metrics["test"]["accuracy_interval"]
    assert low < run.metrics["test"]["accuracy"] < high
    assert json.loads((run.path / "run.json").read_text())["model"]["timm"]
    evaluated = run.evaluate(shared / "data/hymenoptera/val", quiet=True)
    assert evaluated["accuracy"] == pytest.approx(run.metrics["test"]["accuracy"], abs=0.007)
    assert np.isclose(sum(row["n"] for row in evaluated["per_class"]), 153)
