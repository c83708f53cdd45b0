"""Fixtures of the hostile folder: it is made once, each command runs over it once, many tests look at what came out."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from commands import Ended, run
from hostile import Hostile, write_hostile_folder

from transfer.dataset import Dataset, scan


@pytest.fixture(scope="session")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> Hostile:
    root = tmp_path_factory.mktemp("hostile") / "data"
    return write_hostile_folder(root)


@pytest.fixture(scope="session")
def scanned(hostile: Hostile) -> Dataset:
    return scan(hostile.root)


@pytest.fixture(scope="session")
def tiny(weights: Path) -> tuple[str, ...]:
    """Options that choose the smallest network."""
    return ("--backbone", "test_resnet", "--weights", str(weights), "-q")


@pytest.fixture(scope="session")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that commands run in and write to."""
    return tmp_path_factory.mktemp("results")


@pytest.fixture
def transfer(tmp_path: Path) -> Callable[..., Ended]:
    return lambda *arguments: run(*arguments, within=tmp_path)


@pytest.fixture(scope="session")
def inspected(hostile: Hostile, results: Path) -> dict[str, Any]:
    """What `transfer inspect` says of the hostile folder."""
    ended = run("inspect", hostile.root, "--json", "-q", within=results)
    assert ended.code == 0
    return json.loads(ended.out)


@pytest.fixture(scope="session")
def fitted(hostile: Hostile, results: Path, tiny: tuple[str, ...]) -> Path:
    """A run that was fitted on the hostile folder, with more unreadable images allowed than is usual."""
    settings = ("--recipe", "linear-svm", "--set", "data.max_bad_share=0.5")
    ended = run("fit", hostile.root, *settings, "--out", "run", *tiny, within=results)
    assert ended.code == 0, ended.err
    return results / "run"
