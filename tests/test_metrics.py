from __future__ import annotations

import json
import math
import time

import numpy as np
import pytest

from transfer.errors import DataError
from transfer.metrics import evaluate, paired_p_value, wilson

NAMES = [f"class {i}" for i in range(7)]


def predictions(n: int = 400, n_classes: int = 7, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(seed)
    labels = random.integers(0, n_classes, n)
    scores = random.normal(size=(n, n_classes)) + 1.5 * np.eye(n_classes)[labels]
    exponentials = np.exp(scores)
    return exponentials / exponentials.sum(axis=1, keepdims=True), labels


def test_numbers_agree_with_scikit_learn() -> None:
    from sklearn import metrics as reference

    probabilities, labels = predictions()
    predicted = probabilities.argmax(axis=1)
    result = evaluate(probabilities, labels, NAMES)
    assert result["n"] == 400
    assert result["accuracy"] == pytest.approx(reference.accuracy_score(labels, predicted))
    assert result["balanced_accuracy"] == pytest.approx(reference.balanced_accuracy_score(labels, predicted))
    assert result["macro_f1"] == pytest.approx(reference.f1_score(labels, predicted, average="macro"))
    assert result["log_loss"] == pytest.approx(reference.log_loss(labels, probabilities))
    assert result["top5_accuracy"] == pytest.approx(reference.top_k_accuracy_score(labels, probabilities, k=5))
    assert result["confusion"] == reference.confusion_matrix(labels, predicted).tolist()
    precision, recall, f1, n = reference.precision_recall_fscore_support(labels, predicted)
    for c, row in enumerate(result["per_class"]):
        assert row["name"] == NAMES[c]
        assert (row["precision"], row["recall"], row["f1"], row["n"]) == pytest.approx(
            (precision[c], recall[c], f1[c], n[c])
        )
        assert row["recall_interval"][0] < row["recall"] < row["recall_interval"][1]


def test_brier_and_calibration_error_of_a_hand_made_case() -> None:
    probabilities = np.array([[0.8, 0.2], [0.8, 0.2], [0.8, 0.2], [0.3, 0.7]])
    result = evaluate(probabilities, np.array([0, 0, 1, 1]), ["a", "b"])
    assert result["brier"] == pytest.approx((0.08 + 0.08 + 1.28 + 0.18) / 4)
    # Bin of 0.8: 2 of 3 right; bin of 0.7: 1 of 1 right
    assert result["calibration_error"] == pytest.approx(0.75 * (0.8 - 2 / 3) + 0.25 * 0.3)
    assert "top5_accuracy" not in result


def test_a_class_without_images_is_null_and_does_not_count() -> None:
    probabilities = np.array([[0.7, 0.2, 0.1], [0.2, 0.7, 0.1], [0.1, 0.2, 0.7]])
    result = evaluate(probabilities, np.array([0, 1, 1]), ["a", "b", "never"])
    never = result["per_class"][2]
    assert never == {"name": "never", "n": 0, "precision": None, "recall": None, "recall_interval": None, "f1": None}
    assert result["balanced_accuracy"] == pytest.approx((1 + 0.5) / 2)
    assert result["macro_f1"] == pytest.approx((1 + 2 / 3) / 2)


def test_the_result_is_plain_json_without_nan_even_for_certain_and_wrong() -> None:
    probabilities = np.array([[1.0, 0.0, 0.0], [1.0, 0.0, 0.0]])
    result = evaluate(probabilities, np.array([1, 0]), np.array(["a", "b", "c"]))
    assert json.loads(json.dumps(result, allow_nan=False)) == result
    assert result["log_loss"] == pytest.approx(-math.log(1e-15) / 2)


def test_one_image_of_one_class_is_enough() -> None:
    result = evaluate(np.array([[0.9, 0.1]]), np.array([0]), ["a", "b"])
    assert result["accuracy"] == result["balanced_accuracy"] == 1.0
    assert result["balanced_accuracy_interval"] == [1.0, 1.0]
    assert result["accuracy_interval"][0] < 0.3


def test_wilson_agrees_with_scipy() -> None:
    from scipy.stats import binomtest

    for k, n in ((0, 5), (1, 7), (146, 153), (20, 20), (500, 1000)):
        expected = binomtest(k, n).proportion_ci(0.9, method="wilson")
        assert wilson(k, n, 0.9) == pytest.approx((expected.low, expected.high), abs=1e-12)
        assert wilson(k, n)[0] <= k / n <= wilson(k, n)[1]


def test_bootstrap_intervals_agree_with_resampling_images_one_by_one() -> None:
    from sklearn.metrics import balanced_accuracy_score, f1_score

    probabilities, labels = predictions(200)
    predicted = probabilities.argmax(axis=1)
    random = np.random.default_rng(1)
    draws = [random.integers(0, 200, 200) for _ in range(400)]
    result = evaluate(probabilities, labels, NAMES)
    balanced = [balanced_accuracy_score(labels[d], predicted[d]) for d in draws]
    macro = [f1_score(labels[d], predicted[d], average="macro") for d in draws]
    assert result["balanced_accuracy_interval"] == pytest.approx(np.quantile(balanced, [0.025, 0.975]), abs=0.02)
    assert result["macro_f1_interval"] == pytest.approx(np.quantile(macro, [0.025, 0.975]), abs=0.02)


def test_intervals_narrow_with_less_confidence_and_repeat_with_the_seed() -> None:
    probabilities, labels = predictions()
    wide, narrow = (evaluate(probabilities, labels, NAMES, confidence=c) for c in (0.99, 0.5))
    for name in ("accuracy", "balanced_accuracy", "macro_f1"):
        (a, b), (c, d) = wide[f"{name}_interval"], narrow[f"{name}_interval"]
        assert a < c < wide[name] < d < b
    assert evaluate(probabilities, labels, NAMES, confidence=0.99) == wide


def test_fifty_thousand_images_of_a_hundred_classes_take_seconds() -> None:
    random = np.random.default_rng(0)
    labels = random.integers(0, 100, 50_000)
    probabilities = random.dirichlet(np.full(100, 0.1), 50_000)
    started = time.perf_counter()
    evaluate(probabilities, labels, [str(c) for c in range(100)])
    assert time.perf_counter() - started < 20  # about 2 s; the worst case, all 10,000 cells in use


def test_a_paired_p_value_is_the_exact_binomial_one() -> None:
    from scipy.stats import binomtest

    random = np.random.default_rng(0)
    a, b = random.random(300) < 0.8, random.random(300) < 0.7
    only_a, only_b = int((a & ~b).sum()), int((b & ~a).sum())
    assert paired_p_value(a, b) == pytest.approx(binomtest(only_a, only_a + only_b).pvalue, rel=1e-9)
    assert paired_p_value(a, b) == paired_p_value(b, a)
    assert paired_p_value(a, a) == 1.0
    assert paired_p_value(np.ones(5000, bool), np.zeros(5000, bool)) == 0.0


@pytest.mark.parametrize(
    ("probabilities", "labels", "message"),
    [
        (np.zeros((0, 2)), np.zeros(0, int), "no images"),
        (np.full((2, 3), 1 / 3), np.array([0, 1]), "do not fit"),
        (np.full((2, 2), 0.5), np.array([0, 2]), "from 0 to 1, not 0 to 2"),
        (np.array([[0.5, 0.5], [np.nan, 0.5]]), np.array([0, 1]), "Row 1"),
        (np.array([[3.0, -2.0]]), np.array([0]), "Row 0"),
    ],
)
def test_what_is_no_prediction_is_refused_in_one_line(
    probabilities: np.ndarray, labels: np.ndarray, message: str
) -> None:
    with pytest.raises(DataError, match=message) as caught:
        evaluate(probabilities, labels, ["a", "b"])
    assert "\n" not in str(caught.value)


def test_two_classifiers_on_different_images_are_not_compared() -> None:
    with pytest.raises(DataError, match="same images"):
        paired_p_value(np.ones(3), np.ones(4))
