"""Exporting: a run in the formats of other libraries, each checked against the run before it gets its name.

* `records` says what of a run is read. `networks` makes one module of it, from images to calibrated probabilities.
* `timm_folders`, `torch_programs` and `onnx_models` write it; `onnx_pixels` puts the preprocessing in
  front of an ONNX model.
* `parity` finds real images and compares what the written model says of them with what the run says.
* `cards` describes a run for others in Markdown.
* `writing` puts it together: nothing stays of an export that does not agree with its run.
"""

from __future__ import annotations

from transfer.exporting.cards import render_card
from transfer.exporting.timm_folders import timm_config
from transfer.exporting.writing import FORMATS, Export, export

__all__ = ["FORMATS", "Export", "export", "render_card", "timm_config"]
