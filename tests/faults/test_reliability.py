"""docs/reliability.md lists every fault, and what it says is shown by tests that there are."""

from __future__ import annotations

import ast
import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "reliability.md").read_text(encoding="utf-8")
LAST = 78


def test_every_fault_has_one_row() -> None:
    rows = [int(n) for n in re.findall(r"^\| (\d+) \|", PAGE, re.M)]
    assert rows == list(range(1, LAST + 1))


def test_every_row_names_tests_that_exist() -> None:
    rows = re.findall(r"^\| \d+ \|.*$", PAGE, re.M)
    assert [row for row in rows if "::" not in row] == []
    named = set(re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", PAGE))
    assert len(named) == len(set(re.findall(r"[^\s`(]+::\w+", PAGE)))  # each in the form that is read here
    known = {file: {node.name for node in _functions(ROOT / file)} for file, _ in named}
    assert [f"{file}::{name}" for file, name in sorted(named) if name not in known[file]] == []


def _functions(path: Path) -> list[ast.FunctionDef]:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    return [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef) and node.name.startswith("test_")]
