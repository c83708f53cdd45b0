import csv
import dataclasses
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from transfer import features
from transfer.backbones import load_backbone
from transfer.dataset import scan, stop_on_bad
from transfer.errors import ArtefactError, DataError, ResourceError, UsageError
from transfer.features import check_features, export_features, extract, extract_features, planning, write_features
from transfer.images import load_view, normalise
from transfer.progress import Progress

QUIET = Progress(quiet=True)
# the command line, keeping rows after every 16 images
_SMALL_SHARDS = """
from transfer.cache import filling
filling._SHARD_ROWS = 16
from transfer.cli import main
main()
"""


@pytest.fixture(scope="module")
def backbone():
    return load_backbone("test_resnet", "random")


@pytest.fixture
def folder(shapes: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(shapes, tmp_path / "shapes"))


def spoil(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-40])


def test_rows_are_what_the_network_says_about_each_image(shapes: Path, backbone) -> None:
    found = extract_features(shapes, backbone, exact=True, quiet=True)
    assert found.X.shape == (60, backbone.n_features)
    assert found.X.dtype == np.float32
    for i in (0, 31, 59):
        view = load_view(found.paths[i], backbone.preprocessing, exact=True)[None]
        with torch.inference_mode():
            expected = backbone.model(normalise(view, backbone.preprocessing))[0].numpy()
        np.testing.assert_allclose(found.X[i], expected, atol=1e-4 * np.abs(expected).max())
    assert [Path(path).parent.name for path in found.paths] == [found.classes[label] for label in found.y]


def test_the_second_extraction_runs_no_network(shapes: Path, backbone, tmp_path: Path, monkeypatch) -> None:
    first = extract(scan(shapes), backbone, cache=tmp_path, progress=QUIET)
    assert first.n_computed == 60
    monkeypatch.setattr(features.extracting, "Runner", None)
    again = extract(scan(shapes), backbone, cache=tmp_path, progress=QUIET)
    assert again.n_computed == 0
    np.testing.assert_array_equal(again.rows(), first.rows())


def test_only_new_images_are_computed_and_renamed_ones_are_known(folder: Path, backbone, tmp_path: Path) -> None:
    extract(scan(folder), backbone, cache=tmp_path / "cache", progress=QUIET)
    (folder / "circle/00.png").rename(folder / "square/moved.png")
    Image.new("RGB", (64, 64), "red").save(folder / "circle/new.png")
    assert extract(scan(folder), backbone, cache=tmp_path / "cache", progress=QUIET).n_computed == 1


def test_other_weights_are_never_answered_from_the_cache(shapes: Path, backbone, tmp_path: Path) -> None:
    extract(scan(shapes), backbone, cache=tmp_path, progress=QUIET)
    other = load_backbone("test_resnet", "random", seed=1)
    assert extract(scan(shapes), other, cache=tmp_path, progress=QUIET).n_computed == 60


def test_an_unreadable_image_is_left_out_and_no_row_moves(folder: Path, backbone, tmp_path: Path) -> None:
    whole = extract(scan(folder), backbone, cache=tmp_path / "a", progress=QUIET)
    spoil(folder / "circle/03.png")
    spoil(folder / "stripes/19.png")
    dataset = scan(folder)
    left = extract(dataset, backbone, cache=tmp_path / "b", progress=QUIET)
    assert len(left.dataset) == 58
    assert left.dataset.n_seen == dataset.n_seen == 60
    assert {Path(s.path).name for s in left.dataset.unreadable} == {"03.png", "19.png"}
    kept = [i for i, path in enumerate(whole.dataset.paths) if path in set(left.dataset.paths)]
    np.testing.assert_array_equal(left.rows(), whole.rows()[kept])


def test_a_row_does_not_depend_on_who_is_in_its_batch(folder: Path, backbone, tmp_path: Path) -> None:
    whole = extract(scan(folder), backbone, cache=tmp_path / "a", progress=QUIET)
    for i in range(0, 20, 3):
        (folder / f"circle/{i:02d}.png").unlink()
    some = extract(scan(folder), backbone, cache=tmp_path / "b", progress=QUIET)
    row = {content: i for i, content in enumerate(whole.dataset.hashes)}
    np.testing.assert_array_equal(some.rows(), whole.rows()[[row[content] for content in some.dataset.hashes]])


