from __future__ import annotations

import warnings
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from transfer.errors import DataError, UsageError
from transfer.heads import (
    HEADS,
    LINEAR_HEADS,
    LinearHead,
    assign_folds,
    fit_head,
    fit_temperature,
    one_standard_error,
    ridge_leave_one_out,
)


def toy_features(
    counts: tuple[int, ...] = (40, 40, 40), d: int = 20, distance: float = 1.0, seed: int = 0
) -> tuple[np.ndarray, np.ndarray]:
    """Return non-negative features with an offset, as pooled ReLU activations have them, in shuffled order."""
    random = np.random.default_rng(seed)
    centres = np.random.default_rng(99).normal(size=(len(counts), d)) * distance
    y = random.permutation(np.repeat(np.arange(len(counts)), counts))
    return np.maximum(centres[y] + random.normal(size=(len(y), d)) + 1.5, 0).astype(np.float32), y


def softmax(scores: np.ndarray) -> np.ndarray:
    exponentials = np.exp(scores - scores.max(axis=1, keepdims=True))
    return exponentials / exponentials.sum(axis=1, keepdims=True)


@pytest.mark.parametrize("kind", LINEAR_HEADS)
@pytest.mark.parametrize("scaling", ["auto", "global", "standard", "whiten", "none"])
def test_a_folded_head_is_one_linear_layer_on_raw_features(kind: str, scaling: str) -> None:
    import torch

    X, y = toy_features()
    head = fit_head(kind, X, y, 3, scaling=scaling).head
    layer = torch.nn.Linear(X.shape[1], 3)
    weight, bias = head.folded()
    layer.weight.data, layer.bias.data = torch.from_numpy(weight), torch.from_numpy(bias)
    logits = layer(torch.from_numpy(X)).detach()
    np.testing.assert_allclose(logits.numpy(), head.scores(X) / head.temperature, rtol=1e-6, atol=1e-5)
    np.testing.assert_allclose(logits.softmax(dim=1).numpy(), head.probabilities(X), atol=1e-5)
    assert head.weight.dtype == head.bias.dtype == np.float32


def scaled(X: np.ndarray) -> np.ndarray:
    centred = X.astype(np.float64) - X.mean(axis=0, dtype=np.float64)
    return centred / np.sqrt((centred**2).sum(axis=1).mean())


@pytest.mark.parametrize("counts", [(60, 50, 40), (12, 10, 8)])  # more and fewer images than dimensions
def test_linear_svm_is_scikit_learns_linear_svc(counts: tuple[int, ...]) -> None:
    from sklearn.svm import LinearSVC

    X, y = toy_features(counts, d=40)
    head = fit_head("linear-svm", X, y, 3, grid=[2.0]).head
    # A large intercept_scaling frees the intercept, which LinearSVC penalises otherwise
    svc = LinearSVC(C=2.0, intercept_scaling=30, tol=1e-7, max_iter=10_000, dual=False).fit(scaled(X), y)
    np.testing.assert_allclose(head.scores(X), svc.decision_function(scaled(X)), atol=2e-3)


@pytest.mark.parametrize("counts", [(60, 50, 40), (12, 10, 8)])
def test_logistic_is_scikit_learns_logistic_regression(counts: tuple[int, ...]) -> None:
    from sklearn.linear_model import LogisticRegression

    X, y = toy_features(counts, d=40)
    head = fit_head("logistic", X, y, 3, grid=[5.0]).head
    reference = LogisticRegression(C=5.0, tol=1e-9, max_iter=10_000).fit(scaled(X), y)
    np.testing.assert_allclose(softmax(head.scores(X)), reference.predict_proba(scaled(X)), atol=2e-4)


def test_class_weights_count_as_scikit_learns_sample_weights() -> None:
    from sklearn.linear_model import LogisticRegression, RidgeClassifier

    X, y = toy_features((80, 20, 10))
    fitted = fit_head("logistic", X, y, 3, scaling="none", grid=[0.5], class_weight="balanced")
    assert fitted.class_weights == pytest.approx({0: 110 / 240, 1: 110 / 60, 2: 110 / 30})
    reference = LogisticRegression(C=0.5, class_weight="balanced", tol=1e-9, max_iter=10_000).fit(X, y)
    np.testing.assert_allclose(softmax(fitted.head.scores(X)), reference.predict_proba(X), atol=2e-4)
    ridge = fit_head("ridge", X, y, 3, scaling="none", grid=[0.5], class_weight="balanced").head
    np.testing.assert_allclose(
        ridge.scores(X),
        RidgeClassifier(alpha=0.5, class_weight="balanced").fit(X.astype(np.float64), y).decision_function(X),
        atol=1e-4,
    )


