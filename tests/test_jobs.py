import dataclasses
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from transfer.backbones import load_backbone
from transfer.cache import ActivationCache, filling, open_cache
from transfer.dataset import scan
from transfer.features import Extraction, Runner, extract, jobs, planning
from transfer.images import STANDARD, RandomView, find_augmentation
from transfer.progress import Progress

QUIET = Progress(quiet=True)
TAPS = ("features", "conv1")
Batches = set[tuple[str, ...]]


class Killed(BaseException):
    pass


@pytest.fixture(scope="module")
def backbone():
    return load_backbone("test_resnet", "random")


@pytest.fixture
def small_shards(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(filling, "_SHARD_ROWS", 8)


@pytest.fixture
def batches(monkeypatch: pytest.MonkeyPatch) -> Batches:
    """The batches of images, and how they were run, as far as they have been."""
    seen: Batches = set()
    load = Runner.load

    def watched(self, plan, positions):
        loaded = load(self, plan, positions)
        if loaded.good:
            seen.add((repr(plan), str(self.n_images), *(self.contents[i] for i in loaded.good)))
        return loaded

    monkeypatch.setattr(Runner, "load", watched)
    return seen


@pytest.fixture
def run(backbone, shapes: Path, batches: Batches, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Extraction]:
    append = ActivationCache.append

    def run(cache: Path, dies_at: int = 0, data=shapes, views=(STANDARD,)) -> Extraction:
        n_written = 0

        def counted(self, contents, rows, *more):
            nonlocal n_written
            n_written += 1
            if n_written == dies_at:
                raise Killed
            append(self, contents, rows, *more)

        monkeypatch.setattr(ActivationCache, "append", counted)
        return extract(scan(data), backbone, TAPS, views=views, exact=True, cache=cache, progress=QUIET)

    return run


def same(one: Extraction, other: Extraction) -> bool:
    found = [[view[tap].rows(each.dataset.hashes) for view in each.views for tap in TAPS] for each in (one, other)]
    return all(np.array_equal(a, b) for a, b in zip(*found, strict=True))


@pytest.mark.usefixtures("small_shards")
@pytest.mark.parametrize("n_views", [1, 3])
@pytest.mark.parametrize("dies_at", [2, 3, 7, 12])  # of 16 writes for one view; with 2 the first tap alone has rows
def test_what_is_left_after_a_kill_is_computed_in_the_batches_that_it_would_have_had(
    dies_at: int, n_views: int, shapes: Path, run, batches: Batches, tmp_path: Path
) -> None:
    """With images that cannot be read among them, which are missing for ever."""
    data = Path(shutil.copytree(shapes, tmp_path / "data"))
    for name in ("circle/03.png", "square/00.png", "square/11.png"):
        (data / name).write_bytes((data / name).read_bytes()[:-40])
    views = [STANDARD, *(RandomView(find_augmentation("light"), 0, k) for k in range(1, n_views))]
    quiet = run(tmp_path / "quiet", data=data, views=views)
    expected = set(batches)
    batches.clear()
    with pytest.raises(Killed):
        run(tmp_path / "cache", dies_at, data, views)
    with pytest.raises(Killed):
        run(tmp_path / "cache", 2, data, views)
    again = run(tmp_path / "cache", data=data, views=views)
    assert 0 < again.n_computed < 57 or dies_at == 2
    assert batches == expected
    assert same(again, quiet)
    batches.clear()
    assert run(tmp_path / "cache", data=data, views=views).n_computed == 0
    assert not batches


@pytest.mark.usefixtures("small_shards")
def test_what_is_left_is_run_as_the_beginning_was_whatever_is_faster_now(
    run, batches: Batches, backbone, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    quiet = run(tmp_path / "quiet")
    expected = set(batches)
    with pytest.raises(Killed):
        run(tmp_path / "cache", 6)
    plans = planning.Plans(backbone, TAPS, "cpu", True, tmp_path / "cache")
    other = dataclasses.replace(plans.usual, batch_size=8)
    assert plans.is_possible(other)
    monkeypatch.setattr(planning.Plans, "best", other)
    assert same(run(tmp_path / "cache"), quiet)
    assert batches == expected


@pytest.mark.usefixtures("small_shards")
def test_beside_the_rows_of_another_dataset_a_killed_extraction_goes_on_exactly_too(
    shapes: Path, run, batches: Batches, tmp_path: Path
) -> None:
    paths = sorted(map(str, shapes.rglob("*.png")))[::7]
    for cache in ("quiet", "cache"):
        run(tmp_path / cache, data=(paths, ["a" if k % 2 else "b" for k in range(len(paths))]))
    batches.clear()
    quiet = run(tmp_path / "quiet")
    expected = set(batches)
    with pytest.raises(Killed):
        run(tmp_path / "cache", 4)
    again = run(tmp_path / "cache")
    assert batches == expected
    assert same(again, quiet)


def test_scattered_new_images_share_batches(run, batches: Batches, shapes: Path, tmp_path: Path) -> None:
    """Not one in each batch of those around it, which would be computed again or left black."""
    data = Path(shutil.copytree(shapes, tmp_path / "data"))
    away = [path for k, path in enumerate(sorted(data.rglob("*.png"))) if k % 10 == 0]
    for path in away:
        path.rename(tmp_path / f"{path.parent.name}-{path.name}")
    run(tmp_path / "cache", data=data)
    for path in away:
        (tmp_path / f"{path.parent.name}-{path.name}").rename(path)
    batches.clear()
    assert run(tmp_path / "cache", data=data).n_computed == 6
    assert sorted(len(batch) - 2 for batch in batches) == [2, 4]


def test_a_note_of_another_version_is_passed_over(run, backbone, shapes: Path, tmp_path: Path) -> None:
    found = run(tmp_path / "cache")
    contents = found.dataset.hashes
    cache = open_cache({}, tmp_path / "other")
    for k, note in enumerate(("nonsense", "[]", '{"n_images": 60, "plan": {"speed": 1}}')):
        cache.append(contents[k : k + 1], found.rows()[k : k + 1], note)
    assert jobs.find_job([cache], contents, list(range(3, 60)), {}) is None
