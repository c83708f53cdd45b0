"""`transfer evaluate`: score a run on labelled images."""

from __future__ import annotations

import click

from transfer.cli.options import common
from transfer.cli.printing import percent, print_json, print_left_out, print_scores, shown


@click.command()
@click.argument("run", type=click.Path())
@click.argument("data", type=click.Path())
@common("device", "on_bad", "strict", "max_pixels", "json", "quiet")
def evaluate(
    run: str,
    data: str,
    device: str | None,
    on_bad: str | None,
    strict: bool,
    max_pixels: int | None,
    as_json: bool,
    quiet: bool,
) -> None:
    """Score a run on labelled images that it has not seen."""
    from transfer.images import MAX_PIXELS
    from transfer.runs import load_run

    scores = load_run(run).evaluate(
        data,
        device=device or "auto",
        on_bad=on_bad or "skip",
        strict=strict,
        max_pixels=max_pixels or MAX_PIXELS,
        quiet=quiet,
    )
    if as_json:
        print_json(scores)
        return
    print_scores({"test": scores})
    click.echo(f"{'class':24} {'n':>6} {'precision':>10} {'recall':>8} {'f1':>8}   95 % of recall")
    for row in scores["per_class"]:
        numbers = [percent(row[key]) for key in ("precision", "recall", "f1")]
        interval = row["recall_interval"]
        span = f"{percent(interval[0])} to {percent(interval[1])}" if interval else ""
        click.echo(f"{shown(row['name']):24} {row['n']:6d} {numbers[0]:>10} {numbers[1]:>8} {numbers[2]:>8}   {span}")
    if scores["n_seen_in_training"]:
        click.echo(f"Careful: the run was fitted on {scores['n_seen_in_training']} of these images.", err=True)
    print_left_out(scores["unreadable"])
