"""Options that several commands share, and how the shell completes a recipe's name."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import click
from click.shell_completion import CompletionItem


def complete_recipe(ctx: click.Context, param: click.Parameter, text: str) -> list[CompletionItem]:
    from transfer.recipe import recipe_files

    return [CompletionItem(name) for name in recipe_files() if name.startswith(text)] or [
        CompletionItem(text, type="file")
    ]


def common(*names: str) -> Callable[[Any], Any]:
    """Add options that several commands share."""
    options = {
        "backbone": click.option("--backbone", metavar="NAME", help="Pretrained network; see `transfer backbones`."),
        "weights": click.option(
            "--weights", metavar="FILE", help=".safetensors or .pth file, run folder, or `random`."
        ),
        "device": click.option("--device", metavar="NAME", help="auto, cpu, cuda, cuda:1 or mps."),
        "exact": click.option("--exact", is_flag=True, default=None, help="Compute in float32 throughout."),
        "on_bad": click.option("--on-bad", type=click.Choice(["skip", "fail"]), help="What an unreadable image does."),
        "strict": click.option(
            "--strict", is_flag=True, help="Stop at any fault of the data that is otherwise a note."
        ),
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
