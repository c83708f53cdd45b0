import csv
import dataclasses
import json
import re
import shutil
import subprocess
import sys
from html import escape
from html.parser import HTMLParser
from pathlib import Path

import matplotlib
import numpy as np
import pytest
from PIL import Image

import transfer
from transfer import cli, metrics
from transfer.comparison.pages import render_comparison
from transfer.comparison.results import Result, read_result
from transfer.comparison.tables import describe, tabulate
from transfer.errors import ArtefactError, UsageError
from transfer.report.predictions import least_sure, read_predictions
from transfer.report.reproduction import command, shell_word
from transfer.report.rows import Rows
from transfer.strategies import write_page

QUICK = ["train.min_steps=0", "train.epochs=3", "train.batch_size=16", "train.augment=none"]
HOSTILE = [
    "<script>alert(1)<",
    '"><img src=x onerror=alert(1)>',
    "a$b$",
    "\u05e9\u05dc\u05d5\u05dd",
    "long" * 60,
    "two\nlines",
    "=1+1",
    "{{ 7 * 7 }}",
]


class Page(HTMLParser):
    """What a browser would find in a page: its tags, with attributes, and its text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data

    @property
    def sections(self) -> list[str]:
        return [attributes["id"] or "" for tag, attributes in self.tags if tag in ("header", "section")]

    @property
    def pictures(self) -> int:
        return sum(tag == "img" for tag, _ in self.tags)


def assert_needs_nothing_but_itself(page: Page) -> None:
    allowed = "default-src 'none'; style-src 'unsafe-inline'; img-src data:; base-uri 'none'; form-action 'none'"
    assert ("meta", {"http-equiv": "Content-Security-Policy", "content": allowed}) in page.tags
    names = {tag for tag, _ in page.tags}
    assert not names & {"script", "link", "iframe", "object", "embed", "base", "form"}
    for tag, attributes in page.tags:
        assert not [name for name in attributes if name.startswith("on")], (tag, attributes)
        for name in {"src", "href", "xlink:href"} & attributes.keys():
            allowed = {"img": "data:image/jpeg;base64,", "image": "data:image/png;base64,"}.get(tag, "#")
            assert (attributes[name] or "").startswith(allowed)


@pytest.fixture(scope="module")
def run(shapes: Path, weights: Path, tmp_path_factory: pytest.TempPathFactory) -> transfer.Run:
    out = tmp_path_factory.mktemp("runs") / "shapes"
    return transfer.fit(
        shapes, "linear-svm", out=out, backbone="test_resnet", weights=str(weights), exact=True, quiet=True
    )


@pytest.fixture
def copied(run: transfer.Run, tmp_path: Path) -> transfer.Run:
    """The run in a folder of its own, to be changed."""
    return transfer.load_run(shutil.copytree(run.path, tmp_path / "run"))


def read(report: transfer.report.Report) -> Page:
    return Page(report.path.read_text(encoding="utf-8"))


def test_a_report_has_its_sections_in_order(run: transfer.Run, tmp_path: Path) -> None:
    page = read(transfer.write_report(run, tmp_path / "page.html"))
    mistakes = ["mistakes"] * (run.metrics["test"]["accuracy"] < 1)
    assert page.sections == [
        *("answer", "classes", "confusions", *mistakes, "unsure", "reliability", "suspects", "data", "alike", "map"),
        *("learning", "looks", "made"),
    ]
    shown = page.text.replace("\u202f", "")
    assert f"{run.metrics['test']['accuracy']:.1%} of {run.metrics['test']['n']} test images" in shown
    assert f"{run.metrics['cross_validation']['accuracy']:.1%}" in shown  # which is to be trusted more
    for told in (run.info["weights"]["sha256"], run.info["data"]["fingerprint"], "strategy: linear-svm", *run.classes):
        assert told in page.text
    n_shown = min(24, run.metrics["test"]["n"])
    assert page.pictures >= n_shown
    assert_needs_nothing_but_itself(page)


def test_a_report_names_no_address(run: transfer.Run, tmp_path: Path) -> None:
    assert "://" not in transfer.write_report(run, tmp_path / "page.html").path.read_text(encoding="utf-8")


def test_trained_layers_have_curves_and_a_choice_its_arms(
    shapes: Path, weights: Path, tmp_path: Path, copied: transfer.Run
) -> None:
    settings = {"backbone": "test_resnet", "weights": str(weights), "exact": True, "quiet": True}
    trained = transfer.fit(shapes, "partial", out=tmp_path / "partial", settings=QUICK, **settings)
    arm = {"recipe": "", "n_judged": 40, "judged_on": "val", "seconds": 1.5, "gap": None, "standard_error": None}
    arms = [
        {**arm, "name": "linear-svm", "accuracy": 0.8, "interval": [0.7, 0.9], "outcome": "the best linear head"},
        {**arm, "name": "a$b$ <i>", "accuracy": 0.9, "interval": [0.8, 0.95], "gap": 0.1, "outcome": "chosen"},
        {**arm, "name": "full", "accuracy": None, "interval": None, "outcome": "not tried"},
    ]
    y = np.repeat([0, 1], 32)
    X = np.random.default_rng(0).normal(size=(64, 8)) + y[:, None]
    choice = {
        "chosen": "a$b$ <i>",
        "reason": "It is <better>.",
        "size": {},
        "arms": arms,
        "taps": None,
        "curve": transfer.measure_curve(X, y, 2).to_dict(),
        "budget": {},
    }
    (trained.path / "choice.json").write_text(json.dumps(choice))
    page = read(trained.report)
    assert page.sections[:3] == ["answer", "choice", "training"]
    assert "It is <better>." in page.text
    assert page.text.count("a$b$ <i>") == 2  # in the figure and in the table
    assert sum(tag == "svg" for tag, _ in page.tags) == 6  # arms, training twice, reliability, map, curve
    assert "With twice the images" in page.text
    ids = [attributes["id"] for _, attributes in page.tags if "id" in attributes]
    assert len(ids) == len(set(ids))
    assert_needs_nothing_but_itself(page)


def test_names_of_classes_are_text_whatever_they_are(weights: Path, shapes: Path, tmp_path: Path) -> None:
    pictures = sorted(shapes.glob("*/*.png"))
    for i, name in enumerate(HOSTILE):
        (tmp_path / "<b>data" / name).mkdir(parents=True)
        for j in range(7):
            shutil.copy(pictures[7 * i + j], tmp_path / "<b>data" / name / f"<i>{j}$x$.png")
    settings = {"backbone": "test_resnet", "weights": str(weights), "exact": True, "quiet": True}
    hostile = transfer.fit(tmp_path / "<b>data", "linear-svm", out=tmp_path / "run", **settings)
    page = read(hostile.report)
    assert_needs_nothing_but_itself(page)
    assert not {"b", "i"} & {tag for tag, attributes in page.tags if not attributes.get("style")}
    for name in HOSTILE:
        shown = name.replace("\n", "\\n")
        assert shown in page.text
        assert ("bdi", {"class": "name", "title": shown}) in page.tags
    assert page.pictures > hostile.metrics["test"]["n"]
    # also those below a name that is stored with an apostrophe
    assert "gone" not in {attributes.get("class") for _, attributes in page.tags}


def test_an_image_that_is_gone_or_another_now_is_a_grey_box(copied: transfer.Run, shapes: Path, tmp_path: Path) -> None:
    moved = shutil.copytree(shapes, tmp_path / "moved")
    gone, other, broken = (p.path for p in least_sure(read_predictions(copied), 3))
    (moved / gone).unlink()
    Image.new("RGB", (64, 64)).save(moved / other)
    (moved / broken).write_bytes(b"no image")
    copied.info["data"]["root"] = str(moved)
    page = read(copied.report)
    assert sum(attributes.get("class") == "gone" for _, attributes in page.tags) >= 3
    shown = {attributes["alt"] for tag, attributes in page.tags if tag == "img"}
    assert not shown & {gone, other, broken}
    assert len(shown) > 8
    assert gone in page.text


def test_two_domains_are_named_and_their_pictures_found(shapes: Path, weights: Path, tmp_path: Path) -> None:
    target = shutil.copytree(shapes, tmp_path / "target")
    for path in target.glob("*/*.png"):
        Image.open(path).rotate(90).save(path)
    settings = {"backbone": "test_resnet", "weights": str(weights), "exact": True, "quiet": True}
    joined = transfer.fit(shapes, "linear-svm", test=target, out=tmp_path / "run", **settings)
    page = read(joined.report)
    assert f"Trained on {shapes}, reported on {target}." in page.text
    assert page.pictures >= 24
    assert "gone" not in {attributes.get("class") for _, attributes in page.tags}
    assert_needs_nothing_but_itself(page)


def test_a_report_made_twice_is_the_same_to_the_byte(run: transfer.Run, tmp_path: Path) -> None:
    first, second = (transfer.write_report(run, tmp_path / name).path.read_bytes() for name in ("a.html", "b.html"))
    assert first == second


def test_the_style_of_a_notebook_changes_nothing(run: transfer.Run, tmp_path: Path) -> None:
    plain = transfer.write_report(run, tmp_path / "a.html").path.read_bytes()
    with matplotlib.rc_context({"font.size": 30, "text.usetex": True, "axes.facecolor": "black"}):
        assert transfer.write_report(run, tmp_path / "b.html").path.read_bytes() == plain


def test_only_an_earlier_report_is_replaced(copied: transfer.Run, tmp_path: Path) -> None:
    assert copied.report.path == copied.path / "report.html"
    transfer.write_report(copied)
    own = tmp_path / "mine.html"
    own.write_text("<p>mine</p>")
    for taken in (own, tmp_path):
        with pytest.raises(UsageError, match="is no report of this toolkit. Choose another --out"):
            transfer.write_report(copied, taken)
    assert own.read_text() == "<p>mine</p>"


def test_a_notebook_shows_the_page_in_a_frame_without_scripts(copied: transfer.Run) -> None:
    shown = Page(copied.report._repr_html_())
    [(tag, attributes)] = shown.tags
    assert tag == "iframe"
    assert "sandbox" in attributes
    assert attributes["srcdoc"] == copied.report.path.read_text(encoding="utf-8")


def grow(copied: transfer.Run, shapes: Path) -> np.ndarray:
    """Make the run one of 200 classes and 50,000 test images, and return their labels."""
    random = np.random.default_rng(0)
    classes = [f"class {i:03d} with a name of some length" for i in range(200)]
    labels = random.integers(0, 200, 50_000)
    probabilities = random.random((50_000, 200), dtype=np.float32) ** 30
    probabilities[np.arange(50_000), labels] += 0.5
    probabilities /= probabilities.sum(axis=1, keepdims=True)
    real = sorted(str(path.relative_to(shapes)) for path in shapes.glob("*/*.png"))
    paths = [real[i] if i < len(real) else f"{classes[c]}/{i}.png" for i, c in enumerate(labels)]
    guesses = probabilities.argmax(axis=1)
    with open(copied.path / "predictions.csv", "w", newline="") as target:
        table = csv.writer(target)
        table.writerow(["path", "label", "predicted", "probability"])
        table.writerows(
            [path, classes[c], classes[g], round(float(p[g]), 4)]
            for path, c, g, p in zip(paths, labels, guesses, probabilities, strict=True)
        )
    with open(copied.path / "split.csv", "w", newline="") as target:
        table = csv.writer(target)
        table.writerow(["path", "label", "split", "sha256"])
        table.writerows([path, classes[c], "test", ""] for path, c in zip(paths, labels, strict=True))
    copied.metrics["test"] = metrics.evaluate(probabilities, labels, classes)
    copied.classes = tuple(classes)
    return labels


@pytest.mark.slow
def test_200_classes_and_50000_images_stay_small(
    copied: transfer.Run, shapes: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    labels = grow(copied, shapes)
    random = np.random.default_rng(0)
    X = random.normal(size=(200, 1280)).astype(np.float32)[labels]
    X += 2 * random.normal(size=X.shape).astype(np.float32)
    parts = random.choice(["train", "val", "test"], len(X), p=[0.6, 0.2, 0.2])
    paths = [p.path for p in read_predictions(copied)]
    contents = np.array([f"{i:064x}" for i in range(len(X))])
    rows = Rows(X, labels, parts, paths, contents)
    monkeypatch.setattr("transfer.report.findings.read_frozen", lambda run, progress: rows)
    path = copied.report.path
    assert path.stat().st_size < 5_000_000
    page = Page(path.read_text(encoding="utf-8"))
    assert page.sections[6:9] == ["suspects", "data", "alike"]
    assert sum(tag == "image" for tag, _ in page.tags) == 1  # the map's points
    assert "Taken for" in page.text  # a table in place of a matrix
    assert sum("table" in tag for tag, _ in page.tags) < 10


def test_the_command_that_makes_it_again_is_quoted_for_a_shell(copied: transfer.Run, shapes: Path) -> None:
    copied.info["data"]["root"] = "/my data/$HOME"
    split, recipe = copied.path / "split.csv", copied.path / "recipe.yaml"
    assert command(copied) == f"transfer fit '/my data/$HOME' --split {split} --recipe {recipe}"
    assert escape(command(copied), quote=False) in copied.report.path.read_text().replace("&#39;", "'")
    copied.info["data"]["root"] = None  # lists, or two domains
    assert command(copied) is None  # relative paths, from where nobody knows
    lines = split.read_text().splitlines()
    split.write_text("\n".join([lines[0], *(f"{shapes}/{line}" for line in lines[1:])]))
    assert command(copied) == f"transfer fit {split} --recipe {recipe}"


@pytest.mark.skipif(not shutil.which("bash"), reason="no bash here")
@pytest.mark.parametrize("name", ["a b", "it's", "two\nlines", "\u202egnp.exe", "back\\slash\n'"])
def test_a_shell_reads_the_quoted_word_as_it_was(name: str) -> None:
    told = subprocess.run(
        ["bash", "-c", f"printf %s {shell_word(name)}"], capture_output=True, check=True, env={"LC_ALL": "C.UTF-8"}
    )
    assert told.stdout.decode() == name


def test_the_command_fits_the_same_parts_again(run: transfer.Run, tmp_path: Path) -> None:
    _, _, data, _, split, _, recipe = command(run).split()
    again = transfer.fit(data, recipe, split=split, out=tmp_path / "again", quiet=True)
    assert (again.path / "predictions.csv").read_bytes() == (run.path / "predictions.csv").read_bytes()


def run_cli(*arguments: object, monkeypatch: pytest.MonkeyPatch) -> int:
    monkeypatch.setattr(sys, "argv", ["transfer", *map(str, arguments)])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    return int(ended.value.code or 0)


def test_the_command_line_writes_it(
    copied: transfer.Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    assert run_cli("report", copied.path, monkeypatch=monkeypatch) == 0
    assert capsys.readouterr().out == f"Report: {copied.path / 'report.html'}\n"
    assert run_cli("report", copied.path, "--out", tmp_path / "page.html", monkeypatch=monkeypatch) == 0
    for table in ("suspects.csv", "near_duplicates.csv"):
        assert (copied.path / table).is_file()
        assert not (tmp_path / table).exists()


def test_an_incomplete_run_is_refused(
    copied: transfer.Run, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    (copied.path / "run.json").write_text(json.dumps({**copied.info, "status": "running"}))
    assert run_cli("report", copied.path, monkeypatch=monkeypatch) == 4
    assert "is not a complete run" in capsys.readouterr().err
    assert not (copied.path / "report.html").exists()


def test_a_run_with_damaged_tables_is_refused(copied: transfer.Run) -> None:
    (copied.path / "predictions.csv").write_text("path,label\na,b\n")
    with pytest.raises(ArtefactError, match="Fit again"):
        transfer.write_report(copied)
    (copied.path / "predictions.csv").unlink()
    with pytest.raises(ArtefactError, match="Cannot read"):
        transfer.write_report(copied)
    del copied.info["seconds"]
    with pytest.raises(ArtefactError, match="lacks 'seconds'"):
        transfer.write_report(copied)


def assert_fits(page: str, width: int, tmp_path: Path, browser: str) -> None:
    """A browser shows the page at this width without scrolling sideways, and has nothing to complain about."""
    frame = tmp_path / "frame.html"  # the page itself has no script to measure with
    frame.write_text(
        f'<iframe id="page" style="border: 0; width: {width}px; height: 800px" srcdoc="{escape(page)}"></iframe>'
        "<script>onload = () => { const root = document.getElementById('page').contentDocument.documentElement;"
        " document.title = root.scrollWidth + ' ' + root.scrollHeight }</script>",
        encoding="utf-8",
    )
    options = ["--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--enable-logging=stderr"]
    told = subprocess.run(
        [browser, *options, f"--user-data-dir={tmp_path / 'profile'}", "--dump-dom", str(frame)],
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    found = re.search(r"<title>(\d+) (\d+)</title>", told.stdout)
    assert found
    assert int(found[1]) == width
    assert int(found[2]) > 2000
    assert "CONSOLE" not in told.stderr  # where refused requests and errors are told


@pytest.mark.slow
@pytest.mark.parametrize("width", [390, 1280])
def test_a_browser_shows_it_without_scrolling_sideways(copied: transfer.Run, tmp_path: Path, width: int) -> None:
    browser = shutil.which("chromium") or pytest.skip("no chromium here (Debian's package `chromium`)")
    for row, name in zip(copied.metrics["test"]["per_class"], HOSTILE[3:], strict=False):
        row["name"] = name
    copied.classes = tuple(HOSTILE[4:7])
    copied.info["data"]["notes"] = ["note" * 100]
    page = copied.report.path.read_text(encoding="utf-8")
    assert_fits(page, width, tmp_path, browser)


@pytest.mark.parametrize(
    ("share", "shown"), [(0.9997, "> 99.9"), (0.0001, "< 0.1"), (1.0, "100.0"), (0.0, "0.0"), (0.8712, "87.1")]
)
def test_nothing_is_rounded_to_perfection(share: float, shown: str) -> None:
    from transfer.report.templates import percent

    assert percent(share).startswith(shown)


def test_there_is_no_command_where_none_makes_the_run_again(shapes: Path, weights: Path, tmp_path: Path) -> None:
    options = {"backbone": "test_resnet", "weights": str(weights), "quiet": True}
    thinned = transfer.fit(shapes, "ridge", settings=["data.per_class=4"], out=tmp_path / "thinned", **options)
    assert command(thinned) is None
    assert "This command" not in thinned.report.path.read_text()
    assert "trust" not in thinned.metrics  # the folds would hold more images than are to be trained on
    assert not any("cross-validated" in line for line in thinned.info["data"]["split"])


@pytest.fixture(scope="module")
def leaky(shapes: Path, weights: Path, tmp_path_factory: pytest.TempPathFactory) -> transfer.Run:
    """A run with two pictures of train in test, a pixel of each changed, and a circle that is called a square."""
    root = tmp_path_factory.mktemp("leaky") / "data"
    for i, path in enumerate(sorted(shapes.glob("*/*.png"))):
        target = root / ("test" if i % 4 == 3 else "train") / path.parent.name / path.name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, target)
    for name in ("00", "01"):
        with Image.open(root / "train" / "circle" / f"{name}.png") as picture:
            picture.putpixel((3, 3), (9, 9, 9))
            picture.save(root / "test" / "circle" / f"near-{name}.png")
    (root / "train" / "circle" / "02.png").rename(root / "train" / "square" / "wrong.png")
    settings = {"backbone": "test_resnet", "weights": str(weights), "exact": True, "quiet": True}
    return transfer.fit(root, "linear-svm", out=root.parent / "run", **settings)


def rows_of(path: Path) -> list[dict[str, str]]:
    with open(path, encoding="utf-8", newline="") as source:
        return list(csv.DictReader(source))


def test_wrong_labels_and_near_duplicates_are_shown_and_written(leaky: transfer.Run) -> None:
    page = read(transfer.write_report(leaky))
    [doubt] = [row for row in rows_of(leaky.path / "suspects.csv") if row["path"] == "train/square/wrong.png"]
    assert (doubt["label"], doubt["suggested"]) == ("square", "circle")
    assert float(doubt["label_probability"]) < float(doubt["suggested_probability"])
    pairs = rows_of(leaky.path / "near_duplicates.csv")
    for name in ("00", "01"):
        [pair] = [row for row in pairs if row["path"] == f"test/circle/near-{name}.png"]
        assert pair["other_path"] == f"train/circle/{name}.png"
        assert float(pair["cosine"]) > 0.95
    n_test = len({row["path"] for row in pairs if row["split"] == "test"})
    assert f"{n_test} of the {leaky.metrics['test']['n']} test images" in page.text
    assert "Nothing was dropped or changed" in page.text
    assert {"train/square/wrong.png", "train/circle/00.png"} <= {a["alt"] for tag, a in page.tags if tag == "img"}
    assert_needs_nothing_but_itself(page)


def test_probabilities_are_shown_before_calibration_too(leaky: transfer.Run) -> None:
    for told in read_predictions(leaky):
        assert told.uncalibrated is not None
        assert told.label_probability is not None
        assert told.label_probability <= told.probability
        if told.is_right:
            assert told.label_probability == told.probability
    page = read(transfer.write_report(leaky))
    assert "before calibration by" in page.text
    assert f"temperature ({leaky.info['head']['temperature']:.3g})" in page.text


def test_the_page_says_how_many_test_images_are_unknown(copied: transfer.Run) -> None:
    copied.info["novelty"] = {"n_val": 1234, "kept_of_val": 0.95, "unknown_of_test": 2 / copied.metrics["test"]["n"]}
    shown = " ".join(read(transfer.write_report(copied)).text.replace("\u202f", " ").split())
    n = copied.metrics["test"]["n"]
    low, high = metrics.wilson(2, n)
    assert "than 95 % of the 1,234 validation images are" in shown
    assert f"2 of {n} are marked: {2 / n:.1%}, with".replace("%", " %") in shown
    assert f"interval of {100 * low:.1f} % to {100 * high:.1f} %" in shown
    copied.info["novelty"] = None
    assert "too few validation images" in read(transfer.write_report(copied)).text
    del copied.info["novelty"]  # a run of an earlier version
    assert "Unknown" not in read(transfer.write_report(copied)).text


def test_the_page_says_in_which_type_it_was_measured(copied: transfer.Run) -> None:
    assert copied.info["computed_in"] == "float32"
    assert "may differ" not in read(transfer.write_report(copied)).text
    copied.info["computed_in"] = "bfloat16"
    assert "bfloat16, which is faster here; an export computes in float32" in read(transfer.write_report(copied)).text
    del copied.info["computed_in"]
    assert "Computed in" not in read(transfer.write_report(copied)).text


def test_features_come_from_the_cache_also_after_training(
    shapes: Path, weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = {"backbone": "test_resnet", "weights": str(weights), "exact": True, "quiet": True}
    trained = transfer.fit(shapes, "partial", out=tmp_path / "run", settings=QUICK, **settings)

    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("a network was run")

    monkeypatch.setattr("transfer.features.extracting.Runner", refuse)
    assert "not at hand" not in read(trained.report).text


def test_without_features_a_report_says_why(
    copied: transfer.Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TRANSFER_CACHE", str(tmp_path / "empty"))
    copied.info["data"]["root"] = str(tmp_path / "gone")
    page = read(transfer.write_report(copied, quiet=True))
    assert page.text.count("the features are not at hand") == 2
    assert "Only test images were judged" in page.text
    assert "None of the images could be shown" in page.text  # where the model looks
    assert page.sections[-1] == "made"


@pytest.mark.parametrize(
    ("recipe", "settings", "told"),
    [
        ("knn", [], "compares whole images"),
        ("pixels", [], "is made by hand"),
        ("linear-svm", ["tap=[layer3,features]"], "covering the image piece by piece"),
    ],
)
def test_where_the_model_looks_depends_on_the_model(
    shapes: Path, weights: Path, tmp_path: Path, recipe: str, settings: list[str], told: str
) -> None:
    options = {} if recipe == "pixels" else {"backbone": "test_resnet", "weights": str(weights)}
    other = transfer.fit(shapes, recipe, out=tmp_path / "run", settings=settings, exact=True, quiet=True, **options)
    assert told in read(other.report).text


def test_a_page_that_fails_leaves_the_run_and_says_so(copied: transfer.Run, monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    monkeypatch.setattr("transfer.runs.run.write_report", lambda run: 1 / 0)
    assert write_page(copied, said.append) is None
    (line,) = said
    assert line.startswith("No report: division by zero The run is safe in ")
    assert f"`transfer report {copied.path}`" in line
    monkeypatch.undo()
    assert write_page(copied, said.append) == copied.path / "report.html"
    assert (copied.path / "report.html").is_file()
    assert len(said) == 1


def test_a_page_that_is_interrupted_leaves_the_run_and_says_so(
    copied: transfer.Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(run: transfer.Run) -> None:
        raise KeyboardInterrupt

    said: list[str] = []
    monkeypatch.setattr("transfer.runs.run.write_report", interrupt)
    with pytest.raises(KeyboardInterrupt):
        write_page(copied, said.append)
    assert said[0].startswith("Interrupted. The run is safe in ")


@pytest.mark.parametrize("report", [True, False])
def test_fit_is_asked_for_the_page(
    shapes: Path, weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, report: bool
) -> None:
    written: list[transfer.Run] = []
    monkeypatch.setattr("transfer.strategies.fitting.write_page", lambda run, say: written.append(run))
    options = {"backbone": "test_resnet", "weights": str(weights), "exact": True, "quiet": True}
    fitted = transfer.fit(shapes, "ridge", out=tmp_path / "run", report=report, **options)
    assert written == [fitted] * report


@pytest.fixture(scope="module")
def compared(weights: Path, shapes: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The page of a comparison of two recipes with equal val and one that failed, on classes with hostile names."""
    folder = tmp_path_factory.mktemp("compared")
    pictures = sorted(shapes.glob("*/*.png"))
    for i, name in enumerate(HOSTILE[:4] + HOSTILE[5:]):
        (folder / "data" / name).mkdir(parents=True)
        for j in range(7):
            shutil.copy(pictures[7 * i + j], folder / "data" / name / f"{j}.png")
    results = []
    for name in ("ridge", "knn"):
        settings = {"backbone": "test_resnet", "weights": str(weights), "exact": True, "quiet": True}
        transfer.fit(folder / "data", name, out=folder / "0" / name, **settings)
        result = read_result(folder / "0" / name, name, transfer.load_recipe(name))
        results.append(dataclasses.replace(result, val_accuracy=0.5))
    results.append(Result("<i>lost</i>", 0, transfer.load_recipe("frozen"), error="<b>memory</b>"))
    rows = tabulate(results)
    return render_comparison(folder, "<b>data", rows, describe(rows, results), results)


def test_a_comparison_has_its_arms_side_by_side(compared: str) -> None:
    page = Page(compared)
    assert_needs_nothing_but_itself(page)
    assert page.sections == ["answer", "arms", "classes", "hard", "made"]
    assert not [attributes for tag, attributes in page.tags if tag == "i" and not attributes.get("style")]
    for shown in ("failed: <b>memory</b>", "<i>lost</i>", "p: that a recipe", "ridge", "knn", *HOSTILE[:4]):
        assert shown in page.text
    assert "by ridge, the first named of 2 recipes that val cannot tell apart." in page.text
    assert sum(tag == "svg" for tag, _ in page.tags) == 1
    assert page.pictures > 0


@pytest.mark.slow
@pytest.mark.parametrize("width", [390, 1280])
def test_a_browser_shows_a_comparison_without_scrolling_sideways(compared: str, tmp_path: Path, width: int) -> None:
    browser = shutil.which("chromium") or pytest.skip("no chromium here (Debian's package `chromium`)")
    assert_fits(compared, width, tmp_path, browser)
