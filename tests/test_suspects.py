import numpy as np
import pytest

from transfer.errors import DataError
from transfer.suspects import find_suspects, out_of_fold


def clusters(n: int = 90, d: int = 12) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    y = np.arange(n) % 3
    return rng.normal(size=(n, d)).astype(np.float32) + 8 * np.eye(3, d, dtype=np.float32)[y], y


def test_flipped_labels_are_found_and_come_first() -> None:
    X, y = clusters()
    flipped = [4, 30, 71]
    wrong = y.copy()
    wrong[flipped] = (y[flipped] + 1) % 3
    suspects = find_suspects(out_of_fold(X, wrong, 3, np.arange(len(y))), wrong)
    assert sorted(suspect.row for suspect in suspects[:3]) == flipped
    assert all(suspect.suggested == y[suspect.row] for suspect in suspects[:3])
    assert len(suspects) <= 6
    margins = [suspect.margin for suspect in suspects]
    assert margins == sorted(margins)


def test_a_copy_does_not_vouch_for_its_wrong_label() -> None:
    X, y = clusters()
    X, y = np.concatenate([X, X[[4] * 8]]), np.concatenate([y, [(y[4] + 1) % 3] * 8])
    groups = np.arange(len(y))
    groups[90:] = 90  # one picture, eight times, all mislabelled
    rows = {suspect.row for suspect in find_suspects(out_of_fold(X, y, 3, groups), y)}
    assert rows >= set(range(90, 98))


def test_thresholds_are_those_of_each_class() -> None:
    # class 1 is never given more than 0.6: at 0.55 an image reaches its threshold, though not that of class 0
    p = np.array([[0.95, 0.05], [0.9, 0.1], [0.45, 0.55], [0.4, 0.6], [0.45, 0.55], [0.6, 0.4]])
    assert [s.row for s in find_suspects(p, np.array([0, 0, 0, 1, 1, 1]))] == [2]


def test_images_without_probabilities_and_classes_without_images_are_passed_over() -> None:
    p = np.array([[0.9, 0.1, 0.0], [np.nan] * 3, [0.1, 0.2, 0.7]])
    assert find_suspects(p, np.array([0, 1, 1])) == []
    assert find_suspects(p[:0], np.zeros(0, int)) == []


def test_wide_rows_are_shortened_and_still_tell() -> None:
    X, y = clusters()
    wide = np.pad(X, ((0, 0), (0, 5000)))
    wrong = y.copy()
    wrong[4] = (y[4] + 1) % 3
    assert find_suspects(out_of_fold(wide, wrong, 3, np.arange(len(y))), wrong)[0].row == 4


def test_one_class_is_refused() -> None:
    with pytest.raises(DataError):
        out_of_fold(np.ones((4, 2), np.float32), np.zeros(4, int), 2, np.arange(4))


def test_of_many_images_some_choose_the_penalty_and_flipped_labels_are_found_as_well(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    random = np.random.default_rng(0)
    y = np.sort(random.integers(0, 4, 3000))
    X = 2 * random.normal(size=(4, 24))[y] + random.normal(size=(3000, 24))
    X, y = np.vstack([X, X[:2] + 9]), np.append(y, [4, 4])  # a class that every tenth image could miss
    flipped = random.choice(3000, 150, replace=False)
    y[flipped] = (y[flipped] + 1) % 4

    def found() -> set[int]:
        return {suspect.row for suspect in find_suspects(out_of_fold(X, y, 5, np.arange(len(y))), y)}

    by_all = found()
    monkeypatch.setattr("transfer.suspects._MANY", 300)
    by_some = found()
    assert len(by_all & set(flipped.tolist())) > 120
    assert len(by_all ^ by_some) <= 0.05 * len(by_all)
