"""`transfer cache`: what is kept of images on disk, and deleting it."""

from __future__ import annotations

import click

from transfer.cli.options import common
from transfer.cli.printing import print_json


@click.command()
@click.option("--clear", is_flag=True, help="Delete it.")
@click.option("--unused-for", type=click.IntRange(0), default=0, metavar="DAYS", help="Only what was not used since.")
@common("json")
def cache(clear: bool, unused_for: int, as_json: bool) -> None:
    """List what is cached on disk, with its size and when it was last used; or delete it.

    Activations and decoded images are computed again when they are needed; a training that was stopped begins anew
    without its checkpoints. The cache lies in $TRANSFER_CACHE, or else in the user's cache folder.
    """
    import datetime

    from transfer import cache
    from transfer.files import cache_folder, readable_bytes

    holdings = [holding for holding in cache.find_holdings() if holding.is_unused_for(unused_for)]
    n_bytes = cache.clear(holdings) if clear else sum(holding.n_bytes for holding in holdings)
    rows = [
        {
            "what": holding.what,
            "path": str(holding.path),
            "bytes": holding.n_bytes,
            "last_used": f"{datetime.datetime.fromtimestamp(holding.last_used):%Y-%m-%d %H:%M}",
        }
        for holding in holdings
    ]
    if as_json:
        print_json({"folder": str(cache_folder()), "bytes": n_bytes, "was_cleared": clear, "holdings": rows})
        return
    wide = max((len(holding.what) for holding in holdings), default=0)
    for row, holding in zip(rows, holdings, strict=True):
        click.echo(f"{holding.what:{wide}}  {readable_bytes(holding.n_bytes):>9}  last used {row['last_used']}")
    if clear:
        click.echo(f"Deleted {readable_bytes(n_bytes)} in {cache_folder()}.")
    else:
        click.echo(f"{readable_bytes(n_bytes)} in {cache_folder()}{'; --clear deletes it' if holdings else ''}.")