def test_a_trained_head_comes_to_the_solved_one() -> None:
    X, y = toy_features((100, 100, 100), distance=0.4)
    solved = fit_head("logistic", X, y, 3, grid=[3.0])
    trained = fit_head("frozen", X, y, 3, grid=[1 / 3.0 / len(y)])
    assert trained.chosen == {"weight_decay": pytest.approx(1 / 900)}
    np.testing.assert_allclose(trained.head.probabilities(X), solved.head.probabilities(X), atol=0.03)


@pytest.mark.parametrize("counts", [(15, 12, 9), (6, 5, 4)])
def test_leave_one_out_is_what_refitting_without_each_image_gives(counts: tuple[int, ...]) -> None:
    from sklearn.linear_model import Ridge

    X, y = toy_features(counts)
    alphas = [0.1, 10.0]
    found = ridge_leave_one_out(X, y, 3, alphas)
    targets = 2.0 * np.eye(3)[y] - 1
    for i, alpha in enumerate(alphas):
        for row in range(len(y)):
            rest = np.arange(len(y)) != row
            refitted = Ridge(alpha=alpha).fit(X[rest].astype(np.float64), targets[rest])
            np.testing.assert_allclose(found[i, row], refitted.predict(X[row : row + 1])[0], atol=1e-4)


def test_leave_one_out_leaves_a_whole_group_out() -> None:
    from sklearn.linear_model import Ridge

    X, y = toy_features((15, 12, 9))
    groups = np.array([f"image {i // 2}" if i < 10 else f"image {i}" for i in range(len(y))])
    found = ridge_leave_one_out(X, y, 3, [2.0], groups)[0]
    targets = 2.0 * np.eye(3)[y] - 1
    for row in range(len(y)):
        rest = groups != groups[row]
        refitted = Ridge(alpha=2.0).fit(X[rest].astype(np.float64), targets[rest])
        np.testing.assert_allclose(found[row], refitted.predict(X[row : row + 1])[0], atol=1e-4)


def test_the_one_standard_error_rule_takes_the_strongest_setting_that_is_nearly_the_best() -> None:
    accuracy = np.array([0.70, 0.90, 0.91, 0.90, 0.88, 0.60])
    assert one_standard_error(accuracy, np.array([0.05, 0.02, 0, 0.02, 0.02, 0.05])) == 3
    assert one_standard_error(accuracy, np.array([0.05, 0.02, 0, 0.02, 0.04, 0.05])) == 4
    assert one_standard_error(accuracy, np.zeros(6)) == 2
    assert one_standard_error(np.full(4, 0.8), np.zeros(4)) == 3


@pytest.mark.parametrize("kind", LINEAR_HEADS)
def test_the_table_shows_what_was_tried_and_follows_the_rule(kind: str) -> None:
    X, y = toy_features(distance=0.4)
    fitted = fit_head(kind, X, y, 3)
    accuracy = np.array([row["accuracy"] for row in fitted.table])
    gaps = np.array([row["gap_standard_error"] for row in fitted.table])
    chosen = [row["chosen"] for row in fitted.table]
    name, value = next(iter(fitted.chosen.items()))
    assert chosen.index(True) == one_standard_error(accuracy, gaps)
    assert sum(chosen) == 1
    assert fitted.table[chosen.index(True)][name] == value
    strength = [row[name] if name in ("alpha", "weight_decay") else -row[name] for row in fitted.table]
    assert strength == sorted(strength)
    assert name in fitted.rule
    assert len(fitted.table) >= 3
    # The judged scores are those of images that were left out: worse than on the images learned from
    assert fitted.out_of_fold is not None
    at_choice = float((fitted.out_of_fold.argmax(axis=1) == y).mean())
    assert at_choice == pytest.approx(accuracy[chosen.index(True)], abs=0.02)
    assert at_choice < (fitted.head.predict(X) == y).mean()


def test_out_of_fold_accuracy_is_that_of_new_images() -> None:
    X, y = toy_features((200, 200, 200), distance=0.4)
    X_new, y_new = toy_features((1000, 1000, 1000), distance=0.4, seed=5)
    for kind in LINEAR_HEADS:
        fitted = fit_head(kind, X, y, 3)
        assert fitted.out_of_fold is not None
        judged = (fitted.out_of_fold.argmax(axis=1) == y).mean()
        assert judged == pytest.approx((fitted.head.predict(X_new) == y_new).mean(), abs=0.04)


def test_labels_that_features_do_not_explain_are_judged_at_chance() -> None:
    random = np.random.default_rng(0)
    X, y = random.normal(size=(120, 300)).astype(np.float32), np.arange(120) % 3
    for kind in LINEAR_HEADS:
        fitted = fit_head(kind, X, y, 3)
        assert max(row["accuracy"] for row in fitted.table) < 0.5
        assert fitted.head.probabilities(random.normal(size=(50, 300))).max(axis=1).mean() < 0.6


