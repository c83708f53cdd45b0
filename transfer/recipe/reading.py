"""Reading: recipes by name and from YAML files; loaded, checked, copied, written."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ValidationError

from transfer.errors import UsageError, did_you_mean
from transfer.files import write_text
from transfer.recipe.explaining import explain
from transfer.recipe.settings import DEFAULT, PLAIN_HEAD, SEEN, Recipe

if TYPE_CHECKING:
    from yaml import Node

_PACKAGE = Path(__file__).parents[1]
# in the wheel the recipes are inside the package, in a checkout beside it
_FOLDERS = (_PACKAGE / "recipes", _PACKAGE.parent / "recipes")
_ENDS = (".yaml", ".yml")


def load_recipe(name: str | Path | None = None, settings: Sequence[str] = (), **changes: Any) -> Recipe:
    """Return a recipe by name or from a YAML file, with changes on top.

    Parameters
    ----------
    name
        A named recipe, or the path of a YAML file; by default ``auto``, but ``partial`` where a cut is asked for, and
        ``linear-svm`` where something is that only a frozen network has, such as other taps or views.
    settings
        Changes as text, ``head.folds=3``, the later ones winning.
    changes
        Changes by top-level field; those that are None are left out.

    Raises
    ------
    UsageError
        There is no such recipe, or a key or value in it is wrong; the message says which and names the nearest key.
    """
    path = find_recipe(str(name or _default(settings, changes)))
    values = _read_yaml(_read(path), str(path))
    if not isinstance(values, dict):
        raise UsageError(f"Recipe {path} should be a list of `key: value` lines.")
    values.update({key: value for key, value in changes.items() if value is not None})
    for setting in settings:
        _apply(values, setting)
    try:
        return Recipe.model_validate(values)
    except ValidationError as error:
        words = "; ".join(problem.words for problem in explain(error))
        raise UsageError(f"Recipe {path.name}: {words}") from None


def check_recipe(path: str | Path) -> list[str]:
    """Return everything that is wrong with a recipe's settings, each with its line; none if it is sound.

    Raises
    ------
    UsageError
        There is no such file, or it is not YAML: nothing else can be said of it then.
    """
    import yaml

    path = find_recipe(str(path))
    text = _read(path)
    values = _read_yaml(text, str(path))
    if not isinstance(values, dict):
        return ["it should be a list of `key: value` lines"]
    root = yaml.compose(text, Loader=yaml.SafeLoader)
    try:
        Recipe.model_validate(values)
    except ValidationError as error:
        return [f"{_line(root, problem.where)}{problem.words}" for problem in explain(error)]
    return []


def copy_recipe(name: str, path: str | Path) -> None:
    """Write a named recipe, comments and all, as a file to change. A file that is there is not touched.

    Raises
    ------
    UsageError
        There is no recipe of that name, the path does not end in .yaml, or something is there already.
    """
    target = Path(path)
    if target.suffix not in _ENDS:
        raise UsageError(f"{path} should end in .yaml, so that `--recipe {path}.yaml` finds it.")
    text = _read(find_recipe(name))
    if target.exists():
        raise UsageError(f"{path} exists. Choose another name, or delete it first.")
    write_text(target, text)


def _default(settings: Sequence[str], changes: dict[str, Any]) -> str:
    """Return the recipe that is meant where none is named."""
    asked = {setting.partition("=")[0] for setting in settings}
    for key, value in changes.items():
        inner = value.model_dump(exclude_unset=True) if isinstance(value, BaseModel) else value
        if inner is not None:
            asked |= {f"{key}.{name}" for name in inner} if isinstance(inner, dict) else {key}
    if "cut" in asked:
        return "partial"
    seen = {f"features.{name}" for name in SEEN}
    is_of_frozen = any(key.startswith("features.") and key not in seen for key in asked)
    head = any(key.startswith("head.") and key.removeprefix("head.") in PLAIN_HEAD for key in asked)
    return "linear-svm" if "tap" in asked or is_of_frozen or head else DEFAULT


def find_recipe(name: str) -> Path:
    """Return the file of a named recipe, or `name` itself where it is a YAML file."""
    named = recipe_files()
    if name in named:
        return named[name]
    path = Path(name)
    if path.suffix in _ENDS or path.parent != Path():
        if path.is_file():
            return path
        raise UsageError(f"No recipe file {name}. `transfer recipes` lists the named ones.")
    raise UsageError(f"Unknown recipe {name!r}.{did_you_mean(name, named)} `transfer recipes` lists all.")


def recipe_files() -> dict[str, Path]:
    """Return the named recipes and their files, sorted by name."""
    for folder in _FOLDERS:
        if files := sorted(folder.glob("*.yaml")):
            return {path.stem: path for path in files}
    return {}


def describe_recipe(path: Path) -> str:
    """Return the purpose of a recipe: the first line of its head comment."""
    first = path.read_text(encoding="utf-8").partition("\n")[0]
    return first.lstrip("# ").rstrip()


def dump_recipe(recipe: Recipe) -> str:
    """Return a recipe as YAML with every default written out."""
    import yaml

    return yaml.safe_dump(recipe.model_dump(mode="json"), sort_keys=False, allow_unicode=True)


def _apply(values: dict[str, Any], setting: str) -> None:
    key, equals, text = setting.partition("=")
    if not equals or not key:
        raise UsageError(f"--set {setting!r} should read key=value, for example head.folds=3.")
    *parents, last = key.split(".")
    for parent in parents:
        inner = values.setdefault(parent, {})
        if not isinstance(inner, dict):
            raise UsageError(f"--set {setting!r}: {parent!r} is a single value and has no {last!r} in it.")
        values = inner
    values[last] = _read_yaml(text, f"--set {setting!r}")


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"Cannot read recipe {path}: {error}.") from None


def _read_yaml(text: str, where: str) -> Any:
    """Read plain values; of a key that stands twice YAML would keep the last, in silence."""
    import yaml

    try:
        root = yaml.compose(text, Loader=yaml.SafeLoader)
        for key, first, second in _repeated(root):
            raise UsageError(f"{where}: {key!r} stands twice, in lines {first} and {second}. Keep one of them.")
        return yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise UsageError(f"{where} is not valid YAML: {' '.join(str(error).split())}") from None
    except RecursionError:
        raise UsageError(f"{where} is not a recipe: its values are nested too deeply.") from None


def _repeated(root: Node | None) -> Iterator[tuple[str, int, int]]:
    """Yield the keys that stand twice in one place, with both lines."""
    import yaml

    seen: set[int] = set()  # an alias stands for a node that was there before
    waiting = [root]
    while waiting:
        node = waiting.pop()
        if not isinstance(node, yaml.MappingNode) or id(node) in seen:
            continue
        seen.add(id(node))
        lines: dict[str, int] = {}
        for key, value in node.value:
            name, line = str(key.value), key.start_mark.line + 1
            if name in lines:
                yield name, lines[name], line
            lines[name] = line
            waiting.append(value)


def _line(node: Node | None, where: Sequence[str]) -> str:
    """Return the line of a setting as words before its problem; empty where it stands in none."""
    import yaml

    line = None
    for part in where:
        inner = node.value if isinstance(node, yaml.MappingNode) else []
        found = next(((key, value) for key, value in inner if key.value == part), None)
        if found is None:
            break
        line, node = found[0].start_mark.line + 1, found[1]
    return f"line {line}: " if line else ""
