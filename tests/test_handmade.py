"""Hand-made backbones: raw pixels, and gradients with hues."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import transfer
from transfer import backbones, cuts
from transfer.backbones import HANDMADE, load_backbone
from transfer.backbones.handmade import Pixels, gradients, hues
from transfer.errors import ArtefactError, UsageError
from transfer.features import Plans, Runner
from transfer.files import write_json
from transfer.images import normalise

NAMES = sorted(HANDMADE)


def rows_of(name: str, *pictures: np.ndarray) -> np.ndarray:
    """Return the features of pictures as every command computes them."""
    backbone = load_backbone(name)
    runner = Runner(backbone, ["features"], Plans(backbone, ["features"], "cpu", False), pictures)
    return np.concatenate([rows.views[0]["features"] for rows in runner.run()])


def noise(height: int, width: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3)).astype(np.uint8)


def test_a_row_of_pixels_is_the_picture_itself() -> None:
    pictures = [noise(32, 32, seed) for seed in range(20)]  # enough that a network would be rewritten
    assert np.array_equal(rows_of("pixels", *pictures), [p.transpose(2, 0, 1).ravel() for p in pictures])


def test_all_of_a_wide_picture_is_squashed_into_its_pixels() -> None:
    wide = np.zeros((32, 320, 3), np.uint8)
    wide[:, 300:] = (10, 200, 30)  # far outside a centre crop
    row = rows_of("pixels", wide)[0].reshape(3, 32, 32)
    assert np.array_equal(row[:, 5, 0], [0, 0, 0])
    assert np.array_equal(row[:, 5, 31], [10, 200, 30])


@pytest.mark.parametrize(
    ("colour", "place"),
    [((255, 0, 0), 0), ((250, 130, 0), 0), ((0, 200, 0), 3), ((0, 90, 90), 5), ((10, 10, 250), 6), ((255, 0, 40), 9)],
)
def test_a_picture_of_one_colour_has_one_hue(colour: tuple[int, int, int], place: int) -> None:
    row = rows_of("hog-color", np.full((80, 50, 3), colour, np.uint8))[0]
    assert np.array_equal(row[-10:], np.eye(10)[place])
    assert not row[:-10].any()  # and no gradient


def test_grey_counts_as_red() -> None:
    assert np.array_equal(hues(np.full((4, 4, 3), 0.3, np.float32)), np.eye(10)[0])


def test_hues_are_those_of_scikit_image() -> None:
    from skimage.color import rgb2hsv

    picture = np.random.default_rng(0).random((64, 64, 3), np.float32)
    picture[:5] = picture[:5, :, :1]  # grey
    picture[5:10, :, 1] = picture[5:10, :, 2]  # two channels alike
    expected = np.histogram(rgb2hsv(picture)[..., 0], bins=10, range=(0, 1))[0] / 64**2
    assert np.allclose(hues(picture), expected, atol=1e-7)


def test_gradients_are_those_of_scikit_image_on_the_same_array() -> None:
    from skimage.feature import hog

    picture = noise(64, 64)
    settings = {"orientations": 9, "pixels_per_cell": (8, 8), "cells_per_block": (2, 2), "block_norm": "L2-Hys"}
    expected = hog(picture / np.float32(255), channel_axis=-1, **settings)
    row = rows_of("hog-color", picture)[0]
    assert expected.shape == (1764,)
    assert np.allclose(row[:1764], expected, atol=1e-6)


def test_gradients_stand_where_the_edges_are() -> None:
    picture = np.zeros((64, 64, 3), np.float32)
    picture[:32, 32:] = 1  # one upright edge in the upper half
    blocks = gradients(picture).reshape(7, 7, -1)
    assert blocks[0, 3].any()
    assert not blocks[5, 3].any()
    assert not blocks[0, 0].any()


@pytest.mark.parametrize("name", NAMES)
def test_the_module_takes_any_batch_in_any_layout_with_or_without_gradient(name: str) -> None:
    backbone = load_backbone(name)
    size = backbone.preprocessing.input_size
    views = torch.from_numpy(np.stack([noise(size, size, seed).transpose(2, 0, 1) for seed in range(3)]))
    images = normalise(views, backbone.preprocessing)
    whole = backbone.model(images)
    assert whole.shape == (3, backbone.n_features)
    assert whole.dtype == torch.float32
    last = backbone.model(images.to(memory_format=torch.channels_last))  # another order in memory, the same numbers
    assert torch.equal(last, whole)
    assert torch.equal(backbone.model(images[1:2].requires_grad_()).detach(), whole[1:2])


@pytest.mark.parametrize("name", NAMES)
def test_it_says_what_it_is(name: str) -> None:
    backbone = load_backbone(name)
    assert backbone.source == "hand-made, no weights"
    assert backbone.is_handmade
    assert not backbone.model.state_dict()
    assert backbones.measure(name) == {"parameters": 0, "features": backbone.n_features}
    (row,) = backbones.list_backbones(name)
    assert (row["source"], row["published"], row["here"]) == ("hand-made", False, True)
    assert [point.name for point in cuts.cut_points(backbone.model, backbone.input_shape)] == ["pixels", "features"]


def test_a_misspelt_name_finds_it() -> None:
    with pytest.raises(UsageError, match="Did you mean 'hog-color'"):
        load_backbone("hog_color")


@pytest.mark.parametrize("name", NAMES)
def test_float32_is_the_only_type_that_it_computes_in(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("transfer.machine.narrow_types", lambda device: ["bfloat16"])
    # no speeds that another test has measured on this machine
    assert Plans(load_backbone("test_resnet", "random"), ["features"], "cpu", False, tmp_path).types[0] == "bfloat16"
    assert Plans(load_backbone(name), ["features"], "cpu", False, tmp_path).types == ["float32"]


@pytest.mark.parametrize("name", NAMES)
def test_it_stays_on_the_cpu(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("transfer.machine.pick_device", lambda device: torch.device("cuda"))
    assert Plans(load_backbone(name), ["features"], "auto", False).device.type == "cpu"


def test_neither_is_answered_from_the_cache_of_the_other_or_of_an_older_definition(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    hashes = {load_backbone(name).weights_hash for name in NAMES}
    assert len(hashes) == len(NAMES)
    monkeypatch.setattr(Pixels, "definition", "pixels 0")
    assert load_backbone("pixels").weights_hash not in hashes


@pytest.mark.parametrize("name", NAMES)
def test_weights_and_another_preprocessing_are_refused(name: str) -> None:
    for weights in ("random", "some.safetensors"):
        with pytest.raises(UsageError, match=f"{name} is made by hand and has no weights. Leave out weights="):
            load_backbone(name, weights)
    with pytest.raises(UsageError, match="its preprocessing is part of it"):
        load_backbone(name, preprocessing=backbones.default_preprocessing("resnet18"))


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("strategy", ["partial", "full"])
def test_there_is_nothing_to_fine_tune(name: str, strategy: str, shapes: Path, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr("transfer.strategies.preparing.extract", lambda *_, **__: pytest.fail("the slow part"))
    with pytest.raises(UsageError, match=f"{name} has no layers to train. Use --recipe linear-svm"):
        transfer.fit(shapes, strategy, backbone=name, out=tmp_path / "run", quiet=True)
    paths = [str(path) for path in sorted(shapes.rglob("*.png"))]
    labels = [Path(path).parent.name for path in paths]
    monkeypatch.setattr("transfer.estimators.extract", lambda *_, **__: pytest.fail("the slow part"))
    with pytest.raises(UsageError, match="no layers to train"):
        transfer.TransferClassifier(strategy, backbone=name).fit(paths, labels)


@pytest.fixture(scope="module", params=NAMES)
def run(request: pytest.FixtureRequest, shapes: Path, tmp_path_factory: pytest.TempPathFactory):
    return transfer.fit(shapes, request.param, out=tmp_path_factory.mktemp("runs") / "run", quiet=True)


def test_a_run_learns_the_shapes_and_is_read_back(run, shapes: Path) -> None:
    assert run.info["backbone"] in NAMES
    assert run.metrics["test"]["accuracy"] > 0.5  # of three classes
    again = transfer.load_run(run.path)
    assert again.evaluate(shapes, quiet=True)["accuracy"] > 0.8
    paths = sorted(shapes.rglob("*.png"))[::20]
    from_files = again.predict(paths)
    pictures = again.predict([Image.open(path) for path in paths])
    assert np.allclose(from_files.probabilities, pictures.probabilities)


def test_a_run_does_not_pose_as_timms_and_its_model_is_whole(run, shapes: Path) -> None:
    assert not (run.path / "config.json").exists()
    assert "No library builds a hand-made backbone" in run.info["model"]["why_not_timm"]
    path = sorted(shapes.rglob("*.png"))[0]
    preprocessing = run.backbone.preprocessing
    with torch.inference_mode():
        log_odds = run.model(normalise(transfer.images.load_view(path, preprocessing)[None], preprocessing))
    assert np.allclose(log_odds.softmax(1).numpy(), run.predict(path).probabilities, atol=1e-5)


def test_a_run_does_not_serve_as_weights(run) -> None:
    for name in (run.info["backbone"], "resnet18", None):
        with pytest.raises(UsageError, match=f"{run.info['backbone']} is made by hand and has no weights"):
            load_backbone(name, run.path)


def test_a_run_of_an_older_definition_is_refused(run, tmp_path: Path) -> None:
    import shutil

    copy = tmp_path / "run"
    shutil.copytree(run.path, copy)
    write_json(copy / "run.json", {**run.info, "weights": {**run.info["weights"], "sha256": "0" * 64}})
    with pytest.raises(ArtefactError, match="is defined in another way now"):
        transfer.load_run(copy).predict(noise(40, 40))


def test_the_estimators_take_it(shapes: Path) -> None:
    pictures = [np.asarray(Image.open(path)) for path in sorted(shapes.rglob("*.png"))]
    labels = [i // 20 for i in range(60)]
    classifier = transfer.TransferClassifier("ridge", backbone="hog-color").fit(pictures, labels)
    assert classifier.score(pictures, labels) > 0.8
    assert transfer.FeatureExtractor("pixels").fit_transform(pictures[:2]).shape == (2, 3072)