def test_groups_never_straddle_folds_and_classes_are_spread() -> None:
    random = np.random.default_rng(0)
    y = random.integers(0, 4, 200)
    groups = random.integers(0, 60, 200)  # duplicates, also across classes
    fold = assign_folds(y, groups, 5, seed=0)
    for group in np.unique(groups):
        assert len(np.unique(fold[groups == group])) == 1
    counts = np.array([[((y == c) & (fold == f)).sum() for f in range(5)] for c in range(4)])
    assert fold.min() == 0
    assert counts.min() >= 4
    alone = assign_folds(y, np.arange(200), 5, seed=0)
    counts = np.array([[((y == c) & (alone == f)).sum() for f in range(5)] for c in range(4)])
    assert np.ptp(counts, axis=1).max() <= 1
    assert np.ptp(np.bincount(alone)) <= 2


def test_the_only_image_of_a_class_is_in_every_training_part() -> None:
    y = np.array([0] * 20 + [1] * 20 + [2, 2] + [3])
    fold = assign_folds(y, np.arange(len(y)), 5, seed=0)
    assert fold[-1] == -1
    assert len(set(fold[y == 2])) == 2
    duplicates = assign_folds(y, np.array([*range(40), 40, 40, 41]), 5, seed=0)
    assert set(duplicates[y == 2]) == {-1}


def test_copies_with_contradicting_labels_do_not_empty_a_training_part() -> None:
    for seed in range(200):
        rng = np.random.default_rng(seed)
        groups = np.repeat(np.arange(8), 2)  # pairs of equal images, whose labels often differ
        y = rng.integers(0, 3, 16)
        fold = assign_folds(y, groups, 3, seed)
        for c in np.unique(y):
            if len(np.unique(groups[y == c])) > 1:
                assert all((fold[y == c] != k).any() for k in range(3)), seed


