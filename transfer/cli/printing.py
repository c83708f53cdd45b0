"""What several commands print: scores, what was left out, JSON, names that are fit for a terminal."""

from __future__ import annotations

import json
from typing import Any

import click


def print_scores(scores: dict[str, Any]) -> None:
    from transfer.dataset.names import few

    names = {"val": "Validation", "test": "Test", "cross_validation": "Cross-validation"}
    for part, name in names.items():
        if part not in scores:
            continue
        s = scores[part]
        low, high = s["accuracy_interval"]
        click.echo(
            f"{name}: accuracy {s['accuracy']:.1%} (95 % interval {low:.1%} to {high:.1%}), balanced "
            f"{percent(s['balanced_accuracy'])}, macro-F1 {percent(s['macro_f1'])}, {s['n']} images"
        )
    if "trust" in scores:
        s = scores[scores["trust"]]
        without = [row["name"] for row in s["per_class"] if not row["n"]]  # the only image of a class is never left out
        covered = f"{s['n']} images, none of {few(without)}" if without else "every image"
        click.echo(f"Trust the cross-validation: the test part is small, and it covers {covered}.")


def print_left_out(unreadable: list[list[str]]) -> None:
    for path, reason in unreadable:
        click.echo(f"left out, unreadable: {path}: {reason}", err=True)


def print_json(value: Any) -> None:
    click.echo(json.dumps(value, indent=2, ensure_ascii=True, default=str))


def percent(value: float | None) -> str:
    return "-" if value is None else f"{value:.1%}"


def shown(name: str) -> str:
    from transfer.dataset import display

    return display(name)
