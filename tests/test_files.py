"""Tests of the files: what is written is read back."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest

from transfer.files import write_csv


def read_csv(path: Path) -> list[list[str]]:
    with path.open(newline="", encoding="utf-8") as source:
        return list(csv.reader(source))


@pytest.mark.parametrize(
    "cell", ["a\rb", "a\r", "a\nb", "a\r\nb", 'a\r"b"', '"', "a,b\r", "", " a ", "\u2028", "猫", "a;b\tc|d"]
)
def test_a_table_is_read_back_as_it_was_written(tmp_path: Path, cell: str) -> None:
    rows = [["first", "x"], [cell, "y"], ["z", cell], [cell, cell], ["last", "x"]]
    write_csv(tmp_path / "t.csv", ("one", cell), rows)
    assert read_csv(tmp_path / "t.csv") == [["one", cell], *rows]


def test_only_rows_with_a_carriage_return_are_quoted_throughout(tmp_path: Path) -> None:
    write_csv(tmp_path / "t.csv", ("name", "n"), [("plain", 1), ("a\rb", None), ("-x", -2.5)])
    assert (tmp_path / "t.csv").read_bytes() == b'name,n\nplain,1\n"a\rb",""\n\'-x,-2.5\n'


def test_a_cell_that_a_spreadsheet_would_run_gets_an_apostrophe_and_keeps_its_text(tmp_path: Path) -> None:
    cells = ["=1+1", "+1", "-1", "@x", "\tx", "\rx"]
    write_csv(tmp_path / "t.csv", ("cell",), [(cell,) for cell in cells])
    assert [row[0] for row in read_csv(tmp_path / "t.csv")[1:]] == [f"'{cell}" for cell in cells]
