"""The command line, run in this process."""

from __future__ import annotations

import contextlib
import io
import os
import sys
from pathlib import Path
from typing import NamedTuple
from unittest import mock

from transfer import cli


class Ended(NamedTuple):
    """How a command ended."""

    code: int
    out: str
    err: str

    @property
    def message(self) -> str:
        """The one line that says what is wrong."""
        lines = [line for line in self.err.splitlines() if line.startswith("transfer: ")]
        assert len(lines) == 1, self.err
        assert "Traceback" not in self.err
        return lines[0]


def run(*arguments: object, within: Path) -> Ended:
    """Run `transfer ARGUMENTS` in the folder `within`."""
    before, out, err = Path.cwd(), io.StringIO(), io.StringIO()
    os.chdir(within)
    try:
        with (
            mock.patch.object(sys, "argv", ["transfer", *map(os.fspath, map(_text, arguments))]),
            contextlib.redirect_stdout(out),
            contextlib.redirect_stderr(err),
        ):
            cli.main()
    except SystemExit as ended:
        return Ended(int(ended.code or 0), out.getvalue(), err.getvalue())
    finally:
        os.chdir(before)
    raise AssertionError("the command line did not exit")


def _text(argument: object) -> str:
    return argument if isinstance(argument, str) else str(argument)
