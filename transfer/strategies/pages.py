"""The page of a run that was just fitted: whatever goes wrong with it, the run is there and is worth more."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from transfer.runs import Run


def write_page(run: Run, say: Callable[[str], object]) -> Path | None:
    """Write the report of a run and return its path; where that fails, `say` why, and that the run is safe."""
    safe = f"The run is safe in {run.path}; `transfer report {run.path}` writes its page."
    try:
        return run.report.path
    except KeyboardInterrupt:
        say(f"Interrupted. {safe}")
        raise
    except Exception as error:
        say(f"No report: {' '.join(str(error).split())} {safe}")
        return None
