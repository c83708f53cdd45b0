"""Strategies: what is trained and how.

* `fitting` is `fit`: from a folder of images to a run. `preparing` does what comes before every strategy, and `parts`
  divides the images as a recipe says.
* `linear` freezes the whole network and fits a head on its features.
* `finetuning` trains the layers right of a cut as well, starting from that head: `cutting` finds the cut, `courses`
  decides how long and how, `looking` how the images are seen, and `tuning` is one such training on its way.
* `auto` chooses between the two: `prior` is what the size says, `evidence` what linear heads show, `race` what trials
  of deeper layers show, `readings` how two ways are compared; `allowance` is the time for it, and `development` a job
  without its test images.
* `tapping` finds the layers that say most about a dataset.
* `protocols` says how a recipe sees images and finds its head.
* `pages` writes the page of a run that was just fitted.
* `jobs` holds what a strategy works on and what it hands back.
* `growing` says what more images would give.
* `inspecting` looks at a dataset and says what `fit` would do.
"""

from __future__ import annotations

from transfer.strategies.cutting import find_cut
from transfer.strategies.finetuning import fine_tune
from transfer.strategies.fitting import fit
from transfer.strategies.growing import learning_curve
from transfer.strategies.inspecting import describe_plan, inspect
from transfer.strategies.jobs import Clock, Job
from transfer.strategies.linear import cross_validate, fit_linear
from transfer.strategies.pages import write_page

__all__ = [
    "Clock",
    "Job",
    "cross_validate",
    "describe_plan",
    "find_cut",
    "fine_tune",
    "fit",
    "fit_linear",
    "inspect",
    "learning_curve",
    "write_page",
]
