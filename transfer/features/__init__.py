"""Features: what a frozen network says about each image, computed once and kept.

From a dataset to rows, each step a module of this folder:

* `planning` chooses how the network is run on this machine: type, layout, batch size, threads.
* `running` decodes images and runs the network over them.
* `extracting` looks up which rows are in the cache and computes the others.
* `exporting` writes rows as .npy files that others read, and checks such a folder.
* `decoding` opens every image without a network, for those who want to know about the images alone.
"""

from __future__ import annotations

from transfer.cuts import FEATURES
from transfer.features.decoding import decode_all
from transfer.features.exporting import check_features, export_features, write_features
from transfer.features.extracting import Extraction, Features, extract, extract_features
from transfer.features.planning import Plan, Plans
from transfer.features.running import Runner, pooled

__all__ = [
    "FEATURES",
    "Extraction",
    "Features",
    "Plan",
    "Plans",
    "Runner",
    "check_features",
    "decode_all",
    "export_features",
    "extract",
    "extract_features",
    "pooled",
    "write_features",
]
