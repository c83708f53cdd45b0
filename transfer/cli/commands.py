"""All commands, as one group."""

from __future__ import annotations

import click

from transfer import __version__
from transfer.cli.backbones import backbones
from transfer.cli.cache import cache
from transfer.cli.compare import compare
from transfer.cli.demo import demo
from transfer.cli.evaluate import evaluate
from transfer.cli.export import export
from transfer.cli.features import features
from transfer.cli.fit import fit
from transfer.cli.groups import Group
from transfer.cli.inspect import inspect
from transfer.cli.learning_curve import learning_curve
from transfer.cli.predict import predict
from transfer.cli.recipes import recipes
from transfer.cli.report import report


@click.group(cls=Group, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(__version__, prog_name="transfer")
def cli() -> None:
    """Train an image classifier on a folder of images, starting from a network that knows ImageNet.

    \b
    transfer fit DATA              train; DATA has one folder of images per class
    transfer predict RUN IMAGE...  use what was trained
    transfer inspect DATA          look at the data first
    """


for _command in (
    backbones,
    cache,
    compare,
    demo,
    evaluate,
    export,
    features,
    fit,
    inspect,
    learning_curve,
    predict,
    recipes,
    report,
):
    cli.add_command(_command)
