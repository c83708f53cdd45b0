"""Command line: parse, call one function, print. Heavy imports stay inside the commands."""

from __future__ import annotations

import json
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
from click.shell_completion import CompletionItem

from transfer import __version__
from transfer.errors import TransferError, did_you_mean


class _Group(click.Group):
    """A group that names the nearest command where there is none of that name."""

    def resolve_command(self, ctx: click.Context, args: list[str]) -> Any:
        if args and not args[0].startswith("-") and self.get_command(ctx, args[0]) is None:
            known = self.list_commands(ctx)
            ctx.fail(f"No command {args[0]!r}.{did_you_mean(args[0], known)} Commands: {', '.join(known)}")
        return super().resolve_command(ctx, args)


@click.group(cls=_Group, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(__version__, prog_name="transfer")
def cli() -> None:
    """Train an image classifier on a folder of images, starting from a network that knows ImageNet.

    \b
    transfer fit DATA              train; DATA has one folder of images per class
    transfer predict RUN IMAGE...  use what was trained
    transfer inspect DATA          look at the data first
    """


def _complete_recipe(ctx: click.Context, param: click.Parameter, text: str) -> list[CompletionItem]:
    from transfer.recipe import recipe_files

    return [CompletionItem(name) for name in recipe_files() if name.startswith(text)] or [
        CompletionItem(text, type="file")
    ]


def _common(*names: str) -> Callable[[Any], Any]:
    """Add options that several commands share."""
    options = {
        "backbone": click.option("--backbone", metavar="NAME", help="Pretrained network; see `transfer backbones`."),
        "weights": click.option(
            "--weights", metavar="FILE", help=".safetensors or .pth file, run folder, or `random`."
        ),
        "device": click.option("--device", metavar="NAME", help="auto, cpu, cuda, cuda:1 or mps."),
        "exact": click.option("--exact", is_flag=True, default=None, help="Compute in float32 throughout."),
        "on_bad": click.option("--on-bad", type=click.Choice(["skip", "fail"]), help="What an unreadable image does."),
        "max_pixels": click.option("--max-pixels", type=click.IntRange(1), metavar="N", help="Refuse larger images."),
        "json": click.option("--json", "as_json", is_flag=True, help="Print JSON."),
        "quiet": click.option("-q", "--quiet", is_flag=True, help="No progress."),
        "debug": click.option("--debug", is_flag=True, expose_value=False, help="Show the traceback of an error."),
    }

    def add(command: Any) -> Any:
        for name in reversed((*names, "debug")):
            command = options[name](command)
        return command

    return add


@cli.command()
@click.argument("data", type=click.Path())
@click.option(
    "--recipe",
    metavar="NAME",
    shell_complete=_complete_recipe,
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
@_common("backbone", "weights", "device", "exact", "on_bad", "max_pixels", "json", "quiet")
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
        page = {} if no_report else {"report": _write_page(run)}
        _print_json({"run": str(run.path), **page, **run.metrics})
        return
    if run.choice:
        click.echo(f"Chosen: {run.choice.chosen}. Why: {run.path / 'choice.json'}")
    _print_scores(run.metrics)
    if test:
        click.echo(f"Validation is of {_shown(data)}, test of {_shown(test)}.")
    click.echo(f"Run: {run.path}")
    page_file = None if no_report else _write_page(run)
    if page_file:
        click.echo(f"Report: {_shown(page_file)}")


def _write_page(run: Any) -> str | None:
    """Write the report of a finished run; whatever goes wrong with it, the run is safe, and that is what is said."""
    safe = f"The run is safe in {run.path}; `transfer report {run.path}` writes its page."
    try:
        return str(run.report.path)
    except KeyboardInterrupt:
        click.echo(f"Interrupted. {safe}", err=True)
        raise SystemExit(130) from None
    except Exception as error:
        click.echo(f"No report: {' '.join(str(error).split())} {safe}", err=True)
        return None


@cli.command()
@click.argument("data", type=click.Path())
@click.option("--recipes", metavar="A,B,C", help="Named recipes or YAML files; without, one for each strategy.")
@click.option("--seeds", type=click.IntRange(1), default=1, metavar="N", help="Fit with so many seeds: 0, 1, ...")
@click.option("--set", "settings", multiple=True, metavar="KEY=VALUE", help="Change one setting of all recipes.")
@click.option("--out", type=click.Path(), metavar="DIR", help="The folder; runs/DATA-compare by default.")
@click.option("--per-class", type=click.IntRange(1), metavar="N", help="Train on so many images of each class.")
@click.option("--minutes", type=float, metavar="M", help="For each fit that trains layers.")
@_common("backbone", "weights", "device", "exact", "json", "quiet")
def compare(
    data: str,
    recipes: str | None,
    seeds: int,
    settings: tuple[str, ...],
    out: str | None,
    per_class: int | None,
    minutes: float | None,
    as_json: bool,
    quiet: bool,
    **changes: Any,
) -> int:
    """Fit several recipes on the very same images, and show what each reaches and takes.

    Each fit has a process of its own. The same command goes on where it was stopped; with more recipes or seeds, it
    adds them. Settings of `train` change the recipes that train layers, and no others.
    """
    from transfer.comparison import compare

    short = {"data.per_class": per_class, "train.minutes": minutes}
    settings += tuple(f"{key}={value}" for key, value in short.items() if value is not None)
    names = None if recipes is None else [name.strip() for name in recipes.split(",") if name.strip()]
    frame = compare(data, names, seeds=seeds, out=out, settings=settings, quiet=quiet, **changes)
    if as_json:
        _print_json(json.loads((Path(frame.attrs["folder"]) / "compare.json").read_text(encoding="utf-8")))
    else:
        _print_comparison(frame)
        if (page_file := Path(frame.attrs["folder"]) / "report.html").is_file():
            click.echo(f"Report: {_shown(str(page_file))}")
    for recipe, error in zip(frame["recipe"], frame["error"], strict=True):
        if isinstance(error, str):
            click.echo(f"transfer: {_shown(recipe)}: {_shown(error)}", err=True)
    return frame.attrs["exit_code"]


@cli.command()
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
@_common("backbone", "weights", "device", "exact", "on_bad", "max_pixels", "quiet")
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

    if check:
        manifest = check_features(check)
        click.echo(f"{check}: {manifest['n_images']} rows, all checksums fit.")
        return
    if not data or not out:
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
        max_pixels=max_pixels or MAX_PIXELS,
        quiet=quiet,
    )
    for tap, shape in manifest["taps"].items():
        click.echo(f"{Path(out) / tap}.npy  {' x '.join(map(str, shape))} {dtype}")
    _print_left_out(manifest["unreadable"])


@cli.command()
@click.argument("run", type=click.Path())
@click.argument("data", type=click.Path())
@_common("device", "on_bad", "max_pixels", "json", "quiet")
def evaluate(
    run: str,
    data: str,
    device: str | None,
    on_bad: str | None,
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
        max_pixels=max_pixels or MAX_PIXELS,
        quiet=quiet,
    )
    if as_json:
        _print_json(scores)
        return
    _print_scores({"test": scores})
    click.echo(f"{'class':24} {'n':>6} {'precision':>10} {'recall':>8} {'f1':>8}   95 % of recall")
    for row in scores["per_class"]:
        numbers = [_percent(row[key]) for key in ("precision", "recall", "f1")]
        interval = row["recall_interval"]
        span = f"{_percent(interval[0])} to {_percent(interval[1])}" if interval else ""
        click.echo(f"{_shown(row['name']):24} {row['n']:6d} {numbers[0]:>10} {numbers[1]:>8} {numbers[2]:>8}   {span}")
    if scores["n_seen_in_training"]:
        click.echo(f"Careful: the run was fitted on {scores['n_seen_in_training']} of these images.", err=True)
    _print_left_out(scores["unreadable"])


@cli.command()
@click.argument("run", type=click.Path())
@click.option("--out", type=click.Path(), metavar="FILE", help="The page; RUN/report.html by default.")
@_common()
def report(run: str, out: str | None) -> None:
    """Write what a run says about itself as one HTML page.

    Accuracy with its interval, why this strategy, training, classes, confusions, mistakes, suspected wrong labels,
    near-duplicates across parts, a map of the images, where the model looks, and how it was made. The page needs no
    network. An earlier report is replaced.
    """
    from transfer.report import write_report
    from transfer.runs import load_run

    click.echo(f"Report: {_shown(str(write_report(load_run(run), out).path))}")


@cli.command()
@click.argument("run", type=click.Path())
@click.option("--to", type=click.Choice(["timm", "onnx", "torch"]), required=True, help="The format.")
@click.option("--out", type=click.Path(), metavar="DIR", help="The folder; one in the run by default.")
@click.option("--images", type=click.Path(), metavar="FOLDER", help="Check on these images, not the run's own.")
@click.option("--with-preprocessing", is_flag=True, help="ONNX: take uint8 images of any size.")
@click.option("--force", is_flag=True, help="Replace an earlier export.")
@_common("json")
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
        _print_json(json.loads((done.path / "export.json").read_text(encoding="utf-8")))
        return
    click.echo(f"Export: {_shown(str(done.model))}")
    click.echo(f"Checked: {done.parity.describe()}.")


@cli.command()
@click.argument("run_and_images", nargs=-1, required=True, type=click.Path(), metavar="[RUN] IMAGE...")
@click.option("--top", metavar="K", help="Show the K most probable classes: 1, of ImageNet 5.", type=click.IntRange(1))
@click.option("--csv", "csv_file", type=click.Path(), metavar="FILE", help="Write a table.")
@click.option(
    "--unknown",
    type=click.Choice(["on", "off"]),
    default="on",
    help="Whether to say which images are unlike all that the run was trained on.",
)
@_common("backbone", "weights", "device", "max_pixels", "json", "quiet")
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
        _print_json({"predictions": rows, "unreadable": predictions.unreadable})
    elif not csv_file:
        for row in rows:
            guesses = "  ".join(f"{_shown(t['class'])} {t['probability']:.1%}" for t in row["top"])
            click.echo(f"{_shown(row['path'])}: {'unknown, most like ' * row.get('unknown', False)}{guesses}")
    for path, reason in predictions.unreadable:
        click.echo(f"{_shown(path)}: unreadable: {reason}", err=True)
    if not rows:
        raise DataError("None of the images could be read.")


@cli.command()
@click.argument("data", type=click.Path())
@click.option(
    "--recipe", metavar="NAME", shell_complete=_complete_recipe, help="Show what `fit` would do with this recipe."
)
@click.option("--seed", default=0, help="Of the split that would be drawn.")
@_common("max_pixels", "json", "quiet")
def inspect(data: str, recipe: str | None, seed: int, max_pixels: int | None, as_json: bool, quiet: bool) -> None:
    """Describe a dataset, and what fit would do with it.

    Classes, sizes, unreadable files, exact duplicates, and the split; every image is decoded, nothing is written.
    """
    from transfer.images import MAX_PIXELS
    from transfer.strategies import inspect

    description = inspect(data, recipe, seed=seed, max_pixels=max_pixels or MAX_PIXELS, quiet=quiet)
    if as_json:
        _print_json(description)
    else:
        _print_description(description)


@cli.command(name="learning-curve")
@click.argument("data", type=click.Path())
@click.option("--target", metavar="ACCURACY", help="Say how many images it takes: 0.95, 95 or 95%.")
@click.option("--seed", default=0, help="Of the split and of every draw.")
@click.option("--csv", "csv_file", type=click.Path(), metavar="FILE", help="Write the points as a table.")
@click.option("--plot", type=click.Path(), metavar="FILE", help="Draw the curve as .png or .svg.")
@_common("backbone", "weights", "device", "exact", "json", "quiet")
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
        quiet=quiet,
    )
    if csv_file:
        header = ["images_per_class", "images", "accuracy", "standard_error", "draws"]
        write_csv(
            csv_file, header, ([p.images_per_class, p.n, p.accuracy, p.standard_error, p.n_draws] for p in curve.points)
        )
    if plot:
        write_figure(plot, draw_curve(curve, f"{_shown(Path(data).absolute().name)}, {backbone or DEFAULT}"))
    if as_json:
        _print_json(curve.to_dict())
        return
    click.echo(f"{'images per class':>16} {'images':>8} {'accuracy':>9} {'standard error':>15} {'draws':>6}")
    for p in curve.points:
        click.echo(f"{p.images_per_class:16.1f} {p.n:8.0f} {p.accuracy:9.1%} {p.standard_error:15.1%} {p.n_draws:6d}")
    for line in [curve.describe(), *curve.describe_law(), *curve.notes]:
        click.echo(line)


