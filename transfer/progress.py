"""Progress: how far the work is, on a terminal, in a notebook, or as plain lines."""

from __future__ import annotations

import contextlib
import html
import sys
import time
from collections.abc import Callable, Iterator

Advance = Callable[[int], None]
_PLAIN_SECONDS = 10.0  # between two plain lines
_NOTEBOOK_SECONDS = 0.2  # between two states of a bar in a notebook


class Progress:
    """Shows progress on stderr, as results belong on stdout; in a notebook, below the cell.

    Parameters
    ----------
    quiet
        Show nothing.
    is_terse
        Show how far the work is, and leave out the lines that tell about it.

    >>> with Progress(quiet=True).task("Extracting features", 10, "images") as advance:
    ...     advance(10)
    """

    def __init__(self, quiet: bool = False, is_terse: bool = False) -> None:
        self.quiet, self.is_terse = quiet, is_terse

    def terse(self) -> Progress:
        """Return the same without the lines that tell about the work."""
        return Progress(self.quiet, is_terse=True)

    @contextlib.contextmanager
    def task(self, label: str, total: int, unit: str = "images") -> Iterator[Advance]:
        """Show one piece of work of `total` units; call what this yields with the number just done."""
        if self.quiet or total == 0:
            yield lambda n: None
            return
        on_terminal = sys.stderr is not None and sys.stderr.isatty()
        show = _notebook_bar if _in_notebook() else _bar if on_terminal else self._lines
        with show(label, total, unit) as advance:
            yield advance

    def say(self, line: str) -> None:
        """Print one line about what is going on."""
        if not self.is_terse:
            self._print(line)

    def _print(self, line: str) -> None:
        # a notebook shows stderr on red, as if something had gone wrong
        stream = sys.stdout if _in_notebook() else sys.stderr
        if not self.quiet and stream is not None:  # None where it was closed (2>&-), and print would take stdout
            print(line, file=stream, flush=True)

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
                self._print(_so_far(label, done, total, unit, now - started))

        yield advance
        self._print(_over(label, done, total, unit, time.perf_counter() - started))


@contextlib.contextmanager
def _bar(label: str, total: int, unit: str) -> Iterator[Advance]:
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
def _notebook_bar(label: str, total: int, unit: str) -> Iterator[Advance]:
    """Show a bar that changes in place and ends as one line of text.

    The browser's own `<progress>` needs no widgets, which rich and tqdm do and a saved notebook does not keep.
    """
    from IPython.display import display

    def state(seconds: float) -> dict[str, str]:
        line = _so_far(label, done, total, unit, seconds)
        bar = f'<progress value="{done}" max="{total}"></progress> {html.escape(line)}'
        return {"text/plain": line, "text/html": bar}

    done = 0
    started = shown = time.perf_counter()
    output = display(state(0.0), raw=True, display_id=True)

    def advance(n: int) -> None:
        nonlocal done, shown
        done += n
        now = time.perf_counter()
        if now - shown >= _NOTEBOOK_SECONDS:
            shown = now
            output.update(state(now - started), raw=True)

    try:
        yield advance
    finally:  # an interrupted cell must not leave a bar that seems to run on
        line = _over(label, done, total, unit, time.perf_counter() - started)
        output.update({"text/plain": line}, raw=True)


def _so_far(label: str, done: int, total: int, unit: str, seconds: float) -> str:
    line = f"{label}: {done}/{total} {unit}"
    if not done:
        return line
    rate = done / max(seconds, 1e-9)
    return f"{line}, {rate:.0f}/s, {(total - done) / rate:.0f} s left"


def _over(label: str, done: int, total: int, unit: str, seconds: float) -> str:
    return f"{label}: {done}/{total} {unit} in {seconds:.1f} s ({done / max(seconds, 1e-9):.0f}/s)"


def _in_notebook() -> bool:
    shell = sys.modules.get("IPython")
    return bool(shell and getattr(shell.get_ipython(), "kernel", None))
