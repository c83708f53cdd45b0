"""The documents say what the program does."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from cli_reference import reference

DOCS = Path(__file__).parents[1] / "docs"


def test_the_page_of_commands_is_what_their_help_says() -> None:
    assert (DOCS / "cli.md").read_text(encoding="utf-8") == reference(), "run scripts/cli-docs"


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("transfer re", {"recipes", "report"}),
        ("transfer recipes c", {"check", "copy"}),
        ("transfer fit --recipe deca", {"decaf", "decaf-modern"}),
        ("transfer recipes show ridge", {"ridge", "ridge-loo"}),
    ],
)
def test_the_shell_completes_commands_and_recipes(words: str, expected: set[str]) -> None:
    asked = {"_TRANSFER_COMPLETE": "bash_complete", "COMP_WORDS": words, "COMP_CWORD": str(len(words.split()) - 1)}
    command = [sys.executable, "-c", "from transfer.cli import main; main()"]
    done = subprocess.run(command, env={**os.environ, **asked}, capture_output=True, text=True, check=True)
    assert {line.split(",")[1] for line in done.stdout.splitlines()} == expected


@pytest.mark.slow
def test_the_examples_of_the_page_on_python_run(shapes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    text = (DOCS / "python.md").read_text(encoding="utf-8").replace("path/to/images", str(shapes))
    names: dict[str, object] = {}
    for block in re.findall(r"```python\n(.*?)```", text, re.S):
        exec(compile(block, "docs/python.md", "exec"), names)
    assert (tmp_path / "features/labels.npy").is_file()
