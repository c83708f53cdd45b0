"""Listing: the backbones there are to choose from."""

from __future__ import annotations

import fnmatch
from typing import Any

from transfer.backbones.names import TORCHVISION, all_names, default_preprocessing
from transfer.backbones.offline import local_weights
from transfer.errors import UsageError


def list_backbones(pattern: str = "*") -> list[dict[str, Any]]:
    """Return name, source, input size and whether the weights are on this machine, for names that match `pattern`.

    The pattern is a shell wildcard; plain text is searched for anywhere in the name.
    """
    if not any(sign in pattern for sign in "*?["):
        pattern = f"*{pattern}*"
    rows = []
    for name in fnmatch.filter(sorted(all_names()), pattern):
        try:
            preprocessing = default_preprocessing(name)
        except UsageError:  # it takes no square RGB images
            continue
        rows.append(
            {
                "name": name,
                "source": "torchvision" if name.startswith(TORCHVISION) else "timm",
                "input_size": preprocessing.input_size,
                "here": local_weights(name) is not None,
            }
        )
    return rows
