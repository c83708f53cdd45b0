"""Command line: parse, call one function, print. Heavy imports stay inside the commands.

A command's module has its name: `fit` is `transfer fit`. Beside them:

* `commands` puts them together, `groups` is what they are put into.
* `options` are shared by several commands, and so is what is in `printing` and `pages`.
* `ending` is `main`: it turns errors and signals into one line and an exit code.
"""

from __future__ import annotations

from transfer.cli.commands import cli
from transfer.cli.ending import main

__all__ = ["cli", "main"]