def test_too_many_unreadable_images_stop_the_run(folder: Path, backbone, tmp_path: Path) -> None:
    for i in range(4):
        spoil(folder / f"circle/{i:02d}.png")
    dataset = extract(scan(folder), backbone, cache=tmp_path, progress=QUIET).dataset
    with pytest.raises(DataError, match=r"4 of 60 images \(7%\) are unreadable: .*circle/00.png \(truncated PNG\)"):
        stop_on_bad(dataset, "skip", 0.05)
    stop_on_bad(dataset, "skip", 0.1)
    with pytest.raises(DataError, match="--on-bad skip"):
        stop_on_bad(dataset, "fail", 0.1)


def test_several_taps_come_from_one_pass_and_maps_can_be_kept(shapes: Path, backbone, tmp_path: Path) -> None:
    taps = ("layer2", "layer4", "features")
    settings = {"exact": True, "cache": tmp_path, "progress": QUIET}
    found = extract(scan(shapes), backbone, taps, **settings)
    maps = extract(scan(shapes), backbone, ("layer2",), pool="none", dtype="float16", **settings)
    assert maps.rows("layer2").ndim == 4
    assert maps.rows("layer2").dtype == np.float16
    pooled = maps.rows("layer2").astype(np.float32).mean((2, 3))
    np.testing.assert_allclose(pooled, found.rows("layer2"), rtol=0.01, atol=0.01 * np.abs(pooled).max())
    np.testing.assert_allclose(found.rows("layer4"), found.rows("features"), rtol=1e-4, atol=1e-4)


def test_an_unknown_tap_names_the_nearest(shapes: Path, backbone) -> None:
    with pytest.raises(UsageError, match="layer5.*Did you mean 'layer"):
        extract(scan(shapes), backbone, ("layer5",), progress=QUIET)


def test_several_taps_in_memory_are_refused_with_the_way_on(shapes: Path, backbone) -> None:
    with pytest.raises(UsageError, match="give one tap. transfer.export_features takes several"):
        extract_features(shapes, backbone, ["layer2", "features"], quiet=True)  # type: ignore[arg-type]


def test_a_feature_folder_holds_what_it_says(folder: Path, backbone, tmp_path: Path) -> None:
    spoil(folder / "circle/03.png")
    out = tmp_path / "out"
    extraction = extract(scan(folder), backbone, ("features", "layer2"), cache=tmp_path / "cache", progress=QUIET)
    manifest = write_features(extraction, out)
    X = np.load(out / "features.npy", mmap_mode="r", allow_pickle=False)
    labels = np.load(out / "labels.npy", allow_pickle=False)
    rows = list(csv.DictReader((out / "index.csv").read_text().splitlines()))
    assert len(X) == len(labels) == len(rows) == manifest["n_images"] == 59
    np.testing.assert_array_equal(X, extraction.rows("features"))
    for i, row in enumerate(rows):
        assert int(row["row"]) == i
        assert row["class"] == Path(row["path"]).parent.name == manifest["classes"][labels[i]]
    assert manifest["unreadable"][0]["reason"] == "truncated PNG"
    assert check_features(out) == json.loads((out / "manifest.json").read_text())


@pytest.mark.parametrize("name", ["features.npy", "labels.npy", "index.csv"])
def test_a_flipped_byte_in_a_feature_folder_is_found(shapes: Path, backbone, tmp_path: Path, name: str) -> None:
    write_features(extract(scan(shapes), backbone, cache=tmp_path / "cache", progress=QUIET), tmp_path / "out")
    data = bytearray((tmp_path / "out" / name).read_bytes())
    data[-5] ^= 1
    (tmp_path / "out" / name).write_bytes(data)
    with pytest.raises(ArtefactError, match=name):
        check_features(tmp_path / "out")


def test_features_are_not_written_over_others(shapes: Path, backbone, tmp_path: Path) -> None:
    extraction = extract(scan(shapes), backbone, cache=tmp_path / "cache", progress=QUIET)
    write_features(extraction, tmp_path / "out")
    with pytest.raises(UsageError, match="exists"):
        write_features(extraction, tmp_path / "out")


def test_float16_is_half_the_size(shapes: Path, backbone, tmp_path: Path) -> None:
    extraction = extract(scan(shapes), backbone, cache=tmp_path / "cache", progress=QUIET)
    write_features(extraction, tmp_path / "out", "float16")
    X = np.load(tmp_path / "out/features.npy", allow_pickle=False)
    assert X.dtype == np.float16
    np.testing.assert_allclose(X, extraction.rows(), rtol=1e-3, atol=1e-3)


