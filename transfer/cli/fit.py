"""`transfer fit`: train on a folder of images."""

from __future__ import annotations

from typing import Any

import click

from transfer.cli.options import common, complete_recipe
from transfer.cli.pages import write_page
from transfer.cli.printing import print_json, print_scores, shown


@click.command()
@click.argument("data", type=click.Path())
@click.option(
    "--recipe",
    metavar="NAME",
    shell_complete=complete_recipe,
    help="A named recipe (`transfer recipes`) or a YAML file.",
)
@click.option("--test", type=click.Path(), metavar="TARGET", help="Report on the images of another domain.")
@click.option("--few-target", type=click.IntRange(1), metavar="K", help="Train on K images of each TARGET class too.")
@click.option("--set", "settings", multiple=True, metavar="KEY=VALUE", help="Change one setting of the recipe.")
@click.option("--out", type=click.Path(), metavar="DIR", help="The run folder; runs/DATA-STRATEGY by default.")
@click.option("--split", type=click.Path(), metavar="CSV", help="Use the parts of an earlier run's split.csv.")
@click.option("--seed", type=int, help="Of every draw.")
@click.option("--per-class", type=click.IntRange(1), metavar="N", help="Train on so many images of each class.")
@click.option("--tap", "--taps", "tap", multiple=True, metavar="NAME", help="Layer that the head reads; repeatable.")
@click.option("--cut", metavar="NAME", help="Train all layers right of this one; see `transfer backbones NAME`.")
@click.option("--epochs", type=click.IntRange(1), metavar="N", help="Of training layers.")
@click.option("--minutes", type=float, metavar="M", help="Be done within this time, with fewer epochs if need be.")
@click.option("--no-race", is_flag=True, help="Choose by what linear heads show, without training layers on trial.")
@click.option("--resume", is_flag=True, help="Go on with a training that was interrupted.")
@click.option("--no-report", is_flag=True, help="Without report.html, which holds some pictures.")
@click.option("--log", type=click.Choice(["tensorboard"]), help="Write event files beside the run while it trains.")
@common("backbone", "weights", "device", "exact", "on_bad", "strict", "max_pixels", "json", "quiet")
def fit(
    data: str,
    recipe: str | None,
    settings: tuple[str, ...],
    test: str | None,
    few_target: int | None,
    out: str | None,
    split: str | None,
    per_class: int | None,
    tap: tuple[str, ...],
    no_race: bool,
    no_report: bool,
    epochs: int | None,
    minutes: float | None,
    resume: bool,
    log: str | None,
    on_bad: str | None,
    strict: bool,
    max_pixels: int | None,
    as_json: bool,
    quiet: bool,
    **changes: Any,
) -> None:
    """Train on a folder of images and write a run folder.

    DATA holds one folder of images per class, or train, val and test folders of such, or is a CSV file with the
    columns path, label and, if wanted, split. So does TARGET, whose classes are matched with DATA's by name; all of it,
    or its test part, is reported on.
    """
    from transfer.strategies import fit

    short = {
        "data.on_bad": on_bad,
        "data.strict": strict or None,
        "data.max_pixels": max_pixels,
        "data.per_class": per_class,
        "train.epochs": epochs,
        "train.minutes": minutes,
    }
    settings += tuple(f"{key}={value}" for key, value in short.items() if value is not None)
    settings += ("choice.race=false",) * no_race
    if tap:
        changes["tap"] = tap[0] if len(tap) == 1 else list(tap)
    run = fit(
        data,
        recipe,
        test=test,
        few_target=few_target or 0,
        out=out,
        split=split,
        settings=settings,
        resume=resume,
        log=log,
        report=False,  # after the answer, below
        quiet=quiet,
        **changes,
    )
    if as_json:
        page = {} if no_report else {"report": write_page(run)}
        print_json({"run": str(run.path), **page, **run.metrics})
        return
    if run.choice:
        click.echo(f"Chosen: {run.choice.chosen}. Why: {run.path / 'choice.json'}")
    print_scores(run.metrics)
    if test:
        click.echo(f"Validation is of {shown(data)}, test of {shown(test)}.")
    click.echo(f"Run: {run.path}")
    page_file = None if no_report else write_page(run)
    if page_file:
        click.echo(f"Report: {shown(page_file)}")
