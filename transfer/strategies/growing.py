"""Growth: what more images would give, from a folder of images to a learning curve."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np

from transfer.backbones import DEFAULT, Backbone, load_backbone
from transfer.curves import LearningCurve, measure_curve, read_accuracy
from transfer.dataset import Source, draw_split, scan, stop_on_bad
from transfer.errors import UsageError, did_you_mean
from transfer.features import extract, require_strictly
from transfer.heads import HEADS
from transfer.progress import Progress
from transfer.recipe import DataSettings


def learning_curve(
    data: Source,
    *,
    backbone: str | Backbone = DEFAULT,
    weights: str | Path | None = None,
    target: float | str | None = None,
    kind: str = "ridge",
    seed: int = 0,
    device: str = "auto",
    exact: bool = False,
    strict: bool = False,
    quiet: bool = False,
) -> LearningCurve:
    """Measure how accuracy grows with the number of images, and say what more of them would give.

    Heads on features of the frozen network learn from more and more of the images for train and val, and are judged
    on others of these. The test part, given or drawn as `fit` draws it with this seed, is not looked at.

    Parameters
    ----------
    data
        As in `fit`.
    target
        An accuracy (0.95, 95 or ``95%``) of which the curve says how many images it takes.
    kind
        Of the head, one of `heads.HEADS`; ridge takes seconds and is close to the others.
    seed
        Of the split and of every draw.
    strict
        Refuse a dataset with any fault before anything is computed.

    Returns
    -------
    LearningCurve
        Its ``points``; ``expect(n)``, ``images_for(accuracy)`` and ``describe()`` read the law through them.
    """
    wanted = None if target is None else read_accuracy(target)
    if kind not in HEADS:
        raise UsageError(f"Unknown head {kind!r}. Use {', '.join(HEADS)}.{did_you_mean(kind, HEADS)}")
    progress, settings = Progress(quiet), DataSettings()
    dataset = scan(data)
    if strict:
        require_strictly(dataset, settings.max_pixels, progress)
    loaded = backbone if isinstance(backbone, Backbone) else load_backbone(backbone, weights, seed=seed)
    extraction = extract(dataset, loaded, exact=exact, device=device, max_pixels=settings.max_pixels, progress=progress)
    dataset = extraction.dataset
    stop_on_bad(dataset, settings.on_bad, settings.max_bad_share)
    split = draw_split(dataset, seed=seed)
    for line in [*dataset.notes, *split.reason]:
        progress.say(line)
    seen = split.development
    curve = measure_curve(
        extraction.rows()[seen],
        dataset.labels[seen],
        len(dataset.classes),
        groups=np.array(dataset.hashes)[seen],
        seed=seed,
        kind=kind,
        progress=progress,
    )
    n_test = len(dataset) - len(seen)
    notes = [f"Measured on the {len(seen)} images of train and val; {n_test} test images were left out.", *curve.notes]
    return dataclasses.replace(curve, target=wanted, notes=notes)
