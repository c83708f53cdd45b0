"""Predictions of pretrained networks; those of runs are in test_runs.py."""

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

import transfer
from transfer import backbones
from transfer.backbones.imagenet import class_names, load_imagenet_classifier
from transfer.errors import ArtefactError, UsageError
from transfer.images import load_view, normalise


def test_a_pretrained_network_gives_the_softmax_of_its_own_scores(shapes: Path, imagenet_weights: Path) -> None:
    import timm

    paths = [str(path) for path in sorted((shapes / "circle").glob("*.png"))[:3]]
    found = transfer.classify_imagenet([*paths, "missing.png"], "test_resnet", weights=imagenet_weights, exact=True)
    model = timm.create_model("test_resnet").eval()
    model.load_state_dict(load_file(imagenet_weights))
    preprocessing = backbones.default_preprocessing("test_resnet")
    views = torch.stack([load_view(path, preprocessing) for path in paths])
    with torch.inference_mode():
        expected = model(normalise(views, preprocessing)).softmax(1).numpy()
    assert found.paths == paths
    assert [path for path, _ in found.unreadable] == ["missing.png"]
    np.testing.assert_allclose(found.probabilities, expected, atol=1e-5)
    assert found.labels == [found.classes[i] for i in expected.argmax(1)]


def test_the_classes_of_imagenet_have_names_that_differ() -> None:
    names = class_names(1000, "these weights")
    assert (names[0], names[309], names[310]) == ("tench", "bee", "ant")
    for n_classes in (1000, 11821, 21841, 21843):
        names = class_names(n_classes, "these weights")
        assert len(set(names)) == len(names) == n_classes


def test_a_larger_part_of_imagenet_has_its_own_names(tmp_path: Path) -> None:
    import timm
    from timm.data import ImageNetInfo

    save_file(timm.create_model("test_resnet", num_classes=11821).state_dict(), tmp_path / "12k.safetensors")
    _, classes = load_imagenet_classifier("test_resnet", tmp_path / "12k.safetensors")
    assert classes[5] == ImageNetInfo("imagenet-12k").index_to_description(5)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("vit_small_patch14_dinov2.lvd142m", "no classifier in the pretrained weights of .*: it was trained without"),
        ("vit_base_patch16_clip_224.openai", "gives 512 numbers, and ImageNet has 1,000 classes"),
    ],
)
def test_weights_without_named_classes_are_refused_before_they_are_fetched(name: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        transfer.classify_imagenet("a.jpg", name)


def test_weights_of_other_classes_or_none_are_refused(tmp_path: Path, weights: Path) -> None:
    import timm

    save_file(timm.create_model("test_resnet", num_classes=7).state_dict(), tmp_path / "seven.safetensors")
    with pytest.raises(UsageError, match="seven.safetensors tells apart has no names here: it gives 7 numbers"):
        transfer.classify_imagenet("a.jpg", "test_resnet", weights=tmp_path / "seven.safetensors")
    with pytest.raises(ArtefactError, match=r"has no classifier \(fc.weight\)"):
        transfer.classify_imagenet("a.jpg", "test_resnet", weights=weights)
    with pytest.raises(UsageError, match="Random weights know no classes"):
        transfer.classify_imagenet("a.jpg", "test_resnet", weights="random")
    (tmp_path / "run").mkdir()
    (tmp_path / "run/run.json").write_text("{}")
    with pytest.raises(UsageError, match="is a run, with classes of its own: `transfer predict "):
        transfer.classify_imagenet("a.jpg", "test_resnet", weights=tmp_path / "run")


def test_a_classifier_that_is_a_convolution_is_kept(tmp_path: Path) -> None:
    import torchvision

    save_file(torchvision.models.squeezenet1_1(weights=None).state_dict(), tmp_path / "w.safetensors")
    network, classes = load_imagenet_classifier("squeezenet1_1", tmp_path / "w.safetensors")
    assert network.n_features == len(classes) == 1000
    assert backbones.own_classifier("torchvision/squeezenet1_1") is None  # a backbone lacks no linear layer


@pytest.mark.real
def test_the_embedded_default_names_ants_and_bees(shared: Path) -> None:
    hits = n_images = 0
    for folder, label in (("ants", "ant"), ("bees", "bee")):
        paths = sorted((shared / "data/hymenoptera/val" / folder).glob("*.jpg"))[:20]
        hits += transfer.classify_imagenet([str(path) for path in paths]).labels.count(label)
        n_images += len(paths)
    assert hits >= 0.75 * n_images  # of 1,000 classes


@pytest.mark.real
def test_real_torchvision_weights_name_ants(shared: Path) -> None:
    paths = [str(path) for path in sorted((shared / "data/hymenoptera/val/ants").glob("*.jpg"))[:20]]
    weights = shared / "weights/squeezenet1_1.imagenet.safetensors"
    rows = transfer.classify_imagenet(paths, "squeezenet1_1", weights=weights).top(5)
    assert sum("ant" in [guess["class"] for guess in row["top"]] for row in rows) >= 14
