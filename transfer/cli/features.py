"""`transfer features`: frozen features as .npy files."""

from __future__ import annotations

from pathlib import Path

import click

from transfer.cli.options import common
from transfer.cli.printing import print_left_out


@click.command()
@click.argument("data", type=click.Path(), required=False)
@click.option("--out", type=click.Path(), metavar="DIR", help="A new folder for the arrays.")
@click.option("--check", type=click.Path(), metavar="DIR", help="Verify the checksums of such a folder instead.")
@click.option("--tap", "taps", multiple=True, metavar="NAME", help="Layer to read; may be given several times.")
@click.option(
    "--pool",
    type=click.Choice(["average", "max", "gem", "pyramid", "flatten", "none"]),
    default="average",
    help="From a map to a row; none keeps the map.",
)
@click.option("--dtype", type=click.Choice(["float32", "float16"]), default="float32", help="Of the arrays.")
@common("backbone", "weights", "device", "exact", "on_bad", "strict", "max_pixels", "quiet")
def features(
    data: str | None,
    out: str | None,
    check: str | None,
    taps: tuple[str, ...],
    pool: str,
    dtype: str,
    backbone: str | None,
    weights: str | None,
    device: str | None,
    exact: bool | None,
    on_bad: str | None,
    strict: bool,
    max_pixels: int | None,
    quiet: bool,
) -> None:
    """Write frozen features as .npy files.

    DIR gets TAP.npy for each tap, labels.npy, index.csv and manifest.json. Row i of every array is line i of index.csv.
    """
    from transfer.backbones import DEFAULT
    from transfer.errors import UsageError
    from transfer.features import FEATURES, check_features, export_features
    from transfer.images import MAX_PIXELS

    if check and not data and not out:
        manifest = check_features(check)
        click.echo(f"{check}: {manifest['n_images']} rows, all checksums fit.")
        return
    if check or not data or not out:
        raise UsageError("Give DATA and --out DIR, or --check DIR.")
    manifest = export_features(
        data,
        out,
        backbone or DEFAULT,
        taps or (FEATURES,),
        weights=weights,
        pool=pool,
        dtype=dtype,
        exact=bool(exact),
        device=device or "auto",
        on_bad=on_bad or "skip",
        strict=strict,
        max_pixels=max_pixels or MAX_PIXELS,
        quiet=quiet,
    )
    for tap, shape in manifest["taps"].items():
        click.echo(f"{Path(out) / tap}.npy  {' x '.join(map(str, shape))} {dtype}")
    print_left_out(manifest["unreadable"])
