"""Heads: linear classifiers on frozen features.

Every head is one affine map on the raw features. How it is found differs: squared hinge (`linear-svm`), softmax by
a convex solver (`logistic`), least squares in closed form (`ridge`), or softmax by minibatches and Adam (`frozen`,
"train a new last layer"). How features and labels become a head, each step a module of this folder:

* `checking` refuses what cannot be fitted, `classes` says which classes there are and what their images weigh, and
  `groups` which images belong together.
* `scaling` and `rotation` turn the features into the eigenbasis of the scaled ones, which one decomposition gives and
  which changes neither a loss nor an L2 penalty. `tasks` keeps together all that is now to be solved.
* `solving` knows the solver of each kind: `ridge` in closed form, `descent` for many convex problems side by side
  and `minibatches` (both on the slopes in `losses`), and scikit-learn for a head that is kept.
* `judging` scores images that were left out: by `folds`, by leave-one-out, or on val.
* `grids` says which of the `strengths` are tried, `choosing` takes the strongest one that is nearly the best, and
  `calibration` finds the temperature.
* `fitting` tells this story in one function, whose result holds a head as `linear` describes it.

Choosing a setting takes dozens of fits, which the batched solver does side by side; the head that is kept for
`linear-svm` and `logistic` is then scikit-learn's own `LinearSVC` and `LogisticRegression` at that setting.
"""

from __future__ import annotations

from transfer.heads.calibration import fit_temperature
from transfer.heads.choosing import one_standard_error
from transfer.heads.fitting import FittedHead, fit_head
from transfer.heads.folds import assign_folds
from transfer.heads.linear import LinearHead
from transfer.heads.ridge import ridge_leave_one_out
from transfer.heads.scaling import SCALINGS
from transfer.heads.tasks import HEADS

__all__ = [
    "HEADS",
    "SCALINGS",
    "FittedHead",
    "LinearHead",
    "assign_folds",
    "fit_head",
    "fit_temperature",
    "one_standard_error",
    "ridge_leave_one_out",
]
