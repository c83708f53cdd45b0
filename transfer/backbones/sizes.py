"""Size: how many parameters a backbone has and how wide its features are.

Building a network to count takes a tenth of a second, and there are more than a thousand. So `sizes.csv` has them all,
as `scripts/backbone-sizes` measured them; what is not in it, such as networks of a newer timm, is measured when asked.
"""

from __future__ import annotations

import csv
import functools
from pathlib import Path
from typing import Any

import torch

from transfer.backbones.handmade import HANDMADE
from transfer.backbones.names import default_preprocessing
from transfer.backbones.networks import build, feature_width

TABLE = Path(__file__).with_name("sizes.csv")


def size_of(name: str) -> dict[str, int]:
    """Return what `measure` returns, quickly.

    A name with a tag is measured: the tag may stand for another image size, with which some networks grow.
    """
    return _table().get(name) or measure(name)


def measure(name: str) -> dict[str, int]:
    """Return the number of parameters and the feature width of a backbone, without allocating its weights."""
    if name in HANDMADE:
        return {"parameters": 0, "features": HANDMADE[name].n_features}
    model: Any
    try:
        with torch.device("meta"):
            model = build(name).eval()
    except NotImplementedError:  # some networks compute their own widths with tensors
        model = build(name).eval().to("meta")
    size = default_preprocessing(name).input_size
    n_parameters = sum(parameter.numel() for parameter in model.parameters())
    try:
        n_features = feature_width(model(torch.zeros(1, 3, size, size, device="meta")).shape)
    except Exception:  # some networks compute on real numbers while they run; their width is then what they declare
        n_features = getattr(model, "head_hidden_size", getattr(model, "num_features", 0))
    return {"parameters": n_parameters, "features": n_features}


@functools.cache
def _table() -> dict[str, dict[str, int]]:
    with open(TABLE, encoding="utf-8", newline="") as source:
        return {
            row["name"]: {"parameters": int(row["parameters"]), "features": int(row["features"])}
            for row in csv.DictReader(source)
        }
