"""Estimators: the toolkit with scikit-learn's face."""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.base import BaseEstimator, ClassifierMixin, ClassNamePrefixFeaturesOutMixin, TransformerMixin
from sklearn.utils.validation import check_is_fitted

from transfer.backbones import DEFAULT, Backbone, load_backbone
from transfer.dataset import Dataset, Split
from transfer.errors import DataError, UsageError
from transfer.features import FEATURES, Plans, Representation, Runner, extract
from transfer.files import sha256
from transfer.heads import HEADS, assign_folds, fit_head
from transfer.images import is_one_image
from transfer.progress import Progress
from transfer.recipe import FINE_TUNING, load_recipe
from transfer.strategies import Clock, Job, find_cut, fine_tune

_VAL_FOLDS = 5  # one of so many parts of the images chooses the epoch


class FeatureExtractor(ClassNamePrefixFeaturesOutMixin, TransformerMixin, BaseEstimator):
    """Turn images into features of a frozen backbone.

    Parameters
    ----------
    backbone, weights, tap
        As in `transfer.extract_features`.
    exact
        Compute in float32 throughout.
    device
        ``auto``, ``cpu``, ``cuda`` or ``mps``.

    Examples
    --------
    >>> from sklearn.pipeline import make_pipeline
    >>> from sklearn.svm import LinearSVC
    >>> pipeline = make_pipeline(FeatureExtractor(backbone="tf_efficientnet_lite0"), LinearSVC())
    """

    def __init__(
        self,
        backbone: str = DEFAULT,
        *,
        weights: str | None = None,
        tap: str = FEATURES,
        exact: bool = False,
        device: str = "auto",
    ) -> None:
        self.backbone = backbone
        self.weights = weights
        self.tap = tap
        self.exact = exact
        self.device = device

    def fit(self, X: Any, y: Any = None) -> FeatureExtractor:
        """Load the backbone; the images only have to be images."""
        _images(X)
        _require_one(self.tap)
        self.backbone_ = _load(self.backbone, self.weights)
        self.n_features_out_ = _width(self.backbone_, self.tap)
        return self

    @property
    def _n_features_out(self) -> int:  # where scikit-learn's `get_feature_names_out` looks
        return self.n_features_out_

    def transform(self, X: Any) -> np.ndarray:
        """Return features (N, d) in float32 of N paths, PIL images or uint8 arrays (height, width, 3).

        Raises
        ------
        DataError
            An image cannot be read: rows must stay aligned with labels, so none is left out here.
        """
        check_is_fitted(self, "backbone_")
        return _features(_images(X), self.backbone_, self.tap, self.exact, self.device)

    def __sklearn_tags__(self) -> Any:
        return _takes_images(super().__sklearn_tags__())


