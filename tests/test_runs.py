import csv
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

import transfer
from transfer.backbones import build
from transfer.errors import ArtefactError, DataError, UsageError
from transfer.images import load_view, normalise
from transfer.runs import require_as_written


@pytest.fixture(scope="module")
def run(shapes: Path, weights: Path, tmp_path_factory: pytest.TempPathFactory):
    out = tmp_path_factory.mktemp("runs") / "shapes"
    return transfer.fit(
        shapes, "linear-svm", out=out, backbone="test_resnet", weights=str(weights), exact=True, quiet=True
    )


def test_a_run_folder_has_everything_in_plain_files(run) -> None:
    names = {path.name for path in run.path.iterdir()}
    assert names == {
        "README.md",
        "recipe.yaml",
        "run.json",
        "split.csv",
        "config.json",
        "model.safetensors",
        "predictions.csv",
        "metrics.json",
    }
    assert json.loads((run.path / "run.json").read_text())["status"] == "complete"
    assert run.recipe.backbone == "test_resnet"
    assert run.metrics["test"]["n"] + run.metrics["val"]["n"] < 60
    assert "accuracy" in run.summary


def test_timm_loads_the_run_and_predicts_the_same(run, shapes: Path) -> None:
    import timm

    model = timm.create_model(f"local-dir:{run.path}", pretrained=True).eval()
    assert list(model.pretrained_cfg["label_names"]) == list(run.classes)
    settings = timm.data.resolve_data_config({}, model=model)
    see = timm.data.create_transform(**settings, is_training=False)
    paths = sorted(shapes.glob("*/0*.png"))
    with torch.inference_mode():
        probabilities = torch.cat([model(see(Image.open(p).convert("RGB"))[None]) for p in paths]).softmax(1).numpy()
    # timm resizes with Pillow, we with torch: a few thousandths of a grey level
    np.testing.assert_allclose(run.predict(paths).probabilities, probabilities, atol=5e-3)


def test_the_saved_model_predicts_what_the_fitted_head_predicted(run) -> None:
    rows = list(csv.DictReader((run.path / "predictions.csv").read_text().splitlines()))
    assert len(rows) == run.metrics["test"]["n"]
    root = Path(json.loads((run.path / "run.json").read_text())["data"]["root"])
    predictions = run.predict([root / row["path"] for row in rows])
    assert predictions.labels == [row["predicted"] for row in rows]
    for row, p in zip(rows, predictions.probabilities, strict=True):
        assert float(row["probability"]) == pytest.approx(p.max(), abs=1e-4)
    hits = np.mean([row["label"] == row["predicted"] for row in rows])
    assert hits == pytest.approx(run.metrics["test"]["accuracy"])


def test_the_folded_network_is_the_whole_model_to_1e_5(run, shapes: Path) -> None:
    paths = sorted(shapes.glob("*/1*.png"))
    views = torch.stack([load_view(path, run.backbone.preprocessing) for path in paths])
    with torch.inference_mode():
        probabilities = run.model(normalise(views, run.backbone.preprocessing)).softmax(1).numpy()
    np.testing.assert_allclose(run.predict(paths, exact=True).probabilities, probabilities, atol=1e-5)


def test_predict_takes_paths_pictures_and_arrays_alike(run, shapes: Path) -> None:
    path = shapes / "circle/00.png"
    picture = Image.open(path)
    predictions = run.predict([path, picture, np.asarray(picture)])
    np.testing.assert_allclose(predictions.probabilities[1:], predictions.probabilities[[0, 0]], atol=1e-6)
    for one in (str(path), picture, np.asarray(picture)):
        np.testing.assert_allclose(run.predict(one).probabilities, predictions.probabilities[:1], atol=1e-6)
    best = predictions.top(2)[0]
    assert best["label"] == best["top"][0]["class"]
    assert best["top"][0]["probability"] >= best["top"][1]["probability"]


