"""Two, then eight processes fill one cache: all agree, none waits for another, nothing is left.

Row 58 of docs/reliability.md. A few of the rows may be computed twice: there is no lock that a dead process could hold.
"""

from __future__ import annotations

import multiprocessing
import os
import sys
from pathlib import Path

import pytest
from faulty_disk import digests

IMPORTED = ["torch", "timm", "sklearn.linear_model", "transfer.cli", "transfer.strategies", "transfer.features"]
SECONDS = 400  # far more than they need: one that waits for another would wait for ever


def run(words: list[str], cache: str, barrier) -> None:
    from transfer import cli
    from transfer.cache import filling

    filling._SHARD_ROWS = 4
    os.environ["TRANSFER_CACHE"] = cache
    sys.argv = ["transfer", *words]
    barrier.wait()
    cli.main()


@pytest.mark.slow
@pytest.mark.parametrize("n", [2, 8])
def test_processes_that_fill_one_cache_at_once_all_finish_and_agree(
    n: int, shapes: Path, weights: Path, tmp_path: Path
) -> None:
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(IMPORTED)
    barrier = context.Barrier(n)
    tiny = ["--backbone", "test_resnet", "--weights", str(weights), "--exact", "-q"]
    processes = []
    for i in range(n):  # two for a run, two for features, and so on
        words = ["features", str(shapes)] if i & 2 else ["fit", str(shapes), "--recipe", "ridge", "--no-report"]
        words += ["--out", str(tmp_path / f"{i}"), *tiny]
        processes.append(context.Process(target=run, args=(words, str(tmp_path / "cache"), barrier)))
    for process in processes:
        process.start()
    for process in processes:
        process.join(SECONDS)
    codes = [process.exitcode for process in processes]
    for process in processes:
        process.kill()
    assert codes == [0] * n  # None: it has not finished
    varying = {"run.json", "README.md"}  # how long it took, and the folder's name
    for kind in {i & 2 for i in range(n)}:
        made = [digests(tmp_path / f"{i}") for i in range(n) if i & 2 == kind]
        same = [{name: sha for name, sha in each.items() if name not in varying} for each in made]
        assert len(same) >= 2
        assert all(each == same[0] for each in same)
        assert len(same[0]) > 3
    assert not list(tmp_path.rglob("*.partial"))
    shards = list((tmp_path / "cache/activations").rglob("*.safetensors"))
    assert 15 <= len(shards) <= 15 * n  # of the 60 images, 4 in each
