"""Tests of the files: what is written is read back."""

from __future__ import annotations

import csv
import errno
import json
from pathlib import Path

import numpy as np
import pytest

from transfer import files
from transfer.errors import ResourceError, UsageError
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


def test_a_write_that_fails_leaves_the_old_file_and_no_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files.write_text(tmp_path / "a.txt", "old")

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(files.os, "fsync", full)
    with pytest.raises(ResourceError, match=r"Disk full while writing .*a\.txt"):
        files.write_text(tmp_path / "a.txt", "new")
    assert (tmp_path / "a.txt").read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["a.txt"]


def test_a_folder_appears_whole_or_not_at_all(tmp_path: Path) -> None:
    class StoppedError(Exception):
        pass

    with pytest.raises(StoppedError), files.atomic_folder(tmp_path / "run") as building:  # noqa: PT012
        (building / "a.txt").write_text("half")
        raise StoppedError
    assert list(tmp_path.iterdir()) == []
    with files.atomic_folder(tmp_path / "run") as building:
        (building / "a.txt").write_text("whole")
        assert not (tmp_path / "run").exists()
    assert (tmp_path / "run/a.txt").read_text() == "whole"


def test_space_is_asked_for_before_the_work(tmp_path: Path) -> None:
    files.require_space(tmp_path / "not/yet/there", 1000)
    with pytest.raises(ResourceError, match=r"needs 1000000\.0 TB"):
        files.require_space(tmp_path, 10**18)


def test_json_takes_numpy_and_refuses_nan(tmp_path: Path) -> None:
    files.write_json(tmp_path / "a.json", {"n": np.int64(3), "x": np.float32(0.5), "v": np.arange(2), "p": tmp_path})
    assert json.loads((tmp_path / "a.json").read_text()) == {"n": 3, "x": 0.5, "v": [0, 1], "p": str(tmp_path)}
    with pytest.raises(ValueError, match="not JSON compliant"):
        files.write_json(tmp_path / "a.json", {"x": float("nan")})


def test_the_cache_has_a_place_even_without_a_home(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("TRANSFER_CACHE", "XDG_CACHE_HOME", "HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(Path, "home", lambda: (_ for _ in ()).throw(RuntimeError("no home")))
    assert files.cache_folder().name == "transfer-cache"


def test_a_new_folder_is_refused_before_the_work_and_nothing_is_left(tmp_path: Path) -> None:
    files.require_new(tmp_path / "not/yet/there")
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "empty").mkdir()
    files.require_new(tmp_path / "empty")
    (tmp_path / "full").mkdir()
    (tmp_path / "full/file").write_text("mine")
    with pytest.raises(UsageError, match="full exists"):
        files.require_new(tmp_path / "full")
    (tmp_path / "link").symlink_to(tmp_path / "empty")
    with pytest.raises(UsageError, match="link exists"):
        files.require_new(tmp_path / "link")
    with pytest.raises(UsageError, match="file exists"):
        files.require_new(tmp_path / "full/file")
    with pytest.raises(ResourceError, match="Cannot write"):
        files.require_new(tmp_path / "full/file/below")


def test_a_scratch_folder_is_gone_afterwards_and_those_of_the_dead_are_swept(tmp_path: Path) -> None:
    dead = tmp_path / f".scratch.{files._host()}-{2**22 + 1}.00000000.partial"
    dead.mkdir()
    with files.scratch_folder(tmp_path) as scratch:
        assert scratch.stat().st_mode & 0o777 == 0o700
        (scratch / "large").write_text("x")
        assert list(tmp_path.iterdir()) == [scratch]
    assert not list(tmp_path.iterdir())
