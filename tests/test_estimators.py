from pathlib import Path

import numpy as np
import pandas
import pytest
from PIL import Image
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.svm import LinearSVC

from transfer import FeatureExtractor, TransferClassifier
from transfer.errors import DataError, UsageError


@pytest.fixture(scope="module")
def tiny(weights: Path) -> dict:
    return {"backbone": "test_resnet", "weights": str(weights)}


@pytest.fixture(scope="module")
def pictures(shapes: Path) -> tuple[list[str], list[str]]:
    paths = sorted(shapes.glob("*/*.png"))
    return [str(path) for path in paths], [path.parent.name for path in paths]


def test_it_learns_and_gives_probabilities(pictures, tiny: dict) -> None:
    paths, labels = pictures
    classifier = TransferClassifier(**tiny).fit(paths[::2], labels[::2])
    assert classifier.score(paths[1::2], labels[1::2]) > 0.6
    probabilities = classifier.predict_proba(paths[:4])
    assert probabilities.shape == (4, 3)
    np.testing.assert_allclose(probabilities.sum(1), 1)
    assert list(classifier.classes_) == ["circle", "square", "stripes"]


def test_paths_pictures_and_arrays_give_the_same(pictures, tiny: dict) -> None:
    paths, labels = pictures
    classifier = TransferClassifier(**tiny).fit(paths, labels)
    images = [Image.open(path) for path in paths[:20]]
    arrays = np.stack([np.asarray(image) for image in images])
    expected = classifier.predict_proba(paths[:20])
    np.testing.assert_allclose(classifier.predict_proba(images), expected, atol=1e-4)
    np.testing.assert_allclose(classifier.predict_proba(arrays), expected, atol=1e-4)


def test_a_stack_of_floats_is_read_as_one_of_bytes(pictures, tiny: dict) -> None:
    paths, labels = pictures
    classifier = TransferClassifier("ridge", **tiny).fit(paths, labels)
    arrays = np.stack([np.asarray(Image.open(path)) for path in paths[:4]])
    expected = classifier.predict_proba(arrays)
    np.testing.assert_array_equal(classifier.predict_proba(arrays.astype(np.float32) / 255), expected)
    with pytest.raises(UsageError, match="An image of type int64 has no known scale"):
        classifier.predict(arrays.astype(np.int64))


def test_a_table_with_one_column_is_a_list_of_paths_and_one_with_more_is_refused(pictures, tiny: dict) -> None:
    paths, labels = pictures
    classifier = TransferClassifier("ridge", **tiny).fit(paths, labels)
    expected = classifier.predict(paths)
    column = pandas.DataFrame({"path": paths})
    for table in (column, column["path"], np.array(paths)[:, None]):
        np.testing.assert_array_equal(classifier.predict(table), expected)
    for table in (column.assign(label=labels), np.array([paths, labels]).T):
        with pytest.raises(UsageError, match="A table of 2 columns is no list of images"):
            classifier.predict(table)


@pytest.mark.parametrize("missing", [None, float("nan"), pandas.NA])
def test_images_without_labels_are_counted(pictures, tiny: dict, missing: object) -> None:
    paths, labels = pictures
    with pytest.raises(DataError, match="59 of 60 images have no label, the first of them number 1,"):
        TransferClassifier("ridge", **tiny).fit(paths, np.array([labels[0], *[missing] * 59], object))
    with pytest.raises(DataError, match="60 of 60 images have no label"):
        TransferClassifier("ridge", **tiny).fit(paths, [missing] * 60)


def test_it_works_inside_scikit_learn(pictures, tiny: dict) -> None:
    paths, labels = np.array(pictures[0]), np.array(pictures[1])
    assert cross_val_score(TransferClassifier("ridge", **tiny), paths, labels, cv=3).mean() > 0.5
    search = GridSearchCV(TransferClassifier(**tiny), {"strategy": ["ridge", "logistic"]}, cv=2).fit(paths, labels)
    assert search.best_params_["strategy"] in ("ridge", "logistic")
    pipeline = make_pipeline(FeatureExtractor(**tiny), LinearSVC(C=100, max_iter=20_000)).fit(paths, labels)
    assert pipeline.score(paths, labels) > 0.7


def test_clone_keeps_the_settings_and_not_the_fit(pictures, tiny: dict) -> None:
    classifier = TransferClassifier("logistic", folds=3, **tiny).fit(*pictures)
    again = clone(classifier)
    assert again.get_params() == classifier.get_params()
    with pytest.raises(NotFittedError):
        again.predict(pictures[0])
    with pytest.raises(NotFittedError):
        FeatureExtractor(**tiny).transform(pictures[0])


def test_labels_may_be_numbers(pictures, tiny: dict) -> None:
    paths, labels = pictures
    numbers = np.array([{"circle": 10, "square": 2, "stripes": 30}[label] for label in labels])
    classifier = TransferClassifier("ridge", **tiny).fit(paths, numbers)
    assert classifier.predict(paths).dtype == numbers.dtype
    assert list(classifier.classes_) == [2, 10, 30]


