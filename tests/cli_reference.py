"""The page docs/cli.md, made from the commands' own help: `scripts/cli-docs` writes it."""

from __future__ import annotations

import inspect
from collections.abc import Iterator

import click

from transfer.cli import cli

_HEAD = """# The command line

Made by `scripts/cli-docs` from the commands' own help. A command ends with 0, or with one line that says what is wrong
and what to do, and the code 2 (usage), 3 (data), 4 (a run or another artefact), 5 (disk, network, memory), 130 (Ctrl-C)
or 143 (SIGTERM). `--json` prints nothing but JSON to standard output; progress and messages go to standard error.

Completion of commands, options and recipes in the shell, for bash (zsh and fish likewise):

    eval "$(_TRANSFER_COMPLETE=bash_source transfer)"
"""


def reference() -> str:
    """Return the page."""
    return "\n".join([_HEAD, *_commands(cli, "transfer")])


def _commands(group: click.Group, path: str) -> Iterator[str]:
    for name, command in sorted(group.commands.items()):
        yield from _command(command, f"{path} {name}")
        if isinstance(command, click.Group):
            yield from _commands(command, f"{path} {name}")


def _command(command: click.Command, path: str) -> Iterator[str]:
    arguments = [_argument(each) for each in command.params if isinstance(each, click.Argument)]
    yield f"## `{' '.join([path, *arguments])}`\n"
    yield inspect.cleandoc(command.help or "") + "\n"
    options = [each for each in command.params if isinstance(each, click.Option)]
    if options:
        yield "| option | |\n|---|---|"
        yield from (f"| `{_names(each)}` | {each.help} |" for each in options)
        yield ""


def _argument(argument: click.Argument) -> str:
    name = (argument.metavar or argument.name or "").upper()
    name += "..." if argument.nargs == -1 and not name.endswith("...") else ""
    return name if argument.required or name.startswith("[") else f"[{name}]"


def _names(option: click.Option) -> str:
    names = ", ".join([*option.opts, *option.secondary_opts])
    if option.is_flag:
        return names
    choices = isinstance(option.type, click.Choice) and "\\|".join(map(str, option.type.choices))
    return f"{names} {option.metavar or choices or option.type.name.upper()}"


if __name__ == "__main__":
    print(reference(), end="")
