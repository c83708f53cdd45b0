"""`transfer compare`: several recipes on the very same images."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import click

from transfer.cli.options import common
from transfer.cli.printing import percent, print_json, shown


@click.command()
@click.argument("data", type=click.Path())
@click.option("--recipes", metavar="A,B,C", help="Named recipes or YAML files; without, one for each strategy.")
@click.option("--seeds", type=click.IntRange(1), default=1, metavar="N", help="Fit with so many seeds: 0, 1, ...")
@click.option("--set", "settings", multiple=True, metavar="KEY=VALUE", help="Change one setting of all recipes.")
@click.option("--out", type=click.Path(), metavar="DIR", help="The folder; runs/DATA-compare by default.")
@click.option("--per-class", type=click.IntRange(1), metavar="N", help="Train on so many images of each class.")
@click.option("--minutes", type=float, metavar="M", help="For each fit that trains layers.")
@common("backbone", "weights", "device", "exact", "strict", "json", "quiet")
def compare(
    data: str,
    recipes: str | None,
    seeds: int,
    settings: tuple[str, ...],
    out: str | None,
    per_class: int | None,
    minutes: float | None,
    strict: bool,
    as_json: bool,
    quiet: bool,
    **changes: Any,
) -> int:
    """Fit several recipes on the very same images, and show what each reaches and takes.

    Each fit has a process of its own. The same command goes on where it was stopped; with more recipes or seeds, it
    adds them. Settings of `train` change the recipes that train layers, and no others.
    """
    from transfer.comparison import compare

    short = {"data.per_class": per_class, "data.strict": strict or None, "train.minutes": minutes}
    settings += tuple(f"{key}={value}" for key, value in short.items() if value is not None)
    names = None if recipes is None else [name.strip() for name in recipes.split(",") if name.strip()]
    frame = compare(data, names, seeds=seeds, out=out, settings=settings, quiet=quiet, **changes)
    if as_json:
        print_json(json.loads((Path(frame.attrs["folder"]) / "compare.json").read_text(encoding="utf-8")))
    else:
        _print_comparison(frame)
        if (page_file := Path(frame.attrs["folder"]) / "report.html").is_file():
            click.echo(f"Report: {shown(str(page_file))}")
    for recipe, error in zip(frame["recipe"], frame["error"], strict=True):
        if isinstance(error, str):
            click.echo(f"transfer: {shown(recipe)}: {shown(error)}", err=True)
    return frame.attrs["exit_code"]


def _print_comparison(frame: Any) -> None:
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    table.add_column("recipe", no_wrap=True)
    for title in ("test", "95 % interval", "covers best", "p", "val", "seconds", "memory", "model"):
        table.add_column(title, justify="right", no_wrap=True)
    for row in frame.astype(object).where(frame.notna(), None).to_dict("records"):
        name = Text(shown(row["recipe"]))
        if row["error"]:
            table.add_row(name, "failed")
            continue
        spread = "" if row["accuracy_deviation"] is None else f" ± {100 * row['accuracy_deviation']:.1f}"
        table.add_row(
            name,
            percent(row["accuracy"]) + spread,
            f"{row['accuracy_low']:.1%} to {row['accuracy_high']:.1%}",
            "yes" if row["covers_best"] else "no",
            "" if row["p_value"] is None else f"{row['p_value']:.2g}",
            percent(row["val_accuracy"]),
            f"{row['seconds']:.1f}",
            "-" if row["peak_memory_mb"] is None else f"{row['peak_memory_mb']:,.0f} MB",
            f"{row['model_mb']:.1f} MB",
        )
    # a file or pipe has no width, and 80 columns would cut the table off
    Console(width=None if sys.stdout.isatty() else 120).print(table)
    for line in [*frame.attrs["notes"], f"Comparison: {frame.attrs['folder']}"]:
        click.echo(line)
