"""Two, then eight processes fill one cache: one computes, all agree, and none waits for one that is dead or stopped.

Rows 58 and 59 of docs/reliability.md.
"""

from __future__ import annotations

import collections
import math
import multiprocessing
import os
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from faulty_disk import digests

IMPORTED = ["torch", "timm", "sklearn.linear_model", "transfer.cli", "transfer.strategies", "transfer.features"]
SECONDS = 400  # far more than they need: one that waits for another would wait for ever


def run(words: list[str], folder: str, barrier: Any, limit: float, is_held: bool) -> None:
    """Run a command that writes down which rows it computes; with `is_held` it stops after the first shard."""
    from transfer import cli
    from transfer.cache import ActivationCache, claims, filling

    append = ActivationCache.append

    def counted(self, contents, rows, *more) -> None:
        append(self, contents, rows, *more)
        with open(Path(folder) / f"computed-{os.getpid()}", "a") as target:
            target.writelines(f"{self.folder.name} {content}\n" for content in contents)
        while is_held and not (Path(folder) / "go on").exists():
            time.sleep(0.01)

    ActivationCache.append = counted
    filling._SHARD_ROWS, claims._LIMIT_SECONDS = 4, limit
    os.environ["TRANSFER_CACHE"] = f"{folder}/cache"
    sys.argv = ["transfer", *words]
    with open(Path(folder) / f"said-{os.getpid()}", "w") as said:
        os.dup2(said.fileno(), 2)
        sys.stderr = said
        if barrier:
            barrier.wait()
        cli.main()


class Processes:
    """Commands, each in a process of its own, that share a cache."""

    def __init__(self, folder: Path, shapes: Path, weights: Path) -> None:
        self.folder, self.shapes, self.weights = folder, shapes, weights
        self.context = multiprocessing.get_context("forkserver")
        self.context.set_forkserver_preload(IMPORTED)
        self.all: list[Any] = []

    def start(
        self, out: str, recipe: str = "", barrier: Any = None, limit: float = math.inf, is_held: bool = False
    ) -> Any:
        words = (
            ["fit", str(self.shapes), "--recipe", recipe, "--no-report"] if recipe else ["features", str(self.shapes)]
        )
        words += [
            "--out",
            str(self.folder / out),
            "--backbone",
            "test_resnet",
            "--weights",
            str(self.weights),
            "--exact",
        ]
        process = self.context.Process(target=run, args=(words, str(self.folder), barrier, limit, is_held))
        process.start()
        self.all.append(process)
        return process

    def wait_for(self, pattern: str, text: str = "") -> None:
        ends = time.monotonic() + SECONDS
        while not any(text in path.read_text() for path in self.folder.glob(pattern)):
            assert time.monotonic() < ends
            time.sleep(0.01)

    def computed(self) -> collections.Counter[str]:
        """Return how often each row was computed, by all processes together."""
        lines = [path.read_text().splitlines() for path in self.folder.glob("computed-*")]
        return collections.Counter(line for some in lines for line in some)


@pytest.fixture
def processes(tmp_path: Path, shapes: Path, weights: Path) -> Iterator[Processes]:
    made = Processes(tmp_path, shapes, weights)
    yield made
    for process in made.all:
        process.kill()
        process.join()


def waiting_for(process: Any) -> str:
    return f"Waiting for process {process.pid} on "


def outcome(folder: Path) -> dict[str, str]:
    varying = {"run.json", "README.md", "manifest.json"}  # how long it took, and the folder's name
    return {name: sha for name, sha in digests(folder).items() if name not in varying}


@pytest.mark.slow
@pytest.mark.parametrize("n", [2, 8])
def test_processes_that_fill_one_cache_at_once_all_finish_and_agree(
    n: int, processes: Processes, tmp_path: Path
) -> None:
    barrier = processes.context.Barrier(n)
    for i in range(n):  # two for a run, two for features, and so on
        processes.start(f"{i}", "" if i & 2 else "ridge", barrier)
    for process in processes.all:
        process.join(SECONDS)
    assert [process.exitcode for process in processes.all] == [0] * n  # None: it has not finished
    for kind in {i & 2 for i in range(n)}:
        same = [outcome(tmp_path / f"{i}") for i in range(n) if i & 2 == kind]
        assert len(same) >= 2
        assert all(each == same[0] for each in same)
        assert len(same[0]) > 1
    assert not list(tmp_path.rglob("*.partial"))
    computed = processes.computed()
    assert len(computed) == 60
    assert set(computed.values()) == {1}
    assert len(list(tmp_path.glob("computed-*"))) == 1


@pytest.mark.slow
def test_who_waits_for_one_that_is_killed_takes_over(processes: Processes, tmp_path: Path) -> None:
    holder = processes.start("first", is_held=True)
    processes.wait_for("computed-*")
    second = processes.start("second")
    processes.wait_for("said-*", waiting_for(holder))
    holder.kill()
    second.join(SECONDS)
    assert second.exitcode == 0
    assert len(processes.computed()) == 60
    assert set(processes.computed().values()) == {1}  # what the dead one had computed stays
    assert not list(tmp_path.rglob("*.partial"))


@pytest.mark.slow
def test_who_waits_for_one_that_is_stopped_takes_over_and_both_agree(processes: Processes, tmp_path: Path) -> None:
    holder = processes.start("first", is_held=True)
    processes.wait_for("computed-*")
    second = processes.start("second", limit=5.0)  # the holder changes its claim every second
    processes.wait_for("said-*", waiting_for(holder))
    os.kill(holder.pid, signal.SIGSTOP)
    second.join(SECONDS)
    assert second.exitcode == 0
    assert set(processes.computed().values()) == {1}
    (tmp_path / "go on").touch()
    os.kill(holder.pid, signal.SIGCONT)
    holder.join(SECONDS)
    assert holder.exitcode == 0
    assert outcome(tmp_path / "first") == outcome(tmp_path / "second")
    assert not list(tmp_path.rglob("*.partial"))


@pytest.mark.slow
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_who_waits_can_be_interrupted(number: int, code: int, processes: Processes, tmp_path: Path) -> None:
    holder = processes.start("first", is_held=True)
    processes.wait_for("computed-*")
    second = processes.start("second")
    processes.wait_for("said-*", waiting_for(holder))
    os.kill(second.pid, number)
    second.join(SECONDS)
    assert second.exitcode == code
    (tmp_path / "go on").touch()
    holder.join(SECONDS)
    assert holder.exitcode == 0
    assert not list(tmp_path.rglob("*.partial"))
