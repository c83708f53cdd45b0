"""Size: how many parameters a backbone has and how wide its features are."""

from __future__ import annotations

import torch

from transfer.backbones.names import default_preprocessing
from transfer.backbones.networks import build


def measure(name: str) -> dict[str, int]:
    """Return the number of parameters and the feature width of a backbone, without allocating its weights."""
    try:
        with torch.device("meta"):
            model = build(name).eval()
    except NotImplementedError:  # some networks compute their own widths with tensors
        model = build(name).eval().to("meta")
    size = default_preprocessing(name).input_size
    n_parameters = sum(parameter.numel() for parameter in model.parameters())
    try:
        n_features = model(torch.zeros(1, 3, size, size, device="meta")).shape[1]
    except Exception:  # some networks compute on real numbers while they run; their width is then what they declare
        n_features = getattr(model, "num_features", 0)
    return {"parameters": n_parameters, "features": int(n_features)}