class TransferClassifier(ClassifierMixin, BaseEstimator):
    """A classifier on a pretrained backbone, from images to calibrated probabilities.

    Parameters
    ----------
    strategy
        ``linear-svm``, ``logistic``, ``ridge``, ``frozen`` or ``knn``: a head on the frozen backbone. ``partial`` or
        ``full``: deeper layers are trained too; the images must be files then, and a fifth of them chooses the epoch.
    backbone, weights, tap, exact, device
        As in `FeatureExtractor`.
    scaling, class_weight, folds
        As in a recipe's `head`; ``class_weight=None`` is what is ``none`` there.
    cut, train
        For ``partial`` and ``full``: the layer right of which all are trained, and changes to a recipe's `train`, such
        as ``{"epochs": 5}``. After ``{"keep": "last"}`` no image is left to calibrate the probabilities on.
    random_state
        Seed of every draw.

    Attributes
    ----------
    classes_ : the labels, sorted
    head_ : the fitted head, a `LinearHead` but for ``knn``
    backbone_ : the backbone, with what was trained
    fitted_ : how it came about: the settings tried, the one chosen and the rule
    is_tuned_ : whether layers of the backbone were trained
    history_ : one dictionary per epoch; empty where no layer was trained

    Examples
    --------
    ``TransferClassifier(strategy="linear-svm").fit(paths, labels).predict(["new.jpg"])``
    """

    def __init__(
        self,
        strategy: str = "linear-svm",
        *,
        backbone: str = DEFAULT,
        weights: str | None = None,
        tap: str = FEATURES,
        scaling: str = "auto",
        class_weight: str | None = "auto",
        folds: int = 5,
        cut: str | None = None,
        train: dict[str, Any] | None = None,
        exact: bool = False,
        device: str = "auto",
        random_state: int = 0,
    ) -> None:
        self.strategy = strategy
        self.backbone = backbone
        self.weights = weights
        self.tap = tap
        self.scaling = scaling
        self.class_weight = class_weight
        self.folds = folds
        self.cut = cut
        self.train = train
        self.exact = exact
        self.device = device
        self.random_state = random_state

    def fit(self, X: Any, y: Any) -> TransferClassifier:
        """Fit on N images (paths, PIL images or uint8 arrays) and N labels."""
        known = (*HEADS, *FINE_TUNING)
        if self.strategy not in known:
            raise UsageError(f"Unknown strategy {self.strategy!r}. Use one of {', '.join(known)}.")
        if self.strategy in HEADS:
            load_recipe(self.strategy, cut=self.cut, train=self.train)  # refuses what goes with other strategies
        _require_one(self.tap)
        images, labels = _images(X), np.asarray(y)
        if labels.shape != (len(images),):
            raise UsageError(f"{len(images)} images need as many labels, not an array of shape {labels.shape}.")
        _require_labels(labels)
        self.classes_, codes = np.unique(labels, return_inverse=True)
        if len(self.classes_) < 2:
            raise DataError(f"All images are of the class {self.classes_[0]!r}; a classifier needs two.")
        self.backbone_ = _load(self.backbone, self.weights)
        self.is_tuned_ = False
        if self.strategy in FINE_TUNING:
            self._fine_tune(images, codes)
        else:
            self._fit_head(images, codes)
        self.head_ = self.fitted_.head
        return self

    def _fit_head(self, images: list[Any], codes: np.ndarray) -> None:
        self.history_: list[dict[str, Any]] = []
        self.fitted_ = fit_head(
            self.strategy,
            self._features(images),
            codes,
            len(self.classes_),
            groups=np.array([_content(image) for image in images]),  # copies stay in one fold
            scaling=self.scaling,
            class_weight=self.class_weight,
            folds=self.folds,
            seed=self.random_state,
        )

    def _fine_tune(self, images: list[Any], codes: np.ndarray) -> None:
        if not _are_files(images):
            raise UsageError(f"Strategy {self.strategy!r} needs image files: give paths.")
        recipe = load_recipe(
            self.strategy,
            backbone=self.backbone,
            tap=self.tap,
            cut=self.cut,
            train=self.train,
            head={"scaling": self.scaling, "class_weight": self.class_weight or "none", "folds": self.folds},
            exact=self.exact,
            device=self.device,
            seed=self.random_state,
        )
        backbone = copy.deepcopy(self.backbone_)  # other estimators have the same one
        cut = find_cut(recipe, backbone)  # what it refuses, it refuses before the slow part
        X = self._features(images)
        dataset = _dataset([str(image) for image in images], codes.astype(np.int32), tuple(map(str, self.classes_)))
        is_val = assign_folds(codes, np.array(dataset.hashes), _VAL_FOLDS, self.random_state) == 0
        split = Split(np.where(is_val, "val", "train"), ["A fifth of the images chooses the epoch."], False)
        clock = Clock(recipe.train.minutes)
        job = Job(recipe, dataset, split, backbone, Representation(), X, Progress(quiet=True), clock, cut)
        trained = fine_tune(job)
        # nobody else asks for what a tuned backbone says: that is not kept
        self.is_tuned_ = trained.backbone is not backbone
        self.backbone_, self.fitted_, self.history_ = trained.backbone, trained.fitted, trained.history
        for checkpoints in trained.checkpoints:
            checkpoints.clear()

    def predict(self, X: Any) -> np.ndarray:
        """Return the most probable label of each image."""
        best = self._scores(X).argmax(1)
        return self.classes_[best]

    def predict_proba(self, X: Any) -> np.ndarray:
        """Return calibrated probabilities (N, C), columns in the order of `classes_`."""
        check_is_fitted(self, "head_")
        return self.head_.probabilities(self._features(_images(X)))

    def decision_function(self, X: Any) -> np.ndarray:
        """Return the head's scores before calibration: (N, C), or (N,) of the second class where there are two."""
        scores = self._scores(X)
        return scores[:, 1] - scores[:, 0] if len(self.classes_) == 2 else scores

    def _scores(self, X: Any) -> np.ndarray:
        check_is_fitted(self, "head_")
        return self.head_.scores(self._features(_images(X)))

    def _features(self, images: list[Any]) -> np.ndarray:
        return _features(images, self.backbone_, self.tap, self.exact, self.device, keep=not self.is_tuned_)

    def __sklearn_tags__(self) -> Any:
        return _takes_images(super().__sklearn_tags__())


_loaded: dict[tuple[str, str | None], Backbone] = {}