@pytest.fixture
def bfloat16_is_twice_as_fast(monkeypatch) -> list[features.Plan]:
    """Let every plan be worth measuring, and return those that were."""
    timed: list[features.Plan] = []

    def speed(self: features.Runner, plan: features.Plan) -> float:
        timed.append(plan)
        return plan.batch_size * (2.0 if plan.dtype == "bfloat16" else 1.0)

    monkeypatch.setattr(planning.machine, "narrow_types", lambda device: ["bfloat16"])
    monkeypatch.setattr(planning, "_WORTH_MEASURING", 1)
    monkeypatch.setattr(planning, "_SHARE", 1e9)
    monkeypatch.setattr(features.Runner, "_views_per_second", speed)
    return timed


def test_the_plan_that_was_measured_is_remembered(
    shapes: Path, backbone, tmp_path: Path, bfloat16_is_twice_as_fast: list[features.Plan]
) -> None:
    timed = bfloat16_is_twice_as_fast
    first = extract(scan(shapes), backbone, cache=tmp_path, progress=QUIET)
    assert (first.plan.dtype, first.plan.batch_size, first.plan.layout) == ("bfloat16", 8, "channels_last")
    assert {plan.dtype for plan in timed} == {"bfloat16", "float32"}
    assert {plan.batch_size for plan in timed} == {4, 8}
    assert {plan.layout for plan in timed} == {"channels_last", "contiguous"}
    assert len(timed) == len(set(timed))
    shutil.rmtree(tmp_path / "activations")
    n_timed = len(timed)
    assert extract(scan(shapes), backbone, cache=tmp_path, progress=QUIET).plan == first.plan
    assert len(timed) == n_timed
    exact = extract(scan(shapes), backbone, exact=True, cache=tmp_path, progress=QUIET)
    assert exact.plan.dtype == exact.computed_in == "float32"
    a, b = exact.rows(), first.rows()
    assert ((a * b).sum(1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)).min() > 0.99


def test_measuring_takes_a_small_share_of_the_job(shapes: Path, backbone, tmp_path: Path, monkeypatch) -> None:
    plans = planning.Plans(backbone, ["features"], "cpu", False, tmp_path)
    timed = []

    def slow(plan: features.Plan) -> float:
        timed.append(plan)
        time.sleep(0.05)
        return 1000.0

    assert plans.choose(600, slow) == plans.usual  # a job of 0.6 s: 0.03 s of measuring
    assert len(timed) == 2  # the first tells how long the job is
    plans.choose(100_000, slow)
    assert len(timed) >= 4  # all that there are where float32 is the only type


def test_a_plan_that_does_not_fit_into_memory_is_not_taken(backbone, tmp_path: Path) -> None:
    plans = planning.Plans(backbone, ["features"], "cpu", True, tmp_path)
    fits = plans.choose(10_000, lambda plan: 0.0 if plan.batch_size >= 8 else 50.0)
    assert fits.batch_size == 4


def test_rows_of_two_types_are_never_mixed(folder: Path, backbone, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(planning.machine, "narrow_types", lambda device: [])
    few = extract(scan(folder), backbone, cache=tmp_path, progress=QUIET)
    monkeypatch.setattr(planning.machine, "narrow_types", lambda device: ["bfloat16"])
    same = extract(scan(folder), backbone, cache=tmp_path, progress=QUIET)
    assert (same.n_computed, same.computed_in) == (0, "float32")  # all there: nothing is computed again
    np.testing.assert_array_equal(same.rows(), few.rows())
    Image.new("RGB", (64, 64), "red").save(folder / "circle/new.png")
    more = extract(scan(folder), backbone, cache=tmp_path, progress=QUIET)
    assert (more.n_computed, more.computed_in) == (61, "bfloat16")


def test_an_image_over_the_limit_is_not_answered_from_the_cache(shapes: Path, backbone, tmp_path: Path) -> None:
    extract(scan(shapes), backbone, cache=tmp_path, progress=QUIET)
    with pytest.raises(DataError, match="megapixels"):
        extract(scan(shapes), backbone, max_pixels=100, cache=tmp_path, progress=QUIET)


def test_an_image_that_changes_after_the_scan_is_not_kept_under_its_old_name(
    folder: Path, backbone, tmp_path: Path
) -> None:
    dataset = scan(folder)
    Image.new("RGB", (64, 64), "red").save(folder / "circle/03.png")
    with pytest.raises(DataError, match=r"circle/03.png has changed since the folder was scanned"):
        extract(dataset, backbone, cache=tmp_path, progress=QUIET)


def test_too_little_space_is_noticed_before_the_work_is_done(
    shapes: Path, backbone, tmp_path: Path, monkeypatch
) -> None:
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=1000))
    with pytest.raises(ResourceError, match="Disk full: .* needs .* are free"):
        extract(scan(shapes), backbone, cache=tmp_path, progress=QUIET)


