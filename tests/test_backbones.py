import random
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from transfer import backbones
from transfer.backbones import hub, listing, load_backbone, sizes
from transfer.backbones.names import timm_config, torchvision_weights
from transfer.errors import ArtefactError, ResourceError, UsageError


def test_the_embedded_default_is_imagenet_and_needs_no_network() -> None:
    backbone = load_backbone()
    assert "57934424" in backbone.source
    assert backbone.n_features == 1280
    assert backbone.preprocessing.mean == (0.5, 0.5, 0.5)
    # the stem's filters are trained, not drawn at random
    assert backbone.model.conv_stem.weight.std() > 0.1
    assert not backbone.model.training


@pytest.mark.real
def test_the_embedded_default_tells_ants_from_bees_by_its_imagenet_classes(shared: Path) -> None:
    import timm

    from transfer.images import load_view, normalise

    tensors = backbones.read_weights(backbones.packages.embedded_file("tf_efficientnet_lite0"))
    model = timm.create_model("tf_efficientnet_lite0")
    model.load_state_dict(dict(zip(model.state_dict(), tensors.values(), strict=True)))
    model.eval()
    preprocessing = backbones.default_preprocessing("tf_efficientnet_lite0")
    hits = 0
    for name, imagenet in (("ants", 310), ("bees", 309)):
        for path in sorted((shared / "data/hymenoptera/val" / name).glob("*.jpg"))[:15]:
            with torch.inference_mode():
                scores = model(normalise(load_view(path, preprocessing)[None], preprocessing))[0]
            hits += int(scores[310 if imagenet == 310 else 309] > scores[309 if imagenet == 310 else 310])
    assert hits >= 27


def test_random_weights_are_the_control() -> None:
    first = load_backbone("test_resnet", "random")
    assert first.source == "random weights"
    assert load_backbone("test_resnet", "random").weights_hash == first.weights_hash
    assert load_backbone("test_resnet", "random", seed=1).weights_hash != first.weights_hash


def test_weights_come_from_a_safetensors_file_with_or_without_its_classifier(tmp_path: Path) -> None:
    import timm

    full = timm.create_model("test_resnet", num_classes=7)
    save_file(full.state_dict(), tmp_path / "full.safetensors")
    torch.save(full.state_dict(), tmp_path / "full.pth")
    backbone = load_backbone("test_resnet", tmp_path / "full.safetensors")
    assert torch.equal(backbone.model.conv1[0].weight, full.conv1[0].weight)
    assert load_backbone("test_resnet", tmp_path / "full.pth").weights_hash == backbone.weights_hash


