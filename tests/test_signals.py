"""A first SIGTERM or Ctrl-C saves and ends with 143 or 130, in every loop; a second one ends at once."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

# at a call of what each loop calls for every image or step, the signal comes as if from outside
LOOPS = {  # where, what, and at which of its calls
    "scan": ("transfer.dataset.candidates", "sha256", 3),
    "extraction": ("transfer.features.running", "decode", 3),
    "decoding": ("transfer.training.pixels", "shrink", 20),  # twice, 8 tell what the images cost
    "training": ("transfer.training.stepping", "mix", 3),
    "judgement": ("transfer.training.stepping.Stepper", "judge", 3),
}
_MAIN = """
import os, pydoc, sys
place, name = sys.argv.pop(1), sys.argv.pop(1)
at, number, times = (int(sys.argv.pop(1)) for _ in range(3))
owner = pydoc.locate(place)
called = getattr(owner, name)
n_calls = 0
def watched(*args, **options):
    global n_calls
    n_calls += 1
    if n_calls == at:
        for _ in range(times):
            os.kill(os.getpid(), number)
    return called(*args, **options)
setattr(owner, name, watched)
from transfer.cli import main
main()
"""


def run(
    loop: str, number: signal.Signals, words: list[str], folder: Path, times: int = 1
) -> subprocess.CompletedProcess:
    place, name, at = LOOPS[loop]
    command = [sys.executable, "-c", _MAIN, place, name, str(at), str(int(number)), str(times), *words]
    environment = {**os.environ, "TRANSFER_CACHE": str(folder / "cache"), "OMP_NUM_THREADS": "1"}
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)


def fit(shapes: Path, weights: Path, folder: Path, strategy: str = "full") -> list[str]:
    words = ["fit", str(shapes), "--recipe", strategy, "--backbone", "test_resnet", "--weights", str(weights)]
    if strategy in ("partial", "full"):
        words += ["--epochs", "3", "--set", "train.min_steps=0", "--resume"]
    return [*words, "--out", str(folder / "run"), "-q"]


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
@pytest.mark.parametrize("loop", LOOPS)
def test_every_loop_ends_in_order_and_the_same_command_goes_on(
    shapes: Path, weights: Path, tmp_path: Path, loop: str, number: signal.Signals, code: int
) -> None:
    done = run(loop, number, fit(shapes, weights, tmp_path), tmp_path)
    assert done.returncode == code, done.stderr
    assert "Traceback" not in done.stderr
    assert len(done.stderr.split("\n", 1)[-1].splitlines()) <= 1  # after the line of the ^C
    assert not (tmp_path / "run").exists()
    assert not list(tmp_path.rglob("*.partial"))
    command = [sys.executable, "-m", "transfer.cli", *fit(shapes, weights, tmp_path)]
    environment = {**os.environ, "TRANSFER_CACHE": str(tmp_path / "cache")}
    assert subprocess.run(command, env=environment, capture_output=True).returncode == 0
    assert (tmp_path / "run" / "run.json").exists()


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_an_evaluation_ends_in_order(
    shapes: Path, weights: Path, tmp_path: Path, number: signal.Signals, code: int
) -> None:
    command = [sys.executable, "-m", "transfer.cli", *fit(shapes, weights, tmp_path, "ridge")]
    environment = {**os.environ, "TRANSFER_CACHE": str(tmp_path / "elsewhere")}
    assert subprocess.run(command, env=environment, capture_output=True).returncode == 0
    done = run("extraction", number, ["evaluate", str(tmp_path / "run"), str(shapes)], tmp_path)
    assert done.returncode == code, done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_second_signal_ends_a_training_at_once(
    shapes: Path, weights: Path, tmp_path: Path, number: signal.Signals, code: int
) -> None:
    done = run("training", number, fit(shapes, weights, tmp_path), tmp_path, times=2)
    assert done.returncode == code, done.stderr
    assert not list((tmp_path / "cache").rglob("training/*/*.safetensors"))
