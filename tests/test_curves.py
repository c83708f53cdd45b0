import csv
import itertools
import json
import sys
from pathlib import Path

import numpy as np
import pytest

import transfer
from transfer import cli
from transfer.curves import (
    CurvePoint,
    LearningCurve,
    draw_curve,
    fit_law,
    foretell,
    measure_curve,
    read_accuracy,
    require_figure,
)
from transfer.curves.subsets import draw_nested, shares_of
from transfer.errors import DataError, UsageError
from transfer.files import write_figure
from transfer.heads import fit_head

SIZES = np.array([100.0, 200, 400, 800, 1600])


def clouds(
    n_per_class: int | list[int], n_classes: int = 4, d: int = 30, seed: int = 0
) -> tuple[np.ndarray, np.ndarray]:
    """Gaussian classes that overlap: features and labels."""
    rng = np.random.default_rng(seed)
    counts = [n_per_class] * n_classes if isinstance(n_per_class, int) else n_per_class
    y = np.repeat(np.arange(len(counts)), counts)
    centres = np.random.default_rng(1).normal(size=(len(counts), d))
    return (0.6 * centres[y] + rng.normal(size=(len(y), d))).astype(np.float32), y


def curve_of(a: float, b: float, c: float, noise: float = 1e-4, **changes: object) -> LearningCurve:
    """The curve of points on a law, measured with this standard error."""
    points = [CurvePoint(n / 10, n, 1 - a - b * n**-c, noise, 3) for n in SIZES.tolist()]
    settings = {"n_images": 2000, "n_classes": 10, "kind": "ridge", "seed": 0, **changes}
    return foretell(points, noise**2 * np.eye(len(points)), **settings)  # type: ignore[arg-type]


def same(one: LearningCurve, other: LearningCurve) -> bool:
    return json.dumps(one.to_dict()) == json.dumps(other.to_dict())


def test_points_rise_with_the_number_of_images() -> None:
    curve = measure_curve(*clouds(80), 4)
    accuracy = [point.accuracy for point in curve.points]
    assert [round(point.n) for point in curve.points] == [16, 32, 64, 128, 256]
    assert accuracy[-1] > accuracy[0] + 0.1
    assert all(later > earlier - 0.02 for earlier, later in itertools.pairwise(accuracy))
    assert [point.n_draws for point in curve.points] == [3, 3, 3, 3, 1]
    assert curve.points[1].images_per_class == pytest.approx(8)
    assert all(0 < point.standard_error < 0.05 for point in curve.points)
    twice = curve.expect(640)
    assert twice is not None
    assert twice[1] <= twice[0] <= twice[2]
    assert twice[0] > accuracy[-1]


def test_what_is_expected_of_more_images_is_what_they_give() -> None:
    """Of small draws, nearly every interval at twice their images has the accuracy there."""
    X_test, y_test = clouds(1000, seed=999)
    n_inside = 0
    for seed in range(12):
        X, y = clouds(80, seed=seed)
        half = np.arange(len(y)) % 2 == 0
        expected = measure_curve(X[half], y[half], 4, seed=seed).expect(320)
        assert expected is not None
        head = fit_head("ridge", X, y, 4, rule="best").head
        n_inside += bool(expected[1] <= np.mean(head.scores(X_test).argmax(axis=1) == y_test) <= expected[2])
        assert expected[2] - expected[1] < 0.2
    assert n_inside >= 11


def test_the_law_is_found_from_points_without_noise() -> None:
    for a, b, c in ((0.05, 3.0, 0.6), (0.0, 1.0, 0.35), (0.2, 20.0, 0.95)):
        law = fit_law(SIZES, a + b * SIZES**-c, 1e-12 * np.eye(5))
        assert law.a == pytest.approx(a, abs=1e-4)
        assert law.b == pytest.approx(b, rel=1e-3)
        assert law.c == pytest.approx(c, abs=1e-3)


def test_a_falling_curve_is_taken_as_flat() -> None:
    law = fit_law(SIZES, np.array([0.1, 0.1, 0.11, 0.12, 0.13]), 1e-4 * np.eye(5))
    assert law.b == pytest.approx(0, abs=1e-9)
    assert law.error(100)[0] == pytest.approx(law.error(10_000)[0])


