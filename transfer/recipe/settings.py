"""Settings: everything an experiment is, with its defaults, and what of it does not go together."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Discriminator, Field, Tag, model_validator

DEFAULT = "auto"
FINE_TUNING = ("partial", "full")  # strategies that train layers of the backbone
PLAIN_HEAD = {
    "multiclass": "rest",
    "dropout": 0.0,
    "positive_weight": 1.0,
    "judge": "auto",
    "rule": "one-standard-error",
    "search": "all",
}
SEEN = {"image_size", "crop_mode", "crop_share"}  # settings of features that go with every strategy

PositiveFloat = Annotated[float, Field(gt=0, allow_inf_nan=False)]


class _Settings(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, protected_namespaces=())


class DataSettings(_Settings):
    """How images become a dataset and its split."""

    on_bad: Literal["skip", "fail"] = "skip"  # an unreadable image: leave it out and say so, or stop
    strict: bool = False  # stop, before anything is computed, at any fault of the dataset that is otherwise a note
    max_bad_share: float = Field(0.05, ge=0, le=1)  # with more unreadable images than this the run stops
    max_pixels: int = Field(178_956_970, gt=0)  # Pillow's own limit; a larger image is counted as unreadable
    val_share: float | None = Field(None, gt=0, lt=1)  # None: by size, about 20 % for hundreds of images
    test_share: float | None = Field(None, gt=0, lt=1)  # None: by size; used where the folder has no test part
    per_class: int | None = Field(None, ge=1)  # train on so many images of each class; None: on all


class FeatureSettings(_Settings):
    """What of an image the head reads, beside the tap."""

    pool: Literal["average", "max", "gem", "pyramid", "flatten"] = "average"  # from a map to a row
    views: Literal[1, 2, 10, 16] = 1  # crops, mirrors and turns of each image; the head adds up its scores of them
    norm: Literal["auto", "l2", "none"] = "auto"  # l2: rows of unit length; auto: where several taps stand together
    power: float = Field(1.0, gt=0)  # of every number, its sign kept; with norm=l2 rows get unit length again
    image_size: int | None = Field(None, ge=16)  # pixels that the network sees; None: as belongs to the weights
    crop_mode: Literal["center", "squash", "border"] | None = None  # of resizing; None: as above
    crop_share: float | None = Field(None, gt=0, le=1)  # of the resized image that is seen; None: as above

    @property
    def is_of_frozen(self) -> bool:
        """Whether rows are made in a way that only a frozen network can have."""
        return self.model_dump(exclude=SEEN) != FeatureSettings().model_dump(exclude=SEEN)


class LogGrid(_Settings):
    """Settings at even distances on a logarithmic scale, both ends included."""

    low: PositiveFloat
    high: PositiveFloat
    n: int = Field(ge=2)

    def values(self) -> list[float]:
        """Return the settings."""
        ratio = self.high / self.low
        return [self.low * ratio ** (i / (self.n - 1)) for i in range(self.n)]


def _form_of_grid(value: Any) -> str:
    return "range" if isinstance(value, dict | LogGrid) else "list"


Grid = Annotated[
    Annotated[list[PositiveFloat], Field(min_length=1), Tag("list")] | Annotated[LogGrid, Tag("range")],
    Discriminator(_form_of_grid),  # so that a mistake is explained for the one that was meant
]


class HeadSettings(_Settings):
    """How the head on the features is found."""

    scaling: Literal["auto", "global", "standard", "whiten", "none"] = "auto"  # of all rows alike: folds into the head
    multiclass: Literal["rest", "pairs"] = "rest"  # of linear-svm: one class against the rest, or every two classes
    dropout: float = Field(0.0, ge=0, lt=1)  # share of the features that are zero while the head learns
    positive_weight: float = Field(1.0, gt=0)  # of an image in the one-vs-rest problem of its own class
    class_weight: Literal["auto", "balanced", "none"] = "auto"  # auto: balanced if largest class > 3x the smallest
    folds: int = Field(5, ge=2)  # of the cross-validation that chooses the regularisation
    grid: Grid | None = None  # regularisations to try; None: those that are likely
    search: Literal["all", "halving"] = "all"  # of the grid; halving: every so many first, then nearer to the best
    judge: Literal["auto", "val"] = "auto"  # what is left out: folds of the training images, or val
    rule: Literal["one-standard-error", "best", "average-precision"] = "one-standard-error"  # which setting is taken
    refit: bool = True  # after scoring on val, choose and fit once more on train and val together


def _form_of_blend(value: Any) -> str:
    return "val" if isinstance(value, str) else "number"


Blend = Annotated[
    Annotated[float, Field(gt=0, le=1), Tag("number")] | Annotated[Literal["val"], Tag("val")],
    Discriminator(_form_of_blend),
]


class TrainSettings(_Settings):
    """How layers are trained, for the strategies `partial` and `full`."""

    epochs: int = Field(10, ge=1)
    minutes: float | None = Field(None, gt=0)  # for the whole fit; None: as long as the epochs take
    min_steps: int = Field(200, ge=0)  # small sets get more epochs, so that they are trained at all
    # after val has chosen the epoch, train again on train and val, or continue on both; None: again, if they are few
    refit: Literal[True, False, "continue"] | None = None
    patience: int | None = Field(None, ge=1)  # epochs without a better one on val that end it; None: never
    keep: Literal["best", "last"] = "best"  # the epoch that val finds best; or the last, after training on val too
    blend: Blend = 1.0  # of the way from the start to the kept epoch; val: to the last, half or more as val chooses
    batch_size: int = Field(32, ge=1)
    start: Literal["solved", "zero"] = "solved"  # the head's weights: the linear classifier's, or zeros
    frozen_epochs: int = Field(0, ge=0)  # the first epochs train the head alone
    frozen_lr: float | None = Field(None, gt=0)  # peak rate of the head in those; None: lr
    optimizer: Literal["adamw", "sgd"] = "adamw"  # sgd: with momentum 0.9
    schedule: Literal["cosine", "staircase"] = "cosine"  # after the warm-up
    lr: float = Field(1e-3, gt=0)  # peak rate of the head
    backbone_lr: float = Field(0.3, gt=0)  # of the last pretrained block, as a share of the head's
    layer_decay: float = Field(1.0, gt=0, le=1)  # each block learns this much slower than the one behind it
    warmup: float = Field(0.1, ge=0, lt=1)  # share of all steps
    weight_decay: float = Field(0.05, ge=0)  # not on norms and biases
    clip: float = Field(1.0, gt=0)  # largest norm of the gradient
    label_smoothing: float = Field(0.1, ge=0, lt=1)
    mixup: float = Field(0.0, ge=0)  # alpha; 0: off
    cutmix: float = Field(0.0, ge=0)  # alpha; 0: off
    ema: float = Field(0.0, ge=0, lt=1)  # decay per step of averaged weights, which are then what is judged; 0: off
    batchnorm: Literal["frozen", "train"] = "frozen"  # statistics of small batches are noise
    augment: Literal["none", "light", "standard", "strong"] = "standard"
    views: int | None = Field(None, ge=0)  # random views of each image that are cached; 0: live; None: by disk and time

    @property
    def learns_from_val(self) -> bool:
        """Whether val judges nothing, and is learned from at once."""
        return self.keep == "last"


class ChoiceSettings(_Settings):
    """How `auto` chooses what is trained."""

    race: bool = True  # train deeper layers on trial; otherwise decide by what linear heads show
    few: int = Field(5, ge=0)  # images per class (median), below which nothing is chosen: it would pick noise
    least: int = Field(10, ge=0)  # images in all, below which layers are not trained even half way
    bigger: int = Field(1000, ge=0)  # images, from which on a dataset is the lecture's bigger one
    headroom: float = Field(0.05, ge=0, le=1)  # share that the linear head may get wrong (95 % interval) for a race
    headroom_bigger: float = Field(0.01, ge=0, le=1)  # the same of a bigger dataset, which tells smaller gains
    partial_headroom: float = Field(0.05, ge=0, le=1)  # without a race: from here on the last two stages are trained
    full_headroom: float = Field(0.1, ge=0, le=1)  # without a race: from here on every layer is
    blend: bool = (
        True  # below `bigger` images val chooses how far of the way from the start weights lie (train.blend=val)
    )


class Recipe(_Settings):
    """A complete description of one experiment. Every default is written into the run's `recipe.yaml`."""

    strategy: Literal["auto", "linear-svm", "logistic", "ridge", "frozen", "knn", "partial", "full"] = "auto"
    backbone: str = "tf_efficientnet_lite0"
    weights: str | None = None  # a .safetensors or .pth file, a run folder, or `random`; None: the pretrained ones
    tap: str | list[str] = "features"  # the layers whose outputs the head sees; `features` is the classifier's input
    cut: str | None = None  # for `partial`: all to its left is frozen; None: the last two stages are trained
    features: FeatureSettings = FeatureSettings()
    data: DataSettings = DataSettings()
    head: HeadSettings = HeadSettings()
    train: TrainSettings = TrainSettings()
    choice: ChoiceSettings = ChoiceSettings()
    device: str = "auto"  # auto, cpu, cuda, cuda:1, mps
    exact: bool = False  # float32 throughout, where otherwise a short measurement chooses the type
    seed: int = Field(0, ge=0)  # of every draw: the split, the folds, the bootstrap, the views

    @property
    def is_fine_tuning(self) -> bool:
        """Whether layers of the backbone are trained too."""
        return self.strategy in FINE_TUNING

    @property
    def is_auto(self) -> bool:
        """Whether what is trained is still to be chosen."""
        return self.strategy == "auto"

    @property
    def may_tune(self) -> bool:
        """Whether layers of the backbone may be trained too."""
        return self.is_fine_tuning or self.is_auto

    @property
    def taps(self) -> tuple[str, ...]:
        """The layers that the head reads."""
        return (self.tap,) if isinstance(self.tap, str) else tuple(self.tap)

    @property
    def grid(self) -> list[float] | None:
        """The settings of the head that are tried; None: those that are likely."""
        return self.head.grid.values() if isinstance(self.head.grid, LogGrid) else self.head.grid

    def with_strategy(self, strategy: str, **changes: Any) -> Recipe:
        """Return the recipe of one of the strategies that `auto` compares, with the settings that go with it."""
        left_out = {"choice", "cut"} if strategy == "full" else {"choice"}
        left_out |= set() if strategy in FINE_TUNING else {"cut", "train"}
        return Recipe.model_validate({**self.model_dump(exclude=left_out), "strategy": strategy, **changes})

    @model_validator(mode="after")
    def _settings_go_together(self) -> Recipe:
        if clashes := list(self._clashes()):
            raise ValueError("\n".join(clashes))
        return self

    def _clashes(self) -> Iterator[str]:
        if not self.may_tune and self.cut is not None:
            yield f"cut={self.cut} goes with --recipe partial, not with {self.strategy}"
        if not self.may_tune and self.train != TrainSettings():
            yield f"settings of train go with --recipe partial or full, not with {self.strategy}"
        if self.is_auto and self.head.grid is not None:
            yield "head.grid has another unit for each head: name a recipe, or leave it out"
        if not self.is_auto and self.choice != ChoiceSettings():
            yield f"settings of choice go with --recipe auto, not with {self.strategy}"
        if not self.taps or len(set(self.taps)) < len(self.taps):
            yield f"tap={list(self.taps)} should name layers, each once"
        if clash := find_clash(self.strategy, **{key: getattr(self.head, key) for key in PLAIN_HEAD}):
            yield clash
        if self.train.learns_from_val and (self.train.refit is not None or self.train.patience is not None):
            yield "train.keep=last trains on val too, and nothing is judged: leave out train.refit and train.patience"
        if self.is_auto and self.train.learns_from_val:
            yield "auto compares ways of training on val: leave out train.keep, or name a recipe"
        if self.train.refit == "continue" and self.train.frozen_epochs:
            yield "train.refit=continue goes on with all layers: leave out frozen_epochs"
        if self.train.learns_from_val and self.train.blend == "val":
            yield "train.keep=last trains on val too, so val cannot choose train.blend: give a number"
        if not self.train.learns_from_val and self.train.blend not in (1.0, "val"):
            yield "train.blend=NUMBER goes with train.keep=last: otherwise val judges, and chooses it (train.blend=val)"
        if self.strategy == "knn" and self.head.scaling not in ("auto", "none"):
            yield "head.scaling has no effect on knn, which compares directions: leave it out"
        if "search" in self.taps and self.taps != ("search",):
            yield f"tap={list(self.taps)}: `search` finds the layers, so it stands alone"
        if self.may_tune and (self.taps != ("features",) or self.features.is_of_frozen):
            what = "chooses the layers" if self.is_auto else "trains up to the features, seen once and as they are"
            yield f"{self.strategy} {what}: leave out tap and features"