@cli.command()
@click.argument("pattern", default="*")
@click.option("--layers", is_flag=True, help="Show every layer: its output, parameters, work and receptive field.")
@click.option("--filters", type=click.Path(), metavar="PNG", help="Draw the filters of the first convolution.")
@click.option(
    "--activations", nargs=2, type=click.Path(), metavar="IMAGE PNG", help="Draw what the maps say about an image."
)
@click.option("--tap", metavar="NAME", help="The layer whose maps are drawn; the end of the stem by default.")
@_common("weights", "json")
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
        _print_json(rows)
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


@cli.group(cls=_Group, invoke_without_command=True)
@click.pass_context
def recipes(ctx: click.Context) -> None:
    """List the named recipes; or show, copy or check one."""
    from transfer.recipe import describe_recipe, recipe_files

    if ctx.invoked_subcommand is None:
        for name, path in recipe_files().items():
            click.echo(f"{name:16} {describe_recipe(path)}")


@recipes.command()
@click.argument("name", shell_complete=_complete_recipe)
@_common()
def show(name: str) -> None:
    """Print a recipe."""
    from transfer.recipe import find_recipe

    click.echo(find_recipe(name).read_text(encoding="utf-8"), nl=False)


@recipes.command()
@click.argument("name", shell_complete=_complete_recipe)
@click.argument("file", type=click.Path())
@_common()
def copy(name: str, file: str) -> None:
    """Write a recipe to FILE, to change it: `transfer recipes copy partial my.yaml`."""
    from transfer.recipe import copy_recipe

    copy_recipe(name, file)
    click.echo(f"{_shown(file)} is a copy of {name}. Change it, then: transfer fit DATA --recipe {_shown(file)}")


