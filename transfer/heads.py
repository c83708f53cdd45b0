"""Heads: linear classifiers on frozen features.

Every head is one affine map on the raw features. How it is found differs: squared hinge (`linear-svm`), softmax by
a convex solver (`logistic`), least squares in closed form (`ridge`), or softmax by minibatches and Adam (`frozen`,
"train a new last layer"). All four work in the eigenbasis of the scaled features, which one decomposition gives and
which changes neither the loss nor an L2 penalty.

Choosing a setting takes dozens of fits, which one batched solver does side by side; the head that is kept for
`linear-svm` and `logistic` is then scikit-learn's own `LinearSVC` and `LogisticRegression` at that setting.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from transfer.errors import DataError, UsageError, did_you_mean

HEADS = ("linear-svm", "logistic", "ridge", "frozen")

# 'auto' is 'global'. `bench/scaling.py` on EfficientNet-Lite0 features of six sets, 10, 25 and 100 images per class,
# two draws each: mean test accuracy in %, with the standard error of the difference to 'global':
#            linear-svm   logistic     ridge
#   global   82.3         82.5         82.5         centred, one scale: folds
#   standard 81.0 ± 0.4   81.2 ± 0.3   80.9 ± 0.3   per dimension: folds, but lifts the noise of dead channels
#   l2       82.3 ± 0.2   82.3 ± 0.1   82.3 ± 0.1   rows to unit length: does not fold
SCALINGS = ("auto", "global", "standard", "l2", "none")

# Settings are half-decades e of the strength λ = unit · 10^(e/2) on features with rows of unit mean square length.
_RANGE = (-6, 6)
_UNIT = {"linear-svm": 0.5, "logistic": 1.0, "ridge": 1.0, "frozen": 1.0}
# Where each loss has its best λ, seen from ridge's (same 30 measurements, in half-decades): the squared hinge, at the
# median, where ridge has it (8 in 10 between -3 and +1); softmax, which curves less, lower by one.
_OFFSET = {"linear-svm": 0, "logistic": -1, "frozen": -1}
_REACH = {"linear-svm": 2, "logistic": 2, "frozen": 1}  # to either side of that; minibatches are the slow ones

_FEW_PER_CLASS = 5  # below, choosing picks noise ("validation-set illusion", arXiv 2603.00478): a fixed setting
_IMBALANCE = 3.0
_VAL_JUDGES_ABOVE = 20_000  # training images; below, cross-validation is affordable and leaves val unseen
_ABSENT = -1e4  # calibrated score of a class without training images: probability 0, still finite in float16
_LR, _BETA_1, _BETA_2, _MIN_STEPS = 0.1, 0.9, 0.99, 400  # Adam, for the head that is trained in minibatches
_BLOCK = 4_000_000  # numbers per temporary array


@dataclass(frozen=True, eq=False)
class LinearHead:
    """An affine map from raw features to class scores, with the temperature that calibrates them.

    Attributes
    ----------
    weight : (C, d) float32
    bias : (C,) float32
    temperature : scores are divided by it before the softmax
    row_norm : None, or 'l2' when each row of features is brought to unit length first (then the head does not fold)

    Examples
    --------
    >>> head = LinearHead(np.array([[1.0, 0.0], [0.0, 1.0]]), np.array([0.0, 0.5]))
    >>> head.predict(np.array([[2.0, 1.0], [2.0, 1.8]])).tolist()
    [0, 1]
    """

    weight: np.ndarray
    bias: np.ndarray
    temperature: float = 1.0
    row_norm: str | None = None

    @property
    def folds(self) -> bool:
        """Whether one `nn.Linear` on the raw features gives the same probabilities."""
        return self.row_norm is None

    def scores(self, X: np.ndarray) -> np.ndarray:
        """Return (n, C) float32 scores of raw features (n, d), not divided by the temperature."""
        if X.ndim != 2 or X.shape[1] != self.weight.shape[1]:
            raise UsageError(
                f"Features of shape {X.shape} do not fit a head for {self.weight.shape[1]} dimensions: "
                "use the backbone and tap that the head was fitted on."
            )
        X = np.asarray(X, np.float32)
        if self.row_norm == "l2":
            X = _unit_rows(X)
        return X @ self.weight.T.astype(np.float32) + self.bias.astype(np.float32)

    def probabilities(self, X: np.ndarray) -> np.ndarray:
        """Return (n, C) calibrated probabilities, float64."""
        return _softmax(self.scores(X).astype(np.float64) / self.temperature)

    def predict(self, X: np.ndarray) -> np.ndarray:
        """Return (n,) class indices."""
        return self.scores(X).argmax(axis=1)

    def folded(self) -> tuple[np.ndarray, np.ndarray]:
        """Return weight and bias of the one `nn.Linear` whose softmax gives the calibrated probabilities.

        Raises
        ------
        UsageError
            The head normalises rows, which no linear layer does.
        """
        if not self.folds:
            raise UsageError("A head with row-wise L2 does not fold into one layer. Fit with scaling='global'.")
        return (self.weight / self.temperature).astype(np.float32), (self.bias / self.temperature).astype(np.float32)


@dataclass(frozen=True, eq=False)
class FittedHead:
    """A head and how it came about.

    Attributes
    ----------
    kind : one of `HEADS`
    chosen : the setting, in the unit of its library: {'C': …} as in `LinearSVC` and `LogisticRegression`,
        {'alpha': …} as in `Ridge`, {'weight_decay': …} on the mean loss. All hold on the *scaled* features
    table : one row per setting tried, weakest regularisation first: the setting, `accuracy` and its `standard_error`,
        `gap_standard_error` (of the difference to the best, image by image) and `chosen`. Class weights count here
    class_weights : {class index: weight of its images}, or None
    rule : one sentence on how the setting and the temperature were chosen
    out_of_fold : (n, C) scores of each training image by a head that did not see it (nor its group), or None.
        Rows of images that were in every fold's training part (the only one of their class) are NaN
    """

    head: LinearHead
    kind: str
    chosen: dict[str, float]
    table: list[dict[str, Any]]
    class_weights: dict[int, float] | None
    seconds: float
    rule: str
    out_of_fold: np.ndarray | None


def fit_head(
    kind: str,
    X: np.ndarray,
    y: np.ndarray,
    n_classes: int,
    *,
    X_val: np.ndarray | None = None,
    y_val: np.ndarray | None = None,
    groups: np.ndarray | None = None,
    scaling: str = "auto",
    class_weight: str | None = "auto",
    folds: int = 5,
    grid: Sequence[float] | None = None,
    seed: int = 0,
) -> FittedHead:
    """Fit a linear head on features; choose its regularisation and its temperature on images it did not see.

    Settings and temperature come from cross-validation inside `X` (ridge: exact leave-one-out). `X_val` judges instead
    only where it is the better judge: it has more images than `X`, or `X` has so many (over 20,000) that five fits cost
    more than they tell. In all other cases it stays unseen, so that strategies can be compared on it.

    Parameters
    ----------
    kind : one of `HEADS`
    X : (n, d) raw features
    y : (n,) class indices below `n_classes`
    groups : (n,) labels of any type; rows of one group (exact duplicates) are always left out together
    scaling : 'global' (centred, divided by one number), 'standard' (per dimension), 'l2' (rows to unit length; does
        not fold), 'none', or 'auto'
    class_weight : 'balanced', None, or 'auto': balanced when the largest class is over 3 times the smallest. Weights
        count in the loss and in the accuracy that chooses, not in the calibration
    grid : settings to try instead of the default ones, in the unit of `FittedHead.chosen`; one value is taken as it is
    seed : the same seed gives the same head

    Raises
    ------
    DataError
        One class only, features that are not finite (the rows are named), shapes or labels that do not fit.
    UsageError
        Unknown kind, scaling or class weight, or a grid that is not positive.
    """
    started = time.perf_counter()
    _require_choice("head", kind, HEADS)
    _require_choice("scaling", scaling, SCALINGS)
    X, y = _checked(X, y, n_classes, "training")
    if groups is not None and len(groups) != len(y):
        raise DataError(f"{len(groups)} groups for {len(y)} training images: give one per image.")
    if grid is not None and not (len(grid) and all(np.isfinite(s) and s > 0 for s in grid)):
        raise UsageError(f"A grid of settings must be positive numbers, not {list(grid)}.")
    if folds < 2:
        raise UsageError(f"Cross-validation needs at least 2 folds, not {folds}.")
    present, codes = np.unique(y, return_inverse=True)
    if len(present) < 2:
        raise DataError(
            f"All {len(y)} training images are of one class ({present[0]}): a classifier needs at least two."
        )

    class_weights = _class_weights(class_weight, present, codes)
    weights = np.ones(len(y)) if class_weights is None else np.array([class_weights[int(c)] for c in present])[codes]
    row_norm = "l2" if scaling == "l2" else None
    rotated = _rotate(_unit_rows(X) if row_norm else X, weights, scaling)
    members = np.arange(len(y)) if groups is None else np.unique(np.asarray(groups), return_inverse=True)[1].ravel()
    task = _Task(kind, rotated, codes, len(present), weights, members, seed)

    val = _val_rows(X_val, y_val, n_classes, present, row_norm, rotated, task) if kind != "ridge" else None
    judge = _val_judge(task, val) if val is not None else _fold_judge(task, folds)
    choice = _choose(task, judge, grid)

    coefficients = _fit_chosen(task, choice.strength)
    weight = (rotated.rotation @ coefficients[:-1]).T
    bias = coefficients[-1] - weight @ rotated.shift
    held_out = ~np.isnan(choice.scores[:, 0])
    if len(present) == 2 and kind in ("linear-svm", "ridge"):
        # The two one-vs-rest rows mirror each other. Halved, their difference is the library's decision function
        weight, bias, choice.scores[:] = weight / 2, bias / 2, choice.scores / 2
    temperature = fit_temperature(choice.scores[held_out], judge.codes[held_out]) if held_out.any() else 1.0

    head = LinearHead(
        _all_classes(weight.T, present, n_classes, 0.0).T.astype(np.float32),
        _all_classes(bias[None], present, n_classes, _ABSENT * temperature)[0].astype(np.float32),
        temperature,
        row_norm,
    )
    return FittedHead(
        head=head,
        kind=kind,
        chosen=_setting(task, choice.strength),
        table=choice.table,
        class_weights=class_weights,
        seconds=time.perf_counter() - started,
        rule=choice.rule
        + (f" Temperature on {judge.name}." if held_out.any() else " Not calibrated: no image to spare."),
        out_of_fold=_all_classes(choice.scores, present, n_classes, _ABSENT * temperature) if val is None else None,
    )


def fit_temperature(scores: np.ndarray, y: np.ndarray) -> float:
    """Return the T for which softmax(scores / T) has the least log loss on labels `y` (Guo et al., ICML 2017).

    One image's worth of labels is spread over all classes, as Platt does it: perfectly separated scores then get a
    finite T, the smaller the more images support it. `scores` must come from images that the head was not fitted on.

    >>> fit_temperature(np.array([[2.0, 0.0]] * 3 + [[0.0, 2.0]]), np.array([0, 0, 1, 1])) > 1
    True
    """
    from scipy.optimize import minimize_scalar

    scores = np.asarray(scores, np.float64)
    scores = scores - scores.max(axis=1, keepdims=True)
    size = float(np.sqrt(np.mean(scores**2)))
    if len(scores) == 0 or size == 0:
        return 1.0
    scores /= size
    spread = 1 / (len(scores) + 1)
    target = (1 - spread) * scores[np.arange(len(y)), y].mean() + spread * scores.mean()

    def log_loss(log_t: float) -> float:
        scaled = scores * np.exp(-log_t)
        return float(np.log(np.exp(scaled).sum(axis=1)).mean() - target * np.exp(-log_t))

    best = minimize_scalar(log_loss, bounds=(-7.0, 7.0), method="bounded", options={"xatol": 1e-5})
    return float(np.exp(best.x)) * size


def ridge_leave_one_out(
    X: np.ndarray, y: np.ndarray, n_classes: int, alphas: Sequence[float], groups: np.ndarray | None = None
) -> np.ndarray:
    """Return (len(alphas), n, C) scores of every image by the ridge that was fitted on ±1 targets without it.

    Exact, all strengths from one eigendecomposition; the intercept is not penalised. Rows of one group are left out
    together. The features are taken as they are (`scaling='none'`).
    """
    X, y = _checked(X, y, n_classes, "training")
    weights = np.ones(len(y))
    members = np.arange(len(y)) if groups is None else np.unique(groups, return_inverse=True)[1].ravel()
    task = _Task("ridge", _rotate(X, weights, "none"), y, n_classes, weights, members, 0)
    return _left_out(task, alphas)


def one_standard_error(accuracy: np.ndarray, gap_standard_error: np.ndarray) -> int:
    """Return the index of the strongest setting (the last) whose accuracy is within one standard error of the best.

    The error is that of the *difference* to the best, image by image: both are judged on the same images. The error of
    the accuracy itself is larger and cost linear-svm and logistic another 0.2 to 0.3 points on the shared sets.

    >>> one_standard_error(np.array([0.80, 0.90, 0.89, 0.85]), np.array([0.02, 0.0, 0.015, 0.02]))
    2
    """
    within = accuracy >= accuracy.max() - gap_standard_error - 1e-12
    return int(np.flatnonzero(within)[-1])


def assign_folds(y: np.ndarray, groups: np.ndarray, n_folds: int, seed: int) -> np.ndarray:
    """Return (n,) fold numbers: classes spread evenly, a group never divided, -1 for the only group of its class.

    A class with fewer groups than folds is missing from some held-out parts, never from a training part. So one rare
    class does not cut the number of folds for the rest.
    """
    members = np.unique(groups, return_inverse=True)[1].ravel()
    rows_of = np.split(np.argsort(members, kind="stable"), np.cumsum(np.bincount(members))[:-1])
    class_groups = _groups_per_class(y, members)
    order = np.random.default_rng(seed).permutation(len(rows_of))
    order = order[
        np.argsort([-len(rows_of[g]) for g in order], kind="stable")
    ]  # large groups first: they fit less easily
    per_class = np.zeros((int(y.max()) + 1, n_folds), int)
    totals = np.zeros(n_folds, int)
    fold = np.full(len(y), -1)
    for group in order:
        rows = rows_of[group]
        if np.any(class_groups[y[rows]] == 1):
            continue
        chosen = int(np.lexsort((totals, per_class[y[rows[0]]]))[0])
        fold[rows] = chosen
        totals[chosen] += len(rows)
        np.add.at(per_class[:, chosen], y[rows], 1)
    return fold


# What is solved: λ/2 |w|² + Σ weight · loss, with a free intercept, in the eigenbasis.


@dataclass(frozen=True, eq=False)
class _Rotated:
    """Features as Z = (X - shift) @ rotation, last column ones; columns orthogonal under the image weights."""

    Z: np.ndarray  # (n, D) float32
    energy: np.ndarray  # (D,) weighted sum of squares of each column
    rotation: np.ndarray  # (d, D - 1)
    shift: np.ndarray  # (d,)

    @property
    def penalised(self) -> np.ndarray:
        return np.arange(len(self.energy)) < len(self.energy) - 1


@dataclass(frozen=True, eq=False)
class _Task:
    kind: str
    rotated: _Rotated
    codes: np.ndarray  # (n,) labels among the classes that are present
    n_classes: int
    weights: np.ndarray  # (n,)
    groups: np.ndarray  # (n,) integers
    seed: int

    @property
    def one_hot(self) -> np.ndarray:
        return np.eye(self.n_classes, dtype=np.float32)[self.codes]


def _rotate(X: np.ndarray, weights: np.ndarray, scaling: str) -> _Rotated:
    """Scale the features and turn them into the eigenbasis of XᵀX or XXᵀ, whichever is smaller."""
    n, d = X.shape
    total = weights.sum()
    shift, squares = np.zeros(d), np.zeros(d)
    for rows in _row_blocks(n, d):
        shift += weights[rows] @ X[rows].astype(np.float64) / total
    for rows in _row_blocks(n, d):
        squares += weights[rows] @ (X[rows] - shift) ** 2 / total
    scale = _scale(squares, scaling)
    root = np.sqrt(weights)[:, None]
    if n > d:
        gram = np.zeros((d, d))
        for rows in _row_blocks(n, d):
            block = root[rows] * ((X[rows] - shift) * scale)
            gram += block.T @ block
        energy, vectors = _eigh(gram)
        vectors = vectors[:, kept := energy > energy[-1] * 1e-11]
        energy = energy[kept]
    else:
        scaled = root * ((X - shift) * scale)
        energy, left = _eigh(scaled @ scaled.T)
        kept = energy > energy[-1] * 1e-11
        energy = energy[kept]
        vectors = scaled.T @ (left[:, kept] / np.sqrt(energy))
    rotation = np.broadcast_to(scale, (d,))[:, None] * vectors
    Z = np.ones((n, len(energy) + 1), np.float32)
    for rows in _row_blocks(n, d):
        Z[rows, :-1] = (X[rows] - shift) @ rotation
    return _Rotated(Z, np.append(energy, total), rotation, shift)


def _eigh(gram: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return eigenvalues, ascending, and eigenvectors."""
    from scipy.linalg import eigh
    from threadpoolctl import threadpool_limits

    # One thread takes 0.35 s for 1,280 × 1,280 and two take 0.31 s, but on a busy machine two wait for each other: 12 s
    with threadpool_limits(1, user_api="blas"):
        energy, vectors = eigh(gram, driver="evd", overwrite_a=True, check_finite=False)
    return energy, vectors


