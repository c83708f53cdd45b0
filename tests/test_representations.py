"""Representations: what of an image a head reads, and the recipes of published probes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import transfer
from transfer.backbones import Backbone, load_backbone
from transfer.dataset import scan
from transfer.errors import UsageError
from transfer.features import Representation, extract, pooled
from transfer.images import FIXED_VIEWS, Preprocessing
from transfer.progress import Progress
from transfer.recipe import load_recipe, recipe_files
from transfer.strategies.protocols import describe_protocol

QUIET = Progress(quiet=True)


@pytest.fixture(scope="module")
def backbone() -> Backbone:
    return load_backbone("test_resnet", "random")


def test_pooling_makes_rows_of_maps_and_of_tokens() -> None:
    maps = torch.arange(2 * 3 * 4 * 4, dtype=torch.float32).reshape(2, 3, 4, 4)
    assert torch.equal(pooled(maps, False), maps.mean((2, 3)))
    assert torch.equal(pooled(maps, False, "max"), maps.amax((2, 3)))
    assert torch.equal(pooled(maps, False, "flatten"), maps.reshape(2, 48))
    pyramid = pooled(maps, False, "pyramid")
    assert pyramid.shape == (2, 15)
    assert torch.equal(pyramid[:, :3], maps.mean((2, 3)))
    assert pyramid[0, 3] == maps[0, 0, :2, :2].mean()  # of the first channel, the upper left quarter
    assert torch.allclose(pooled(maps, False, "gem"), (maps.clamp(min=1e-6) ** 3).mean((2, 3)) ** (1 / 3))
    last = maps.permute(0, 2, 3, 1)
    for how in ("average", "max", "gem", "pyramid", "flatten"):
        assert torch.allclose(pooled(last, True, how), pooled(maps, False, how))
    tokens = maps.flatten(2).transpose(1, 2)
    for how in ("average", "max", "gem"):
        assert torch.allclose(pooled(tokens, False, how), pooled(maps, False, how))


def test_signed_powers_and_unit_length_on_a_known_vector() -> None:
    row = torch.tensor([[3.0, -4.0]])
    unit = Representation(norm="l2").normalise(row)
    np.testing.assert_allclose(unit, [[0.6, -0.8]], rtol=1e-6)
    np.testing.assert_allclose(Representation(power=2).normalise(row), [[9, -16]], rtol=1e-6)
    np.testing.assert_allclose(Representation(power=0.5).normalise(row), [[3**0.5, -2]], rtol=1e-6)
    squared = np.array([0.36, -0.64])
    expected = squared / np.linalg.norm(squared)
    np.testing.assert_allclose(Representation(norm="l2", power=2).normalise(row)[0], expected, rtol=1e-6)
    assert not Representation(norm="l2").normalise(torch.zeros(1, 2)).isnan().any()


def test_several_taps_stand_side_by_side_each_of_unit_length(shapes: Path, backbone: Backbone) -> None:
    read = Representation.from_settings(["layer2", "features"], load_recipe("linear-svm").features)
    assert read.norm == "l2"
    X = extract(scan(shapes), backbone, read.taps, exact=True, progress=QUIET).represent(read)
    n_features = backbone.n_features
    np.testing.assert_allclose(np.linalg.norm(X[:, -n_features:], axis=1), 1, rtol=1e-5)
    np.testing.assert_allclose(np.linalg.norm(X[:, :-n_features], axis=1), 1, rtol=1e-5)


def test_each_view_has_the_row_that_it_has_alone(shapes: Path, backbone: Backbone, tmp_path: Path) -> None:
    dataset = scan(shapes)
    read = Representation(n_views=10)
    together = extract(dataset, backbone, views=read.views, exact=True, progress=QUIET, cache=tmp_path / "a")
    X = together.represent(read)
    assert X.shape == (60, 10, backbone.n_features)
    for k in (0, 3, 9):
        alone = extract(dataset, backbone, views=[read.views[k]], exact=True, progress=QUIET, cache=tmp_path / "b")
        np.testing.assert_allclose(alone.rows(), X[:, k], atol=1e-5 * np.abs(X).max())
    again = extract(dataset, backbone, views=read.views, exact=True, progress=QUIET, cache=tmp_path / "a")
    assert again.n_computed == 0


def fit_linear_svm(shapes: Path, weights: Path, out: Path, settings: list[str]) -> transfer.Run:
    # in float32: which type is the faster one, and is taken, is not the same for 60 images and for one
    options = {"backbone": "test_resnet", "weights": str(weights), "quiet": True, "exact": True}
    return transfer.fit(shapes, "linear-svm", out=out, settings=settings, **options)


CHANGES = {
    "two views": ["features.views=2"],
    "sixteen views, squared": ["features.views=16", "features.power=2", "features.norm=l2"],
    "two taps": ["tap=[layer2, features]"],
    "pairs": ["head.multiclass=pairs"],
    "neighbours": ["strategy=knn"],
    "dropout": ["head.dropout=0.5"],
    "whitened": ["head.scaling=whiten"],
    "warped": ["features.crop_mode=squash", "features.crop_share=1.0"],
    "largest": ["features.pool=max", "tap=layer3"],
    "smaller": ["features.image_size=96"],
}


@pytest.mark.parametrize("changes", CHANGES.values(), ids=CHANGES)
def test_a_run_predicts_what_its_recipe_measured(
    shapes: Path, weights: Path, tmp_path: Path, changes: list[str]
) -> None:
    run = fit_linear_svm(shapes, weights, tmp_path / "run", changes)
    again = transfer.load_run(run.path)
    rows = [line.split(",") for line in (run.path / "predictions.csv").read_text().splitlines()[1:]]
    found = again.predict([shapes / path for path, *_ in rows])
    assert found.labels == [row[2] for row in rows]
    np.testing.assert_allclose(found.probabilities.max(1), [float(row[3]) for row in rows], atol=2e-3)
    assert again.evaluate(shapes, quiet=True)["n"] == 60


def test_the_recipe_of_a_network_with_normalised_rows_is_one_network(
    shapes: Path, weights: Path, tmp_path: Path
) -> None:
    settings = ["features.norm=l2", "features.power=0.5"]
    run = fit_linear_svm(shapes, weights, tmp_path / "run", settings)
    pixels = torch.rand(2, 3, *run.backbone.input_shape[1:])
    with torch.inference_mode():
        rows = run.representation.normalise(run.backbone.model(pixels)).numpy()
        np.testing.assert_allclose(run.model(pixels).softmax(1), run.head.probabilities(rows), atol=1e-5)


def test_recipes_of_papers_have_the_numbers_of_the_papers() -> None:
    decaf, razavian, augmented = (load_recipe(name) for name in ("decaf", "razavian", "razavian-aug"))
    own = Preprocessing()
    seen = own.__class__(**{**own.to_dict(), "crop_mode": decaf.features.crop_mode, "crop_share": 0.875})
    assert (seen.resize_size, seen.input_size, decaf.features.crop_mode) == (256, 224, "squash")
    assert (decaf.tap, decaf.head.dropout, decaf.features.crop_share) == ("fc6", 0.5, 0.875)
    assert (razavian.head.multiclass, razavian.features.norm, razavian.features.views) == ("pairs", "l2", 1)
    assert (augmented.features.views, augmented.features.power, augmented.head.multiclass) == (16, 2, "rest")
    assert {0.2, 2} <= set(razavian.grid or []) & set(augmented.grid or [])
    kornblith, dino = (load_recipe(name) for name in ("kornblith", "dinov2-logreg"))
    for recipe in (kornblith, dino):
        np.testing.assert_allclose(recipe.grid, 10 ** np.linspace(-6, 5, 45))
        assert (recipe.head.judge, recipe.head.rule, recipe.features.norm) == ("val", "best", "auto")
    clip = load_recipe("clip-probe")
    np.testing.assert_allclose(clip.grid, 10 ** np.linspace(-6, 6, 97))
    assert clip.head.search == "halving"
    vissl = load_recipe("vissl-svm")
    assert (vissl.head.positive_weight, vissl.head.folds, vissl.head.rule) == (2, 3, "average-precision")
    assert vissl.grid == [0.01, 0.1, 1, 2, 5, 10, 15, 20, 50, 100, 1000]


def test_no_recipe_has_a_gap_where_its_outcome_should_be() -> None:
    assert [name for name, path in recipe_files().items() if "@@" in path.read_text()] == []


def test_a_pooling_of_what_is_one_row_already_changes_nothing(shapes: Path, weights: Path, tmp_path: Path) -> None:
    options = {"backbone": "test_resnet", "weights": str(weights), "quiet": True}
    run = transfer.fit(shapes, "linear-svm", out=tmp_path / "run", settings=["features.pool=max"], **options)
    assert run.representation.is_plain
    assert run.info["model"]["timm"]


def test_a_network_that_takes_one_size_refuses_others_before_the_work(shapes: Path, tmp_path: Path) -> None:
    options = {"backbone": "vit_tiny_patch16_224", "weights": "random", "quiet": True}
    with pytest.raises(UsageError, match="vit_tiny_patch16_224.* does not take images of 96x96 pixels"):
        transfer.fit(shapes, "linear-svm", out=tmp_path / "run", settings=["features.image_size=96"], **options)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("name", recipe_files())
def test_every_recipe_says_its_protocol_in_words(name: str) -> None:
    recipe = load_recipe(name)
    lines = describe_protocol(recipe, Preprocessing())
    assert lines[0].startswith("Images: 224 px")
    assert len(lines) == (1 if recipe.may_tune else 2)


def test_the_protocol_names_resize_normalisation_classifier_and_selection() -> None:
    seen, head = describe_protocol(load_recipe("razavian-aug"), Preprocessing(crop_mode="squash", crop_share=1.0))
    assert "squashed" in seen
    assert "16 views, fc6.pre, rows of unit length, to the power 2" in seen
    assert "one class against the rest" in head
    assert "the best of 5 settings by 5-fold cross-validation" in head


@pytest.mark.parametrize(
    ("recipe", "settings", "message"),
    [
        ("partial", ["features.views=2"], "leave out tap and features"),
        ("partial", ["head.dropout=0.5"], "leave out head.dropout"),
        ("linear-svm", ["features.views=3"], "features.views is 3"),
        ("logistic", ["head.positive_weight=2"], "goes with linear-svm"),
        ("vissl-svm", ["head.judge=val"], "leave out judge"),
        ("knn", ["head.judge=val"], "leave out head.judge"),
        ("knn", ["head.scaling=whiten"], "no effect on knn"),
        ("ridge", ["head.dropout=0.5"], "not with ridge"),
        ("linear-svm", ["tap=[search, features]"], "stands alone"),
        ("linear-svm", ["tap=[features, features]"], "each once"),
        ("linear-svm", ["head.grid={low: 1, high: 2}"], "head.grid.n"),
        ("linear-svm", ["head.grid={low: 1, high: 2, steps: 3}"], "steps"),
    ],
)
def test_what_no_recipe_can_mean_is_refused(recipe: str, settings: list[str], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        load_recipe(recipe, settings)


def test_ten_views_are_worth_a_row_each_in_the_run_folder(shapes: Path, weights: Path, tmp_path: Path) -> None:
    run = fit_linear_svm(shapes, weights, tmp_path / "run", ["features.views=10"])
    assert json.loads((run.path / "run.json").read_text())["representation"]["n_views"] == 10
    assert len(run.representation.views) == len(FIXED_VIEWS[10])
    with pytest.raises(UsageError, match="10 views"):
        _ = run.model


def test_a_search_ranks_layers_and_pairs_by_what_they_say(shapes: Path, weights: Path, tmp_path: Path) -> None:
    options = {"backbone": "test_resnet", "weights": str(weights), "quiet": True, "tap": "search"}
    run = transfer.fit(shapes, "linear-svm", out=tmp_path / "run", **options)
    info = json.loads((run.path / "run.json").read_text())
    tried = info["taps"]["table"]
    assert tried[0]["chosen"]
    assert tried[0]["taps"] == info["representation"]["taps"] == list(run.recipe.taps)
    assert [row["accuracy"] for row in tried] == sorted((row["accuracy"] for row in tried), reverse=True)
    assert {len(row["taps"]) for row in tried} == {1, 2}
    assert ["features"] in [row["taps"] for row in tried]
    assert transfer.load_run(run.path).predict(sorted(shapes.glob("*/00.png"))).labels


def test_a_search_finds_the_layer_that_knows_and_looks_at_no_test_image() -> None:
    from transfer.strategies.tapping import choose_taps

    rng = np.random.default_rng(0)
    y = np.arange(90) % 3
    knows = {"early": 2.0, "late": 0.2, "features": 0.2}
    rows = {tap: rng.normal(size=(90, 8)) + share * np.eye(3, 8)[y] * 2 for tap, share in knows.items()}

    def rows_of(taps: tuple[str, ...]) -> np.ndarray:
        return np.concatenate([rows[tap] for tap in taps], axis=1)

    found = choose_taps(list(knows), rows_of, y, 3, np.arange(90), seed=0)
    assert "early" in found.taps
    assert found.gain > 2 * found.gain_standard_error > 0
    assert "unlike ImageNet" in found.rule
    same = choose_taps(["features"], rows_of, y, 3, np.arange(90), seed=0)
    assert same.taps == ("features",)
    assert same.gain == 0


@pytest.fixture(scope="module")
def alexnet(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """AlexNet's weights are not everywhere: here they are random, which its recipes must not mind."""
    from safetensors.torch import save_file

    from transfer.backbones import build

    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("alexnet") / "alexnet.safetensors"
    save_file(build("torchvision/alexnet").state_dict(), path)
    return path