def test_intervals_of_the_law_have_the_truth_inside() -> None:
    rng = np.random.default_rng(0)
    covariance = 0.01**2 * (0.5 * np.eye(5) + 0.5)
    n_inside = 0
    for _ in range(60):
        a, c = rng.uniform(0, 0.1), rng.uniform(0.3, 0.8)
        b = rng.uniform(0.2, 0.4) * 100**c
        noise = rng.multivariate_normal(np.zeros(5), covariance)
        law = fit_law(SIZES, a + b * SIZES**-c + noise, covariance)
        low, high = law.error(3200)[1:]
        n_inside += low <= a + b * 3200**-c <= high
    assert n_inside >= 53


def test_nothing_is_said_beyond_four_times_the_images() -> None:
    curve = curve_of(0.05, 3, 0.6)
    assert curve.expect(8000) is not None
    assert curve.expect(8001) is None
    assert curve.expect(0) is None


def test_the_images_an_accuracy_takes_are_found_and_it_says_when_they_are_not() -> None:
    curve = curve_of(0.05, 3, 0.6)
    found = curve.images_for(0.9)
    truth = (3 / 0.05) ** (1 / 0.6)
    assert found.outcome == "found"
    assert found.n is not None
    assert found.low is not None
    assert found.high is not None
    assert found.low <= truth * 1.02
    assert found.high >= truth * 0.98
    assert found.n == pytest.approx(truth, rel=0.05)
    assert "90.0% takes about" in found.reason
    never = curve.images_for("97%")
    assert never.outcome == "not reachable"
    assert (never.n, never.low, never.high) == (None, None, None)
    assert "levels off at 95.0%" in never.reason
    assert curve.images_for(0.1).n == 100
    unsure = curve_of(0.05, 3, 0.6, noise=0.02).images_for(0.93)
    assert unsure.outcome == "cannot tell"
    assert "to more than 800 images per class is possible" in unsure.reason


def test_the_law_is_checked_on_the_size_it_did_not_see() -> None:
    good = curve_of(0.05, 3, 0.6)
    assert good.check is not None
    assert good.check.is_inside
    points = [*good.points[:-1], CurvePoint(160, 1600, 0.90, 1e-4, 1)]  # suddenly no better
    wrong = foretell(points, 1e-8 * np.eye(5), n_images=2000, n_classes=10, kind="ridge", seed=0)
    assert wrong.check is not None
    assert not wrong.check.is_inside
    assert wrong.check.miss > 0.01
    assert wrong.law is not None
    low, high = wrong.law.error(6400)[1:]
    expected = wrong.expect(6400)  # two doublings from the largest size
    assert expected is not None
    assert expected[1:] == pytest.approx((1 - high - 2 * wrong.check.miss, 1 - low + 2 * wrong.check.miss))
    assert "wider" in " ".join(wrong.describe_law())


def test_it_says_in_words_what_twice_the_images_would_give() -> None:
    curve = curve_of(0.05, 3, 0.6)
    assert curve.describe().startswith("With twice the images (400 per class), expect about 92.")
    assert "expect about" in curve._repr_html_()
    assert "5 sizes" in repr(curve)
    written = json.loads(json.dumps(curve.to_dict()))
    assert written["law"]["c"] == pytest.approx(0.6, abs=1e-2)
    assert written["check"]["is_inside"] is True
    assert written["twice"]["n"] == 4000


def test_subsets_are_nested_by_class_and_never_part_copies() -> None:
    rng = np.random.default_rng(0)
    y = np.repeat([0, 1, 2], [60, 40, 3])
    groups = np.arange(103)
    groups[1] = groups[0]
    groups[63:66] = groups[62]
    shares = shares_of(y)
    assert shares == [0.0625, 0.125, 0.25, 0.5, 1.0]
    for draw in range(20):
        order = rng.permutation(103)
        subsets = draw_nested(y[order], groups[order], shares, [0, draw])
        for small, large in itertools.pairwise(subsets):
            assert set(small) < set(large)
        assert len(subsets[-1]) == 103
        for rows in subsets:
            counts = np.bincount(y[order][rows], minlength=3)
            assert counts.min() >= 2
            inside = set(groups[order][rows].tolist())
            assert len(rows) == np.isin(groups[order], list(inside)).sum()
        assert np.bincount(y[order][subsets[1]])[0] in (8, 9)


