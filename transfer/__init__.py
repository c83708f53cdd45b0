"""transfer: a folder of images in, an honest classifier out."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from transfer.backbones import load_backbone
    from transfer.comparison import compare
    from transfer.curves import measure_curve
    from transfer.dataset import from_lists, scan
    from transfer.estimators import FeatureExtractor, TransferClassifier
    from transfer.features import check_features, export_features, extract_features
    from transfer.predictions import classify_imagenet
    from transfer.recipe import Recipe, load_recipe
    from transfer.report import write_report
    from transfer.runs import Run, load_run
    from transfer.strategies import fit, inspect, learning_curve

__version__ = "0.1.0"

# public name -> module; loaded when first used, since torch takes seconds
_HOME = {
    "fit": "strategies",
    "compare": "comparison",
    "inspect": "strategies",
    "learning_curve": "strategies",
    "measure_curve": "curves",
    "classify_imagenet": "predictions",
    "load_run": "runs",
    "Run": "runs",
    "write_report": "report",
    "extract_features": "features",
    "export_features": "features",
    "check_features": "features",
    "load_backbone": "backbones",
    "scan": "dataset",
    "from_lists": "dataset",
    "Recipe": "recipe",
    "load_recipe": "recipe",
    "TransferClassifier": "estimators",
    "FeatureExtractor": "estimators",
}

__all__ = [
    "FeatureExtractor",
    "Recipe",
    "Run",
    "TransferClassifier",
    "check_features",
    "classify_imagenet",
    "compare",
    "export_features",
    "extract_features",
    "fit",
    "from_lists",
    "inspect",
    "learning_curve",
    "load_backbone",
    "load_recipe",
    "load_run",
    "measure_curve",
    "scan",
    "write_report",
]


def __getattr__(name: str) -> Any:
    if name in _HOME:
        return getattr(importlib.import_module(f"transfer.{_HOME[name]}"), name)
    raise AttributeError(f"module 'transfer' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