def _scale(squares: np.ndarray, scaling: str) -> np.ndarray:
    """Return the factor(s) on centred features, given the mean square of each dimension."""
    if scaling in ("none", "l2"):
        return np.ones(1)
    if scaling == "standard":
        live = squares > squares.max() * 1e-12
        return np.where(live, 1 / np.sqrt(np.where(live, squares, 1) * max(live.sum(), 1)), 0.0)
    length = np.sqrt(squares.sum())
    # Rows of unit length (root mean square): a good C is then near 1 whatever the backbone's width and scale
    return np.array([1 / length if length > 0 else 1.0])


def _fit(task: _Task, strengths: Sequence[float], weights: np.ndarray, *, final: bool = False) -> np.ndarray:
    """Return (D, P, C) coefficients of P problems: strength p, image weights[:, p]."""
    if task.kind == "ridge":
        return _ridge(task, strengths)
    if task.kind == "frozen":
        return _train(task, np.asarray(strengths), weights)
    # 1e-3 already gives the accuracy that 1e-4 gives, to 0.1 points, in half the iterations
    return _solve(task, np.asarray(strengths), weights, tolerance=1e-5 if final else 1e-3)


def _fit_chosen(task: _Task, strength: float) -> np.ndarray:
    """Return (D, C) coefficients of the head that is kept: scikit-learn's own, where it has this loss."""
    if task.kind not in ("linear-svm", "logistic") or task.rotated.Z.shape[1] == 1:  # only the column of ones
        return _fit(task, [strength], task.weights[:, None], final=True)[:, 0, :].astype(np.float64)
    from sklearn.linear_model import LogisticRegression
    from sklearn.svm import LinearSVC
    from threadpoolctl import threadpool_limits

    Z, setting = task.rotated.Z[:, :-1].astype(np.float64), next(iter(_setting(task, strength).values()))
    if task.kind == "linear-svm":
        # LinearSVC penalises its intercept, the less the larger its scaling
        model = LinearSVC(C=setting, intercept_scaling=30, dual=False, tol=1e-6, max_iter=10_000, random_state=0)
    else:
        model = LogisticRegression(C=setting, tol=1e-5, max_iter=10_000)
    with threadpool_limits(1, user_api="blas"):
        model.fit(Z, task.codes, sample_weight=task.weights)
    rows = np.column_stack([model.coef_, model.intercept_]).T
    return rows if rows.shape[1] > 1 else np.hstack([-rows, rows]) / (1 if task.kind == "linear-svm" else 2)


