"""Every write goes through `transfer/files.py`, and wherever it fails, what was there before still is.

Rows 48 to 52 of docs/reliability.md.
"""

from __future__ import annotations

import ast
import contextlib
import itertools
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from unittest import mock

import pytest
from faulty_disk import ERRORS, Disk, digests, transfer

import transfer as package
from transfer import files, load_run
from transfer.cache import opening
from transfer.features import check_features
from transfer.training import loop

pytestmark = pytest.mark.usefixtures("one_thread")
PACKAGE = Path(package.__file__).parent
# calls that change a disk; `replace` of a path takes one argument, that of a text two
CHANGING = {"mkdir", "makedirs", "rename", "renames", "unlink", "rmdir", "removedirs", "rmtree", "touch", "truncate"}
CHANGING |= {"symlink", "symlink_to", "hardlink_to", "link", "chmod", "utime", "copy", "copy2", "copyfile", "copytree"}
CHANGING |= {"move", "mkdtemp", "mkstemp", "NamedTemporaryFile", "TemporaryDirectory", "TemporaryFile", "memmap"}
CHANGING |= {"open_memmap", "tofile", "savez", "savetxt", "save_file", "to_csv", "fdopen", "posix_fallocate"}
OF_MODULES = {("os", "replace"), ("os", "remove"), ("os", "open"), ("os", "write"), ("np", "save"), ("torch", "save")}
EXCEPTIONS = {  # what writes without `files`, and why that is right
    "training/logs.py": {"SummaryWriter"},  # an event file is added to while the training goes on
}


def changes(path: Path) -> set[str]:
    """Return the names of the calls in a module that change a disk."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if not isinstance(node, ast.Call):
            continue
        called = node.func
        name = called.attr if isinstance(called, ast.Attribute) else called.id if isinstance(called, ast.Name) else ""
        owner = called.value.id if isinstance(called, ast.Attribute) and isinstance(called.value, ast.Name) else ""
        is_method = isinstance(called, ast.Attribute) and owner != "files"
        texts = [a.value for a in [*node.args, *(k.value for k in node.keywords)] if isinstance(a, ast.Constant)]
        if name == "open" and any(isinstance(t, str) and set(t) & set("wax+") and len(t) < 4 for t in texts):
            found.add(name)
        if is_method and (name in CHANGING or (owner, name) in OF_MODULES or name in ("write_bytes", "write_text")):
            found.add(name)
        if is_method and name == "replace" and len(node.args) == 1 and not node.keywords:
            found.add(name)
        if name == "SummaryWriter":
            found.add(name)
    return found - {"copy"} if not imports(path) & {"shutil"} else found


def imports(path: Path) -> set[str]:
    nodes = ast.walk(ast.parse(path.read_text()))
    return {alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names}


def test_nothing_but_files_changes_a_disk() -> None:
    found = {str(path.relative_to(PACKAGE)): changes(path) for path in sorted(PACKAGE.rglob("*.py"))}
    assert {"mkdir", "rename", "replace", "rmtree", "unlink", "open", "memmap"} <= found.pop("files.py")  # it looks
    assert {name: calls for name, calls in found.items() if calls} == EXCEPTIONS


def test_no_lock_is_taken() -> None:
    """Network file systems have none, or wrong ones; a file that gets its name when it is whole needs none."""
    for path in PACKAGE.rglob("*.py"):
        assert not imports(path) & {"fcntl", "msvcrt", "filelock"}, path


@pytest.fixture(scope="module")
def few(shapes: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Seven of the toy pictures of each class."""
    folder = tmp_path_factory.mktemp("few") / "data"
    for path in sorted(shapes.rglob("*.png")):
        if int(path.stem) < 7:
            (folder / path.parent.name).mkdir(parents=True, exist_ok=True)
            shutil.copy(path, folder / path.parent.name)
    return folder


@pytest.fixture(scope="module")
def tiny(weights: Path) -> list[str]:
    return ["--backbone", "test_resnet", "--weights", str(weights), "-q"]


