"""The package as a whole: what ships, what imports what, what stays light."""

import ast
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "transfer"
# from the floor up; a module imports from its own tier or below, never from above
TIERS = [
    ["errors"],
    [
        "files",
        "progress",
        "display",
        "choice",
        "recipe",
        "metrics",
        "machine",
        "memos",
        "directions",
        "likeness",
        "plane",
        "novelty",
    ],
    ["dataset", "images", "cuts", "fusion"],
    ["backbones", "cache", "heads", "demo"],
    ["features", "curves", "suspects"],
    ["training", "predictions", "pictures", "saliency", "report", "exporting"],
    ["runs"],
    ["strategies"],
    ["comparison", "estimators"],
    ["cli"],
]


def imports_of(path: Path) -> set[str]:
    """Return the modules of this package that a file imports, also inside functions."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "transfer":
            parts = node.module.split(".")
            found |= {parts[1]} if len(parts) > 1 else {alias.name for alias in node.names}
        elif isinstance(node, ast.Import):
            found |= {alias.name.split(".")[1] for alias in node.names if alias.name.startswith("transfer.")}
    return found


def modules() -> dict[str, list[Path]]:
    named = {path.stem: [path] for path in PACKAGE.glob("*.py") if path.stem != "__init__"}
    return named | {path.parent.name: sorted(path.parent.glob("*.py")) for path in PACKAGE.glob("*/__init__.py")}


def test_every_module_has_its_place() -> None:
    assert set(modules()) == {name for tier in TIERS for name in tier}


def test_imports_point_down() -> None:
    tier_of = {name: i for i, tier in enumerate(TIERS) for name in tier}
    for name, files in modules().items():
        for other in set().union(*map(imports_of, files)) & set(tier_of):
            assert tier_of[other] <= tier_of[name], f"{name} imports {other}"


def test_the_first_line_of_every_module_says_what_it_is() -> None:
    for files in modules().values():
        for path in files:
            assert ast.get_docstring(ast.parse(path.read_text())), path


def test_a_command_stands_in_the_module_of_its_name() -> None:
    from transfer.cli import cli

    for name, command in cli.commands.items():
        assert command.callback.__module__ == f"transfer.cli.{name.replace('-', '_')}"


def test_importing_the_package_loads_nothing_heavy() -> None:
    code = (
        "import transfer, sys; dir(transfer); print(sorted({'torch', 'timm', 'sklearn', 'numpy'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"


def test_every_public_name_is_there() -> None:
    import transfer

    assert set(transfer.__all__) == set(transfer._HOME)
    for name in transfer.__all__:
        assert getattr(transfer, name).__doc__


def test_all_packages_are_named_for_the_wheel() -> None:
    tomllib = pytest.importorskip("tomllib")  # Python 3.11 or newer
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]
    folders = {"transfer", *(f"transfer.{path.parent.name}" for path in PACKAGE.glob("*/__init__.py"))}
    assert set(settings["packages"]) == folders | {"transfer.recipes"}


@pytest.mark.slow
def test_the_wheel_carries_the_recipes_and_tables(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "pip", "wheel", "--no-deps", "-q", "-w", str(tmp_path), str(ROOT)]
    subprocess.run(command, check=True, cwd=tmp_path)
    names = zipfile.ZipFile(next(tmp_path.glob("*.whl"))).namelist()
    assert "transfer/recipes/linear-svm.yaml" in names
    assert "transfer/dataset/__init__.py" in names
    assert "transfer/backbones/sizes.csv" in names
    assert {"transfer/report/page.html.j2", "transfer/report/page.css"} <= set(names)
    assert not [name for name in names if name.startswith(("tests", "bench"))]


def test_the_readme_is_short_and_its_commands_exist() -> None:
    from transfer.cli import cli

    text = (ROOT / "README.md").read_text()
    assert len(text.splitlines()) <= 150
    shown = {line.split()[1] for line in text.splitlines() if line.strip().startswith("transfer ")}
    assert shown <= set(cli.commands)
    assert {"fit", "predict", "features", "evaluate", "inspect"} <= shown
