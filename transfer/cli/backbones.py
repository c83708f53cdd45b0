"""`transfer backbones`: list pretrained networks, or look into one."""

from __future__ import annotations

import click

from transfer.cli.options import common
from transfer.cli.printing import print_json


@click.command()
@click.argument("pattern", default="*")
@click.option("--layers", is_flag=True, help="Show every layer: its output, parameters, work and receptive field.")
@click.option("--filters", type=click.Path(), metavar="PNG", help="Draw the filters of the first convolution.")
@click.option(
    "--activations", nargs=2, type=click.Path(), metavar="IMAGE PNG", help="Draw what the maps say about an image."
)
@click.option("--tap", metavar="NAME", help="The layer whose maps are drawn; the end of the stem by default.")
@common("weights", "json")
def backbones(
    pattern: str,
    layers: bool,
    filters: str | None,
    activations: tuple[str, str] | None,
    tap: str | None,
    weights: str | None,
    as_json: bool,
) -> None:
    """List pretrained networks, or look into one: its cuts, its layers, its filters, its maps.

    PATTERN is a name, part of one, or a wildcard such as 'resnet*'; the full name of one network shows its cuts.
    """
    from transfer import backbones
    from transfer.errors import UsageError

    if tap and not activations:
        raise UsageError("--tap says which maps --activations IMAGE PNG draws: give both.")
    if weights and not (filters or activations):
        raise UsageError("--weights are looked at by --filters PNG and --activations IMAGE PNG: give one of these.")
    if as_json and (filters or activations):
        raise UsageError("--json prints numbers, and a picture has none. Leave it out.")
    if layers:
        _print_layers(backbones.full_name(pattern), as_json)
    if filters or activations:
        _draw(pattern, weights, filters, activations, tap)
    if layers or filters or activations:
        return
    rows = backbones.list_backbones(pattern)
    named = {row["name"] for row in rows}
    if pattern in named or f"torchvision/{pattern}" in named or not rows:
        _print_cuts(backbones.full_name(pattern), as_json)  # which says what the nearest name is
        return
    if as_json:
        print_json(rows)
        return
    click.echo(f"{'name':48} {'source':12} {'parameters':>11} {'input':>6} {'features':>9}  weights")
    for row in rows:
        size = f"{row['parameters'] / 1e6:.1f} M"
        weights = "on this machine" if row["here"] else "hub" if row["published"] else "none"
        if row["source"] == "hand-made":
            weights = "no weights needed"
        click.echo(
            f"{row['name']:48} {row['source']:12} {size:>11} {row['input_size']:>6} {row['features']:>9}  {weights}"
        )


def _print_cuts(name: str, as_json: bool) -> None:
    import dataclasses

    from transfer import cuts
    from transfer.backbones import HANDMADE, build, default_preprocessing, local_weights

    size = default_preprocessing(name).input_size
    points = cuts.cut_points(build(name).eval(), (3, size, size))
    if as_json:
        print_json([dataclasses.asdict(point) for point in points])
        return
    weights = "weights on this machine" if local_weights(name) else "weights not on this machine"
    click.echo(f"{name}: {'no weights needed' if name in HANDMADE else weights}. Cuts in order:")
    click.echo(
        f"{'cut':28} {'output':>16} {'parameters left':>16} {'right':>12} {'multiply-adds left':>19} {'right':>9} "
        f"{'sees':>6} {'cache':>10}"
    )
    from transfer.files import readable_bytes

    for p in points:
        click.echo(
            f"{p.name:28} {'x'.join(map(str, p.shape)):>16} {p.parameters_left:16,} {p.parameters_right:12,} "
            f"{p.multiply_adds_left / 1e6:17.1f} M {p.multiply_adds_right / 1e6:7.1f} M "
            f"{p.receptive_field or 'all':>6} {readable_bytes(p.cache_bytes):>10}"
        )
    click.echo("sees: receptive field in pixels; cache: per image, in float16 (pixels: 8 bits).")


def _print_layers(name: str, as_json: bool) -> None:
    import dataclasses

    from transfer import cuts
    from transfer.backbones import build, default_preprocessing, own_classifier

    size = default_preprocessing(name).input_size
    rows = cuts.layers(build(name).eval(), (3, size, size))
    classifier = own_classifier(name)
    if as_json:
        layers = [dataclasses.asdict(row) for row in rows]
        print_json({"name": name, "input": [3, size, size], "layers": layers, "classifier": classifier})
        return
    click.echo(f"{name}, images of 3x{size}x{size}. Layers in order:")
    titles = [f"{row.name} ({row.paper_name})" if row.paper_name else row.name for row in rows]
    kinds = [row.kind + " *" * (not row.fits) for row in rows]
    wide, wider = max(map(len, titles), default=0), max(map(len, kinds), default=0)
    click.echo(
        f"{'layer':{wide}}  {'kind':{wider}}  {'output':>13} {'parameters':>12} {'multiply-adds':>15} {'sees':>5}"
    )
    for row, title, kind in zip(rows, titles, kinds, strict=True):
        click.echo(
            f"{title:{wide}}  {kind:{wider}}  {'x'.join(map(str, row.shape)):>13} {row.parameters:12,} "
            f"{row.multiply_adds:15,} {row.receptive_field or 'all':>5}"
        )
    n_parameters, n_multiply_adds = (sum(getattr(row, key) for row in rows) for key in ("parameters", "multiply_adds"))
    click.echo(f"{'total':{wide}}  {'':{wider}}  {'':13} {n_parameters:12,} {n_multiply_adds:15,}")
    click.echo("\nA backbone has no classifier; transfer makes a new one.")
    if classifier:
        click.echo(
            f"The one of its weights ({classifier['name']}, {classifier['classes']:,} classes) has "
            f"{classifier['parameters']:,} parameters and {classifier['multiply_adds']:,} multiply-adds more."
        )
    click.echo("sees: receptive field in pixels, 1 + Σ (K − 1) · ∏ S. Activations, dropout and reshapes are left out.")
    if any(not row.fits for row in rows):
        click.echo(
            "*: (W − F + 2P) / S is no whole number; it is rounded, and where down, the last pixels are not seen."
        )
    if any(row.paper_name for row in rows):
        click.echo("As a tap, a paper's name (fc6) is the layer's output behind its ReLU, fc6.pre the one before it.")


def _draw(
    name: str, weights: str | None, filters: str | None, activations: tuple[str, str] | None, tap: str | None
) -> None:
    from transfer import pictures
    from transfer.backbones import load_backbone

    for out in (filters, activations[1] if activations else None):
        if out:
            pictures.require_png(out)
    backbone = load_backbone(name, weights)
    if filters:
        pictures.write_picture(filters, pictures.draw_filters(backbone))
        layer, convolution = pictures.first_convolution(backbone)
        shape = "x".join(map(str, convolution.weight.shape[1:]))
        click.echo(f"{filters}: the {len(convolution.weight)} filters of {layer}, {shape}; grey is zero.")
    if activations:
        image, out = activations
        tap = tap or pictures.default_tap(backbone)
        pictures.write_picture(out, pictures.draw_activations(backbone, image, tap))
        click.echo(f"{out}: {backbone.name} at {tap}, each map by its own largest value; left what the network sees.")
    click.echo(f"Weights: {backbone.source}.")
