"""Many fits in one process: no descriptor, thread or memory is left behind (`bench/soak.py`)."""

import subprocess
import sys
from pathlib import Path

import pytest

SOAK = Path(__file__).parents[1] / "bench/soak.py"
LEAKS = {  # what a fit leaves behind
    "descriptors": "open(__file__)",
    "threads": "threading.Thread(target=threading.Event().wait, daemon=True).start()",
    "malloc_mb": "bytearray(2**20)",
}
_LEAKING = """
import runpy, sys, threading
import transfer
__file__ = sys.argv[1]
kept, fit = [], transfer.fit
def leaking(*args, **options):
    kept.append({leak})
    return fit(*args, **options)
transfer.fit = leaking
sys.argv = sys.argv[1:]
runpy.run_path(__file__, run_name="__main__")
"""

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="no /proc to read from here"),
]


def soak(*command: object) -> subprocess.CompletedProcess:
    return subprocess.run([sys.executable, *map(str, command)], capture_output=True, text=True)


def test_nothing_grows_with_the_number_of_fits() -> None:
    done = soak(SOAK, "--fits", 24)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.endswith("All flat.\n")


@pytest.mark.parametrize("name", LEAKS)
def test_a_leak_is_told(name: str) -> None:
    done = soak("-c", _LEAKING.format(leak=LEAKS[name]), SOAK, "--fits", 9, "--recipes", "ridge")
    assert done.returncode == 1, done.stdout + done.stderr
    told = done.stdout.splitlines()[-1]
    assert told.startswith("A leak: ")
    assert name in told