@recipes.command()
@click.argument("file", type=click.Path())
@_common()
def check(file: str) -> None:
    """Say everything that is wrong in a recipe FILE; exit code 2 if anything is."""
    from transfer.backbones import full_name
    from transfer.errors import UsageError
    from transfer.recipe import check_recipe, load_recipe

    problems = check_recipe(file)
    if not problems:
        try:
            full_name(load_recipe(file).backbone)
        except UsageError as error:
            problems = [str(error)]
    for problem in problems:
        click.echo(f"{_shown(file)}: {problem}")
    if problems:
        raise UsageError(f"{len(problems)} problem{'s' * (len(problems) > 1)} in {_shown(file)}.")
    click.echo(f"{_shown(file)} is sound.")


@cli.command()
@click.option("--out", default="digits", type=click.Path(), metavar="DIR", help="Folder for the images.")
@_common("quiet")
def demo(out: str, quiet: bool) -> None:
    """Fit on 1,797 handwritten digits, written as a folder of images."""
    from transfer.demo import write_digits
    from transfer.strategies import fit

    n_images = write_digits(out)
    click.echo(f"{n_images} images of handwritten digits in {out}/, one folder per class.")
    run = fit(out, "linear-svm", report=False, quiet=quiet)
    click.echo(f"Test: {run.summary}.")
    click.echo(f"Run:  {run.path}")
    if page_file := _write_page(run):
        click.echo(f"Report: {_shown(page_file)}")
    click.echo("\nNow on your own folder, with one folder of images per class inside:")
    click.echo("  transfer inspect path/to/images")
    click.echo("  transfer fit path/to/images")
    click.echo(f"  transfer predict {run.path} some/image.jpg")