@pytest.fixture(scope="module")
def earlier(few: Path, tiny: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What earlier commands made: a run with its report, and a feature folder."""
    folder = tmp_path_factory.mktemp("earlier")
    for words in (
        ["fit", few, "--recipe", "ridge", "--out", folder / "run", *tiny],
        ["report", folder / "run"],
        ["features", few, "--out", folder / "features", *tiny],
    ):
        assert transfer(*words).code == 0
    return folder


class Place:
    """A folder for one attempt at a command, with what earlier commands made, an empty cache and its own /tmp."""

    def __init__(self, folder: Path, earlier: Path) -> None:
        self.root, self.earlier, self.out = folder, folder / "earlier", folder / "out"
        shutil.copytree(earlier, self.earlier)
        (folder / "tmp").mkdir()

    def attempt(self, words: list[object], disk: Disk | None = None) -> tuple[int, str]:
        """Run the command, on a disk that may fail."""
        environment = {"TRANSFER_CACHE": str(self.root / "cache")}
        with (
            mock.patch.dict(os.environ, environment),
            mock.patch.object(tempfile, "tempdir", str(self.root / "tmp")),
            mock.patch.object(loop, "_SAVE_SECONDS", 0.0),  # a checkpoint after every step
            disk.on() if disk else contextlib.nullcontext(),
        ):
            opening._temporary_folder.cache_clear()
            return transfer(*words)


def words_of(command: str, place: Place, few: Path, tiny: list[str]) -> list[object]:
    return {
        "features": ["features", few, "--out", place.out, "--exact", *tiny],
        "fit": ["fit", few, "--recipe", "partial", "--out", place.out, "--exact", *tiny]
        + [word for setting in ("min_steps=0", "epochs=1", "views=1") for word in ("--set", f"train.{setting}")],
        "export": ["export", place.earlier / "run", "--to", "timm", "--out", place.out],
        "report": ["report", place.earlier / "run"],
    }[command]


def outcome(command: str, place: Place) -> dict[str, str]:
    """Return the checksums of what a command made, without what holds times or the folder's name."""
    made = digests(place.earlier / "run" if command == "report" else place.out)
    if command == "report":
        assert (place.earlier / "run/report.html").read_text().rstrip().endswith("</html>")
    varying = ("run.json", "history.csv", "README.md", "report.html")
    return {name: sha for name, sha in made.items() if name not in varying and ".partial" not in name}


COMMANDS = ("features", "fit", "export", "report")
WITH_PAGE = ("suspects.csv", "near_duplicates.csv")


@pytest.fixture(scope="module")
def undisturbed(
    earlier: Path, few: Path, tiny: list[str], tmp_path_factory: pytest.TempPathFactory
) -> Callable[[str], tuple[list[str], dict[str, str]]]:
    """The operations of a command that nothing disturbs, and what it makes; counted once."""
    known: dict[str, tuple[list[str], dict[str, str]]] = {}

    def count(command: str) -> tuple[list[str], dict[str, str]]:
        if command not in known:
            place = Place(tmp_path_factory.mktemp("undisturbed"), earlier)
            disk = Disk(place.root)
            ended = place.attempt(words_of(command, place, few, tiny), disk)
            assert ended.code == 0, ended.said
            assert disk.elsewhere == []
            assert not list(place.root.rglob("*.partial"))
            known[command] = disk.operations, outcome(command, place)
        return known[command]

    return count


def holds(command: str, at: int, name: str, expected: dict[str, str], place: Place, words: list[object]) -> None:
    """Let operation `at` of a command fail, look at what is left, and run the command again."""
    before = digests(place.earlier)
    disk = Disk(place.root, at, name)
    code, said = place.attempt(words, disk)
    where = f"{name} at operation {at} of {command}, {disk.operations[at - 1]}: exit {code}, {said}"
    assert code in (0, 5), where
    assert "Traceback" not in said, where
    if code:
        line = said.splitlines()[-1]  # before it `report` may say how far it has come
        assert sum(text.startswith("transfer: ") for text in said.splitlines()) == 1, where
        assert line.startswith("transfer: Disk full" if name == "ENOSPC" else "transfer: Cannot write"), where
        told = Path(line.partition(" writing ")[2].partition(": ")[0])  # a later one, where the first is not needed
        kind, _, failed = disk.operations[at - 1].partition(" ")
        is_told = told.parent == Path(failed).parent or told in Path(failed).parents
        if name == "ENOSPC" and kind == "write" and is_told and ".partial/" not in line:
            assert " needs " in line, where
            assert " are free" in line, where
    after = {name: sha for name, sha in digests(place.earlier).items() if ".partial" not in name}
    if command == "report":  # the new page is there, or the old one; either is whole
        before["run/report.html"] = after["run/report.html"]
        outcome(command, place)
    assert before == after, where
    assert load_run(place.earlier / "run").head is not None
    check_features(place.earlier / "features")
    if not code or (command != "report" and place.out.exists()):
        has_page = "No report: " not in said  # the run is whole, and worth more than its page
        wanted = {name: sha for name, sha in expected.items() if has_page or name not in WITH_PAGE}
        made = outcome(command, place)
        assert {name: made[name] for name in made if has_page or name not in WITH_PAGE} == wanted, where
    shutil.rmtree(place.out, ignore_errors=True)
    with (  # the next start is another process, which finds this one dead
        mock.patch.object(files, "_owner", return_value=f"{files._host()}-1"),
        mock.patch.object(files, "_is_alive", lambda pid: pid == 1),
    ):
        again = place.attempt(words)
    assert again.code == 0, f"{where}, then {again.said}"
    assert "damaged" not in again.said
    assert outcome(command, place) == expected, where
    left = [path for path in place.root.rglob("*.partial") if "tmp" not in path.parts]
    assert not left, where


@pytest.mark.parametrize("command", COMMANDS)
def test_after_a_failed_write_earlier_artefacts_load_and_the_next_start_finishes(
    command: str, undisturbed: Callable, earlier: Path, few: Path, tiny: list[str], tmp_path: Path
) -> None:
    operations, expected = undisturbed(command)
    n = len(operations)
    for at, name in ((1, "EACCES"), (n // 2, "ENOSPC"), (n, "EIO")):
        place = Place(tmp_path / f"{at}", earlier)
        holds(command, at, name, expected, place, words_of(command, place, few, tiny))


@pytest.mark.slow
@pytest.mark.parametrize("command", COMMANDS)
def test_after_any_failed_write_earlier_artefacts_load_and_the_next_start_finishes(
    command: str, undisturbed: Callable, earlier: Path, few: Path, tiny: list[str], tmp_path: Path
) -> None:
    operations, expected = undisturbed(command)
    for at, name in zip(range(1, len(operations) + 1), itertools.cycle(ERRORS), strict=False):
        place = Place(tmp_path / f"{at}", earlier)
        holds(command, at, name, expected, place, words_of(command, place, few, tiny))
        shutil.rmtree(place.root)


def test_nothing_is_written_into_the_dataset(few: Path, tiny: list[str], earlier: Path, tmp_path: Path) -> None:
    before = digests(few)
    for command in COMMANDS:
        place = Place(tmp_path / command, earlier)
        disk = Disk(few)
        assert place.attempt(words_of(command, place, few, tiny), disk).code == 0
        assert disk.operations == [], command
    assert digests(few) == before


@pytest.mark.parametrize("command", ["features", "fit"])
def test_a_place_that_cannot_be_written_is_refused_before_the_images_are_looked_at(
    command: str, few: Path, tiny: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from transfer.features import exporting
    from transfer.strategies import preparing

    for module in (exporting, preparing):
        monkeypatch.setattr(module, "scan", None)
    (tmp_path / "file").write_text("in the way")
    ended = transfer(command, few, "--out", tmp_path / "file/below/out", *tiny)
    assert ended.code == 5
    assert "Cannot write" in ended.said


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of one megabyte."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = shutil.which("mount") and subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", folder], capture_output=True
    )
    if not mounted or mounted.returncode:
        pytest.skip("a disk of one megabyte cannot be mounted here, which takes root")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", folder], check=True)


def test_a_disk_that_is_really_full_is_said_with_what_is_needed_and_left_as_it_was(
    small_disk: Path, few: Path, tiny: list[str], tmp_path: Path
) -> None:
    (small_disk / "mine.txt").write_text("precious")
    fit = ["fit", few, "--recipe", "ridge", "--out", small_disk / "run", *tiny]
    ended = transfer(*fit)  # its model alone takes 2 MB
    assert ended.code == 5
    (line,) = ended.said.splitlines()
    assert line.startswith("transfer: Disk full while writing ")
    assert re.search(r": it needs 1\.5 MB, (1\.0 MB|\d+\.\d kB) are free\. Make room or choose another folder\.$", line)
    features = ["features", few, "--out", small_disk / "features", "--tap", "conv1", "--pool", "none", *tiny]
    ended = transfer(*features)
    assert ended.code == 5
    assert "Disk full" in ended.said
    assert [path.name for path in small_disk.rglob("*")] == ["mine.txt"]
    with mock.patch.dict(os.environ, {"TRANSFER_CACHE": str(small_disk / "cache")}):  # neither may a full cache harm
        ended = transfer(*features[:3], tmp_path / "features", *features[4:])
    assert ended.code == 5
    assert "Disk full" in ended.said
    assert not list(small_disk.rglob("*.partial"))
