"""Listing: the backbones there are to choose from."""

from __future__ import annotations

import fnmatch
from typing import Any

from transfer.backbones.handmade import HANDMADE
from transfer.backbones.names import TORCHVISION, all_names, default_preprocessing, is_published
from transfer.backbones.offline import local_weights
from transfer.backbones.sizes import size_of
from transfer.errors import UsageError


def list_backbones(pattern: str = "*") -> list[dict[str, Any]]:
    """Describe the backbones whose name matches `pattern`.

    Parameters
    ----------
    pattern
        A shell wildcard; plain text is searched for anywhere in the name.

    Returns
    -------
    list of dict
        name, source (the library, or hand-made), parameters (without the classifier), input_size (pixels), features
        (their width), published (whether there are pretrained weights anywhere) and here (whether they are on this
        machine, or none are needed).
    """
    if not any(sign in pattern for sign in "*?["):
        pattern = f"*{pattern}*"
    rows = []
    for name in fnmatch.filter(sorted(all_names()), pattern):
        try:
            preprocessing = default_preprocessing(name)
        except UsageError:  # it takes no square RGB images
            continue
        size = size_of(name)
        rows.append(
            {
                "name": name,
                "source": _source(name),
                "parameters": size["parameters"],
                "input_size": preprocessing.input_size,
                "features": size["features"],
                "published": is_published(name),
                "here": name in HANDMADE or local_weights(name) is not None,
            }
        )
    return rows


def _source(name: str) -> str:
    if name in HANDMADE:
        return "hand-made"
    return "torchvision" if name.startswith(TORCHVISION) else "timm"
