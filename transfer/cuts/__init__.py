"""Cuts: the places where a backbone can be split into a frozen prefix and a trainable suffix.

A cut is a node of the backbone's graph through which everything that the output needs from the image has to pass, so
that one tensor per image is all that crosses. How a name becomes two modules, each step a module of this folder:

* `tracing` records the graph once with ``torch.fx``.
* `survey` runs each node for its shape; `metering` counts its multiply-adds and follows its receptive field.
* `places` finds the nodes where exactly one tensor crosses, `names` says which are offered and under what name,
  `points` describes them, and `traces` remembers it all. `stages` picks those between the main stages.
* `depths` counts the blocks between the cuts, for learning rates.
* `papers` knows the names of AlexNet's layers, and `preactivations` what lies before the activation behind a tap.
* `layers` lists every layer with the numbers of the lecture, whose formulas are in `arithmetic`.
* `parts` copies the nodes left and right of a cut into two modules, which hold the backbone's own parameters.

Where a backbone cannot be traced at all, it has two cuts: ``pixels`` and ``features``.
"""

from __future__ import annotations

from transfer.cuts.arithmetic import (
    conv_multiply_adds,
    conv_parameters,
    linear_parameters,
    output_size,
    receptive_field,
)
from transfer.cuts.depths import parameter_depths
from transfer.cuts.layers import Layer, layers
from transfer.cuts.parts import Prefix, Suffix, cut, read_taps
from transfer.cuts.points import FEATURES, IMAGENET_SIZE, PIXELS, CutPoint
from transfer.cuts.stages import stage_cuts
from transfer.cuts.traces import Trace, cut_points, tap_names, trace

__all__ = [
    "FEATURES",
    "IMAGENET_SIZE",
    "PIXELS",
    "CutPoint",
    "Layer",
    "Prefix",
    "Suffix",
    "Trace",
    "conv_multiply_adds",
    "conv_parameters",
    "cut",
    "cut_points",
    "layers",
    "linear_parameters",
    "output_size",
    "parameter_depths",
    "read_taps",
    "receptive_field",
    "stage_cuts",
    "tap_names",
    "trace",
]
