import html.parser
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import transfer
from transfer.display import table
from transfer.features import Features
from transfer.predictions import Predictions
from transfer.runs import Run

HOSTILE = "<script>alert(1)"  # a closing tag holds a slash, which no file name can


class Tags(html.parser.HTMLParser):
    """The tags of a page, and its text."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.text = ""
        self.feed(page)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        assert not attributes

    def handle_data(self, data: str) -> None:
        self.text += data + "\n"


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("data") / "<b>"
    for name in (HOSTILE, "a&b\x1b[31m"):
        (root / name).mkdir(parents=True)
        for i in range(6):
            Image.fromarray(np.full((8, 8, 3), 20 * i, np.uint8)).save(root / name / f"<img{i}>.png")
    (root / HOSTILE / "notes.txt").write_text("no image")
    return root


def run_of(tmp_path: Path, classes: tuple[str, ...]) -> Run:
    """A run as it is shown, without its model."""
    from transfer import metrics
    from transfer.files import write_json

    scores = metrics.evaluate(np.eye(len(classes)), np.arange(len(classes)), classes)
    write_json(tmp_path / "metrics.json", {"test": scores, "trust": "cross_validation: <i>"})
    return Run(tmp_path, {"classes": list(classes)})


def test_a_dataset_shows_its_counts_and_no_tags_of_its_names(hostile: Path) -> None:
    dataset = transfer.scan(hostile)
    shown = Tags(dataset._repr_html_())
    assert shown.tags == {"div", "table", "tr", "th", "td"}
    assert HOSTILE in shown.text
    assert "a&b\\x1b[31m" in shown.text
    assert "12 images of 2 classes" in shown.text
    assert "0 unreadable and 1 ignored of 13 files" in shown.text
    assert repr(dataset) == "Dataset('<b>': 12 images of 2 classes)"


def test_a_dataset_with_parts_counts_each(shapes: Path) -> None:
    found = transfer.scan(shapes)
    parts = np.array((["train"] * 15 + ["test"] * 5) * 3)
    import dataclasses

    page = dataclasses.replace(found, parts=parts)._repr_html_()
    assert "<tr><th>class</th><th>images</th><th>train</th><th>test</th></tr>" in page
    assert page.count("<td>20</td><td>15</td><td>5</td>") == 3


def test_features_show_their_counts_and_no_tags_of_their_names(hostile: Path) -> None:
    dataset = transfer.scan(hostile)
    X = np.zeros((12, 4), np.float32)
    features = Features(X, dataset.labels, dataset.paths, dataset.classes, dataset, "test_resnet", "features")
    shown = Tags(features._repr_html_())
    assert shown.tags == {"div", "table", "tr", "th", "td"}
    assert HOSTILE in shown.text
    assert "12 images x (4,) at 'features'" in shown.text


def test_predictions_show_the_two_best_classes_and_what_cannot_be_read() -> None:
    rows = np.array([[0.9, 0.1], [0.25, 0.75]])
    predictions = Predictions(["<a>.png", "b.png"], (HOSTILE, "cat"), rows, [("<i>.png", "not an image")])
    shown = Tags(predictions._repr_html_())
    assert shown.tags == {"div", "table", "tr", "th", "td"}
    assert f"<a>.png\n{HOSTILE}\n90.0%\ncat\n10.0%" in shown.text
    assert f"b.png\ncat\n75.0%\n{HOSTILE}\n25.0%" in shown.text
    assert "<i>.png: not an image" in shown.text
    assert repr(predictions) == "Predictions(2 images, 1 unreadable, 2 classes)"


def test_predictions_of_nothing_are_an_empty_table() -> None:
    page = Predictions([], ("cat", "dog"), np.zeros((0, 2)), [])._repr_html_()
    assert "<td>" not in page


def test_a_run_shows_its_answer_for_each_class(tmp_path: Path) -> None:
    run = run_of(tmp_path, (HOSTILE, "cat"))
    shown = Tags(run._repr_html_())
    assert shown.tags == {"div", "table", "tr", "th", "td"}
    assert run.summary in shown.text
    assert f"{HOSTILE}\n1\n100.0%\n20.7%\n100.0%" in shown.text
    assert "Trust cross_validation: <i>" in shown.text


def test_a_class_without_test_images_has_an_empty_row(tmp_path: Path) -> None:
    from transfer import metrics
    from transfer.files import write_json

    scores = metrics.evaluate(np.array([[0.9, 0.1]]), np.array([0]), ("cat", "dog"))
    write_json(tmp_path / "metrics.json", {"test": scores})
    page = Run(tmp_path, {"classes": ["cat", "dog"]})._repr_html_()
    assert "<tr><td>dog</td><td>0</td><td></td><td></td><td></td></tr>" in page


def test_a_long_table_says_how_much_it_leaves_out() -> None:
    page = table(["row"], ([i] for i in range(60)))
    assert page.count("<td>") == 50
    assert "... and 10 more rows" in page
