"""Heads: classifiers on frozen features.

Nearly every head is one affine map on the features. How it is found differs: squared hinge (`linear-svm`), softmax by
a convex solver (`logistic`), least squares in closed form (`ridge`), or softmax by minibatches and Adam (`frozen`,
"train a new last layer"). The others are `pairs`, a map for every two classes, and `neighbours` (`knn`), the training
images themselves. How features and labels become a head, each step a module of this folder:

* `checking` refuses what cannot be fitted, `classes` says which classes there are and what their images weigh, and
  `groups` which images belong together.
* `scaling` and `rotation` turn the features into the eigenbasis of the scaled ones, which one decomposition gives and
  which changes neither a loss nor an L2 penalty. `holes` makes the copies of which dropout learns. `tasks` keeps
  together all that is now to be solved.
* `solving` knows the solver of each kind: `ridge` in closed form, `descent` for many convex problems side by side
  and `minibatches` (both on the slopes in `losses`), and scikit-learn where the former does not come to an end.
* `judging` scores images that were left out: by `folds`, by leave-one-out, or on val.
* `grids` says which of the `strengths` are tried, `choosing` takes the strongest one that is nearly the best, and
  `calibration` finds the temperature.
* `fitting` tells this story in one function, whose result holds a head as `linear`, `pairs` or `neighbours` describes
  it; `storing` takes a head apart for a file.

Choosing a setting takes dozens of fits, which the batched solver does side by side. It also finds the head that is
kept; scikit-learn's `LinearSVC` and `LogisticRegression` step in where it does not come to an end.
"""

from __future__ import annotations

from transfer.heads.calibration import fit_temperature
from transfer.heads.choosing import one_standard_error
from transfer.heads.fitting import FittedHead, Head, fit_head
from transfer.heads.folds import assign_folds
from transfer.heads.linear import LinearHead
from transfer.heads.losses import softmax
from transfer.heads.neighbours import NeighbourHead
from transfer.heads.pairs import PairwiseHead
from transfer.heads.ridge import ridge_leave_one_out
from transfer.heads.scaling import SCALINGS
from transfer.heads.storing import head_from_arrays, head_to_arrays
from transfer.heads.tasks import HEADS, LINEAR_HEADS

__all__ = [
    "HEADS",
    "LINEAR_HEADS",
    "SCALINGS",
    "FittedHead",
    "Head",
    "LinearHead",
    "NeighbourHead",
    "PairwiseHead",
    "assign_folds",
    "fit_head",
    "fit_temperature",
    "head_from_arrays",
    "head_to_arrays",
    "one_standard_error",
    "ridge_leave_one_out",
    "softmax",
]
