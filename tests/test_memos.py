from pathlib import Path

from transfer.memos import Memo


def test_what_was_measured_is_remembered_by_key(tmp_path: Path) -> None:
    Memo("speeds", tmp_path / "not/yet/there").write("a", [1, 2.5])
    Memo("speeds", tmp_path / "not/yet/there").write("b", {"x": None})
    again = Memo("speeds", tmp_path / "not/yet/there")
    assert again.read("a") == [1, 2.5]
    assert again.read("b") == {"x": None}
    assert again.read("c") is None


def test_a_damaged_or_unwritable_file_is_one_more_measurement(tmp_path: Path) -> None:
    (tmp_path / "speeds.json").write_bytes(b"\xff{")
    memo = Memo("speeds", tmp_path)
    assert memo.read("a") is None
    memo.write("a", 1)
    assert memo.read("a") == 1
    (tmp_path / "file").write_text("")
    Memo("speeds", tmp_path / "file").write("a", 1)  # no complaint
    assert Memo("speeds", tmp_path / "file").read("a") is None
