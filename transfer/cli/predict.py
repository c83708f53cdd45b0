"""`transfer predict`: classify images."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from transfer.cli.options import common
from transfer.cli.printing import print_json, shown


@click.command()
@click.argument("run_and_images", nargs=-1, required=True, type=click.Path(), metavar="[RUN] IMAGE...")
@click.option("--top", metavar="K", help="Show the K most probable classes: 1, of ImageNet 5.", type=click.IntRange(1))
@click.option("--csv", "csv_file", type=click.Path(), metavar="FILE", help="Write a table.")
@click.option(
    "--unknown",
    type=click.Choice(["on", "off"]),
    default="on",
    help="Whether to say which images are unlike all that the run was trained on.",
)
@common("backbone", "weights", "device", "max_pixels", "json", "quiet")
def predict(
    run_and_images: tuple[str, ...],
    top: int | None,
    unknown: str,
    csv_file: str | None,
    backbone: str | None,
    weights: str | None,
    device: str | None,
    max_pixels: int | None,
    as_json: bool,
    quiet: bool,
) -> None:
    """Classify images, or all images in a folder, with a run.

    With --backbone there is no RUN: a pretrained network says which classes of ImageNet it sees.
    """
    from transfer.dataset import find_images
    from transfer.errors import DataError, UsageError
    from transfer.files import require_folder, write_csv
    from transfer.images import MAX_PIXELS
    from transfer.predictions import classify_imagenet
    from transfer.runs import load_run

    if csv_file:
        require_folder(Path(csv_file).parent)
    settings: dict[str, Any] = {"device": device or "auto", "max_pixels": max_pixels or MAX_PIXELS, "quiet": quiet}
    if backbone:
        predictions = classify_imagenet(find_images(run_and_images), backbone, weights=weights, **settings)
    else:
        run, *images = run_and_images
        if weights:
            raise UsageError("A run has its own weights: leave out --weights, or name the network with --backbone.")
        if not images:
            raise UsageError("Give a run and images: `transfer predict RUN IMAGE...`, or --backbone NAME IMAGE...")
        predictions = load_run(run).predict(find_images(images), unknown=unknown == "on", **settings)
    rows = predictions.top(top or (5 if backbone else 1))
    if csv_file:
        n = len(rows[0]["top"]) if rows else 1
        header = ["path", *(name for i in range(1, n + 1) for name in (f"class_{i}", f"probability_{i}"))]
        table = [[r["path"], *(x for t in r["top"] for x in (t["class"], round(t["probability"], 4)))] for r in rows]
        if predictions.is_unknown is not None:
            header += ["unknown"]
            table = [[*cells, "yes" if row["unknown"] else "no"] for cells, row in zip(table, rows, strict=True)]
        write_csv(csv_file, header, table)
    if as_json:
        print_json({"predictions": rows, "unreadable": predictions.unreadable})
    elif not csv_file:
        for row in rows:
            guesses = "  ".join(f"{shown(t['class'])} {t['probability']:.1%}" for t in row["top"])
            click.echo(f"{shown(row['path'])}: {'unknown, most like ' * row.get('unknown', False)}{guesses}")
    for path, reason in predictions.unreadable:
        click.echo(f"{shown(path)}: unreadable: {reason}", err=True)
    if not rows:
        raise DataError("None of the images could be read.")