def test_an_unreadable_image_is_reported_not_predicted(run, shapes: Path, tmp_path: Path) -> None:
    (tmp_path / "bad.png").write_bytes(b"no image at all")
    predictions = run.predict([tmp_path / "bad.png", shapes / "circle/00.png", tmp_path / "missing.png"])
    assert len(predictions) == 1
    assert [Path(path).name for path, _ in predictions.unreadable] == ["bad.png", "missing.png"]


def test_evaluate_counts_images_that_the_run_was_fitted_on(run, shapes: Path) -> None:
    scores = run.evaluate(shapes, quiet=True)
    assert scores["n"] == 60
    assert scores["n_seen_in_training"] == 60 - run.metrics["test"]["n"]


def test_evaluate_maps_classes_by_name(run, shapes: Path, tmp_path: Path) -> None:
    shutil.copytree(shapes / "stripes", tmp_path / "data/stripes")
    scores = run.evaluate(tmp_path / "data", quiet=True)
    assert scores["n"] == 20
    assert scores["per_class"][2]["n"] == 20
    shutil.move(tmp_path / "data/stripes", tmp_path / "data/stripe")
    with pytest.raises(DataError, match="does not know the class 'stripe'"):
        run.evaluate(tmp_path / "data", quiet=True)


def test_a_flipped_byte_in_the_model_is_refused(run, tmp_path: Path, shapes: Path) -> None:
    copy = Path(shutil.copytree(run.path, tmp_path / "copy"))
    data = bytearray((copy / "model.safetensors").read_bytes())
    data[-100] ^= 1
    (copy / "model.safetensors").write_bytes(data)
    with pytest.raises(ArtefactError, match="has changed"):
        transfer.load_run(copy).predict(shapes / "circle/00.png")


@pytest.mark.parametrize("damage", ["missing", "not json", "unfinished"])
def test_a_folder_that_is_not_a_complete_run_is_refused(run, tmp_path: Path, damage: str) -> None:
    copy = Path(shutil.copytree(run.path, tmp_path / "copy"))
    if damage == "missing":
        (copy / "run.json").unlink()
    else:
        info = json.loads((copy / "run.json").read_text()) | {"status": "running"}
        (copy / "run.json").write_text("{" if damage == "not json" else json.dumps(info))
    with pytest.raises(ArtefactError, match="Fit again|fit DATA"):
        transfer.load_run(copy)


def test_a_missing_run_is_a_usage_error(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="No run folder"):
        transfer.load_run(tmp_path / "nothing")


def test_a_head_on_unit_rows_is_kept_beside_the_network(shapes: Path, weights: Path, tmp_path: Path) -> None:
    changes = {"backbone": "test_resnet", "weights": str(weights), "quiet": True}
    run = transfer.fit(shapes, "linear-svm", out=tmp_path / "l2", settings=["features.norm=l2"], **changes)
    assert not (run.path / "config.json").exists()
    assert "unit length" in run.info["model"]["why_not_timm"]
    paths = sorted(shapes.glob("*/1*.png"))
    views = torch.stack([load_view(path, run.backbone.preprocessing) for path in paths])
    with torch.inference_mode():
        expected = run.model(normalise(views, run.backbone.preprocessing)).softmax(1).numpy()
    np.testing.assert_allclose(run.predict(paths, exact=True).probabilities, expected, atol=1e-5)


@pytest.mark.parametrize("name", ["torchvision/squeezenet1_1", "torchvision/alexnet"])
@pytest.mark.slow
def test_torchvision_networks_make_runs_too(name: str, shapes: Path, tmp_path: Path) -> None:
    torch.manual_seed(0)
    save_file(build(name).state_dict(), tmp_path / "w.safetensors")
    changes = {"backbone": name, "weights": str(tmp_path / "w.safetensors"), "quiet": True}
    run = transfer.fit(shapes, "linear-svm", out=tmp_path / "run", **changes)
    assert not run.info["model"]["timm"]
    again = transfer.load_run(run.path)
    assert len(again.predict(sorted(shapes.glob("*/00.png")))) == 3


