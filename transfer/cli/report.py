"""`transfer report`: a run as one HTML page."""

from __future__ import annotations

import click

from transfer.cli.options import common
from transfer.cli.printing import shown


@click.command()
@click.argument("run", type=click.Path())
@click.option("--out", type=click.Path(), metavar="FILE", help="The page; RUN/report.html by default.")
@common()
def report(run: str, out: str | None) -> None:
    """Write what a run says about itself as one HTML page.

    Accuracy with its interval, why this strategy, training, classes, confusions, mistakes, suspected wrong labels,
    near-duplicates across parts, a map of the images, where the model looks, and how it was made. The page needs no
    network. An earlier report is replaced.
    """
    from transfer.report import write_report
    from transfer.runs import load_run

    click.echo(f"Report: {shown(str(write_report(load_run(run), out).path))}")
