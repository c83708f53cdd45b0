"""How the command line ends: errors and signals as one line and the exit code of the house."""

from __future__ import annotations

import errno
import io
import signal
import sys
from typing import Any

import click

from transfer.cli.commands import cli
from transfer.errors import TransferError

_INTERRUPTED = (
    "Interrupted. What was computed is kept: the same command goes on from there, a training with --resume added."
)
_NO_MEMORY = "Out of memory. Choose a smaller backbone, or run on a machine with more."


def main() -> None:
    """Run the command line; end with the exit code of the house."""
    signal.signal(signal.SIGTERM, _terminate)
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # a locale may lack what a table shows, such as ±
    try:
        code = cli.main(prog_name="transfer", standalone_mode=False)
        if sys.stdout is not None:
            sys.stdout.flush()  # here, where it can still be said that it failed
    except TransferError as error:
        code = _fail(str(error), error.exit_code)
    except (click.exceptions.Abort, KeyboardInterrupt):
        code = _fail(_INTERRUPTED, 130)
    except click.exceptions.NoArgsIsHelpError as error:
        error.show()
        code = error.exit_code
    except click.ClickException as error:
        code = _fail(_one_line(error), error.exit_code)
    except RuntimeError as error:
        if "can't allocate memory" in str(error):  # torch's on the CPU
            code = _fail(_NO_MEMORY, 5)
        elif type(error).__name__ == "OutOfMemoryError":  # torch's, which is not imported here
            code = _fail("Out of memory on the device. Choose a smaller backbone, or use --device cpu.", 5)
        else:
            raise
    except OSError as error:
        if error.errno != errno.ENOSPC:
            raise
        what = error.filename or "what is printed"
        if not error.filename:
            from transfer.files import let_go_of_output  # not for `--help`

            let_go_of_output()
        code = _fail(f"Disk full: {what} could not be written. Make room, and run the same command again.", 5)
    except MemoryError:
        code = _fail(_NO_MEMORY, 5)
    sys.exit(code if isinstance(code, int) else 0)


def _fail(message: str, code: int) -> int:
    if _wants_traceback():
        raise
    from transfer.dataset import display  # not for `--help`

    click.echo(f"transfer: {display(message)}", err=True)
    return code


def _one_line(error: click.ClickException) -> str:
    """Return what click has to say, and where to read on, in one line as all errors."""
    message = " ".join(error.format_message().split())
    context = error.ctx if isinstance(error, click.UsageError) else None
    return f"{message.rstrip('.')}. `{context.command_path} --help` says more." if context else message


def _wants_traceback() -> bool:
    return "--debug" in sys.argv


def _terminate(number: int, frame: Any) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_DFL)  # a second one ends it at once
    sys.exit(128 + number)