def _ridge(task: _Task, strengths: Sequence[float]) -> np.ndarray:
    """Return (D, L, C) coefficients of least squares on ±1 targets, in closed form."""
    Z, targets = task.rotated.Z, 2 * task.one_hot - 1.0
    moments = np.zeros((Z.shape[1], task.n_classes))
    for rows in _row_blocks(*Z.shape):
        moments += Z[rows].T.astype(np.float64) @ (task.weights[rows, None] * targets[rows])
    return moments[:, None, :] * _inverse(task, strengths)[:, :, None]


def _inverse(task: _Task, strengths: Sequence[float]) -> np.ndarray:
    """Return (D, L): the diagonal of (ZᵀWZ + λ)⁻¹; the intercept carries no λ."""
    return 1 / (task.rotated.energy[:, None] + task.rotated.penalised[:, None] * np.asarray(strengths, np.float64))


def _left_out(task: _Task, strengths: Sequence[float]) -> np.ndarray:
    """Return (L, n, C) ridge scores of each image without its group: target - (1 - H_gg)⁻¹ residual_g."""
    Z, targets, inverse = task.rotated.Z, 2 * task.one_hot - 1.0, _inverse(task, strengths)
    coefficients = _ridge(task, strengths)
    scores = np.empty((len(strengths), len(Z), task.n_classes), np.float32)
    for rows in _row_blocks(len(Z), max(coefficients.shape[0], len(strengths) * task.n_classes)):
        residual, leverage = _residuals(task, rows, coefficients, inverse)
        scores[:, rows] = (targets[rows, None] - residual / np.maximum(1 - leverage, 1e-9)[:, :, None]).swapaxes(0, 1)
    for group in _shared_groups(task.groups):
        residual, _ = _residuals(task, group, coefficients, inverse)
        block = Z[group].astype(np.float64)
        for s in range(len(strengths)):
            rest = np.eye(len(group)) - (block * inverse[:, s]) @ block.T * task.weights[group]
            scores[s, group] = targets[group] - np.linalg.lstsq(rest, residual[:, s], rcond=1e-9)[0]
    return scores


