"""Features: what a frozen network says about each image, computed once and kept.

From a dataset to rows, each step a module of this folder:

* `planning` chooses how the network is run on this machine: type, layout, batch size, threads.
* `running` decodes images and runs the network over them; `pooling` makes rows of maps.
* `extracting` looks up which rows are in the cache and computes the others.
* `representing` makes what a head reads of them: one row of those of several layers, normalised, for each view.
* `exporting` writes rows as .npy files that others read, and checks such a folder.
* `decoding` opens every image without a network, for those who want to know about the images alone.
"""

from __future__ import annotations

from transfer.cuts import FEATURES
from transfer.features.decoding import decode_all, require_strictly
from transfer.features.exporting import check_features, export_features, write_features
from transfer.features.extracting import Extraction, Features, extract, extract_features
from transfer.features.planning import Plan, Plans
from transfer.features.pooling import POOLS, pooled
from transfer.features.representing import NormalisedRows, Representation
from transfer.features.running import Runner

__all__ = [
    "FEATURES",
    "POOLS",
    "Extraction",
    "Features",
    "NormalisedRows",
    "Plan",
    "Plans",
    "Representation",
    "Runner",
    "check_features",
    "decode_all",
    "export_features",
    "extract",
    "extract_features",
    "pooled",
    "require_strictly",
    "write_features",
]