def _print_cuts(name: str, as_json: bool) -> None:
    import dataclasses

    from transfer import cuts
    from transfer.backbones import HANDMADE, build, default_preprocessing, local_weights

    size = default_preprocessing(name).input_size
    points = cuts.cut_points(build(name).eval(), (3, size, size))
    if as_json:
        _print_json([dataclasses.asdict(point) for point in points])
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
        _print_json({"name": name, "input": [3, size, size], "layers": layers, "classifier": classifier})
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


def _print_scores(scores: dict[str, Any]) -> None:
    names = {"val": "Validation", "test": "Test", "cross_validation": "Cross-validation"}
    for part, name in names.items():
        if part not in scores:
            continue
        s = scores[part]
        low, high = s["accuracy_interval"]
        click.echo(
            f"{name}: accuracy {s['accuracy']:.1%} (95 % interval {low:.1%} to {high:.1%}), balanced "
            f"{_percent(s['balanced_accuracy'])}, macro-F1 {_percent(s['macro_f1'])}, {s['n']} images"
        )
    if "trust" in scores:
        click.echo("Trust the cross-validation: the test part is small, and it covers every image.")


def _print_comparison(frame: Any) -> None:
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    table.add_column("recipe", no_wrap=True)
    for title in ("test", "95 % interval", "covers best", "p", "val", "seconds", "memory", "model"):
        table.add_column(title, justify="right", no_wrap=True)
    for row in frame.astype(object).where(frame.notna(), None).to_dict("records"):
        name = Text(_shown(row["recipe"]))
        if row["error"]:
            table.add_row(name, "failed")
            continue
        spread = "" if row["accuracy_deviation"] is None else f" ± {100 * row['accuracy_deviation']:.1f}"
        table.add_row(
            name,
            _percent(row["accuracy"]) + spread,
            f"{row['accuracy_low']:.1%} to {row['accuracy_high']:.1%}",
            "yes" if row["covers_best"] else "no",
            "" if row["p_value"] is None else f"{row['p_value']:.2g}",
            _percent(row["val_accuracy"]),
            f"{row['seconds']:.1f}",
            "-" if row["peak_memory_mb"] is None else f"{row['peak_memory_mb']:,.0f} MB",
            f"{row['model_mb']:.1f} MB",
        )
    # a file or pipe has no width, and 80 columns would cut the table off
    Console(width=None if sys.stdout.isatty() else 120).print(table)
    for line in [*frame.attrs["notes"], f"Comparison: {frame.attrs['folder']}"]:
        click.echo(line)


