import importlib.machinery
import sys
import types

import numpy as np
import pytest

from transfer import likeness
from transfer.directions import principal_directions
from transfer.likeness import find_pairs
from transfer.plane import project


def by_hand(X: np.ndarray, stages: np.ndarray, contents: np.ndarray, near: float) -> dict[int, float]:
    rows = X - X.mean(axis=0)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    cosines = rows @ rows.T
    cosines[(stages[:, None] <= stages) | (contents[:, None] == contents)] = -2
    return {i: cosine for i, cosine in enumerate(cosines.max(axis=1)) if cosine >= near}


@pytest.mark.parametrize("near", [0.2, 0.6, 0.95])  # most rows pass, some, hardly any
@pytest.mark.parametrize("width", [40, 600])
def test_pairs_are_those_of_all_products(monkeypatch: pytest.MonkeyPatch, near: float, width: int) -> None:
    monkeypatch.setattr(likeness, "_BLOCK", 37)
    rng = np.random.default_rng(0)
    X = rng.normal(size=(20, width))[rng.integers(0, 20, 200)] + rng.choice([0.1, 1.0], (200, 1)) * rng.normal(
        size=(200, width)
    )
    stages, contents = rng.integers(0, 3, 200), rng.integers(0, 150, 200)
    pairs = find_pairs(X.astype(np.float32), stages, contents, near)
    wanted = by_hand(X, stages, contents, near)
    assert {pair.row for pair in pairs} == wanted.keys()
    assert wanted
    for pair in pairs:
        assert pair.cosine == pytest.approx(wanted[pair.row], abs=1e-5)
        assert stages[pair.other] < stages[pair.row]
        assert contents[pair.other] != contents[pair.row]
    assert [stages[pair.row] for pair in pairs] == sorted((stages[pair.row] for pair in pairs), reverse=True)


def test_images_that_are_all_the_same_to_the_network_are_no_pairs() -> None:
    assert find_pairs(np.ones((10, 300), np.float32), np.arange(10) % 3, np.arange(10)) == []


@pytest.mark.parametrize("shape", [(50, 20), (30, 3000)])
def test_directions_are_the_principal_ones(shape: tuple[int, int]) -> None:
    X = np.random.default_rng(0).normal(size=shape)
    found = principal_directions(X, 3)
    np.testing.assert_allclose(np.abs(found.T @ np.linalg.svd(X, full_matrices=False)[2][:3].T), np.eye(3), atol=1e-6)


def test_umap_is_taken_where_it_is_installed_and_images_are_not_too_many(monkeypatch: pytest.MonkeyPatch) -> None:
    class UMAP:
        def __init__(self, **options: object) -> None:
            assert options == {"random_state": 7, "n_jobs": 1}

        def fit_transform(self, X: np.ndarray) -> np.ndarray:
            return X[:, :2]

    module = types.ModuleType("umap")
    module.__spec__ = importlib.machinery.ModuleSpec("umap", None)
    module.UMAP = UMAP  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "umap", module)
    X = np.random.default_rng(0).normal(size=(3001, 3))
    assert project(X[:3000], seed=7).method == "UMAP"
    assert project(X[:3000], seed=7).share is None
    assert "principal" in project(X).method


def test_the_plane_holds_the_two_strongest_components() -> None:
    rng = np.random.default_rng(0)
    X = rng.normal(size=(100, 6)) * [9, 5, 1, 1, 1, 1] + 100
    plane = project(X)
    singular = np.linalg.svd(X - X.mean(axis=0), compute_uv=False)
    np.testing.assert_allclose(np.sqrt((plane.points**2).sum(axis=0)), singular[:2], rtol=1e-4)
    assert plane.share == pytest.approx((singular[:2] ** 2).sum() / (singular**2).sum(), rel=1e-4)
    assert project(np.ones((5, 3))).points.tolist() == [[0, 0]] * 5
