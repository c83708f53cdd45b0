import logging
import multiprocessing
import os
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from transfer.cache import ACTIVATIONS, TRAINING, claim, clear, find_holdings, open_cache, open_pixels
from transfer.errors import ResourceError
from transfer.training import Checkpoints


def contents(*numbers: int) -> list[str]:
    return [f"{n:064x}" for n in numbers]


def rows(*numbers: int) -> np.ndarray:
    return np.array([[n, n + 0.5, -n] for n in numbers], np.float32)


def test_rows_come_back_in_the_order_asked_for(tmp_path: Path) -> None:
    cache = open_cache({"tap": "features"}, tmp_path)
    cache.append(contents(1, 2, 3), rows(1, 2, 3))
    cache.append(contents(4, 5), rows(4, 5))
    again = open_cache({"tap": "features"}, tmp_path)
    np.testing.assert_array_equal(again.rows(contents(5, 1, 4, 1)), rows(5, 1, 4, 1))


def test_a_content_that_stands_twice_is_missing_once(tmp_path: Path) -> None:
    cache = open_cache({"tap": "features"}, tmp_path)
    cache.append(contents(2), rows(2))
    assert cache.missing(contents(1, 2, 3, 1, 2)) == [0, 2]


def test_another_description_is_another_cache(tmp_path: Path) -> None:
    open_cache({"weights": "a"}, tmp_path).append(contents(1), rows(1))
    assert contents(1)[0] not in open_cache({"weights": "b"}, tmp_path)


def test_chunks_cover_every_row_once(tmp_path: Path) -> None:
    cache = open_cache({}, tmp_path)
    cache.append(contents(*range(10)), rows(*range(10)))
    chunks = list(cache.chunks(contents(*range(10)), n_rows=4))
    assert [len(chunk) for chunk in chunks] == [4, 4, 2]
    np.testing.assert_array_equal(np.concatenate(chunks), rows(*range(10)))


@pytest.mark.parametrize("damage", ["flip", "truncate", "empty"])
def test_a_damaged_shard_is_dropped_with_a_warning_and_the_others_stay(
    tmp_path: Path, damage: str, caplog: pytest.LogCaptureFixture
) -> None:
    cache = open_cache({}, tmp_path)
    cache.append(contents(1, 2), rows(1, 2))
    cache.append(contents(3), rows(3))
    shard = next(p for p in sorted(cache.folder.glob("*.safetensors")) if contents(1)[0].encode() in p.read_bytes())
    data = bytearray(shard.read_bytes())
    data[-3] ^= 4
    shard.write_bytes({"flip": bytes(data), "truncate": bytes(data[:-5]), "empty": b""}[damage])
    with caplog.at_level(logging.WARNING):
        again = open_cache({}, tmp_path)
    assert "computing them again" in caplog.text
    assert again.missing(contents(1, 2, 3)) == [0, 1]
    assert not shard.exists()


def test_leftovers_of_a_dead_process_are_swept(tmp_path: Path) -> None:
    from transfer import files

    cache = open_cache({}, tmp_path)
    dead = multiprocessing.get_context("spawn").Process(target=int)
    dead.start()
    dead.join()
    leftover = cache.folder / f".x.safetensors.{files._host()}-{dead.pid}.0a1b2c3d.partial"
    leftover.write_bytes(b"half")
    mine = cache.folder / f".x.safetensors.{files._owner()}.0a1b2c3d.partial"
    mine.write_bytes(b"being written")
    open_cache({}, tmp_path)
    assert not leftover.exists()
    assert mine.exists()


def _fill(folder: Path, start: int) -> None:
    cache = open_cache({}, folder)
    for n in range(start, start + 40):
        cache.append(contents(n % 50), rows(n % 50))


def test_processes_that_share_a_cache_do_not_disturb_each_other(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    workers = [context.Process(target=_fill, args=(tmp_path, start)) for start in (0, 5, 10)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert [worker.exitcode for worker in workers] == [0, 0, 0]
    cache = open_cache({}, tmp_path)
    np.testing.assert_array_equal(cache.rows(contents(*range(50))), rows(*range(50)))


def test_without_a_writable_place_a_temporary_cache_serves(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "file").write_text("in the way")
    with caplog.at_level(logging.WARNING):
        cache = open_cache({}, tmp_path / "file")
    cache.append(contents(1), rows(1))
    assert contents(1)[0] in cache
    assert "Cannot write" in caplog.text


def test_a_shard_that_cannot_be_opened_now_is_not_taken_for_damaged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = open_cache({}, tmp_path)
    cache.append(contents(1), rows(1))

    def too_many(*_: object, **__: object) -> None:
        raise OSError(24, "Too many open files")

    monkeypatch.setattr("transfer.cache.shards.mmap.mmap", too_many)
    with pytest.raises(ResourceError, match="Too many open files"):
        open_cache({}, tmp_path)
    monkeypatch.undo()
    assert contents(1)[0] in open_cache({}, tmp_path)


def age(folder: Path, days: float) -> None:
    for path in (folder, *folder.rglob("*")):
        os.utime(path, (time.time() - days * 86400,) * 2)


def test_what_the_cache_holds_is_listed_and_deleted_and_what_is_not_ours_stays(tmp_path: Path) -> None:
    open_cache({"backbone": "a-net", "tap": "layer2"}, tmp_path).append(contents(1), rows(1))
    open_pixels({"side": 96}, tmp_path).append(contents(*range(9)), [np.zeros((96, 96, 3), np.uint8)] * 9)
    Checkpoints(tmp_path / TRAINING / "one").save({"weight": torch.zeros(3)}, {})
    (tmp_path / "theirs").mkdir()
    (tmp_path / "theirs" / "letter.txt").write_text("mine")
    holdings = find_holdings(tmp_path)
    assert [holding.what for holding in holdings] == [
        "decoded images, shorter side 96 px",
        "activations of a-net at layer2",
        "checkpoints of a training that was stopped",
    ]
    assert all(holding.n_bytes == sum(p.stat().st_size for p in holding.path.rglob("*")) for holding in holdings)
    assert clear(holdings, tmp_path) == sum(holding.n_bytes for holding in holdings)
    assert find_holdings(tmp_path) == []
    assert (tmp_path / "theirs" / "letter.txt").read_text() == "mine"
    open_cache({"backbone": "a-net", "tap": "layer2"}, tmp_path).append(contents(1), rows(1))


def test_opening_a_cache_is_using_it(tmp_path: Path) -> None:
    for tap in ("a", "b"):
        open_cache({"tap": tap}, tmp_path).append(contents(1), rows(1))
    age(tmp_path, days=31)
    open_cache({"tap": "b"}, tmp_path)
    unused = [holding.what for holding in find_holdings(tmp_path) if holding.is_unused_for(30)]
    assert unused == ["activations of a network at a"]


def test_nothing_is_deleted_while_a_process_fills_the_cache(tmp_path: Path) -> None:
    open_cache({}, tmp_path).append(contents(1), rows(1))
    filling = claim(ACTIVATIONS, {}, tmp_path, contents(2), lambda: None, print)
    with filling, pytest.raises(ResourceError, match=f"Process {os.getpid()} on .* is filling the cache"):
        clear(find_holdings(tmp_path), tmp_path)
    assert len(find_holdings(tmp_path)) == 1
    clear(find_holdings(tmp_path), tmp_path)
    assert find_holdings(tmp_path) == []
