"""`transfer export`: a run for another library."""

from __future__ import annotations

import json

import click

from transfer.cli.options import common
from transfer.cli.printing import print_json, shown


@click.command()
@click.argument("run", type=click.Path())
@click.option("--to", type=click.Choice(["timm", "onnx", "torch"]), required=True, help="The format.")
@click.option("--out", type=click.Path(), metavar="DIR", help="The folder; one in the run by default.")
@click.option("--images", type=click.Path(), metavar="FOLDER", help="Check on these images, not the run's own.")
@click.option("--with-preprocessing", is_flag=True, help="ONNX: take uint8 images of any size.")
@click.option("--force", is_flag=True, help="Replace an earlier export.")
@common("json")
def export(
    run: str, to: str, out: str | None, images: str | None, with_preprocessing: bool, force: bool, as_json: bool
) -> None:
    """Write a run for another library, checked on real images.

    \b
    timm   config.json and model.safetensors, for timm and Hugging Face transformers
    onnx   model.onnx, for ONNX Runtime and others
    torch  model.pt2, a program of torch.export

    The exported model is run on 32 test images of the run and compared with it; one that does not agree is not kept.
    """
    from transfer.runs import load_run

    done = load_run(run).export(to, out, images=images, with_preprocessing=with_preprocessing, force=force)
    if as_json:
        print_json(json.loads((done.path / "export.json").read_text(encoding="utf-8")))
        return
    click.echo(f"Export: {shown(str(done.model))}")
    click.echo(f"Checked: {done.parity.describe()}. {done.note}".rstrip())