@pytest.mark.parametrize("kind", LINEAR_HEADS)
def test_duplicates_do_not_flatter_when_they_are_groups(kind: str) -> None:
    random = np.random.default_rng(0)
    X = np.repeat(random.normal(size=(60, 100)).astype(np.float32), 2, axis=0)  # no signal, each image twice
    y = np.repeat(np.arange(60) % 2, 2)
    flattered = fit_head(kind, X, y, 2)
    honest = fit_head(kind, X, y, 2, groups=np.arange(120) // 2)
    assert max(row["accuracy"] for row in flattered.table) > 0.85
    assert max(row["accuracy"] for row in honest.table) < 0.7


def test_two_classes_give_two_rows_whose_difference_is_the_decision_function() -> None:
    from sklearn.linear_model import RidgeClassifier
    from sklearn.svm import LinearSVC

    X, y = toy_features((50, 40))
    svm, ridge = (fit_head(kind, X, y, 2, grid=[1.0]).head for kind in ("linear-svm", "ridge"))
    svc = LinearSVC(C=1.0, intercept_scaling=30, tol=1e-7, max_iter=10_000, dual=False).fit(scaled(X), y)
    reference = RidgeClassifier(alpha=1.0).fit(scaled(X), y)
    for head, decision in ((svm, svc), (ridge, reference)):
        scores = head.scores(X)
        assert head.weight.shape == (2, X.shape[1])
        np.testing.assert_allclose(head.weight[0], -head.weight[1], atol=1e-6)
        np.testing.assert_allclose(scores[:, 1] - scores[:, 0], decision.decision_function(scaled(X)), atol=2e-3)


@pytest.mark.parametrize("kind", LINEAR_HEADS)
def test_one_seed_gives_one_head(kind: str) -> None:
    X, y = toy_features(distance=0.4)
    first, second = (fit_head(kind, X, y, 3, seed=3) for _ in range(2))
    np.testing.assert_array_equal(first.head.weight, second.head.weight)
    assert first.head.temperature == second.head.temperature
    assert first.table == second.table


@pytest.mark.parametrize("kind", LINEAR_HEADS)
@pytest.mark.parametrize(("factor", "offset"), [(1e4, 0.0), (1e-4, 0.0), (1.0, 30.0)])
def test_the_unit_and_the_offset_of_features_do_not_matter(kind: str, factor: float, offset: float) -> None:
    X, y = toy_features(distance=0.4)
    plain, changed = fit_head(kind, X, y, 3), fit_head(kind, X * np.float32(factor) + np.float32(offset), y, 3)
    assert changed.chosen == plain.chosen
    np.testing.assert_allclose(
        changed.head.probabilities(X * np.float32(factor) + np.float32(offset)), plain.head.probabilities(X), atol=2e-3
    )


def test_imbalance_beyond_three_to_one_balances_the_classes() -> None:
    X, y = toy_features((150, 20), distance=0.25)
    fitted = fit_head("linear-svm", X, y, 2)
    unweighted = fit_head("linear-svm", X, y, 2, class_weight=None)
    assert fitted.class_weights == pytest.approx({0: 170 / 300, 1: 170 / 40})
    assert unweighted.class_weights is None
    X_new, y_new = toy_features((500, 500), distance=0.25, seed=7)
    rare = y_new == 1
    assert (fitted.head.predict(X_new) == y_new)[rare].mean() > (unweighted.head.predict(X_new) == y_new)[rare].mean()
    X, y = toy_features((60, 20))
    assert fit_head("linear-svm", X, y, 2).class_weights is None


@pytest.mark.parametrize("kind", LINEAR_HEADS)
@pytest.mark.parametrize("counts", [(1, 1), (1, 1, 1), (2, 2), (1, 3, 2), (4, 4, 4), (30, 30, 1), (30, 30, 2)])
def test_tiny_classes_still_give_a_head(kind: str, counts: tuple[int, ...]) -> None:
    X, y = toy_features(counts, distance=3.0)
    fitted = fit_head(kind, X, y, len(counts))
    assert (fitted.head.predict(X) == y).mean() == 1
    assert np.isfinite(fitted.head.probabilities(X)).all()
    assert fitted.head.temperature > 0
    assert fitted.is_calibrated == (max(counts) > 1)
    if max(counts) < 5:
        assert "fixed" in fitted.rule
        assert len(fitted.table) == 1
    if max(counts) == 1:
        assert "Not calibrated" in fitted.rule
    if counts == (30, 30, 1):
        assert fitted.out_of_fold is not None
        np.testing.assert_array_equal(np.isnan(fitted.out_of_fold).any(axis=1), y == 2)


@pytest.mark.parametrize("kind", LINEAR_HEADS)
def test_a_class_without_training_images_has_a_column_and_is_never_predicted(kind: str) -> None:
    X, y = toy_features((30, 30))
    fitted = fit_head(kind, X, np.where(y == 1, 3, 1), 5)
    probabilities = fitted.head.probabilities(X)
    assert fitted.head.weight.shape == (5, X.shape[1])
    assert probabilities[:, [0, 2, 4]].max() == 0
    assert set(fitted.head.predict(X)) == {1, 3}
    assert fitted.out_of_fold is not None
    assert fitted.out_of_fold.shape == (60, 5)
    assert np.isfinite(fitted.head.folded()[1].astype(np.float16)).all()


@pytest.mark.parametrize("kind", LINEAR_HEADS)
def test_perfectly_separated_classes_stay_finite(kind: str) -> None:
    X, y = toy_features((30, 30, 30), distance=50.0)
    fitted = fit_head(kind, X, y, 3)
    probabilities = fitted.head.probabilities(X)
    assert (probabilities.argmax(axis=1) == y).all()
    assert np.isfinite(probabilities).all()
    assert 0 < fitted.head.temperature < np.inf
    assert 0.9 < probabilities.max(axis=1).mean() < 1


@pytest.mark.parametrize("true_temperature", [0.05, 1.0, 20.0])
def test_a_known_temperature_is_recovered(true_temperature: float) -> None:
    random = np.random.default_rng(0)
    logits = random.normal(size=(20_000, 4)) * 2
    y = (softmax(logits).cumsum(axis=1) < random.random((20_000, 1))).sum(axis=1)
    assert fit_temperature(logits * true_temperature, y) == pytest.approx(true_temperature, rel=0.05)


def test_the_temperature_of_separated_scores_falls_with_the_number_of_images() -> None:
    few, many = (fit_temperature(np.tile(np.eye(2), (n, 1)), np.tile([0, 1], n)) for n in (5, 500))
    assert 0.05 < many < few < 1
    assert fit_temperature(np.zeros((4, 2)), np.array([0, 1, 0, 1])) == 1.0


@pytest.mark.parametrize("kind", LINEAR_HEADS)
def test_probabilities_are_calibrated_on_new_images(kind: str) -> None:
    X, y = toy_features((150, 150, 150), distance=0.35)
    X_new, y_new = toy_features((1500, 1500, 1500), distance=0.35, seed=11)
    head = fit_head(kind, X, y, 3).head
    probabilities = head.probabilities(X_new)
    assert probabilities.max(axis=1).mean() == pytest.approx((probabilities.argmax(axis=1) == y_new).mean(), abs=0.05)


def test_val_judges_only_where_it_is_the_larger_part() -> None:
    X, y = toy_features((20, 20, 20), distance=0.4)
    X_val, y_val = toy_features((60, 60, 60), distance=0.4, seed=3)
    by_val = fit_head("logistic", X, y, 3, X_val=X_val, y_val=y_val)
    assert "validation" in by_val.rule
    assert by_val.out_of_fold is None
    alone, unseen = fit_head("logistic", X_val, y_val, 3), fit_head("logistic", X_val, y_val, 3, X_val=X, y_val=y)
    np.testing.assert_array_equal(alone.head.weight, unseen.head.weight)
    assert unseen.head.temperature == alone.head.temperature


def test_constant_and_dead_dimensions_do_no_harm() -> None:
    X, y = toy_features()
    X = np.concatenate([X, np.zeros((len(X), 3), np.float32), np.full((len(X), 2), 7, np.float32)], axis=1)
    for scaling in ("global", "standard", "whiten", "none"):
        head = fit_head("linear-svm", X, y, 3, scaling=scaling).head
        assert np.isfinite(head.weight).all()
        assert (head.predict(X) == y).mean() > 0.95


def test_features_that_are_all_alike_give_the_class_shares() -> None:
    y = np.array([0] * 20 + [1] * 10)
    for kind in LINEAR_HEADS:
        probabilities = fit_head(kind, np.ones((30, 4), np.float32), y, 2).head.probabilities(np.ones((1, 4)))
        assert probabilities[0, 0] > probabilities[0, 1]


def test_a_given_grid_is_tried_as_it_is() -> None:
    X, y = toy_features(distance=0.4)
    fitted = fit_head("linear-svm", X, y, 3, grid=[10.0, 0.01, 0.1])
    assert [row["C"] for row in fitted.table] == pytest.approx([10.0, 0.1, 0.01])
    assert fit_head("frozen", X, y, 3, grid=[1e-3]).chosen == {"weight_decay": pytest.approx(1e-3)}


def test_nothing_warns_on_features_that_make_solvers_slow() -> None:
    random = np.random.default_rng(0)
    X = (random.normal(size=(60, 200)) * np.logspace(-6, 4, 200)).astype(np.float32)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for kind in LINEAR_HEADS:
            assert np.isfinite(fit_head(kind, X, np.arange(60) % 3, 3).head.weight).all()


def test_features_that_are_not_finite_are_named_by_row() -> None:
    X, y = toy_features()
    X[7, 3], X[11, 0] = np.nan, np.inf
    with pytest.raises(DataError, match=r"2 of 120 rows \(7, 11\)"):
        fit_head("ridge", X, y, 3)


def test_one_class_is_refused() -> None:
    with pytest.raises(DataError, match="at least two"):
        fit_head("linear-svm", np.ones((5, 3), np.float32), np.zeros(5, int), 2)


def test_what_cannot_be_meant_is_refused_in_one_line() -> None:
    X, y = toy_features((5, 5))
    with pytest.raises(UsageError, match="Did you mean 'linear-svm'"):
        fit_head("linear_svm", X, y, 2)
    with pytest.raises(UsageError, match="Unknown scaling"):
        fit_head("ridge", X, y, 2, scaling="l2")
    with pytest.raises(UsageError, match="class weight"):
        fit_head("ridge", X, y, 2, class_weight="equal")
    with pytest.raises(UsageError, match="positive"):
        fit_head("ridge", X, y, 2, grid=[1.0, -1.0])
    with pytest.raises(DataError, match="from 0 to 0, not 0 to 1"):
        fit_head("ridge", X, y, 1)
    with pytest.raises(DataError, match="9 groups for 10"):
        fit_head("ridge", X, y, 2, groups=np.arange(9))
    with pytest.raises(UsageError, match="do not fit a head for 20 dimensions"):
        fit_head("ridge", X, y, 2).head.scores(X[:, :5])


def test_a_head_made_by_hand_predicts() -> None:
    head = LinearHead(np.eye(2, dtype=np.float32), np.zeros(2, np.float32), temperature=2.0)
    np.testing.assert_allclose(head.probabilities(np.array([[2.0, 0.0]]))[0, 0], 1 / (1 + np.exp(-1)), atol=1e-7)


def views_of(X: np.ndarray, n_views: int, noise: float = 0.01) -> np.ndarray:
    random = np.random.default_rng(5)
    return (X[:, None] + noise * random.normal(size=(len(X), n_views, X.shape[1]))).astype(np.float32)


@pytest.mark.parametrize("kind", HEADS)
def test_the_views_of_an_image_are_never_parted(kind: str) -> None:
    X = np.random.default_rng(0).normal(size=(120, 60)).astype(np.float32)
    y = np.random.default_rng(1).permutation(np.repeat([0, 1, 2], 40))  # labels of noise: nothing can be learned
    fitted = fit_head(kind, views_of(X, 4), y, 3)
    assert fitted.out_of_fold is not None
    assert fitted.out_of_fold.shape == (120, 3)
    assert (fitted.out_of_fold.argmax(axis=1) == y).mean() < 0.55


@pytest.mark.parametrize("multiclass", ["rest", "pairs"])
def test_the_scores_of_an_image_are_the_average_over_its_views(multiclass: str) -> None:
    X, y = toy_features()
    seen = views_of(X, 3, noise=1.0)
    head = fit_head("linear-svm", seen, y, 3, multiclass=multiclass).head
    alone = np.mean([head.scores(seen[:, k]) for k in range(3)], axis=0)
    np.testing.assert_allclose(head.scores(seen), alone, atol=1e-5)
    assert (head.predict(seen) == y).mean() > (head.predict(seen[:, 0]) == y).mean()


def test_dropout_is_learning_from_copies_with_holes_and_all_numbers_in_proportion_after() -> None:
    from transfer.heads.holes import COPIES, with_holes

    X, y = toy_features()
    copies = with_holes(X, 0.5, seed=0)
    assert copies.shape == (COPIES * len(X), X.shape[1])
    assert (copies[X.repeat(COPIES, axis=0) > 0] == 0).mean() == pytest.approx(0.5, abs=0.02)
    dropped = fit_head("linear-svm", X, y, 3, dropout=0.5, grid=[2.0]).head
    on_copies = fit_head("linear-svm", copies, y.repeat(COPIES), 3, grid=[2.0 / COPIES]).head
    np.testing.assert_allclose(dropped.weight, 0.5 * on_copies.weight, atol=1e-4)
    np.testing.assert_allclose(dropped.bias, on_copies.bias, atol=1e-4)


@pytest.mark.parametrize("counts", [(40, 40, 40), (30, 20), (12, 9, 8, 7)])
def test_pairs_vote_as_those_of_libsvm(counts: tuple[int, ...]) -> None:
    from sklearn.svm import SVC

    X, y = toy_features(counts, d=15, distance=0.5)
    others, _ = toy_features(counts, d=15, distance=0.5, seed=7)
    head = fit_head("linear-svm", X, y, len(counts), multiclass="pairs", grid=[2.0]).head
    mean = X.mean(axis=0, dtype=np.float64)
    length = np.sqrt(((X - mean) ** 2).sum(axis=1).mean())
    svc = SVC(C=2.0, kernel="linear", decision_function_shape="ovr", tol=1e-6).fit((X - mean) / length, y)
    found = svc.decision_function((others - mean) / length)
    expected = found.argmax(axis=1) if found.ndim > 1 else (found > 0).astype(int)
    assert (head.predict(others) == expected).mean() > 0.99
    if len(counts) > 2:
        np.testing.assert_allclose(head.scores(others), found, atol=5e-3)


def test_a_class_without_images_is_never_the_answer() -> None:
    X, y = toy_features((40, 40, 40))
    for kind, changes in (("linear-svm", {"multiclass": "pairs"}), ("knn", {}), ("logistic", {})):
        head = fit_head(kind, X, np.where(y == 1, 3, y), 4, **changes).head  # type: ignore[arg-type]
        assert head.probabilities(X)[:, 1].max() < 0.02
        assert set(head.predict(X)) == {0, 2, 3}


def test_the_nearest_neighbours_vote_with_their_similarity() -> None:
    X, y = toy_features(distance=0.4)
    fitted = fit_head("knn", X, y, 3, grid=[5, 20, 1000])
    assert [row["k"] for row in fitted.table] == [5, 20]
    unit = X / np.linalg.norm(X, axis=1, keepdims=True)
    for i in (0, 17):
        similarity = unit @ unit[i]
        nearest = np.argsort(-similarity)[: fitted.chosen["k"]]
        votes = np.bincount(y[nearest], np.exp(similarity[nearest] / 0.07), minlength=3)
        np.testing.assert_allclose(fitted.head.scores(X[i : i + 1])[0], np.log(votes / votes.sum() + 1e-3), atol=1e-4)
    assert fitted.out_of_fold is not None
    assert (fitted.out_of_fold.argmax(axis=1) == y).mean() < (fitted.head.predict(X) == y).mean()


def test_halving_tries_few_and_finds_a_setting_as_good() -> None:
    X, y = toy_features(distance=0.3)
    grid = [10.0 ** (e / 8) for e in range(-48, 49)]
    fast = fit_head("logistic", X, y, 3, grid=grid, search="halving", rule="best")
    full = fit_head("logistic", X, y, 3, grid=grid[::4], rule="best")
    assert len(fast.table) <= 7 + 4 * 2
    best = max(row["accuracy"] for row in full.table)
    assert next(row["accuracy"] for row in fast.table if row["chosen"]) >= best - 0.03


def test_the_best_rule_takes_the_middle_one_of_the_best() -> None:
    X, y = toy_features(distance=0.4)
    table = fit_head("logistic", X, y, 3, grid=[0.01, 0.1, 1.0, 10.0, 100.0], rule="best").table
    best = max(row["accuracy"] for row in table)
    ties = [i for i, row in enumerate(table) if row["accuracy"] == best]
    assert [row["chosen"] for row in table].index(True) == ties[len(ties) // 2]


def test_average_precision_chooses_a_setting_for_each_class() -> None:
    from sklearn.svm import LinearSVC

    X, y = toy_features((60, 20, 20), distance=0.4)
    grid = [0.01, 1.0, 100.0]
    fitted = fit_head(
        "linear-svm", X, y, 3, grid=grid, rule="average-precision", positive_weight=2.0, class_weight=None
    )
    assert len(fitted.chosen["C"]) == 3
    assert sum(row["n_classes_chosen"] for row in fitted.table) == 3
    rows = scaled(X)
    for c, C in enumerate(fitted.chosen["C"]):
        svc = LinearSVC(
            C=C, intercept_scaling=30, tol=1e-7, max_iter=100_000, dual=False, class_weight={1: 2.0, 0: 1.0}
        )
        decision = svc.fit(rows, y == c).decision_function(rows)
        np.testing.assert_allclose(fitted.head.scores(X)[:, c], decision, atol=5e-3)


def test_val_chooses_where_it_is_asked_to() -> None:
    X, y = toy_features(distance=0.4)
    X_val, y_val = toy_features((10, 10, 10), distance=0.4, seed=3)
    fitted = fit_head("logistic", X, y, 3, X_val=X_val, y_val=y_val, judge="val", rule="best")
    assert "validation images" in fitted.rule
    with pytest.raises(DataError, match="validation images"):
        fit_head("logistic", X, y, 3, judge="val")


def test_whitening_gives_every_direction_the_same_variance() -> None:
    from transfer.heads.rotation import rotate

    X, _ = toy_features((60, 60, 60), d=10)
    Z = rotate(X * np.logspace(0, 1, 10, dtype=np.float32), np.ones(180), "whiten").Z[:, :-1]
    np.testing.assert_allclose((Z**2).mean(axis=0), 0.1, rtol=0.05)
    assert (Z**2).sum(axis=1).mean() == pytest.approx(1.0, rel=0.05)


@pytest.mark.parametrize(
    ("kind", "settings"),
    [
        ("logistic", {"multiclass": "pairs"}),
        ("ridge", {"dropout": 0.5}),
        ("linear-svm", {"multiclass": "pairs", "dropout": 0.5}),
        ("linear-svm", {"rule": "luck"}),
        ("linear-svm", {"dropout": 1.0}),
        ("logistic", {"positive_weight": 2.0}),
        ("knn", {"judge": "val"}),
        ("knn", {"grid": [0.5, 5]}),
        ("linear-svm", {"rule": "average-precision", "search": "halving"}),
    ],
)
def test_what_does_not_go_together_is_refused(kind: str, settings: dict[str, object]) -> None:
    X, y = toy_features()
    with pytest.raises(UsageError):
        fit_head(kind, X, y, 3, **settings)  # type: ignore[arg-type]


@pytest.mark.parametrize("kind", LINEAR_HEADS)
def test_features_too_large_for_memory_give_the_same_head(
    kind: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    X, y = toy_features()
    np.save(tmp_path / "rows.npy", X)
    in_memory = fit_head(kind, X, y, 3)
    monkeypatch.setattr("transfer.heads.rotation._IN_MEMORY", 0)
    mapped = fit_head(kind, np.load(tmp_path / "rows.npy", mmap_mode="r"), y, 3)
    np.testing.assert_array_equal(mapped.head.weight, in_memory.head.weight)
    monkeypatch.setattr("transfer.heads.solving._LARGE", 0)
    own = fit_head(kind, X, y, 3)
    assert own.chosen == in_memory.chosen
    np.testing.assert_allclose(own.head.scores(X), in_memory.head.scores(X), atol=0.02)


@pytest.mark.parametrize("multiclass", ["rest", "pairs"])
@pytest.mark.parametrize("scaling", ["auto", "whiten"])
def test_features_that_are_all_alike_are_no_reason_to_stop(multiclass: str, scaling: str) -> None:
    y = np.array([0] * 20 + [1] * 10 + [2] * 8)
    head = fit_head("linear-svm", np.ones((38, 4), np.float32), y, 3, multiclass=multiclass, scaling=scaling).head
    assert head.probabilities(np.ones((1, 4))).argmax() == 0


@pytest.mark.parametrize(
    "changes",
    [{"multiclass": "pairs"}, {"rule": "average-precision"}, {"rule": "best"}],
    ids=["pairs", "average precision", "best"],
)
def test_one_image_of_each_class_gives_a_head_though_none_can_be_left_out(changes: dict[str, str]) -> None:
    X, y = toy_features((1, 1, 1))
    fitted = fit_head("linear-svm", X, y, 3, grid=[0.1, 1.0, 10.0], class_weight=None, **changes)  # type: ignore[arg-type]
    assert fitted.head.predict(X).tolist() == y.tolist()


def test_a_class_that_is_never_left_out_takes_what_is_best_for_the_others() -> None:
    X, y = toy_features((30, 30, 1), distance=0.4)
    fitted = fit_head("linear-svm", X, y, 3, grid=[0.01, 1.0, 100.0], rule="average-precision", class_weight=None)
    means = [row["average_precision"] for row in fitted.table]
    assert fitted.chosen["C"][2] == pytest.approx(fitted.table[int(np.argmax(means))]["C"])


def test_a_head_by_average_precision_is_calibrated_on_finished_scores() -> None:
    random = np.random.default_rng(0)
    X, y = random.normal(size=(60, 200)).astype(np.float32), np.arange(60) % 3
    by_class, plain = (
        fit_head("linear-svm", X, y, 3, grid=[10.0], rule=rule, scaling="none").head.temperature
        for rule in ("average-precision", "best")
    )
    assert by_class == pytest.approx(plain, rel=0.05)


def test_val_is_judged_as_the_features_are_at_test() -> None:
    X, y = toy_features((60, 60, 60), distance=0.3)
    X_val, y_val = toy_features((60, 60, 60), distance=0.3, seed=4)
    by_val = fit_head("logistic", X, y, 3, X_val=X_val, y_val=y_val, judge="val", dropout=0.5, grid=[0.1]).head
    by_folds = fit_head("logistic", X, y, 3, dropout=0.5, grid=[0.1]).head
    assert by_val.temperature == pytest.approx(by_folds.temperature, rel=0.3)


def test_the_logistic_head_of_two_classes_is_one_problem_to_both_solvers(monkeypatch: pytest.MonkeyPatch) -> None:
    X, y = toy_features((40, 30))
    kept = fit_head("logistic", X, y, 2, grid=[1.0]).head
    monkeypatch.setattr("transfer.heads.solving._LARGE", 0)
    own = fit_head("logistic", X, y, 2, grid=[1.0]).head
    np.testing.assert_allclose(own.scores(X), kept.scores(X), atol=0.01)


def test_large_features_give_each_class_its_own_setting_too(monkeypatch: pytest.MonkeyPatch) -> None:
    X, y = toy_features((60, 20, 20), distance=0.4)
    options = {"grid": [0.01, 1.0, 100.0], "rule": "average-precision", "positive_weight": 2.0}
    kept = fit_head("linear-svm", X, y, 3, **options).head  # type: ignore[arg-type]
    monkeypatch.setattr("transfer.heads.solving._LARGE", 0)
    own = fit_head("linear-svm", X, y, 3, **options).head  # type: ignore[arg-type]
    np.testing.assert_allclose(own.scores(X), kept.scores(X), atol=0.02)


def test_too_many_rows_for_pairs_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    X, y = toy_features()
    monkeypatch.setattr("transfer.heads.pairs._MOST_ROWS", 100)
    with pytest.raises(UsageError, match="multiclass=rest"):
        fit_head("linear-svm", X, y, 3, multiclass="pairs")


@pytest.mark.parametrize(
    ("kind", "n_classes", "expected"),
    [("frozen", 10, 0), ("frozen", 1200, -4), ("logistic", 1200, -4), ("ridge", 1200, 0)],
)
def test_a_fixed_softmax_is_held_less_with_more_classes(kind: str, n_classes: int, expected: int) -> None:
    from transfer.heads.grids import first_grid
    from transfer.heads.rotation import rotate
    from transfer.heads.strengths import at_half_decade
    from transfer.heads.tasks import Task

    y = np.arange(2 * n_classes) % n_classes
    rotated = rotate(np.eye(2 * n_classes, 4, dtype=np.float32) + 1, np.ones(len(y)), "none")
    task = Task(kind, rotated, y, n_classes, np.ones(len(y)), np.arange(len(y)), 0)
    grid = first_grid(task, SimpleNamespace(is_val=False), None)
    assert grid.strengths == [at_half_decade(task, expected)]