def find_clash(strategy: str, **head: Any) -> str:
    """Return what does not go together among a strategy and these settings of its head; empty if all does."""
    changed = [key for key, plain in PLAIN_HEAD.items() if head[key] != plain]
    if strategy == "auto" and changed:
        return f"auto compares several heads: leave out head.{changed[0]}, or name a recipe"
    if strategy in FINE_TUNING and changed:
        return f"{strategy} goes on from a linear softmax head: leave out head.{changed[0]}"
    if strategy == "knn" and [key for key in changed if key != "rule"]:
        return f"knn has nothing but its number of neighbours: leave out head.{changed[0]}"
    for key in ("multiclass", "positive_weight"):
        if key in changed and strategy != "linear-svm":
            return f"head.{key}={head[key]} goes with linear-svm, not with {strategy}"
    by_precision = head["rule"] == "average-precision"
    if by_precision and strategy != "linear-svm":
        return f"head.rule=average-precision goes with linear-svm, not with {strategy}"
    if by_precision and (head["judge"] == "val" or head["search"] == "halving"):
        return "head.rule=average-precision chooses by cross-validation from the whole grid: leave out judge and search"
    if head["dropout"] and strategy == "ridge":
        return "head.dropout goes with heads that learn from rows, not with ridge: for it, dropout is a stronger alpha"
    odd = [key for key in ("dropout", "positive_weight", "judge") if key in changed] + ["rule"] * by_precision
    if head["multiclass"] == "pairs" and odd:
        return f"head.multiclass=pairs does not go with head.{odd[0]}"
    return ""