def test_a_run_on_an_earlier_layer_predicts_and_does_not_pose_as_timms(
    shapes: Path, weights: Path, tmp_path: Path
) -> None:
    changes = {"backbone": "test_resnet", "weights": str(weights), "quiet": True, "tap": "layer2"}
    run = transfer.fit(shapes, "linear-svm", out=tmp_path / "tapped", **changes)
    assert not (run.path / "config.json").exists()
    assert len(transfer.load_run(run.path).predict(sorted(shapes.glob("*/00.png")))) == 3
    with pytest.raises(UsageError, match="layer2"):
        _ = run.model


def test_evaluate_scores_the_part_that_fit_reports_on(run, shapes: Path, tmp_path: Path) -> None:
    for part in ("train", "val"):
        for name in ("circle", "square"):
            (tmp_path / "data" / part / name).mkdir(parents=True)
            for i in range(10 if part == "train" else 4):
                shutil.copy(shapes / name / f"{i:02d}.png", tmp_path / "data" / part / name / f"{part}{i}.png")
    assert run.evaluate(tmp_path / "data", quiet=True)["n"] == 8


def test_a_run_serves_as_weights_for_another(run, shapes: Path) -> None:
    backbone = transfer.load_backbone("test_resnet", run.path)
    assert backbone.weights_hash == run.info["weights"]["sha256"]
    assert backbone.preprocessing == run.backbone.preprocessing


def test_a_run_as_weights_brings_its_network_or_says_which_it_has(run) -> None:
    assert transfer.load_backbone(None, run.path).name == "test_resnet"
    assert transfer.load_backbone(None).name == "tf_efficientnet_lite0"
    for other in ("test_vit", "tf_efficientnet_lite0", "torchvision/resnet18"):
        with pytest.raises(ArtefactError, match=f"has the network test_resnet, not {other}.*`--backbone test_resnet`"):
            transfer.load_backbone(other, run.path)


def test_a_run_with_a_tagged_network_serves_its_architecture(run, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(run.path, tmp_path / "copy"))
    info = json.loads((copy / "run.json").read_text())
    (copy / "run.json").write_text(json.dumps(info | {"backbone": "test_resnet.r160_in1k"}))
    for name in (None, "test_resnet"):
        assert transfer.load_backbone(name, copy).name == "test_resnet.r160_in1k"


@pytest.mark.parametrize("damage", ["{", "{}", "a flipped byte"])
def test_a_damaged_run_does_not_serve_as_weights(run, tmp_path: Path, damage: str) -> None:
    copy = Path(shutil.copytree(run.path, tmp_path / "copy"))
    if damage.startswith("{"):
        (copy / "run.json").write_text(damage)
    else:
        data = bytearray((copy / "model.safetensors").read_bytes())
        data[-100] ^= 1
        (copy / "model.safetensors").write_bytes(data)
    with pytest.raises(ArtefactError, match="Fit again"):
        transfer.load_backbone("test_resnet", copy)


def test_a_folder_of_weights_need_not_be_a_run(run, tmp_path: Path) -> None:
    shutil.copy(run.path / "model.safetensors", tmp_path)
    assert transfer.load_backbone("test_resnet", tmp_path).weights_hash == run.info["weights"]["sha256"]


def test_the_model_file_holds_no_other_tensors_than_the_network(run) -> None:
    import timm

    expected = timm.create_model("test_resnet", num_classes=3).state_dict()
    assert set(load_file(run.path / "model.safetensors")) == set(expected)


@pytest.mark.parametrize("foreign", ["not JSON", "[]", '{"sha256": null}', '{"sha256": "abc"}', '{"sha256": {}}'])
def test_a_run_json_of_somebody_else_beside_a_table_does_not_matter(tmp_path: Path, foreign: str) -> None:
    (tmp_path / "run.json").write_text(foreign)
    (tmp_path / "images.csv").write_text("path,label\n")
    (tmp_path / "data").mkdir()
    for source in ("images.csv", "data", "missing.csv"):
        require_as_written(tmp_path / source)