def test_activations_that_float16_cannot_hold_are_refused(shapes: Path, tmp_path: Path) -> None:
    backbone = load_backbone("test_resnet", "random")
    with torch.no_grad():
        backbone.model.conv1[0].weight.mul_(1e6)
    options = {"pool": "none", "cache": tmp_path, "progress": QUIET}
    with pytest.raises(DataError, match=r"'conv1' go beyond float16's 65504.*--exact"):
        extract(scan(shapes), backbone, ("conv1",), dtype="float16", **options)
    assert np.isfinite(extract(scan(shapes), backbone, ("conv1",), **options).rows("conv1")).all()


def test_an_export_in_one_call_refuses_before_it_works(shapes: Path, backbone, tmp_path: Path, monkeypatch) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out/mine.txt").write_text("precious")
    monkeypatch.setattr(features.exporting, "extract", None)
    with pytest.raises(UsageError, match="exists"):
        export_features(shapes, tmp_path / "out", backbone, quiet=True)


@pytest.mark.slow
def test_a_killed_extraction_goes_on_where_it_was(folder: Path, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for i in range(300):
        noise = rng.integers(0, 255, (64, 64, 3)).astype(np.uint8)
        Image.fromarray(noise).save(folder / f"circle/more{i}.png")
    command = [sys.executable, "-c", _SMALL_SHARDS, "features", str(folder), "--out", str(tmp_path / "out"), "--quiet"]
    environment = {**os.environ, "TRANSFER_CACHE": str(tmp_path / "cache")}
    running = subprocess.Popen(command, env=environment)
    while running.poll() is None and len(list((tmp_path / "cache").rglob("*.safetensors"))) < 3:
        time.sleep(0.02)
    running.send_signal(signal.SIGKILL)
    assert running.wait() == -signal.SIGKILL
    assert not (tmp_path / "out").exists()
    again = extract(scan(folder), load_backbone(), cache=tmp_path / "cache", progress=QUIET)
    assert 0 < again.n_computed <= 360 - 3 * 16
    fresh = extract(scan(folder), load_backbone(), cache=tmp_path / "fresh", progress=QUIET)
    np.testing.assert_array_equal(again.rows(), fresh.rows())


@pytest.mark.slow
def test_a_terminated_extraction_ends_with_143_and_keeps_its_rows(folder: Path, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for i in range(600):
        Image.fromarray(rng.integers(0, 255, (64, 64, 3)).astype(np.uint8)).save(folder / f"circle/more{i}.png")
    command = [sys.executable, "-c", _SMALL_SHARDS, "features", str(folder), "--out", str(tmp_path / "out"), "--quiet"]
    running = subprocess.Popen(command, env={**os.environ, "TRANSFER_CACHE": str(tmp_path / "cache")})
    while running.poll() is None and not list((tmp_path / "cache").rglob("*.safetensors")):
        time.sleep(0.01)
    running.terminate()
    assert running.wait() == 143
    assert list((tmp_path / "cache").rglob("*.safetensors"))
    assert not list(tmp_path.rglob("*.partial"))


@pytest.mark.real
def test_real_torchvision_weights_give_useful_features(shared: Path, tmp_path: Path) -> None:
    from sklearn.linear_model import LogisticRegression

    weights = shared / "weights/squeezenet1_1.imagenet.safetensors"
    found = extract_features(shared / "data/hymenoptera", "torchvision/squeezenet1_1", weights=weights, quiet=True)
    train = found.dataset.parts == "train"
    head = LogisticRegression(max_iter=2000).fit(found.X[train], found.y[train])
    assert head.score(found.X[~train], found.y[~train]) > 0.85


@pytest.mark.slow
def test_a_transformer_in_each_layout_and_number_of_threads_says_the_same(shapes: Path, tmp_path: Path) -> None:
    vit = load_backbone("test_vit", "random")
    plans = planning.Plans(vit, ["features"], "cpu", True, tmp_path)
    paths = scan(shapes).paths
    seen = []
    for layout, n_workers, n_threads in (("channels_last", 2, 1), ("contiguous", 1, 2)):
        settings = {"layout": layout, "n_workers": n_workers, "n_threads": n_threads}
        plans.speeds = {dataclasses.replace(plans.usual, **settings): 1.0}
        runner = features.Runner(vit, ["features"], plans, paths, exact=True)
        assert runner.plan.layout == layout
        seen.append(np.concatenate([batch.views[0]["features"] for batch in runner.run()]))
    np.testing.assert_allclose(seen[0], seen[1], atol=1e-4 * np.abs(seen[0]).max())
