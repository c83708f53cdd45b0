"""`transfer inspect`: describe a dataset."""

from __future__ import annotations

from typing import Any

import click

from transfer.cli.options import common, complete_recipe
from transfer.cli.printing import print_json, shown


@click.command()
@click.argument("data", type=click.Path())
@click.option(
    "--recipe", metavar="NAME", shell_complete=complete_recipe, help="Show what `fit` would do with this recipe."
)
@click.option("--seed", type=int, metavar="N", help="Of the split that would be drawn; by default the recipe's, 0.")
@common("strict", "max_pixels", "json", "quiet")
def inspect(
    data: str, recipe: str | None, seed: int | None, strict: bool, max_pixels: int | None, as_json: bool, quiet: bool
) -> None:
    """Describe a dataset, and what fit would do with it.

    Classes, sizes, unreadable files, exact duplicates, and the split; every image is decoded, nothing is written.
    """
    from transfer.images import MAX_PIXELS
    from transfer.strategies import inspect

    description = inspect(data, recipe, seed=seed, max_pixels=max_pixels or MAX_PIXELS, strict=strict, quiet=quiet)
    if as_json:
        print_json(description)
    else:
        _print_description(description)


def _print_description(d: dict[str, Any]) -> None:
    click.echo(f"{shown(str(d['root']))}: {d['layout']}")
    click.echo(
        f"{d['n_seen']} files: {d['n_used']} images used, {d['n_unreadable']} unreadable, {d['n_ignored']} ignored"
    )
    parts = list(d["parts"])
    click.echo("\n" + f"{'class':24} {'images':>7} " + " ".join(f"{part:>7}" for part in parts))
    for name, counts in d["classes"].items():
        click.echo(f"{shown(name):24} {counts['n']:7d} " + " ".join(f"{counts.get(part, 0):7d}" for part in parts))
    click.echo(f"Largest class / smallest: {d['imbalance']}")
    if d["pixels"]:
        p = d["pixels"]
        click.echo(f"Pixels: {p['smallest']} to {p['largest']}, median {p['median']}")
    for title, key in (("Unreadable", "unreadable"), ("Ignored", "ignored")):
        for reason, n in d[key].items():
            click.echo(f"{title}: {n} x {shown(reason)}")
    for path, reason in d["unreadable_files"][:20]:
        click.echo(f"  {shown(path)}: {shown(reason)}")
    for kind, groups in d["duplicates"].items():
        if groups:
            first = ", ".join(shown(path) for path in groups[0][:4])
            click.echo(f"Exact duplicates {kind.replace('_', ' ')}: {len(groups)} groups, such as {first}")
    for line in d["notes"]:
        click.echo(f"Note: {line}")
    click.echo("\n`transfer fit` would do this:")
    for line in d["plan"]:
        click.echo(f"  {line}")
