"""Progress: how far the work is, on a terminal, in a notebook, or as plain lines."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Callable, Iterator

Advance = Callable[[int], None]
_PLAIN_SECONDS = 10.0  # between two plain lines


class Progress:
    """Shows progress on stderr; results belong on stdout.

    >>> with Progress(quiet=True).task("Extracting features", 10, "images") as advance:
    ...     advance(10)
    """

    def __init__(self, quiet: bool = False) -> None:
        self.quiet = quiet

    @contextlib.contextmanager
    def task(self, label: str, total: int, unit: str = "images") -> Iterator[Advance]:
        """Show one piece of work of `total` units; call what this yields with the number just done."""
        if self.quiet or total == 0:
            yield lambda n: None
        elif sys.stderr.isatty() or _in_notebook():
            with self._bar(label, total, unit) as advance:
                yield advance
        else:
            with self._lines(label, total, unit) as advance:
                yield advance

    def say(self, line: str) -> None:
        """Print one line about what is going on."""
        if not self.quiet:
            print(line, file=sys.stderr, flush=True)

    @contextlib.contextmanager
    def _bar(self, label: str, total: int, unit: str) -> Iterator[Advance]:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
        from rich.progress import Progress as Bars

        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[rate]}"),
            TimeRemainingColumn(),
        )
        with Bars(*columns, console=Console(stderr=True)) as bars:
            task = bars.add_task(label, total=total, rate="")
            started, done = time.perf_counter(), 0

            def advance(n: int) -> None:
                nonlocal done
                done += n
                rate = done / max(time.perf_counter() - started, 1e-9)
                bars.update(task, advance=n, rate=f"{rate:.0f} {unit}/s")

            yield advance

    @contextlib.contextmanager
    def _lines(self, label: str, total: int, unit: str) -> Iterator[Advance]:
        started = spoken = time.perf_counter()
        done = 0

        def advance(n: int) -> None:
            nonlocal done, spoken
            done += n
            now = time.perf_counter()
            if now - spoken >= _PLAIN_SECONDS and done < total:
                spoken = now
                rate = done / (now - started)
                self.say(f"{label}: {done}/{total} {unit}, {rate:.0f}/s, {(total - done) / rate:.0f} s left")

        yield advance
        seconds = time.perf_counter() - started
        self.say(f"{label}: {done}/{total} {unit} in {seconds:.1f} s ({done / max(seconds, 1e-9):.0f}/s)")


def _in_notebook() -> bool:
    shell = sys.modules.get("IPython")
    return bool(shell and getattr(shell.get_ipython(), "kernel", None))
