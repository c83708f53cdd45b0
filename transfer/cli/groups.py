"""A group of commands that names the nearest one where there is none of that name."""

from __future__ import annotations

from typing import Any

import click

from transfer.errors import did_you_mean


class Group(click.Group):
    """A group that names the nearest command where there is none of that name."""

    def resolve_command(self, ctx: click.Context, args: list[str]) -> Any:
        if args and not args[0].startswith("-") and self.get_command(ctx, args[0]) is None:
            known = self.list_commands(ctx)
            ctx.fail(f"No command {args[0]!r}.{did_you_mean(args[0], known)} Commands: {', '.join(known)}")
        return super().resolve_command(ctx, args)
