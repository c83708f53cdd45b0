from pathlib import Path

import pytest

from transfer.errors import UsageError
from transfer.recipe import (
    Recipe,
    check_recipe,
    copy_recipe,
    dump_recipe,
    find_recipe,
    load_recipe,
    recipe_files,
)


@pytest.mark.parametrize("name", sorted(recipe_files()))
def test_every_named_recipe_loads_and_says_what_it_is_for(name: str) -> None:
    text = find_recipe(name).read_text()
    assert load_recipe(name).strategy in text
    assert text.startswith("# ")


def test_a_recipe_survives_writing_and_reading(tmp_path: Path) -> None:
    recipe = load_recipe("linear-svm", ["head.folds=3", "seed=7", "head.grid=[0.1, 1e-3]"], backbone="resnet18")
    (tmp_path / "again.yaml").write_text(dump_recipe(recipe))
    assert load_recipe(tmp_path / "again.yaml") == recipe
    assert recipe.head.folds == 3
    assert recipe.head.grid == [0.1, 0.001]  # YAML reads 1e-3 as text


def test_every_default_is_written_out() -> None:
    text = dump_recipe(Recipe())
    assert all(f"{field}:" in text for field in Recipe.model_fields)
    assert "max_bad_share: 0.05" in text


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (["head.fold=3"], "unknown key 'head.fold'. Did you mean 'folds'?"),
        (["bakbone=resnet18"], "unknown key 'bakbone'. Did you mean 'backbone'?"),
        (["head.folds=many"], "head.folds is 'many'"),
        (["strategy=svm"], "strategy is 'svm'"),
        (["seed.x=1"], "unknown key|seed is"),
        (["seed"], "should read key=value"),
        (["head=[1"], "not valid YAML"),
        (["head.grid=[]"], "head.grid is []"),
        (["head.grid=[1, -1]"], "head.grid.1 is -1"),
        (["head.grid=[.inf]"], "head.grid.0 is inf"),
        (["head.grid={high: 1, n: 3}"], "Recipe linear-svm.yaml: head.grid.low is missing"),
        (["head={folds:3}"], "Recipe linear-svm.yaml: put a blank after the colon in 'head.folds:3'"),
    ],
)
def test_a_wrong_setting_is_one_line_that_names_it(settings: list[str], message: str) -> None:
    with pytest.raises(UsageError, match=None) as caught:
        load_recipe("linear-svm", settings)
    assert any(part in str(caught.value) for part in message.split("|"))
    assert "\n" not in str(caught.value)


def test_keys_without_a_blank_after_the_colon_are_what_is_wrong_and_nothing_else() -> None:
    with pytest.raises(UsageError) as caught:
        load_recipe("linear-svm", ["head.grid={low:1,high:0.1,n:3}"])
    assert str(caught.value).count("put a blank after the colon") == 3
    assert "missing" not in str(caught.value)


def test_an_unknown_recipe_names_the_nearest() -> None:
    with pytest.raises(UsageError, match="Did you mean 'linear-svm'"):
        load_recipe("linear_svm")


def test_yaml_tags_run_nothing(tmp_path: Path) -> None:
    (tmp_path / "evil.yaml").write_text("strategy: !!python/object/apply:os.system ['touch hacked']\n")
    with pytest.raises(UsageError, match="not valid YAML"):
        load_recipe(tmp_path / "evil.yaml")
    assert not Path("hacked").exists()


def test_a_key_that_stands_twice_is_refused(tmp_path: Path) -> None:
    (tmp_path / "twice.yaml").write_text("strategy: ridge\nhead:\n  folds: 3\n  rule: best\n  folds: 4\n")
    with pytest.raises(UsageError, match="'folds' stands twice, in lines 3 and 5"):
        load_recipe(tmp_path / "twice.yaml")


def test_a_bomb_of_aliases_is_refused_at_once_and_in_few_words(tmp_path: Path) -> None:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]" for i in range(1, 12)]
    (tmp_path / "bomb.yaml").write_text("\n".join([*lines, "seed: *a11", "strategy: ridge"]))
    with pytest.raises(UsageError, match="seed is") as caught:
        load_recipe(tmp_path / "bomb.yaml")
    assert len(str(caught.value)) < 10_000


def test_a_check_says_everything_at_once_each_with_its_line(tmp_path: Path) -> None:
    text = "# mine\nstrategy: ridge\nhead:\n  folds: 1\n  fold: 3\nsede: 1\n"
    (tmp_path / "mine.yaml").write_text(text)
    problems = check_recipe(tmp_path / "mine.yaml")
    assert [problem.partition(":")[0] for problem in problems] == ["line 4", "line 5", "line 6"]
    assert "Did you mean 'folds'?" in problems[1]
    (tmp_path / "mine.yaml").write_text("strategy: ridge\ncut: stages.2\ntrain: {epochs: 3}\ntap: []\n")
    assert len(check_recipe(tmp_path / "mine.yaml")) == 3  # that do not go together


@pytest.mark.parametrize("name", sorted(recipe_files()))
def test_a_copy_of_a_named_recipe_is_sound(name: str, tmp_path: Path) -> None:
    copy_recipe(name, tmp_path / "mine.yaml")
    assert check_recipe(tmp_path / "mine.yaml") == []
    assert load_recipe(tmp_path / "mine.yaml") == load_recipe(name)


def test_a_copy_never_replaces_a_file(tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text("mine")
    with pytest.raises(UsageError, match="exists"):
        copy_recipe("partial", tmp_path / "mine.yaml")
    with pytest.raises(UsageError, match="end in .yaml"):
        copy_recipe("partial", tmp_path / "mine")
    assert (tmp_path / "mine.yaml").read_text() == "mine"
