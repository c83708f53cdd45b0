"""Storing: a head as named arrays and plain values, and back."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from transfer.errors import ArtefactError
from transfer.heads.fitting import Head
from transfer.heads.linear import LinearHead
from transfer.heads.neighbours import NeighbourHead
from transfer.heads.pairs import PairwiseHead


def head_to_arrays(head: Head) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Return what a head is, for JSON, and its arrays; the temperature of a linear one is in its weights."""
    if isinstance(head, LinearHead):
        weight, bias = head.folded()
        return {"kind": "linear"}, {"weight": weight, "bias": bias}
    about: dict[str, Any] = {"temperature": head.temperature, "n_classes": head.n_classes}
    if isinstance(head, PairwiseHead):
        return {"kind": "pairs", **about}, {"weight": head.weight, "bias": head.bias, "present": head.present}
    return {"kind": "neighbours", "k": head.k, **about}, {"rows": head.rows, "labels": head.labels}


def head_from_arrays(about: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> Head:
    """Return the head that `head_to_arrays` took apart.

    Raises
    ------
    ArtefactError
        Something is missing.
    """
    try:
        if about["kind"] == "linear":
            return LinearHead(arrays["weight"], arrays["bias"])
        n_classes, temperature = int(about["n_classes"]), float(about["temperature"])
        if about["kind"] == "pairs":
            return PairwiseHead(arrays["weight"], arrays["bias"], arrays["present"], n_classes, temperature)
        return NeighbourHead(arrays["rows"], arrays["labels"], n_classes, int(about["k"]), temperature)
    except KeyError as error:
        raise ArtefactError(f"The head of the run lacks {error}. Fit again.") from error
    except (TypeError, ValueError) as error:
        raise ArtefactError(f"The head of the run has an unknown form ({error}). Fit again.") from error