@pytest.mark.slow
@pytest.mark.parametrize(
    ("recipe", "changes", "width"),
    [
        ("decaf", {}, 4096),
        ("decaf", {"tap": "pool5", "settings": ["head.dropout=0"]}, 9216),
        ("razavian", {}, 4096),
        ("razavian-aug", {"tap": "fc7"}, 4096),
    ],
)
def test_the_papers_recipes_run_on_their_network(
    recipe: str, changes: dict[str, Any], width: int, shapes: Path, alexnet: Path, tmp_path: Path
) -> None:
    run = transfer.fit(shapes, recipe, weights=str(alexnet), out=tmp_path / "run", quiet=True, **changes)
    again = transfer.load_run(run.path)
    assert again.head.weight.shape[1] == width  # type: ignore[union-attr]
    paths = sorted(shapes.glob("*/0*.png"))
    right = [Path(path).parent.name == label for path, label in zip(paths, again.predict(paths).labels, strict=True)]
    assert np.mean(right) > 0.8  # even random features tell these shapes apart


@pytest.mark.real
def test_sixteen_views_work_on_real_pictures_and_weights(shared: Path, tmp_path: Path) -> None:
    weights = shared / "weights/squeezenet1_1.imagenet.safetensors"
    changes = {"backbone": "torchvision/squeezenet1_1", "weights": str(weights), "tap": "features", "quiet": True}
    run = transfer.fit(shared / "data/hymenoptera", "razavian-aug", out=tmp_path / "run", **changes)
    assert run.metrics["test"]["accuracy"] > 0.85