def test_wrong_input_is_said_plainly(pictures, tiny: dict, tmp_path: Path) -> None:
    paths, labels = pictures
    (tmp_path / "bad.png").write_bytes(b"\x89PNG\r\n\x1a\n broken")
    with pytest.raises(DataError, match="bad.png"):
        TransferClassifier(**tiny).fit([*paths, str(tmp_path / "bad.png")], [*labels, "circle"])
    with pytest.raises(DataError, match="missing.png"):
        TransferClassifier(**tiny).fit([*paths, "missing.png"], [*labels, "circle"])
    with pytest.raises(DataError, match="two"):
        TransferClassifier(**tiny).fit(paths[:5], labels[:5])
    with pytest.raises(UsageError, match="as many labels"):
        TransferClassifier(**tiny).fit(paths, labels[:-1])
    picture = Image.open(paths[0])
    for one in (paths[0], picture, np.asarray(picture)):
        with pytest.raises(UsageError, match="Give a list of images, not one"):
            TransferClassifier(**tiny).fit(one, labels)
    with pytest.raises(UsageError, match="Unknown strategy"):
        TransferClassifier("svm", **tiny).fit(paths, labels)
    with pytest.raises(DataError, match="no images"):
        TransferClassifier(**tiny).fit([], [])
    with pytest.raises(DataError, match="no images"):
        FeatureExtractor(**tiny).fit(paths).transform([])


def test_several_taps_are_refused(pictures, tiny: dict) -> None:
    taps = ["layer2", "features"]
    with pytest.raises(UsageError, match="give one tap"):
        TransferClassifier("ridge", tap=taps, **tiny).fit(*pictures)
    with pytest.raises(UsageError, match="give one tap"):
        FeatureExtractor(tap=taps, **tiny).fit(pictures[0])


@pytest.mark.parametrize(("tap", "width"), [("features", 96), ("layer2", 48)])
def test_features_have_as_many_names_as_columns(pictures, tiny: dict, tap: str, width: int) -> None:
    extractor = FeatureExtractor(tap=tap, **tiny).fit(pictures[0])
    names = extractor.get_feature_names_out()
    assert len(names) == extractor.n_features_out_ == extractor.transform(pictures[0][:2]).shape[1] == width
    assert names[0] == "featureextractor0"


def test_copies_of_an_image_do_not_vouch_for_each_other(pictures, tiny: dict, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    noise = rng.integers(0, 255, (24, 32, 32, 3)).astype(np.uint8)
    labels = np.arange(24) % 2
    four_times = np.concatenate([noise] * 4), np.concatenate([labels] * 4)
    classifier = TransferClassifier("ridge", **tiny).fit(*four_times)
    assert max(row["accuracy"] for row in classifier.fitted_.table) < 0.9  # labels are random: 1.0 would be a leak


def test_two_classes_have_one_score(pictures, tiny: dict) -> None:
    paths, labels = np.array(pictures[0]), np.array(pictures[1]) == "circle"
    classifier = TransferClassifier(**tiny).fit(paths, labels)
    assert classifier.decision_function(paths).shape == (60,)
    np.testing.assert_array_equal(classifier.decision_function(paths) > 0, classifier.predict(paths))
    assert cross_val_score(TransferClassifier("ridge", **tiny), paths, labels, cv=3, scoring="roc_auc").mean() > 0.5


TRAIN = {
    "epochs": 4,
    "start": "zero",
    "augment": "none",
    "min_steps": 0,
    "batch_size": 8,
    "lr": 0.01,
    "backbone_lr": 0.1,
}


@pytest.mark.usefixtures("one_thread")
@pytest.mark.parametrize("strategy", ["partial", "full"])
def test_deeper_layers_learn_too_and_other_estimators_keep_theirs(pictures, tiny: dict, strategy: str) -> None:
    paths, labels = pictures
    frozen = TransferClassifier("ridge", **tiny).fit(paths[::2], labels[::2])
    before = frozen.predict_proba(paths)
    tuned = TransferClassifier(strategy, train=TRAIN, exact=True, **tiny).fit(paths[::2], labels[::2])
    assert [row["epoch"] for row in tuned.history_] == [0, 1, 2, 3, 4]
    assert tuned.fitted_.chosen["epoch"] > 0
    assert tuned.backbone_.weights_hash != frozen.backbone_.weights_hash
    assert tuned.score(paths[1::2], labels[1::2]) > 0.6
    np.testing.assert_array_equal(frozen.predict_proba(paths), before)
    again = clone(tuned).fit(paths[::2], labels[::2])
    np.testing.assert_array_equal(again.predict_proba(paths), tuned.predict_proba(paths))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"cut": "layer3"}, "cut=layer3 goes with --recipe partial, not with ridge"),
        ({"train": {"epochs": 3}}, "settings of train go with --recipe partial or full, not with ridge"),
    ],
)
def test_settings_of_training_are_refused_where_no_layer_is_trained(
    pictures, tiny: dict, options: dict, message: str
) -> None:
    with pytest.raises(UsageError, match=message):
        TransferClassifier("ridge", **options, **tiny).fit(*pictures)


def test_fine_tuning_needs_files(pictures, tiny: dict) -> None:
    images = np.zeros((4, 8, 8, 3), np.uint8)
    with pytest.raises(UsageError, match="give paths"):
        TransferClassifier("partial", **tiny).fit(images, ["a", "b", "a", "b"])


def test_a_pickled_classifier_needs_no_weights_file(pictures, tmp_path: Path, weights: Path, monkeypatch) -> None:
    import pickle

    from transfer import estimators

    copied = tmp_path / "weights.safetensors"
    copied.write_bytes(weights.read_bytes())
    paths, labels = pictures
    classifier = TransferClassifier("ridge", backbone="test_resnet", weights=str(copied)).fit(paths, labels)
    expected = classifier.predict(paths)
    data = pickle.dumps(classifier)
    copied.unlink()
    monkeypatch.setattr(estimators, "_loaded", {})  # as in another process
    np.testing.assert_array_equal(pickle.loads(data).predict(paths), expected)