def test_the_hash_follows_the_numbers_not_the_file(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = backbones.build("test_resnet")
    before = backbones.fingerprint(model)
    with torch.no_grad():
        next(model.parameters()).view(-1)[0] += 1e-3
    assert backbones.fingerprint(model) != before


def test_weights_of_another_network_are_refused_in_one_line(tmp_path: Path) -> None:
    save_file(backbones.build("test_vit").state_dict(), tmp_path / "vit.safetensors")
    with pytest.raises(ArtefactError, match="do not fit the network: .* tensors missing") as caught:
        load_backbone("test_resnet", tmp_path / "vit.safetensors")
    assert "\n" not in str(caught.value)


def test_a_pickle_that_would_run_code_is_refused(tmp_path: Path) -> None:
    class Evil:
        def __reduce__(self):
            return (Path.touch, (tmp_path / "hacked",))

    torch.save({"conv1.weight": Evil()}, tmp_path / "evil.pth")
    with pytest.raises(ArtefactError, match="Only plain tensors"):
        load_backbone("test_resnet", tmp_path / "evil.pth")
    assert not (tmp_path / "hacked").exists()


@pytest.mark.parametrize("content", [b"", b"garbage", b"\xff" * 64])
def test_a_damaged_weights_file_is_named(tmp_path: Path, content: bytes) -> None:
    for name in ("w.safetensors", "w.pth"):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(ArtefactError, match=name):
            load_backbone("test_resnet", tmp_path / name)


@pytest.mark.parametrize(
    ("name", "nearest"),
    [("resnet19", "resnet1"), ("torchvision/alexnt", "torchvision/alexnet"), ("alexnt", "'alexnet'"), ("vitt", "vit")],
)
def test_an_unknown_backbone_names_the_nearest(name: str, nearest: str) -> None:
    with pytest.raises(UsageError, match=nearest):
        load_backbone(name)


def test_a_bare_name_is_timms_where_it_has_one_and_torchvisions_otherwise() -> None:
    assert backbones.full_name("resnet18") == "resnet18"
    assert backbones.full_name("torchvision/resnet18") == "torchvision/resnet18"
    assert backbones.full_name("alexnet") == "torchvision/alexnet"


def test_a_name_that_timm_has_given_up_is_the_one_that_took_its_place() -> None:
    from timm.models import get_deprecated_models

    old, new = next((old, new) for old, new in get_deprecated_models().items() if new)
    assert backbones.full_name(old) == new
    for gone in [old for old, new in get_deprecated_models().items() if not new]:
        with pytest.raises(UsageError, match="Unknown backbone"):
            backbones.full_name(gone)


def test_an_unknown_tag_is_refused() -> None:
    with pytest.raises(UsageError, match="Unknown backbone"):
        load_backbone("resnet18.no_such_tag")
    with pytest.raises(UsageError, match="torchvision offers IMAGENET1K_V1"):
        load_backbone("torchvision/resnet18.no_such_tag", "random")


@pytest.fixture
def silent_hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """A hub that takes questions and never answers, and empty caches: the worst kind of no network."""
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "torch"))
    with socket.create_server(("127.0.0.1", 0)) as listening:
        monkeypatch.setattr(constants, "ENDPOINT", f"http://127.0.0.1:{listening.getsockname()[1]}")
        yield


def test_without_network_it_takes_seconds_and_says_what_is_here(silent_hub: None) -> None:
    started = time.perf_counter()
    with pytest.raises(ResourceError, match="Here without network: tf_efficientnet_lite0.*--weights") as caught:
        load_backbone("resnet18")
    assert time.perf_counter() - started < 5  # the hub's own retries take 51
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["resnet18", "torchvision/resnet18"])
def test_nothing_is_fetched_where_the_hub_is_said_to_be_away(
    silent_hub: None, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(hub, "Question", lambda _: pytest.fail("somebody was asked"))
    with pytest.raises(ResourceError, match="HF_HUB_OFFLINE is set"):
        load_backbone(name)


def test_the_hub_is_asked_while_timm_is_imported_if_nothing_like_it_is_cached(silent_hub: None, tmp_path: Path) -> None:
    assert hub.ask_ahead("resnet18") is not None
    (tmp_path / "hub/models--timm--resnet18.a1_in1k").mkdir(parents=True)
    assert hub.ask_ahead("resnet18") is None
    assert hub.ask_ahead("resnet34") is not None


@pytest.mark.parametrize("name", ["resnet18.a1_in1k", "resnet50_clip.openai", "torchvision/resnet18"])
def test_weights_in_the_hub_caches_are_found(silent_hub: None, tmp_path: Path, name: str) -> None:
    assert backbones.local_weights(name) is None
    assert name not in backbones.available_offline()
    if name.startswith("torchvision/"):
        path = tmp_path / "torch/checkpoints" / Path(torchvision_weights(name).url).name
    else:
        config = timm_config(name)
        repository = tmp_path / "hub" / f"models--{config['hf_hub_id'].replace('/', '--')}"
        (repository / "refs").mkdir(parents=True)
        (repository / "refs/main").write_text("0123")
        path = repository / "snapshots/0123" / config.get("hf_hub_filename", "model.safetensors")
    path.parent.mkdir(parents=True)
    path.touch()
    assert backbones.local_weights(name) == str(path)
    assert name in backbones.available_offline()


def test_a_damaged_weights_package_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import importlib.util
    from importlib.machinery import ModuleSpec

    (tmp_path / "models").mkdir()
    (tmp_path / "models/efficientnet-lite0-57934424.pth").write_bytes(b"not those weights")
    spec = ModuleSpec("fake", None, origin=str(tmp_path / "__init__.py"))
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: spec)
    with pytest.raises(ArtefactError, match="SHA-256"):
        load_backbone()


