"""Job: the images that one extraction computes, in batches that are the same after a kill.

The last bit of a row may depend on the images that share its batch, and on how the network was prepared and run. Each
shard therefore notes the job that its rows are of, and what is left of a job that was cut off is computed as its
beginning was: what is computed has the same bits, whenever it was killed.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
from collections.abc import Iterable, Sequence
from typing import Any

from transfer.cache import ActivationCache
from transfer.features.planning import Plan


@dataclasses.dataclass(frozen=True)
class Job:
    """Which images were missing when it began, and how they are run."""

    positions: list[int]  # in the dataset, in order
    plan: Plan
    mark: str  # the checksum of what is computed

    @property
    def note(self) -> str:
        """What a shard says of the job that its rows are of."""
        return json.dumps({"mark": self.mark, "n_images": len(self.positions), "plan": dataclasses.asdict(self.plan)})

    def batches(self, missing: Iterable[int], n_views: int) -> list[Sequence[int]]:
        """Cut the job into batches and return those that are missing.

        Where only a part of one is missing (images that could not be read, or that others have computed), that part
        shares new batches with other such parts.
        """
        left = set(missing)
        whole = [batch for batch in self.plan.cut(self.positions, n_views) if left.issuperset(batch)]
        return whole + self.plan.cut(sorted(left.difference(*whole)), n_views)

    def has_whole_batch(self, missing: Iterable[int], n_views: int) -> bool:
        """Tell whether a whole batch is missing; a part of one is no sign that the job was cut off."""
        left = set(missing)
        return any(left.issuperset(batch) for batch in self.plan.cut(self.positions, n_views))


def new_job(positions: Sequence[int], contents: Sequence[str], plan: Plan, about: dict[str, Any]) -> Job:
    """Return the job of computing the images at these positions; `about` says what of them is computed together."""
    told = json.dumps([about, [contents[i] for i in positions]], sort_keys=True)
    return Job(list(positions), plan, hashlib.sha256(told.encode()).hexdigest()[:24])


def find_job(
    caches: Sequence[ActivationCache], contents: Sequence[str], missing: Sequence[int], about: dict[str, Any]
) -> Job | None:
    """Return the job that was cut off when these images were missing still; None where there is none.

    The images of a job are those that it has computed and those that are missing. Whether they are is told by its mark.
    """
    first = {content: position for position, content in reversed(list(enumerate(contents)))}
    computed: dict[str, set[int]] = {}
    for cache in caches:
        for note, found in cache.by_note(first).items():
            computed.setdefault(note, set()).update(first[content] for content in found)
    for note, done in computed.items():
        with contextlib.suppress(ValueError, TypeError, KeyError):  # written by another version
            told = json.loads(note)
            if len(done.union(missing)) == told["n_images"]:
                job = new_job(sorted(done.union(missing)), contents, Plan(**told["plan"]), about)
                if job.note == note:
                    return job
    return None
