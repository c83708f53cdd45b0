"""Runs: the folder that `fit` makes and everything else reads. Plain files that a person can open.

* `run` opens one, predicts with it and scores it; `stored` is what such a folder has to hold.
* `naming` says where a new one goes, and `writing` writes it.
"""

from __future__ import annotations

from transfer.runs.naming import folder_name, reserve
from transfer.runs.run import Run, load_run
from transfer.runs.stored import require_as_written
from transfer.runs.writing import check_head, write_run

__all__ = ["Run", "check_head", "folder_name", "load_run", "require_as_written", "reserve", "write_run"]
