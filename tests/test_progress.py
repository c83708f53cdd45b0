import io
import sys
from types import SimpleNamespace

import pytest

from transfer import progress
from transfer.progress import Progress


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """A clock that a test sets."""
    clock = SimpleNamespace(now=0.0)
    monkeypatch.setattr(progress.time, "perf_counter", lambda: clock.now)
    return clock


@pytest.fixture
def outputs(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, str]]:
    """What a notebook was told to show, one state after the other in one and the same place."""
    states: list[dict[str, str]] = []

    def display(state: dict[str, str], *, raw: bool, display_id: bool) -> SimpleNamespace:
        assert raw
        assert display_id
        states.append(state)
        return SimpleNamespace(update=lambda state, raw: states.append(state))

    shell = SimpleNamespace(kernel=object())
    monkeypatch.setitem(sys.modules, "IPython", SimpleNamespace(get_ipython=lambda: shell))
    monkeypatch.setitem(sys.modules, "IPython.display", SimpleNamespace(display=display))
    return states


def test_without_a_terminal_there_is_one_plain_line_at_the_end(clock, capsys: pytest.CaptureFixture) -> None:
    with Progress().task("Extracting features", 100) as advance:
        for _ in range(10):
            clock.now += 0.5
            advance(10)
    out, err = capsys.readouterr()
    assert (out, err) == ("", "Extracting features: 100/100 images in 5.0 s (20/s)\n")


def test_long_work_says_every_ten_seconds_how_far_it_is(clock, capsys: pytest.CaptureFixture) -> None:
    with Progress().task("Extracting features", 100) as advance:
        for _ in range(25):
            clock.now += 1
            advance(4)
    assert capsys.readouterr().err.splitlines() == [
        "Extracting features: 40/100 images, 4/s, 15 s left",
        "Extracting features: 80/100 images, 4/s, 5 s left",
        "Extracting features: 100/100 images in 25.0 s (4/s)",
    ]


def test_work_that_did_not_begin_divides_by_nothing(clock, capsys: pytest.CaptureFixture) -> None:
    with Progress().task("Extracting features", 100) as advance:
        clock.now += 11
        advance(0)
    assert capsys.readouterr().err.startswith("Extracting features: 0/100 images\n")


def test_quiet_shows_nothing_anywhere(outputs, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> None:
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    quiet = Progress(quiet=True)
    quiet.say("hello")
    with quiet.task("Extracting features", 10) as advance:
        advance(10)
    assert (terminal.getvalue(), capsys.readouterr().out, outputs) == ("", "", [])


def test_no_work_shows_nothing(capsys: pytest.CaptureFixture) -> None:
    with Progress().task("Extracting features", 0) as advance:
        advance(0)
    assert capsys.readouterr() == ("", "")


def test_a_terminal_gets_a_bar_on_stderr(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> None:
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "120")
    with Progress().task("Extracting features", 10) as advance:
        advance(4)
        advance(6)
    shown = terminal.getvalue()
    assert "Extracting features" in shown
    assert "10/10" in shown
    assert "images/s" in shown
    assert "\x1b[" in shown
    assert capsys.readouterr().out == ""


def test_a_notebook_gets_one_output_that_ends_as_one_line_of_text(clock, outputs) -> None:
    with Progress().task("Extracting <features>", 100) as advance:
        for _ in range(10):
            clock.now += 0.15
            advance(10)
    bars = [state["text/html"] for state in outputs[:-1]]
    assert bars[0] == '<progress value="0" max="100"></progress> Extracting &lt;features&gt;: 0/100 images'
    assert bars[1].startswith('<progress value="20" max="100"></progress>')
    assert len(bars) < 10
    assert "\x1b" not in "".join(bars)
    assert outputs[-1] == {"text/plain": "Extracting <features>: 100/100 images in 1.5 s (67/s)"}


def test_an_interrupted_cell_leaves_no_bar_that_seems_to_run_on(clock, outputs) -> None:
    with pytest.raises(KeyboardInterrupt), Progress().task("Extracting features", 100) as advance:  # noqa: PT012
        clock.now += 1
        advance(30)
        raise KeyboardInterrupt
    assert outputs[-1] == {"text/plain": "Extracting features: 30/100 images in 1.0 s (30/s)"}


def test_a_notebook_shows_what_is_said_as_plain_output(outputs, capsys: pytest.CaptureFixture) -> None:
    Progress().say("test: 20 images")
    assert capsys.readouterr() == ("test: 20 images\n", "")


def test_on_a_terminal_what_is_said_goes_to_stderr(capsys: pytest.CaptureFixture) -> None:
    Progress().say("test: 20 images")
    assert capsys.readouterr() == ("", "test: 20 images\n")
