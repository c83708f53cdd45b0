"""Where it runs: no HOME, folders that cannot be written, odd locales, closed streams, narrow terminals, one core."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow  # twenty processes of their own
LINUX = pytest.mark.skipif(sys.platform != "linux", reason="a mount or a device of Linux")
IMPORTED = Path(__file__).parents[2]


def run(
    *words: object, within: Path, before: Sequence[str] = (), shell: str = "", **variables: str | None
) -> subprocess.CompletedProcess[str]:
    """Run `transfer WORDS` in a process of its own; a variable that is None is taken out of the environment."""
    named = {**os.environ, "PYTHONPATH": str(IMPORTED), **variables}
    environment = {name: value for name, value in named.items() if value is not None}
    command = [*before, sys.executable, "-m", "transfer.cli", *map(str, words)]
    if shell:  # what comes after the command: a pipe or a redirection
        command = ["bash", "-o", "pipefail", "-c", f'"$@" {shell}', "bash", *command]
    return subprocess.run(command, cwd=within, env=environment, capture_output=True, text=True)


def fit(data: Path, weights: Path) -> tuple[object, ...]:
    network = ("--backbone", "test_resnet", "--weights", weights)
    return ("fit", data, "--recipe", "ridge", *network, "--out", "run", "--no-report", "--seed", "0")


@pytest.fixture(scope="module")
def finished(shapes: Path, weights: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("finished")
    assert run(*fit(shapes, weights), within=folder).returncode == 0
    return folder / "run"


def require_mounts() -> list[str]:
    """Return the words before a command that may change its own mounts; skip where that is not allowed."""
    words = ["unshare", "--mount"] if os.geteuid() == 0 else ["unshare", "--map-root-user", "--mount"]
    if not shutil.which("unshare") or subprocess.run([*words, "true"], capture_output=True).returncode:
        pytest.skip("this machine does not let a process have mounts of its own")
    return [*words, "bash", "-c"]


def scores(folder: Path) -> object:
    return json.loads((folder / "run/metrics.json").read_text())["test"]


@pytest.mark.parametrize("home", [None, "below a file"])
def test_without_a_home_the_run_is_the_same(
    home: str | None, finished: Path, shapes: Path, weights: Path, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("")
    place = None if home is None else str(tmp_path / "file/home")
    variables = {"HOME": place, "XDG_CACHE_HOME": place and f"{place}/cache", "TRANSFER_CACHE": None}
    if home is None:  # the machine's table of users names a home too
        variables["XDG_CACHE_HOME"] = str(tmp_path / "cache")
    done = run(*fit(shapes, weights), within=tmp_path, **variables)
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    assert scores(tmp_path) == scores(finished.parent)
    if home:
        assert "What is computed in this run is kept in " in done.stderr


@LINUX
def test_a_read_only_dataset_home_and_cache_and_no_shared_memory_do_no_harm(
    finished: Path, shapes: Path, weights: Path, tmp_path: Path
) -> None:
    before = require_mounts()
    data, home = tmp_path / "data", tmp_path / "home"
    shutil.copytree(shapes, data)
    home.mkdir()
    read_only = " && ".join(f"mount --bind '{p}' '{p}' && mount -o remount,ro,bind '{p}'" for p in (data, home))
    shared = "if mountpoint -q /dev/shm; then umount -l /dev/shm; fi; mount -t tmpfs -o ro none /dev/shm"
    check = f"! touch '{data}/x' '{home}/x' /dev/shm/x 2>/dev/null"
    script = f'{read_only} && {shared} && {check} && exec "$@"'
    variables = {"HOME": str(home), "XDG_CACHE_HOME": None, "TRANSFER_CACHE": None}
    done = run(*fit(data, weights), within=tmp_path, before=[*before, script, "bash"], **variables)
    assert done.returncode == 0, done.stderr
    assert "Read-only file system" in done.stderr  # of the cache
    assert "What is computed in this run is kept in " in done.stderr
    assert scores(tmp_path) == scores(finished.parent)
    again = run("predict", "run", data, within=tmp_path, before=[*before, script, "bash"], **variables)
    assert (again.returncode, len(again.stdout.splitlines())) == (0, 60)


@LINUX
@pytest.mark.skipif(not shutil.which("taskset"), reason="no taskset")
@pytest.mark.parametrize("threads", [None, "1", "64"])
def test_one_core_and_any_number_of_threads_asked_for_give_the_same_run(
    threads: str | None, finished: Path, shapes: Path, weights: Path, tmp_path: Path
) -> None:
    core = str(min(os.sched_getaffinity(0)))
    variables = {"OMP_NUM_THREADS": threads, "TRANSFER_CACHE": str(tmp_path / "cache")}
    done = run(*fit(shapes, weights), within=tmp_path, before=["taskset", "-c", core], **variables)
    assert done.returncode == 0, done.stderr
    assert scores(tmp_path)["accuracy"] == scores(finished.parent)["accuracy"]  # type: ignore[index]


@pytest.mark.parametrize("mode", ["0", None])
def test_the_c_locale_takes_names_that_are_no_ascii(
    mode: str | None, shapes: Path, weights: Path, tmp_path: Path
) -> None:
    data = tmp_path / "data"
    for folder, name in zip(sorted(shapes.iterdir()), ["café", "猫", "plain"], strict=True):
        shutil.copytree(folder, data / name)
    locale = {"LC_ALL": "C", "LANG": None, "PYTHONUTF8": mode, "PYTHONIOENCODING": None}
    commands = [fit(data, weights), ("predict", "run", data)]
    if mode == "0":
        commands += [
            ("predict", "run", data, "--csv", "p.csv"),
            ("evaluate", "run", data),
            ("inspect", data),
            ("report", "run"),
        ]
    for words in commands:
        done = run(*words, within=tmp_path, **locale)
        assert done.returncode == 0, done.stderr
        assert "Traceback" not in done.stderr
    classes = json.loads((tmp_path / "run/run.json").read_text(encoding="utf-8"))["classes"]
    # Python's own default in this locale is UTF-8; without it a name is its bytes
    names = ["café", "plain", "猫"]
    assert classes == (names if mode is None else [name.encode().decode("ascii", "surrogateescape") for name in names])


def test_what_the_c_locale_cannot_show_is_written_out(tmp_path: Path) -> None:
    code = (
        "import sys; from unittest import mock; sys.argv = ['transfer', 'recipes']\n"
        "from transfer.cli import cli, main\n"
        "with mock.patch.object(cli, 'main', lambda **options: print('90.0% \\xb1 1.0')): main()"
    )
    environment = {**os.environ, "LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONPATH": str(IMPORTED)}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, cwd=tmp_path)
    assert (done.returncode, done.stdout) == (0, "90.0% \\xb1 1.0\n")


@LINUX
@pytest.mark.skipif(not shutil.which("script"), reason="no script, which gives a command a terminal")
def test_a_terminal_of_20_columns_shows_everything(shapes: Path, weights: Path, tmp_path: Path) -> None:
    words = " ".join(f"'{word}'" for word in (sys.executable, "-m", "transfer.cli", *fit(shapes, weights)))
    environment = {**os.environ, "COLUMNS": "20", "LINES": "5", "PYTHONPATH": str(IMPORTED)}
    environment |= {"TERM": "xterm", "TRANSFER_CACHE": str(tmp_path / "cache")}
    command = ["script", "-qec", f"stty cols 20 rows 5; {words}", "/dev/null"]
    done = subprocess.run(
        command, env=environment, capture_output=True, text=True, cwd=tmp_path, stdin=subprocess.DEVNULL
    )
    assert done.returncode == 0, done.stdout
    assert "Traceback" not in done.stdout
    assert "Run: run" in done.stdout
    assert "Extracting features" in done.stdout  # of the bar nothing else fits


@pytest.mark.parametrize("closed", ["2>&-", ">&-", "<&-"])
def test_a_closed_stream_stops_nothing_and_results_stay_alone_on_stdout(
    closed: str, shapes: Path, weights: Path, tmp_path: Path
) -> None:
    cache = str(tmp_path / "cache")  # of its own, so that there is progress to show
    done = run(*fit(shapes, weights), "--json", within=tmp_path, shell=closed, TRANSFER_CACHE=cache)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "run/run.json").is_file()
    if closed != ">&-":
        assert json.loads(done.stdout)["run"] == "run"  # no line of progress between


def test_a_pipe_that_is_closed_ends_it_without_a_word(finished: Path, shapes: Path, tmp_path: Path) -> None:
    done = run("predict", finished, shapes, "-q", within=tmp_path, shell="| head -n 1")
    assert (done.stderr, len(done.stdout.splitlines())) == ("", 1)
    assert done.returncode in (0, 1)  # 0 where all was written before the reader went


@LINUX
@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full")
def test_output_that_goes_to_a_full_disk_is_one_line(finished: Path, shapes: Path, tmp_path: Path) -> None:
    done = run("predict", finished, shapes, "-q", within=tmp_path, shell="> /dev/full")
    assert done.returncode == 5
    assert done.stderr.startswith("transfer: Disk full: what is printed could not be written.")
    assert len(done.stderr.splitlines()) == 1
