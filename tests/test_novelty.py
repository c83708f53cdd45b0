"""What is unlike all training images is called unknown; the share of val that is kept is what was promised."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import transfer
from transfer.errors import ArtefactError
from transfer.novelty import (
    choose_references,
    detector_from_arrays,
    detector_to_arrays,
    fit_detector,
)


def rows(n: int, centre: int, seed: int) -> np.ndarray:
    """Features around one of the axes."""
    X = 0.1 * np.random.default_rng(seed).normal(size=(n, 8))
    X[:, centre] += 1
    return X.astype(np.float32)


def test_one_in_twenty_of_val_is_unknown_and_all_that_is_far_away() -> None:
    detector = fit_detector(rows(300, 0, 0), rows(200, 0, 1))
    assert detector is not None
    assert detector.is_unknown(rows(200, 0, 1)).mean() == pytest.approx(0.05, abs=0.006)
    assert detector.is_unknown(rows(1000, 0, 2)).mean() < 0.15
    assert detector.is_unknown(rows(50, 3, 3)).all()
    assert not detector.is_unknown(np.zeros((0, 8))).size


def test_length_says_nothing_and_views_count_by_their_mean() -> None:
    detector = fit_detector(rows(300, 0, 0), rows(200, 0, 1))
    assert detector is not None
    X = rows(20, 0, 2)
    np.testing.assert_allclose(detector.distances(7 * X), detector.distances(X), atol=1e-5)
    views = np.stack([X + 1, X - 1], axis=1)
    np.testing.assert_allclose(detector.distances(views), detector.distances(X), atol=1e-5)


def test_too_small_a_val_part_sets_no_threshold() -> None:
    assert fit_detector(rows(300, 0, 0), rows(20, 0, 1)) is None
    assert fit_detector(rows(300, 0, 0), rows(0, 0, 1)) is None


def test_references_are_spread_over_the_classes_and_bounded_in_bytes() -> None:
    labels = np.array([0] * 3000 + [1] * 100)
    chosen = choose_references(labels, width=1280, seed=0)
    assert np.bincount(labels[chosen]).tolist() == [900, 100]
    assert len(np.unique(chosen)) == 1000
    assert 2 * 100_000 * len(choose_references(labels, width=100_000, seed=0)) <= 16e6
    assert len(choose_references(labels[:5], width=10, seed=0)) == 5


def test_a_network_trained_further_keeps_the_threshold() -> None:
    detector = fit_detector(rows(300, 0, 0), rows(200, 0, 1))
    assert detector is not None
    moved = detector.with_references(rows(100, 3, 4))
    assert moved.threshold == detector.threshold
    assert not moved.is_unknown(rows(50, 3, 3)).all()
    assert moved.is_unknown(rows(50, 0, 2)).all()


def test_a_detector_survives_writing_and_reading() -> None:
    detector = fit_detector(rows(300, 0, 0), rows(200, 0, 1))
    assert detector is not None
    again = detector_from_arrays(detector_to_arrays(detector), detector.n_val)
    X = rows(50, 0, 2)
    np.testing.assert_array_equal(again.distances(X), detector.distances(X))
    assert again.threshold == detector.threshold


@pytest.fixture(scope="module")
def run(shapes: Path, weights: Path, tmp_path_factory: pytest.TempPathFactory) -> transfer.Run:
    options = {"settings": ["data.val_share=0.4", "data.test_share=0.1"], "quiet": True}
    out = tmp_path_factory.mktemp("novelty") / "run"
    return transfer.fit(shapes, "linear-svm", out=out, backbone="test_resnet", weights=str(weights), **options)


def test_a_run_says_what_is_unknown_and_keeps_quiet_if_asked_to(run: transfer.Run, shapes: Path) -> None:
    known = sorted((shapes / "circle").glob("*.png"))
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 255, (64, 64, 3)).astype(np.uint8))
    said = run.predict([*known, noise, Image.new("RGB", (64, 64), "white")])
    assert said.is_unknown is not None
    assert said.is_unknown[: len(known)].mean() <= 0.2
    assert said.is_unknown[len(known) :].all()
    assert said.top(1)[-1]["unknown"] is True
    assert "unknown?" in said._repr_html_()
    quiet = run.predict(known[:1], unknown=False)
    assert quiet.is_unknown is None
    assert "unknown" not in quiet.top(1)[0]
    assert "unknown" not in quiet._repr_html_()


def test_the_run_records_how_much_of_test_is_unknown(run: transfer.Run) -> None:
    info = json.loads((run.path / "run.json").read_text())["novelty"]
    assert info["n_val"] >= 20
    assert 0 <= info["unknown_of_test"] <= 1


def test_a_detector_that_has_changed_is_refused(run: transfer.Run, shapes: Path) -> None:
    file = run.path / "novelty.safetensors"
    whole = file.read_bytes()
    file.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    with pytest.raises(ArtefactError, match="has changed"):
        transfer.load_run(run.path).predict(next((shapes / "circle").iterdir()))
    file.write_bytes(whole)


@pytest.mark.real
def test_hands_know_no_clothes(shared: Path, tmp_path: Path) -> None:
    options = {"settings": ["data.per_class=60", "features.image_size=96"], "quiet": True}
    run = transfer.fit(shared / "data/signdigits", "linear-svm", out=tmp_path / "run", **options)
    clothes = sorted((shared / "data/clothing").rglob("*.jpg"))[::20]
    assert len(clothes) > 50
    assert run.predict(clothes).is_unknown.mean() >= 0.9
    assert run.info["novelty"]["unknown_of_test"] <= 0.15
