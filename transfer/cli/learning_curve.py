"""`transfer learning-curve`: what more images would give."""

from __future__ import annotations

from pathlib import Path

import click

from transfer.cli.options import common
from transfer.cli.printing import print_json, shown


@click.command(name="learning-curve")
@click.argument("data", type=click.Path())
@click.option("--target", metavar="ACCURACY", help="Say how many images it takes: 0.95, 95 or 95%.")
@click.option("--seed", default=0, help="Of the split and of every draw.")
@click.option("--csv", "csv_file", type=click.Path(), metavar="FILE", help="Write the points as a table.")
@click.option("--plot", type=click.Path(), metavar="FILE", help="Draw the curve as .png or .svg.")
@common("backbone", "weights", "device", "exact", "strict", "json", "quiet")
def learning_curve(
    data: str,
    target: str | None,
    seed: int,
    csv_file: str | None,
    plot: str | None,
    backbone: str | None,
    weights: str | None,
    device: str | None,
    exact: bool | None,
    strict: bool,
    as_json: bool,
    quiet: bool,
) -> None:
    """Say what more images would give: accuracy against the number of images, and the law it follows.

    Heads on frozen features learn from a sixteenth to all of the images for train and val, and are judged on others
    of these. The test part is not looked at.
    """
    from transfer.backbones import DEFAULT
    from transfer.curves import draw_curve, read_accuracy, require_figure
    from transfer.files import require_folder, write_csv, write_figure
    from transfer.strategies import learning_curve

    wanted = None if target is None else read_accuracy(target)
    if plot:
        require_figure(plot)
    if csv_file:
        require_folder(Path(csv_file).parent)
    curve = learning_curve(
        data,
        backbone=backbone or DEFAULT,
        weights=weights,
        target=wanted,
        seed=seed,
        device=device or "auto",
        exact=bool(exact),
        strict=strict,
        quiet=quiet,
    )
    if csv_file:
        header = ["images_per_class", "images", "accuracy", "standard_error", "draws"]
        write_csv(
            csv_file, header, ([p.images_per_class, p.n, p.accuracy, p.standard_error, p.n_draws] for p in curve.points)
        )
    if plot:
        write_figure(plot, draw_curve(curve, f"{shown(Path(data).absolute().name)}, {backbone or DEFAULT}"))
    if as_json:
        print_json(curve.to_dict())
        return
    click.echo(f"{'images per class':>16} {'images':>8} {'accuracy':>9} {'standard error':>15} {'draws':>6}")
    for p in curve.points:
        click.echo(f"{p.images_per_class:16.1f} {p.n:8.0f} {p.accuracy:9.1%} {p.standard_error:15.1%} {p.n_draws:6d}")
    for line in [curve.describe(), *curve.describe_law(), *curve.notes]:
        click.echo(line)