def test_copies_are_never_learned_from_and_judged_on() -> None:
    rng = np.random.default_rng(0)
    X, y = np.repeat(rng.normal(size=(60, 200)), 2, axis=0), np.repeat(rng.integers(0, 2, 60), 2)
    apart = measure_curve(X, y, 2, groups=np.repeat(np.arange(60), 2))
    assert apart.points[-1].accuracy < 0.7  # features say nothing of the labels
    assert measure_curve(X, y, 2).points[-1].accuracy > 0.9  # but copies do


def test_the_same_seed_gives_the_same_curve_and_another_one_other_draws() -> None:
    X, y = clouds(30)
    assert same(measure_curve(X, y, 4, seed=3), measure_curve(X, y, 4, seed=3))
    assert not same(measure_curve(X, y, 4, seed=3), measure_curve(X, y, 4, seed=4))


def test_two_classes_and_other_heads_and_views_have_curves_too() -> None:
    X, y = clouds(40, n_classes=2, d=4)
    for kind in ("ridge", "linear-svm", "knn"):
        curve = measure_curve(X, y, 2, kind=kind, n_draws=2)
        assert curve.kind == kind
        assert len(curve.points) == 5
        assert curve.law is not None
    assert len(measure_curve(np.stack([X, X], axis=1), y, 2, n_draws=1).points) == 5


def test_the_only_image_of_a_class_is_learned_from() -> None:
    X, y = clouds([40, 40, 1])
    curve = measure_curve(X, y, 3)
    assert curve.n_classes == 3
    assert curve.points[-1].n == pytest.approx(65)
    assert curve.expect(100) is not None


def test_few_images_give_points_and_no_law() -> None:
    curve = measure_curve(*clouds(4), 4)
    assert 1 <= len(curve.points) < 3
    assert curve.law is None
    assert curve.check is None
    assert curve.expect(10) is None
    assert curve.images_for(0.9).outcome == "cannot tell"
    assert "too few" in curve.describe()
    assert "too few" in curve._repr_html_()
    assert json.dumps(curve.to_dict())
    assert len(draw_curve(curve).axes) == 1


def test_where_all_are_recognised_the_interval_still_has_a_width() -> None:
    X, y = clouds(40, d=200)
    curve = measure_curve(20 * X.round(), y, 4)
    assert curve.points[-1].accuracy > 0.99
    twice = curve.expect(320)
    assert twice is not None
    assert 0.9 < twice[1] < 1
    assert twice[2] > twice[1]


def test_what_cannot_be_measured_is_refused() -> None:
    X, y = clouds(4)
    with pytest.raises(DataError, match="one class"):
        measure_curve(X[:4], y[:4], 4)
    with pytest.raises(DataError, match="none can be held out"):
        measure_curve(X[[0, 4]], y[[0, 4]], 4)
    with pytest.raises(DataError, match="one row per image"):
        measure_curve(X, y[:-1], 4)


def test_of_many_images_fewer_are_held_out_and_it_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    from transfer.curves import measuring

    monkeypatch.setattr(measuring, "_ENOUGH_HELD_OUT", 60)
    monkeypatch.setattr(measuring, "_FITTED_ONCE", 60)
    curve = measure_curve(*clouds(60), 4)
    assert "96 of 240 images were held out, 2 of 5 folds" in curve.notes[0]
    assert "drawn once" in curve.notes[1]
    assert [point.n_draws for point in curve.points] == [3, 3, 1, 1, 1]


@pytest.mark.parametrize(("given", "read"), [("0.95", 0.95), ("95", 0.95), ("95%", 0.95), (87.5, 0.875), (1, 1.0)])
def test_a_target_is_a_share_or_a_percentage(given: float | str, read: float) -> None:
    assert read_accuracy(given) == pytest.approx(read)


