import json
import re
import shutil
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

NOTEBOOKS = sorted((Path(__file__).resolve().parents[1] / "notebooks").glob("*.ipynb"))
_ABSOLUTE = re.compile(r"(?<![\w./<])(?:/(?:home|root|tmp|work|usr|opt|var|Users|private|mnt|data)/|[A-Z]:\\\\)")


def outputs_of(notebook: dict[str, Any]) -> list[dict[str, Any]]:
    return [output for cell in notebook["cells"] if cell["cell_type"] == "code" for output in cell["outputs"]]


def text_of(notebook: dict[str, Any]) -> str:
    """Everything that the outputs say, without pictures."""
    said = []
    for output in outputs_of(notebook):
        parts = [output.get("text", "")]
        parts += [value for kind, value in output.get("data", {}).items() if kind.startswith("text/")]
        said += ["".join(part) for part in parts]
    return "\n".join(said)


@pytest.fixture(params=NOTEBOOKS, ids=lambda path: path.stem)
def committed(request: pytest.FixtureRequest) -> Path:
    return request.param


def test_all_notebooks_are_there() -> None:
    assert [path.stem for path in NOTEBOOKS] == [
        "01_first_model",
        "02_features_and_svm",
        "03_how_much_to_train",
        "04_from_notebook_to_production",
    ]


def test_a_committed_notebook_was_run_from_top_to_bottom_without_an_error(committed: Path) -> None:
    notebook = json.loads(committed.read_text(encoding="utf-8"))
    counts = [cell["execution_count"] for cell in notebook["cells"] if cell["cell_type"] == "code"]
    assert counts == list(range(1, len(counts) + 1))
    kinds = {output["output_type"] for output in outputs_of(notebook)}
    assert {"stream", "display_data", "execute_result"} <= kinds
    assert "error" not in kinds
    assert not [output for output in outputs_of(notebook) if output.get("name") == "stderr"]
    assert "\x1b" not in text_of(notebook)


def test_a_committed_notebook_is_small_and_knows_nothing_of_the_machine_it_ran_on(committed: Path) -> None:
    assert committed.stat().st_size < 1_000_000
    text = committed.read_text(encoding="utf-8")
    without_pictures = re.sub(r'"image/png": "[^"]*"', "", text)
    assert not _ABSOLUTE.search(without_pictures)
    assert set(json.loads(text)["metadata"]) <= {"kernelspec", "language_info"}


@pytest.mark.parametrize(
    "text", ["see /home/me/x.png", '"/tmp/a"', r"C:\\Users\\me", "'/work/main/a'", "at /root/.cache/x"]
)
def test_a_path_of_a_machine_would_be_noticed(text: str) -> None:
    assert _ABSOLUTE.search(text)


@pytest.mark.parametrize("text", ["work/digits/0/1.png", "./tmp/a", "https://x.org/data/y", "</data/>"])
def test_a_relative_path_is_none(text: str) -> None:
    assert not _ABSOLUTE.search(text)


@pytest.fixture(scope="module")
def few_digits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """15 digits of each class, as a user's own folder with names of its own."""
    from sklearn.datasets import load_digits

    root = tmp_path_factory.mktemp("few") / "my digits"
    digits = load_digits()
    for label in range(10):
        (root / f"<{label}> & so").mkdir(parents=True)
        for i in np.flatnonzero(digits.target == label)[:15]:
            grey = Image.fromarray((255 - digits.images[i] * 255 / 16).astype(np.uint8))
            grey.resize((32, 32)).save(root / f"<{label}> & so" / f"{i:04d}.png")
    return root


@pytest.mark.slow
def test_the_first_notebook_runs_on_a_folder_of_ones_own(few_digits: Path, tmp_path: Path) -> None:
    notebook = execute(NOTEBOOKS[0], tmp_path, f"DATA = {str(few_digits)!r}")
    said = text_of(notebook)
    assert "150 images of 10 classes" in said
    assert "Extracting features: 150/150 images" in said
    assert re.search(r"[\d.]+% of \d+ test pictures are right \(95 % interval: [\d.]+% to [\d.]+%\)", said)
    assert re.search(r"\d+ mistakes in \d+ test pictures", said)
    assert "&lt;3&gt; &amp; so" in said
    assert "<3> & so</td>" not in said
    assert re.search(r"linear-svm: [\d.]+% on average", said)
    assert "config.json" in said
    assert said.rstrip().endswith("True")
    n_pictures = sum("image/png" in output.get("data", {}) for output in outputs_of(notebook))
    assert n_pictures >= 1
    assert (tmp_path / "work/run/model.safetensors").is_file()
    shutil.rmtree(tmp_path / "work")


