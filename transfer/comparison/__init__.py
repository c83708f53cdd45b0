"""Comparison: several recipes on the very same images, side by side.

* `comparing` is `compare`: from a folder of images to a table. `plans` says which fits there will be.
* `processes` lets each fit have a process of its own, `results` reads what it left behind.
* `tables` puts the results together, `charts` draws them, `pages` makes a page of both.
"""

from __future__ import annotations

from transfer.comparison.comparing import compare
from transfer.comparison.plans import RECIPES

__all__ = ["RECIPES", "compare"]