@pytest.mark.parametrize("given", ["much", "0", "-3", "101", "nan"])
def test_another_target_is_refused(given: str) -> None:
    with pytest.raises(UsageError, match="such as 95%"):
        read_accuracy(given)


def test_a_figure_has_points_law_and_target(tmp_path: Path) -> None:
    import dataclasses

    curve = dataclasses.replace(curve_of(0.05, 3, 0.6, noise=0.01), target=0.93)
    figure = draw_curve(curve)
    (axes,) = figure.axes
    assert axes.get_xscale() == "log"
    assert "law, 95 % interval" in {text.get_text() for text in axes.get_legend().get_texts()}
    assert {line.get_linestyle() for line in axes.lines} >= {"-", "--"}
    assert axes.get_xlim()[1] >= 800
    for name in ("curve.png", "curve.svg", "again.svg"):
        write_figure(tmp_path / name, figure)
    assert (tmp_path / "curve.png").read_bytes().startswith(b"\x89PNG")
    assert (tmp_path / "curve.svg").read_bytes() == (tmp_path / "again.svg").read_bytes()
    with pytest.raises(UsageError, match=r"\.svg"):
        require_figure(tmp_path / "curve.jpg")


def table(shapes: Path, file: Path, poisoned: bool) -> Path:
    """A CSV form of the toy folder with a test part; where poisoned, that part's labels are another draw."""
    rng = np.random.default_rng(0)
    rows = []
    for path in sorted(shapes.glob("*/*.png")):
        is_test = path.name >= "15"
        label = str(rng.choice(["circle", "square", "stripes"])) if poisoned and is_test else path.parent.name
        rows.append([path, label, "test" if is_test else "train"])
    with file.open("w", newline="") as target:
        csv.writer(target).writerows([["path", "label", "split"], *rows])
    return file


def test_test_images_are_not_looked_at(shapes: Path, weights: Path, tmp_path: Path) -> None:
    curves = [
        transfer.learning_curve(
            table(shapes, tmp_path / f"{poisoned}.csv", poisoned),
            backbone="test_resnet",
            weights=weights,
            target="90%",
            quiet=True,
        )
        for poisoned in (False, True)
    ]
    assert curves[0].n_images == 45
    assert same(*curves)


def test_the_drawn_test_part_is_left_out(shapes: Path, weights: Path) -> None:
    curve = transfer.learning_curve(shapes, backbone="test_resnet", weights=weights, quiet=True)
    assert curve.n_images == 48
    assert "12 test images were left out" in curve.notes[0]


def test_an_unknown_head_is_refused(shapes: Path) -> None:
    with pytest.raises(UsageError, match="Did you mean 'ridge'"):
        transfer.learning_curve(shapes, kind="ridges")


def test_the_command_prints_a_table_and_writes_files(
    shapes: Path, weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.chdir(tmp_path)

    def run(*options: str) -> tuple[int, str, str]:
        command = ["learning-curve", str(shapes), "--backbone", "test_resnet", "--weights", str(weights), *options]
        monkeypatch.setattr(sys, "argv", ["transfer", *command])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        out, err = capsys.readouterr()
        return int(ended.value.code or 0), out, err

    code, out, _ = run("--target", "95%", "--csv", "points.csv", "--plot", "curve.png", "-q")
    assert code == 0
    assert "images per class" in out
    assert "With twice the images (32 per class), expect about" in out
    assert "95.0%" in out
    assert "12 test images were left out" in out
    points = list(csv.DictReader((tmp_path / "points.csv").read_text().splitlines()))
    assert [row["draws"] for row in points] == ["3", "3", "1"]
    assert (tmp_path / "curve.png").read_bytes().startswith(b"\x89PNG")

    code, out, err = run("--target", "0.95", "--json")
    written = json.loads(out)
    assert written["target"] == 0.95
    assert written["images_needed"]["outcome"] in ("found", "not reachable", "cannot tell")
    assert written["points"][0]["n_draws"] == 3
    assert "test: 12 images" in err

    assert run("--plot", "curve.gif")[0] == 2
    assert run("--target", "lots")[0] == 2