def _load(name: str, weights: str | None) -> Backbone:
    """Load a backbone once per process: a grid search fits many clones of one estimator."""
    if (name, weights) not in _loaded:
        _loaded[name, weights] = load_backbone(name, weights)
    return _loaded[name, weights]


def _images(X: Any) -> list[Any]:
    """Return the images as a list: of an array of numbers each row is one, of a table with one column each cell."""
    if is_one_image(X):
        name = repr(str(X)) if isinstance(X, (str, Path)) else "image"
        raise UsageError(f"Give a list of images, not one: [{name}].")
    if hasattr(X, "columns") and hasattr(X, "to_numpy"):  # a table, of pandas or polars
        X = X.to_numpy()
    if isinstance(X, np.ndarray) and X.ndim == 2:
        if X.shape[1] != 1:
            raise UsageError(
                f"A table of {X.shape[1]} columns is no list of images: give the one column that holds the paths."
            )
        X = X[:, 0]
    is_of_objects = isinstance(X, np.ndarray) and X.dtype.kind not in "buif"  # which `tolist` makes plain
    images = X.tolist() if is_of_objects else list(X)
    if not images:
        raise DataError("There are no images: give at least one.")
    return images


def _require_labels(labels: np.ndarray) -> None:
    import pandas

    missing = np.flatnonzero(pandas.isna(labels))
    if len(missing):
        raise DataError(
            f"{len(missing)} of {len(labels)} images have no label, the first of them number {missing[0]}, counted "
            "from 0. Label them or leave them out."
        )


def _require_one(tap: Any) -> None:
    if not isinstance(tap, str):
        raise UsageError(f"tap={tap!r}: give one tap. `transfer.fit` takes several.")


def _content(image: Any) -> str:
    """Return a digest that equal images share: of a file's bytes, or of pixels in memory."""
    if isinstance(image, (str, Path)):
        return sha256(image)
    pixels = np.ascontiguousarray(image)
    return hashlib.sha256(f"{pixels.shape}{pixels.dtype}".encode() + pixels.tobytes()).hexdigest()


def _width(backbone: Backbone, tap: str) -> int:
    """Return how many features a tap has after pooling."""
    if tap == FEATURES:
        return backbone.n_features
    black = np.zeros((*backbone.input_shape[1:], 3), np.uint8)
    return _features([black], backbone, tap, True, "cpu").shape[1]


def _are_files(images: Sequence[Any]) -> bool:
    return all(isinstance(image, (str, Path)) for image in images)


def _features(
    images: Sequence[Any], backbone: Backbone, tap: str, exact: bool, device: str, *, keep: bool = True
) -> np.ndarray:
    """Return features in the order of `images`: of files by the cache, if they are to be kept there."""
    if keep and _are_files(images):
        return _features_of_files([str(image) for image in images], backbone, tap, exact, device)
    runner = Runner(backbone, [tap], Plans(backbone, [tap], device, exact), images, exact=exact)
    rows = []
    for _, views, bad in runner.run():
        if bad:
            raise DataError(f"Image {bad[0][0]} cannot be read: {bad[0][1]}. Leave it and its label out.")
        rows.append(views[0][tap])
    return np.concatenate(rows)


def _features_of_files(paths: list[str], backbone: Backbone, tap: str, exact: bool, device: str) -> np.ndarray:
    dataset = _dataset(paths, np.zeros(len(paths), np.int32), ("image",))
    extraction = extract(dataset, backbone, (tap,), exact=exact, device=device, progress=Progress(quiet=True))
    if extraction.dataset.unreadable:
        first = extraction.dataset.unreadable[0]
        raise DataError(f"{first.path} cannot be read: {first.reason}. Leave it and its label out.")
    return extraction.rows(tap)


def _dataset(paths: list[str], codes: np.ndarray, classes: tuple[str, ...]) -> Dataset:
    missing = next((path for path in paths if not Path(path).is_file()), None)
    if missing is not None:
        raise DataError(f"No image file {missing}. Leave it and its label out.")
    return Dataset(
        root=None,
        paths=paths,
        labels=codes,
        classes=classes,
        parts=np.full(len(paths), "", "<U5"),
        hashes=[sha256(path) for path in paths],
        sizes=np.zeros(len(paths), np.int64),
        unreadable=[],
        ignored=[],
        scan_notes=[],
        layout="paths",
        min_classes=1,
    )


def _takes_images(tags: Any) -> Any:
    """Tell scikit-learn not to expect a table of numbers."""
    tags.input_tags.two_d_array = False
    tags.input_tags.string = True
    tags.no_validation = True
    return tags
