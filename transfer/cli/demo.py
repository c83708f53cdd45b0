"""`transfer demo`: fit on handwritten digits."""

from __future__ import annotations

import click

from transfer.cli.options import common
from transfer.cli.pages import write_page
from transfer.cli.printing import shown


@click.command()
@click.option("--out", default="digits", type=click.Path(), metavar="DIR", help="Folder for the images.")
@common("quiet")
def demo(out: str, quiet: bool) -> None:
    """Fit on 1,797 handwritten digits, written as a folder of images."""
    from transfer.demo import write_digits
    from transfer.strategies import fit

    n_images = write_digits(out)
    click.echo(f"{n_images} images of handwritten digits in {out}/, one folder per class.")
    run = fit(out, "linear-svm", report=False, quiet=quiet)
    click.echo(f"Test: {run.summary}.")
    click.echo(f"Run:  {run.path}")
    if page_file := write_page(run):
        click.echo(f"Report: {shown(page_file)}")
    click.echo("\nNow on your own folder, with one folder of images per class inside:")
    click.echo("  transfer inspect path/to/images")
    click.echo("  transfer fit path/to/images")
    click.echo(f"  transfer predict {run.path} some/image.jpg")
