"""Strict: what is otherwise a note stops every command, before anything is computed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from commands import Ended
from encoded import encode
from hostile import fill, picture

from transfer.backbones import loading
from transfer.dataset import find_faults, scan


def cut_short(root: Path) -> None:
    (root / "a" / "cut.png").write_bytes(encode(picture(1), "PNG")[:-30])  # only decoding tells


def in_capitals(root: Path) -> None:
    fill(root, {"A": 5}, seed=300)


def emptied(root: Path) -> None:
    (root / "nothing").mkdir()


def contradicted(root: Path) -> None:
    (root / "b" / "also_an_a.png").write_bytes((root / "a" / "000.png").read_bytes())


def beside(root: Path) -> None:
    (root / "beside.png").write_bytes(encode(picture(2), "PNG"))


def raw(root: Path) -> None:
    (root / "a" / "camera.nef").write_bytes(b"II*\0\x08\0\0\0")


def misnamed(root: Path) -> None:
    (root / "a" / "png.jpg").write_bytes(encode(picture(3), "PNG"))


def dangling(root: Path) -> None:
    (root / "a" / "gone.png").symlink_to("nowhere.png")


FAULTS: dict[Callable[[Path], None], str] = {
    cut_short: "1 unreadable image: 'a/cut.png' (truncated PNG).",
    in_capitals: "The classes 'A' and 'a' look the same",
    emptied: "1 class without a usable image, left out: 'nothing'.",
    contradicted: "1 image found under more than one class",
    beside: "1 ignored file that may be an image: 'beside.png' (image outside the class folders).",
    raw: "1 ignored file that may be an image: 'a/camera.nef' (unsupported format RAW).",
    misnamed: "'png.jpg' is PNG",
    dangling: "1 ignored file that may be an image: 'a/gone.png' (dangling symbolic link).",
}
COMMANDS = {
    "inspect": (),
    "features": ("--out", "out"),
    "fit": ("--out", "out"),
    "compare": ("--recipes", "ridge", "--out", "out"),
    "learning-curve": (),
}


@pytest.fixture
def sound(tmp_path: Path) -> Path:
    return fill(tmp_path / "data", {"a": 6, "b": 6})


@pytest.mark.parametrize("spoil", FAULTS, ids=lambda spoil: spoil.__name__)
def test_inspect_says_what_is_wrong_and_stops(
    spoil: Callable[[Path], None], sound: Path, transfer: Callable[..., Ended]
) -> None:
    spoil(sound)
    ended = transfer("inspect", "data", "--strict", "-q")
    assert ended.code == 3
    assert FAULTS[spoil] in ended.message
    assert "1 kind of fault, and --strict allows none." in ended.message
    assert transfer("inspect", "data", "-q").code == 0


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_stops_before_a_network_is_loaded_and_nothing_is_written(
    command: str,
    sound: Path,
    transfer: Callable[..., Ended],
    tiny: tuple[str, ...],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    cut_short(sound)
    beside(sound)
    monkeypatch.setattr(loading, "build", lambda *_, **__: pytest.fail("a network was built"))
    ended = transfer(command, "data", "--strict", *COMMANDS[command], *(("-q",) if command == "inspect" else tiny))
    assert ended.code == 3
    assert "2 kinds of fault" in ended.message
    assert list(sound.parent.iterdir()) == [sound]


def test_the_other_domain_is_looked_at_too(sound: Path, transfer: Callable[..., Ended], tiny: tuple[str, ...]) -> None:
    emptied(fill(sound.parent / "target", {"a": 3, "b": 3}, seed=500))
    ended = transfer("fit", "data", "--test", "target", "--strict", *tiny)
    assert ended.code == 3
    assert "target': 1 kind of fault" in ended.message


def test_evaluate_is_strict_where_it_is_asked(
    sound: Path, transfer: Callable[..., Ended], tiny: tuple[str, ...]
) -> None:
    fitted = transfer("fit", "data", "--recipe", "ridge", "--strict", "--no-report", "--out", "run", *tiny)
    assert fitted.code == 0, fitted.err
    assert transfer("evaluate", "run", "data", "--strict", "-q").code == 0
    beside(sound)
    assert transfer("evaluate", "run", "data", "-q").code == 0
    assert transfer("evaluate", "run", "data", "--strict", "-q").code == 3


def test_small_classes_texts_and_what_systems_leave_behind_are_no_faults(tmp_path: Path) -> None:
    root = fill(tmp_path / "data", {"a": 2, "b": 3})
    for name in ("a/notes.txt", "a/._000.png", ".DS_Store", "README.md"):
        (root / name).write_bytes(b"words")
    dataset = scan(root)
    assert dataset.notes
    assert find_faults(dataset) == []