@pytest.mark.slow
def test_the_second_notebook_fits_an_svm_by_hand_that_does_as_well_as_the_recipe(
    few_digits: Path, tmp_path: Path
) -> None:
    said = text_of(execute(NOTEBOOKS[1], tmp_path, f"DATA = {str(few_digits)!r}"))
    assert "120 pictures to learn from, 30 to count on" in said
    assert "True True" in said  # extract_features gives what export_features wrote
    accuracy = {
        name: float(share) for name, share in re.findall(r"^([\w. ]+?) +\d+ numbers .* ([\d.]+)% right", said, re.M)
    }
    assert list(accuracy) == ["features", "pixels", "blocks.1", "blocks.3", "blocks.5", "by hand"]
    assert accuracy["features"] > max(60, accuracy["blocks.1"])
    (recipe,) = re.findall(r"transfer.fit on the same pictures: ([\d.]+)% right", said)
    assert abs(accuracy["by hand"] - float(recipe)) < 15
    features = np.load(tmp_path / "work/features/blocks.3.npy")
    assert features.shape == (150, 80)
    assert (np.bincount(np.load(tmp_path / "work/features/labels.npy")) == 15).all()


@pytest.mark.slow
def test_the_third_notebook_trains_all_recipes_on_parts_of_the_same_images(few_digits: Path, tmp_path: Path) -> None:
    parameters = f"DATA = {str(few_digits)!r}\nPER_CLASS = [2, 4]\nSTEPS = 4\nSIZE = 32"
    notebook = execute(NOTEBOOKS[2], tmp_path, parameters)
    said = text_of(notebook)
    accuracy = re.findall(r"^([\w-]+) +(\d) per class: +([\d.]+)% in \d+ s$", said, re.M)
    assert [row[:2] for row in accuracy] == [(r, n) for n in "24" for r in ("linear-svm", "partial", "full")]
    assert min(float(row[2]) for row in accuracy) > 10  # what guessing gives
    assert re.search(r"\d+ test pictures, the same in every row", said)
    tested = set()
    for recipe in ("linear-svm", "partial", "full"):
        for n in (2, 4):
            split = (tmp_path / f"work/how-much/{recipe}-{n}/split.csv").read_text(encoding="utf-8").splitlines()
            assert sum(",train," in row for row in split) == 10 * n
            tested.add(tuple(row for row in split if ",test," in row))
    assert len(tested) == 1
    assert sum("image/png" in output.get("data", {}) for output in outputs_of(notebook)) == 1


@pytest.mark.slow
def test_the_fourth_notebook_predicts_from_the_exported_file_and_knows_strange_pictures(
    few_digits: Path, tmp_path: Path
) -> None:
    pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    said = text_of(execute(NOTEBOOKS[3], tmp_path, f"DATA = {str(few_digits)!r}"))
    (agree, n) = re.findall(r"(\d+) of (\d+) pictures have the same class", said)[0]
    assert agree == n == "32"
    pairs = re.findall(r"the file says (.*) \(([\d.]+)%\), the run (.*) \(([\d.]+)%\)", said)
    assert len(pairs) == 6
    for by_file, p, by_run, probability in pairs:
        assert by_file == by_run
        assert abs(float(p) - float(probability)) < 1
    (known,) = re.findall(r"([\d.]+)% of \d+ test pictures are called unknown", said)
    assert float(known) < 40
    assert "4 of 4 are called unknown" in said
    assert (tmp_path / "work/production/onnx-with-preprocessing/model.onnx").is_file()


def execute(path: Path, folder: Path, parameters: str) -> dict[str, Any]:
    """Run a notebook in `folder` with other parameters and return it; an error in a cell is raised."""
    with warnings.catch_warnings():  # of jupyter's own making, and different in each of its versions
        warnings.simplefilter("ignore")
        import nbformat
        from nbclient import NotebookClient

        notebook = nbformat.read(path, as_version=4)
        tagged = [cell for cell in notebook.cells if "parameters" in cell.metadata.get("tags", [])]
        assert len(tagged) == 1
        tagged[0].source = parameters
        resources = {"metadata": {"path": str(folder)}}
        client = NotebookClient(notebook, timeout=300, kernel_name="python3", resources=resources)
        return client.execute()
