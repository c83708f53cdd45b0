"""Fine-tuning: the layers right of a cut learn too, starting from the solved head (LP-FT, Kumar et al., ICLR 2022).

Epoch 0 is that head on the frozen network; a later epoch is kept only where val finds it better. Where it finds none,
the result is the linear strategy's. (Recipes that copy others' ways start from a head of zeros instead, and may end
below it.) With `train.blend=val` val chooses how far of the way from the start to the last epoch the weights lie,
instead of an epoch (WiSE-FT, Wortsman et al., CVPR 2022). Where images are few, the training that val has chosen is
gone through once more with the images of val among the others, as the linear strategies do with their heads; or it goes
on with them for a few epochs (`train.refit=continue`). Where nothing is to be chosen (`train.keep=last`), val judges
nothing and is learned from at once.
"""

from __future__ import annotations

import dataclasses

import numpy as np

from transfer import machine, metrics
from transfer.dataset.names import count
from transfer.errors import DataError
from transfer.strategies.jobs import Job, Trained
from transfer.strategies.linear import detect_novelty, fit_linear
from transfer.strategies.tuning import HEAD, Tuning
from transfer.training import Outcome


def fine_tune(job: Job) -> Trained:
    """Train the layers right of the job's cut.

    Raises
    ------
    DataError
        There are no validation images to choose an epoch on.
    """
    learns_from_val = job.recipe.train.learns_from_val
    if not learns_from_val and not len(job.split.indices("val")):
        raise DataError("Fine-tuning chooses its epoch on validation images, and there are none. Give it a val part.")
    machine.keep_memory()
    tuning = Tuning(job)
    outcome = tuning.run()
    if learns_from_val:
        rows, computed_in = tuning.features(job.split.indices("test"), "Features of test")
        trained = Trained(tuning.backbone(), tuning.last_head(outcome), rows, {}, None, computed_in)
    elif outcome.best_epoch:
        fitted, probabilities = tuning.calibrate(outcome)
        detector = tuning.detect_novelty()
        labels = job.dataset.labels[job.split.indices("val")]
        scores = {"val": metrics.evaluate(probabilities, labels, job.dataset.classes)}
        if tuning.course.again and tuning.refit(outcome):
            head = dataclasses.replace(tuning.head, temperature=fitted.head.temperature)  # that val gave
            fitted = dataclasses.replace(fitted, head=head, rule=f"{fitted.rule} {tuning.refit_in_words}")
        known = job.references(job.backbone.n_features) if tuning.was_refitted and detector else np.empty(0, int)
        shown = np.concatenate([known, job.split.indices("test")])
        rows, computed_in = tuning.features(shown, "Features of test")
        if detector and len(known):  # the threshold is that of the network which had not seen val
            detector = detector.with_references(rows[: len(known)])
        trained = Trained(tuning.backbone(), fitted, rows[len(known) :], scores, detector, computed_in)
    else:
        trained = _nothing_added(job, outcome)
    about = {
        **tuning.course.to_dict(),
        "best_epoch": outcome.best_epoch,
        "stopped": outcome.stopped,
        "was_resumed": outcome.was_resumed,
        "was_refitted": tuning.was_refitted,
        "n_onwards": tuning.n_onwards,
        "blend": tuning.share,
    }
    history = [dataclasses.asdict(row) for row in outcome.history]
    return dataclasses.replace(trained, history=history, about=about, checkpoints=[tuning.checkpoints])


def _nothing_added(job: Job, outcome: Outcome) -> Trained:
    """Return the linear strategy's result: no epoch was better than the head that training started from."""
    recipe = job.recipe.model_copy(update={"strategy": HEAD})
    fitted, scores = fit_linear(recipe, job.X, job.dataset, job.split)
    epochs = count(len(outcome.history) - 1, "epoch")
    rule = f"What {epochs} led to was not better on val than the start: the network stays as it was. {fitted.rule}"
    X_test = job.X[job.split.indices("test")]
    fitted = dataclasses.replace(fitted, rule=rule)
    return Trained(job.backbone, fitted, X_test, scores, detect_novelty(job), job.computed_in)