def _print_description(d: dict[str, Any]) -> None:
    click.echo(f"{_shown(str(d['root']))}: {d['layout']}")
    click.echo(
        f"{d['n_seen']} files: {d['n_used']} images used, {d['n_unreadable']} unreadable, {d['n_ignored']} ignored"
    )
    parts = list(d["parts"])
    click.echo("\n" + f"{'class':24} {'images':>7} " + " ".join(f"{part:>7}" for part in parts))
    for name, counts in d["classes"].items():
        click.echo(f"{_shown(name):24} {counts['n']:7d} " + " ".join(f"{counts.get(part, 0):7d}" for part in parts))
    click.echo(f"Largest class / smallest: {d['imbalance']}")
    if d["pixels"]:
        p = d["pixels"]
        click.echo(f"Pixels: {p['smallest']} to {p['largest']}, median {p['median']}")
    for title, key in (("Unreadable", "unreadable"), ("Ignored", "ignored")):
        for reason, n in d[key].items():
            click.echo(f"{title}: {n} x {_shown(reason)}")
    for path, reason in d["unreadable_files"][:20]:
        click.echo(f"  {_shown(path)}: {_shown(reason)}")
    for kind, groups in d["duplicates"].items():
        if groups:
            first = ", ".join(_shown(path) for path in groups[0][:4])
            click.echo(f"Exact duplicates {kind.replace('_', ' ')}: {len(groups)} groups, such as {first}")
    for line in d["notes"]:
        click.echo(f"Note: {line}")
    click.echo("\n`transfer fit` would do this:")
    for line in d["plan"]:
        click.echo(f"  {line}")


def _print_left_out(unreadable: list[list[str]]) -> None:
    for path, reason in unreadable:
        click.echo(f"left out, unreadable: {path}: {reason}", err=True)


def _print_json(value: Any) -> None:
    click.echo(json.dumps(value, indent=2, ensure_ascii=True, default=str))


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{value:.1%}"


def _shown(name: str) -> str:
    from transfer.dataset import display

    return display(name)


_INTERRUPTED = (
    "Interrupted. What was computed is kept: the same command goes on from there, a training with --resume added."
)


def main() -> None:
    """Run the command line; end with the exit code of the house."""
    signal.signal(signal.SIGTERM, _terminate)
    try:
        code = cli.main(prog_name="transfer", standalone_mode=False)
    except TransferError as error:
        code = _fail(str(error), error.exit_code)
    except (click.exceptions.Abort, KeyboardInterrupt):
        code = _fail(_INTERRUPTED, 130)
    except click.ClickException as error:
        code = _fail(_one_line(error), error.exit_code)
    except RuntimeError as error:
        if type(error).__name__ != "OutOfMemoryError":  # torch's, which is not imported here
            raise
        code = _fail("Out of memory on the device. Choose a smaller backbone, or use --device cpu.", 5)
    except MemoryError:
        code = _fail("Out of memory. Choose a smaller backbone, or run on a machine with more.", 5)
    sys.exit(code if isinstance(code, int) else 0)


def _fail(message: str, code: int) -> int:
    if _wants_traceback():
        raise
    click.echo(f"transfer: {message}", err=True)
    return code


def _one_line(error: click.ClickException) -> str:
    """Return what click has to say, and where to read on, in one line as all errors."""
    message = " ".join(error.format_message().split())
    context = error.ctx if isinstance(error, click.UsageError) else None
    return f"{message.rstrip('.')}. `{context.command_path} --help` says more." if context else message


def _wants_traceback() -> bool:
    return "--debug" in sys.argv


def _terminate(number: int, frame: Any) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_DFL)  # a second one ends it at once
    sys.exit(128 + number)


if __name__ == "__main__":
    main()