def _residuals(
    task: _Task, rows: slice | np.ndarray, coefficients: np.ndarray, inverse: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return (m, L, C) residuals and (m, L) leverages of some rows, float64."""
    block = task.rotated.Z[rows].astype(np.float64)
    fitted = (block @ coefficients.reshape(len(inverse), -1)).reshape(len(block), inverse.shape[1], -1)
    return (2 * task.one_hot[rows] - 1.0)[:, None] - fitted, (block**2 @ inverse) * task.weights[rows, None]


def _solve(
    task: _Task, strengths: np.ndarray, weights: np.ndarray, tolerance: float, max_iterations: int = 3000
) -> np.ndarray:
    """Minimise all P problems at once by accelerated gradient with restarts (O'Donoghue & Candès 2015).

    In the eigenbasis the Hessian is at most the diagonal λ + h · energy, so one over that is a step that needs no line
    search, and an iteration is two matrix products for all folds, strengths and classes together. The objective is
    that of scikit-learn's `LinearSVC` (λ = 1 / 2C) or `LogisticRegression` (λ = 1 / C), with a free intercept.
    """
    Z, energy = task.rotated.Z, task.rotated.energy
    hinge = task.kind == "linear-svm"
    residual = _hinge_slope if hinge else _softmax_slope
    targets = 2 * task.one_hot - 1 if hinge else task.one_hot
    curvature = 1.0 if hinge else 0.5  # the largest second derivative of the loss
    weights = weights.astype(np.float32)
    penalty = np.where(task.rotated.penalised[:, None], strengths, 0.0).astype(np.float32)[:, :, None]
    metric = penalty + np.float32(curvature) * energy.astype(np.float32)[:, None, None]

    shape = (Z.shape[1], len(strengths), task.n_classes)
    W: np.ndarray = np.zeros(shape, np.float32)  # not ridge's solution: it has seen the labels that a fold holds out
    ahead, momentum = W, np.ones(len(strengths))
    for _ in range(max_iterations):
        slope = penalty * ahead
        for rows in _row_blocks(len(Z), shape[1] * shape[2]):
            scores = (Z[rows] @ ahead.reshape(shape[0], -1)).reshape(-1, *shape[1:])
            change = residual(scores, targets[rows, None, :])
            change *= weights[rows, :, None]
            slope += (Z[rows].T @ change.reshape(len(change), -1)).reshape(shape)
        step = slope / metric
        following = ahead - step
        moved = following - W
        length = np.einsum("dpc,dpc,dp->p", step, step, metric[:, :, 0])
        size = np.einsum("dpc,dpc,dp->p", following, following, metric[:, :, 0])
        uphill = np.einsum("dpc,dpc->p", slope, moved) > 0
        further = (1 + np.sqrt(1 + 4 * momentum**2)) / 2
        pace = np.where(uphill, 0.0, (momentum - 1) / further).astype(np.float32)
        momentum = np.where(uphill, 1.0, further)
        W, ahead = following, following + pace[:, None] * moved
        if np.all(length <= tolerance**2 * size):
            break
    return W


def _hinge_slope(scores: np.ndarray, signs: np.ndarray) -> np.ndarray:
    """Return the derivative of ½ max(0, 1 - sign · score)²."""
    return -signs * np.maximum(1 - signs * scores, 0)


def _softmax_slope(scores: np.ndarray, one_hot: np.ndarray) -> np.ndarray:
    return _softmax(scores) - one_hot


def _train(task: _Task, strengths: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Train P softmax heads side by side: minibatches, Adam, cosine learning rate, weight decay in the loss.

    In numpy: steps are so small that torch's start and its threads' waiting for each other would be most of the time.
    """
    n, n_problems = weights.shape
    batch = min(256, n)
    n_steps = max(_MIN_STEPS, 10 * -(-n // batch))
    # Adam's steps have a size of their own: rows of unit length, whatever the scaling, let one learning rate fit
    length = np.float32(np.sqrt(task.rotated.energy[:-1].sum() / task.rotated.energy[-1]) or 1.0)
    units = np.where(task.rotated.penalised, length, np.float32(1.0))
    Z, one_hot = task.rotated.Z / units, task.one_hot
    share = (weights * (n / batch) / weights.sum(axis=0)).astype(np.float32)
    decay = (strengths / length**2 / weights.sum(axis=0) * task.rotated.penalised[:, None]).astype(np.float32)

    W: np.ndarray = np.zeros((Z.shape[1], n_problems, task.n_classes), np.float32)
    mean, square = np.zeros_like(W), np.zeros_like(W)
    shuffle, queue = np.random.default_rng(task.seed), np.empty(0, int)
    for step in range(1, n_steps + 1):
        if len(queue) < batch:
            queue = np.concatenate([queue, shuffle.permutation(n)])
        rows, queue = queue[:batch], queue[batch:]
        scores = (Z[rows] @ W.reshape(len(W), -1)).reshape(batch, n_problems, -1)
        change = _softmax_slope(scores, one_hot[rows, None, :]) * share[rows, :, None]
        slope = (Z[rows].T @ change.reshape(batch, -1)).reshape(W.shape) + decay[:, :, None] * W
        mean += (1 - _BETA_1) * (slope - mean)
        square += (1 - _BETA_2) * (slope * slope - square)
        lr = 0.5 * _LR * (1 + np.cos(np.pi * (step - 1) / n_steps)) / (1 - _BETA_1**step)
        W -= np.float32(lr) * mean / (np.sqrt(square / np.float32(1 - _BETA_2**step)) + np.float32(1e-8))
    return W / units[:, None, None]


# Who judges: folds inside the training part, leave-one-out, or val.


@dataclass(frozen=True, eq=False)
class _Judge:
    """Scores of unseen images for each strength, and the labels and weights of those images."""

    scores: Callable[[Sequence[float], bool], np.ndarray]  # (strengths, final) -> (L, m, C), NaN: never held out
    codes: np.ndarray
    weights: np.ndarray
    name: str
    is_val: bool = False


@dataclass(frozen=True, eq=False)
class _Choice:
    strength: float
    scores: np.ndarray  # (m, C)
    table: list[dict[str, Any]]
    rule: str


def _fold_judge(task: _Task, n_folds: int) -> _Judge:
    n_groups = _groups_per_class(task.codes, task.groups)
    if task.kind == "ridge":
        alone = n_groups[task.codes] == 1

        def left_out(strengths: Sequence[float], final: bool) -> np.ndarray:
            scores = _left_out(task, strengths)
            scores[:, alone] = np.nan
            return scores

        return _Judge(left_out, task.codes, task.weights, "leave-one-out scores")

    n_folds = max(2, min(n_folds, int(n_groups.max())))
    fold = assign_folds(task.codes, task.groups, n_folds, task.seed)

    def out_of_fold(strengths: Sequence[float], final: bool) -> np.ndarray:
        problems = [(k, s) for k in range(n_folds) for s in range(len(strengths))]
        weights = task.weights[:, None] * (fold[:, None] != np.array([k for k, _ in problems]))
        W = _fit(task, [strengths[s] for _, s in problems], weights, final=final)
        W = W.reshape(len(W), n_folds, -1)
        scores = np.full((len(strengths), len(fold), task.n_classes), np.nan, np.float32)
        for k in range(n_folds):
            held = np.flatnonzero(fold == k)
            found = task.rotated.Z[held] @ W[:, k]
            scores[:, held] = found.reshape(len(held), len(strengths), task.n_classes).transpose(1, 0, 2)
        return scores

    return _Judge(out_of_fold, task.codes, task.weights, f"out-of-fold scores ({n_folds} folds)")


def _val_rows(
    X_val: np.ndarray | None,
    y_val: np.ndarray | None,
    n_classes: int,
    present: np.ndarray,
    row_norm: str | None,
    rotated: _Rotated,
    task: _Task,
) -> tuple[np.ndarray, np.ndarray] | None:
    """Return val's rotated features and codes if val is the better judge, else None."""
    if X_val is None or y_val is None:
        return None
    X_val, y_val = _checked(X_val, y_val, n_classes, "validation")
    known = np.isin(y_val, present)
    n = len(task.codes)
    if known.sum() <= n and (n <= _VAL_JUDGES_ABOVE or known.sum() < n / 20):
        return None
    X_val = _unit_rows(X_val[known]) if row_norm else X_val[known]
    Z = np.ones((len(X_val), len(rotated.energy)), np.float32)
    for rows in _row_blocks(*X_val.shape):
        Z[rows, :-1] = (X_val[rows] - rotated.shift) @ rotated.rotation
    return Z, np.searchsorted(present, y_val[known])


def _val_judge(task: _Task, val: tuple[np.ndarray, np.ndarray]) -> _Judge:
    Z, codes = val
    weight_of = np.zeros(task.n_classes)
    weight_of[task.codes] = task.weights

    def on_val(strengths: Sequence[float], final: bool) -> np.ndarray:
        W = _fit(task, strengths, np.repeat(task.weights[:, None], len(strengths), axis=1), final=final)
        return np.stack([Z @ W[:, s] for s in range(len(strengths))])

    return _Judge(on_val, codes, weight_of[codes], "the validation images", is_val=True)


def _choose(task: _Task, judge: _Judge, grid: Sequence[float] | None) -> _Choice:
    """Try settings and take the strongest one within one standard error of the best."""
    typical = int(np.median(_groups_per_class(task.codes, task.groups)))
    few = typical < _FEW_PER_CLASS and not judge.is_val
    if grid is not None:
        tried = sorted(_strength(task, setting) for setting in grid)
    elif few:
        tried = [_at(task, 0)]
    elif task.kind == "ridge":
        tried = [_at(task, e) for e in range(_RANGE[0], _RANGE[1] + 1)]
    else:
        reach = _REACH[task.kind]
        centre = int(np.clip(_ridge_centre(task) + _OFFSET[task.kind], _RANGE[0] + reach, _RANGE[1] - reach))
        tried = [_at(task, e) for e in range(centre - reach, centre + reach + 1)]
    hits = _hits(task, judge, tried)

    widen = grid is None and not few and task.kind != "ridge"
    while widen and (beyond := _beyond(task, tried, hits.sum(axis=1))):
        more = _hits(task, judge, beyond)
        weaker = beyond[0] < tried[0]
        tried = beyond + tried if weaker else tried + beyond
        hits = np.concatenate([more, hits] if weaker else [hits, more])

    accuracy = hits.sum(axis=1)
    best = int(np.flatnonzero(accuracy == accuracy.max())[-1])
    gap = _standard_error(hits - hits[best])
    chosen = one_standard_error(accuracy, gap)
    columns = zip(tried, accuracy, _standard_error(hits), gap, strict=True)
    table: list[dict[str, Any]] = [
        {
            **_setting(task, strength),
            "accuracy": float(a),
            "standard_error": float(error),
            "gap_standard_error": float(gap_error),
            "chosen": strength == tried[chosen],
        }
        for strength, a, error, gap_error in columns
    ]
    name, value = next(iter(_setting(task, tried[chosen]).items()))
    if grid is None and few:
        rule = f"{name} = {value:.3g}, fixed: with about {typical} images per class a choice would pick noise."
    elif len(tried) == 1:
        rule = f"{name} = {value:.3g}, as given."
    else:
        around = "" if grid is not None or task.kind == "ridge" else " around the best of ridge's leave-one-out"
        rule = (
            f"{name} = {value:.3g}, the strongest regularisation of {len(tried)} tried{around} that is within one "
            f"standard error (image by image) of the best accuracy on {judge.name}."
        )
    # Solved to the end this time: a weak setting's scores still grow after its ranking has settled (on 60 images the
    # temperature of the loose solution was 0.10 instead of 0.40, and the test log loss 2.2 instead of 1.0)
    return _Choice(tried[chosen], judge.scores([tried[chosen]], True)[0], table, rule)


def _ridge_centre(task: _Task) -> int:
    """Return the half-decade at which ridge's leave-one-out is most accurate (the middle one of ties)."""
    exponents = np.arange(_RANGE[0], _RANGE[1] + 1)
    ridge = replace(task, kind="ridge")
    accuracy = _hits(ridge, _fold_judge(ridge, 2), [_at(ridge, int(e)) for e in exponents]).sum(axis=1)
    ties = np.flatnonzero(accuracy >= accuracy.max() - 1e-12)
    return int(exponents[ties[len(ties) // 2]])


def _beyond(task: _Task, tried: list[float], accuracy: np.ndarray) -> list[float]:
    """Return two more strengths past the edge that is strictly the best, or none; ties do not push outward."""
    rest = accuracy[1:-1].max()
    weakest, strongest = (round(2 * np.log10(s / _UNIT[task.kind])) for s in (tried[0], tried[-1]))
    if accuracy[-1] > max(rest, accuracy[0]) and strongest < _RANGE[1]:
        return [_at(task, e) for e in range(strongest + 1, min(strongest + 2, _RANGE[1]) + 1)]
    if accuracy[0] > max(rest, accuracy[-1]) and weakest > _RANGE[0]:
        return [_at(task, e) for e in range(max(weakest - 2, _RANGE[0]), weakest)]
    return []


def _hits(task: _Task, judge: _Judge, strengths: Sequence[float]) -> np.ndarray:
    """Return (L, m): each unseen image's share in the weighted accuracy of each setting, 0 where it was wrong."""
    rows = max(len(judge.codes), 5 * task.rotated.Z.shape[1])
    at_once = max(
        1, 10 * _BLOCK // (rows * task.n_classes)
    )  # scores of thousands of classes are not kept for all settings
    hits = np.empty((len(strengths), len(judge.codes)))
    for start in range(0, len(strengths), at_once):
        scores = judge.scores(strengths[start : start + at_once], False)
        share = np.where(np.isnan(scores[0, :, 0]), 0.0, judge.weights)
        correct = np.nan_to_num(scores, nan=0.0).argmax(axis=2) == judge.codes
        hits[start : start + at_once] = correct * (share / max(share.sum(), 1e-300))
    return hits


def _standard_error(contributions: np.ndarray) -> np.ndarray:
    """Return the standard error of each row's sum, over images (columns)."""
    return contributions.std(axis=1) * np.sqrt(contributions.shape[1])


def _at(task: _Task, exponent: int) -> float:
    return _UNIT[task.kind] * 10.0 ** (exponent / 2)


def _setting(task: _Task, strength: float) -> dict[str, float]:
    """Return λ in the unit of the library that users know. `_strength` is the way back."""
    if task.kind == "linear-svm":
        return {"C": 0.5 / strength}
    if task.kind == "logistic":
        return {"C": 1 / strength}
    if task.kind == "ridge":
        return {"alpha": strength}
    return {"weight_decay": strength / float(task.weights.sum())}


def _strength(task: _Task, setting: float) -> float:
    if task.kind == "linear-svm":
        return 0.5 / setting
    if task.kind == "logistic":
        return 1 / setting
    return setting if task.kind == "ridge" else setting * float(task.weights.sum())


# Small things.


def _class_weights(choice: str | None, present: np.ndarray, codes: np.ndarray) -> dict[int, float] | None:
    if choice not in ("auto", "balanced", None):
        raise UsageError(f"Unknown class weight {choice!r}: use 'auto', 'balanced' or None.")
    counts = np.bincount(codes)
    if choice is None or (choice == "auto" and counts.max() <= _IMBALANCE * counts.min()):
        return None
    return {int(c): len(codes) / (len(present) * int(k)) for c, k in zip(present, counts, strict=True)}


def _checked(X: np.ndarray, y: np.ndarray, n_classes: int, part: str) -> tuple[np.ndarray, np.ndarray]:
    X, y = np.asarray(X, np.float32), np.asarray(y)
    if X.ndim != 2 or y.shape != (len(X),) or not len(X):
        raise DataError(
            f"The {part} features {X.shape} and labels {y.shape} must be (images, dimensions) and (images,)."
        )
    if not np.issubdtype(y.dtype, np.integer) or y.min() < 0 or y.max() >= n_classes:
        raise DataError(
            f"The {part} labels must be class indices from 0 to {n_classes - 1}, not {y.min()} to {y.max()}."
        )
    broken = [int(i) for rows in _row_blocks(*X.shape) for i in rows.start + np.flatnonzero(~_finite_rows(X[rows]))]
    if broken:
        named = ", ".join(map(str, broken[:5])) + (", …" if len(broken) > 5 else "")
        raise DataError(
            f"The {part} features are NaN or infinite in {len(broken)} of {len(X)} rows ({named}): "
            "extract them again (with --exact if they were computed in 16 bits)."
        )
    return X, y.astype(np.int64)


def _finite_rows(X: np.ndarray) -> np.ndarray:
    return np.isfinite(X).all(axis=1)


def _require_choice(what: str, name: str, known: Sequence[str]) -> None:
    if name not in known:
        raise UsageError(f"Unknown {what} {name!r}: use {', '.join(known)}.{did_you_mean(str(name), known)}")


def _groups_per_class(y: np.ndarray, groups: np.ndarray) -> np.ndarray:
    """Return, per class, how many different groups it has."""
    pairs = np.unique(np.stack([y, groups]), axis=1)
    return np.bincount(pairs[0], minlength=int(y.max()) + 1)


def _shared_groups(groups: np.ndarray) -> Iterator[np.ndarray]:
    """Yield the rows of each group that has more than one."""
    order = np.argsort(groups, kind="stable")
    for rows in np.split(order, np.cumsum(np.bincount(groups))[:-1]):
        if len(rows) > 1:
            yield rows


def _all_classes(values: np.ndarray, present: np.ndarray, n_classes: int, absent: float) -> np.ndarray:
    """Return (m, n_classes) from (m, present classes), with `absent` for the others."""
    full = np.full((len(values), n_classes), absent, values.dtype)
    full[:, present] = values
    return full


def _unit_rows(X: np.ndarray) -> np.ndarray:
    return X / np.maximum(np.linalg.norm(X, axis=1, keepdims=True), 1e-12)


def _softmax(scores: np.ndarray) -> np.ndarray:
    exponentials = np.exp(scores - scores.max(axis=-1, keepdims=True))
    return exponentials / exponentials.sum(axis=-1, keepdims=True)


def _row_blocks(n: int, width: int) -> Iterator[slice]:
    """Yield slices over n rows so that a block of `width` columns stays small: memory does not grow with n."""
    height = max(1, _BLOCK // max(width, 1))
    for start in range(0, n, height):
        yield slice(start, min(start + height, n))
