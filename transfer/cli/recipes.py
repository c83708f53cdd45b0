"""`transfer recipes`: list, show, copy and check recipes."""

from __future__ import annotations

import click

from transfer.cli.groups import Group
from transfer.cli.options import common, complete_recipe
from transfer.cli.printing import shown


@click.group(cls=Group, invoke_without_command=True)
@click.pass_context
def recipes(ctx: click.Context) -> None:
    """List the named recipes; or show, copy or check one."""
    from transfer.recipe import describe_recipe, recipe_files

    if ctx.invoked_subcommand is None:
        for name, path in recipe_files().items():
            click.echo(f"{name:16} {describe_recipe(path)}")


@recipes.command()
@click.argument("name", shell_complete=complete_recipe)
@common()
def show(name: str) -> None:
    """Print a recipe."""
    from transfer.recipe import find_recipe

    click.echo(find_recipe(name).read_text(encoding="utf-8"), nl=False)


@recipes.command()
@click.argument("name", shell_complete=complete_recipe)
@click.argument("file", type=click.Path())
@common()
def copy(name: str, file: str) -> None:
    """Write a recipe to FILE, to change it: `transfer recipes copy partial my.yaml`."""
    from transfer.recipe import copy_recipe

    copy_recipe(name, file)
    click.echo(f"{shown(file)} is a copy of {name}. Change it, then: transfer fit DATA --recipe {shown(file)}")


@recipes.command()
@click.argument("file", type=click.Path())
@common()
def check(file: str) -> None:
    """Say everything that is wrong in a recipe FILE; exit code 2 if anything is."""
    from transfer.backbones import full_name
    from transfer.dataset.names import count
    from transfer.errors import UsageError
    from transfer.recipe import check_recipe, load_recipe

    problems = check_recipe(file)
    if not problems:
        try:
            full_name(load_recipe(file).backbone)
        except UsageError as error:
            problems = [str(error)]
    for problem in problems:
        click.echo(f"{shown(file)}: {problem}")
    if problems:
        raise UsageError(f"{count(len(problems), 'problem')} in {shown(file)}.")
    click.echo(f"{shown(file)} is sound.")
