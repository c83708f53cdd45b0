"""Fixtures that several test files share."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

# before anything imports torch: hubs are not asked in tests, and threads do not wait for each other on a busy machine
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("OMP_NUM_THREADS", "1")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--slow", action="store_true", help="also run slow tests and those on real pictures")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if config.getoption("--slow"):
        return
    skip = pytest.mark.skip(reason="slow or real data: run with --slow")
    for item in items:
        if item.get_closest_marker("slow") or item.get_closest_marker("real"):
            item.add_marker(skip)


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of real datasets and weights beside the checkout; tests that need it skip where it is not."""
    folder = Path(os.environ.get("TRANSFER_SHARED") or Path(__file__).resolve().parents[2] / "shared")
    if not (folder / "data").is_dir():
        pytest.skip(f"no real pictures at {folder} (set TRANSFER_SHARED)")
    return folder


@pytest.fixture(scope="session", autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Give the tests a cache of their own, the same for the whole session."""
    os.environ["TRANSFER_CACHE"] = str(tmp_path_factory.mktemp("cache"))


@pytest.fixture(scope="session", autouse=True)
def no_pages() -> Iterator[None]:
    """Let `transfer.fit` leave out its page, a second of each of a hundred fits."""
    with pytest.MonkeyPatch.context() as patch:
        from transfer.strategies import fitting

        patch.setattr(fitting, "write_page", lambda run, say: None)
        yield


@pytest.fixture(scope="session")
def shapes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of 3 x 20 toy pictures that a classifier can tell apart: circles, squares and stripes."""
    root = tmp_path_factory.mktemp("toys") / "shapes"
    rng = np.random.default_rng(0)
    draw = {"circle": _circle, "square": _square, "stripes": _stripes}
    for name, paint in draw.items():
        (root / name).mkdir(parents=True)
        for i in range(20):
            canvas = rng.integers(0, 60, (64, 64, 3)).astype(np.uint8)
            paint(canvas, rng)
            Image.fromarray(canvas).save(root / name / f"{i:02d}.png")
    return root


@pytest.fixture(scope="session")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Weights of timm's `test_resnet`, random but the same in every test."""
    import torch
    from safetensors.torch import save_file

    from transfer.backbones import build

    path = tmp_path_factory.mktemp("weights") / "tiny.safetensors"
    torch.manual_seed(0)
    save_file(build("test_resnet").state_dict(), path)
    return path


@pytest.fixture(scope="session")
def imagenet_weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Weights of timm's `test_resnet` with a classifier of 1,000 classes, random but the same in every test."""
    import timm
    import torch
    from safetensors.torch import save_file

    path = tmp_path_factory.mktemp("weights") / "whole.safetensors"
    torch.manual_seed(0)
    save_file(timm.create_model("test_resnet").state_dict(), path)
    return path


@pytest.fixture
def one_thread() -> Iterator[None]:
    """Let torch compute with one thread, so that results are the same to the bit."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def _circle(canvas: np.ndarray, rng: np.random.Generator) -> None:
    y, x = np.mgrid[:64, :64]
    cy, cx = rng.integers(24, 40, 2)
    canvas[(y - cy) ** 2 + (x - cx) ** 2 < rng.integers(10, 20) ** 2] = rng.integers(150, 255, 3)


def _square(canvas: np.ndarray, rng: np.random.Generator) -> None:
    top, left, side = rng.integers(5, 20, 3)
    canvas[top : top + side + 20, left : left + side + 20] = rng.integers(150, 255, 3)


def _stripes(canvas: np.ndarray, rng: np.random.Generator) -> None:
    canvas[:: rng.integers(4, 9)] = rng.integers(150, 255, 3)