@pytest.mark.parametrize(
    ("name", "n_features"),
    [("torchvision/alexnet", 4096), ("torchvision/squeezenet1_1", 512), ("torchvision/resnet18", 512)],
)
def test_torchvision_networks_give_the_input_of_their_classifier(name: str, n_features: int) -> None:
    backbone = load_backbone(name, "random")
    assert backbone.n_features == n_features
    assert backbone.preprocessing.mean == (0.485, 0.456, 0.406)


@pytest.mark.parametrize(
    ("name", "size"), [("torchvision/vit_b_16", 224), ("torchvision/vit_b_16.IMAGENET1K_SWAG_E2E_V1", 384)]
)
def test_torchvisions_transformers_take_images_as_large_as_their_weights_do(name: str, size: int) -> None:
    with torch.device("meta"):
        model = backbones.build(name).eval()
    assert backbones.default_preprocessing(name).input_size == size
    assert model(torch.zeros(1, 3, size, size, device="meta")).shape == (1, 768)


def test_a_head_is_where_the_library_has_it() -> None:
    backbone = load_backbone("test_efficientnet", "random")
    weight, bias = torch.randn(4, backbone.n_features), torch.randn(4)
    images = torch.rand(2, *backbone.input_shape)
    with torch.inference_mode():
        expected = backbone.model(images) @ weight.T + bias
        torch.testing.assert_close(backbones.with_head(backbone, weight, bias)(images), expected)


@pytest.mark.real
def test_real_torchvision_weights_give_their_own_preprocessing_and_work(shared: Path) -> None:
    backbone = load_backbone("torchvision/squeezenet1_1", shared / "weights/squeezenet1_1.imagenet.safetensors")
    assert backbone.n_features == 512
    assert backbone.preprocessing.input_size == 224
    with torch.inference_mode():
        features = backbone.model(torch.zeros(1, 3, 224, 224))
    assert features.shape == (1, 512)


def test_the_list_says_what_is_on_this_machine() -> None:
    rows = {row["name"]: row for row in backbones.list_backbones("tf_efficientnet_lite")}
    assert rows["tf_efficientnet_lite0"] == {
        "name": "tf_efficientnet_lite0",
        "source": "timm",
        "parameters": 3_371_008,
        "input_size": 224,
        "features": 1280,
        "published": True,
        "here": True,
    }
    assert not rows["tf_efficientnet_lite4"]["here"]
    assert backbones.measure("tf_efficientnet_lite0") == {"parameters": 3_371_008, "features": 1280}


def test_all_networks_are_listed_without_building_one(monkeypatch: pytest.MonkeyPatch) -> None:
    measured: list[str] = []
    monkeypatch.setattr(sizes, "measure", lambda name: measured.append(name) or {"parameters": 1, "features": 1})
    rows = backbones.list_backbones()
    assert len(rows) > 1000
    assert len(measured) < len(rows) / 4  # a newer timm has more, but not so many more
    assert all(row["features"] > 0 and (row["parameters"] > 0) == (row["source"] != "hand-made") for row in rows)
    assert {row["source"] for row in rows} == {"timm", "torchvision", "hand-made"}


def test_what_the_table_of_sizes_does_not_know_is_measured() -> None:
    assert "test_resnet" in sizes._table()
    assert "test_resnet.r160_in1k" not in sizes._table()
    assert sizes.size_of("test_resnet.r160_in1k") == sizes.size_of("test_resnet")


def test_the_width_of_an_encoder_is_that_of_its_tokens() -> None:
    if "qwen3_vit_88m_enc" not in listing.all_names():
        pytest.skip("an older timm")
    assert sizes.measure("qwen3_vit_88m_enc")["features"] == 1024


@pytest.mark.slow
def test_the_table_of_sizes_is_what_measuring_gives() -> None:
    known = sorted(set(sizes._table()) & set(listing.all_names()))
    for name in random.sample(known, 25):
        assert sizes.measure(name) == sizes.size_of(name), name
