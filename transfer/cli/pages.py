"""The page of a run that a command has fitted, written after its answer."""

from __future__ import annotations

import functools
from typing import Any

import click


def write_page(run: Any) -> str | None:
    """Write it and return its path; where that fails or is interrupted, say that the run is safe."""
    from transfer import strategies

    try:
        page = strategies.write_page(run, functools.partial(click.echo, err=True))
    except KeyboardInterrupt:  # what there is to say has been said
        raise SystemExit(130) from None
    return str(page) if page else None
