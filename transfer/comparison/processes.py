"""Process: one fit in a process of its own, so that its memory is its own and nothing of it is left in the next."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any, NamedTuple

from transfer.errors import ResourceError, TransferError
from transfer.files import write_json
from transfer.machine import peak_memory
from transfer.recipe import Recipe

MEASURED = "process.json"  # in the run folder: what the fit took
_ANSWER = "from transfer.comparison.processes import answer; raise SystemExit(answer())"
_PACKAGES = Path(__file__).parents[2]
_GRACE = 10  # seconds to tidy up in, for a process that is told to stop
_INTERRUPTED = 130


class Ending(NamedTuple):
    """How a fit ended: with exit code 0, or with a line that says why not."""

    error: str = ""
    exit_code: int = 0


def fit_apart(data: str, recipe: Recipe, out: Path, *, split: Path | None, cache: Path, quiet: bool) -> Ending:
    """Fit in a process of its own, with a cache of its own, and wait for its end; what stops this stops it too."""
    request = {
        "data": data,
        "recipe": recipe.model_dump(mode="json"),
        "out": str(out),
        "split": None if split is None else str(split),
        "quiet": quiet,
    }
    # the very same package, wherever the caller found it
    paths = [str(_PACKAGES), *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = {**os.environ, "TRANSFER_CACHE": str(cache), "PYTHONPATH": os.pathsep.join(paths)}
    child = subprocess.Popen(
        [sys.executable, "-c", _ANSWER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
    )
    assert child.stdin is not None
    assert child.stdout is not None
    try:
        with contextlib.suppress(BrokenPipeError):  # it died at once, which its exit code tells
            child.stdin.write(json.dumps(request) + "\n")
            child.stdin.flush()
        said = child.stdout.read()
        code = child.wait()
    finally:
        _stop(child)
    if code == _INTERRUPTED:
        raise KeyboardInterrupt
    return _ending(code, said)


def answer() -> int:
    """Carry out the request on stdin and print how it ended as JSON: what the child process runs."""
    signal.signal(signal.SIGTERM, _terminate)
    request = json.loads(sys.stdin.readline())
    threading.Thread(target=_end_with_parent, daemon=True).start()
    try:
        _fit(**request)
        ending = Ending()
    except KeyboardInterrupt:
        return _INTERRUPTED
    except TransferError as error:
        ending = Ending(str(error), error.exit_code)
    except (MemoryError, RuntimeError) as error:
        if not isinstance(error, MemoryError) and type(error).__name__ != "OutOfMemoryError":  # torch's
            raise
        ending = Ending("Out of memory. Choose a smaller backbone, or --device cpu.", ResourceError.exit_code)
    print(json.dumps(ending._asdict()), flush=True)
    return ending.exit_code


def _fit(data: str, recipe: dict[str, Any], out: str, split: str | None, quiet: bool) -> None:
    from transfer.strategies import fit

    started = time.perf_counter()
    run = fit(data, Recipe.model_validate(recipe), out=out, split=split, report=False, quiet=quiet)
    took = {"seconds": round(time.perf_counter() - started, 3), "peak_memory_bytes": peak_memory()}
    write_json(run.path / MEASURED, took)


def _ending(code: int, said: str) -> Ending:
    """Return how a process ended by its exit code and by the last line that it printed."""
    with contextlib.suppress(ValueError, TypeError, IndexError):
        return Ending(**json.loads(said.splitlines()[-1]))
    if code < 0:
        why = ", as when memory runs out" if code == -9 else ""
        return Ending(f"The process was ended by signal {-code}{why}.", ResourceError.exit_code)
    return Ending(f"The process ended with exit code {code} and no message; stderr has what it said.", code or 1)


def _stop(child: subprocess.Popen[str]) -> None:
    """End a process that may be running still, and close what leads to it."""
    if child.poll() is None:
        child.terminate()
        try:
            child.wait(_GRACE)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()
    for pipe in (child.stdin, child.stdout):
        with contextlib.suppress(OSError):
            if pipe:
                pipe.close()


def _end_with_parent() -> None:
    """End this process when the parent's end of stdin closes: a killed comparison leaves nobody at work."""
    while os.read(0, 1):
        pass
    os._exit(1)


def _terminate(number: int, frame: Any) -> None:
    sys.exit(128 + number)
