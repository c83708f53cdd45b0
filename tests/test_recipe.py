from pathlib import Path

import pytest

from transfer.errors import UsageError
from transfer.recipe import Recipe, dump_recipe, find_recipe, load_recipe, recipe_files


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
    ],
)
def test_a_wrong_setting_is_one_line_that_names_it(settings: list[str], message: str) -> None:
    with pytest.raises(UsageError, match=None) as caught:
        load_recipe("linear-svm", settings)
    assert any(part in str(caught.value) for part in message.split("|"))
    assert "\n" not in str(caught.value)


def test_an_unknown_recipe_names_the_nearest() -> None:
    with pytest.raises(UsageError, match="Did you mean 'linear-svm'"):
        load_recipe("linear_svm")


def test_yaml_tags_run_nothing(tmp_path: Path) -> None:
    (tmp_path / "evil.yaml").write_text("strategy: !!python/object/apply:os.system ['touch hacked']\n")
    with pytest.raises(UsageError, match="not valid YAML"):
        load_recipe(tmp_path / "evil.yaml")
    assert not Path("hacked").exists()
