"""timm folder: config.json and model.safetensors, which timm and Hugging Face's TimmWrapper load."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from transfer.backbones import Backbone, with_head
from transfer.errors import UsageError
from transfer.exporting.records import Record
from transfer.files import write_json, write_tensors
from transfer.heads import LinearHead

CONFIG, WEIGHTS = "config.json", "model.safetensors"
# where the pretrained weights were: the folder has its own
_ORIGIN = ("url", "hf_hub_id", "hf_hub_filename", "file", "source", "custom_load", "architecture")


def timm_config(backbone: Backbone, classes: Sequence[str]) -> dict[str, Any]:
    """Return the config.json with which `timm.create_model("local-dir:RUN", pretrained=True)` finds everything.

    transformers takes a folder for timm's by its ``pretrained_cfg`` and its classes from ``label_names``. Without
    ``model_args``: transformers 5.23 fails on a number of classes in there.
    """
    model: Any = backbone.model
    config = {name: value for name, value in model.pretrained_cfg.items() if value is not None and name not in _ORIGIN}
    preprocessing = backbone.preprocessing
    config |= {
        "input_size": list(backbone.input_shape),
        "mean": list(preprocessing.mean),
        "std": list(preprocessing.std),
        "interpolation": preprocessing.interpolation,
        "crop_pct": preprocessing.crop_share,
        "crop_mode": preprocessing.crop_mode,
        "num_classes": len(classes),
    }
    return {
        "architecture": backbone.name.partition(".")[0],
        "num_classes": len(classes),
        "num_features": backbone.n_features,
        "label_names": list(classes),
        "pretrained_cfg": config,
    }


def require_timm(run: Record) -> None:
    """Make sure that timm has the run's network, with a head like the run's.

    Raises
    ------
    UsageError
        It has not; the message says why.
    """
    if not run.info["model"]["timm"]:
        raise UsageError(f"{run.info['model']['why_not_timm']} timm cannot build that: use --to onnx or --to torch.")


def write_timm_folder(folder: Path, run: Record) -> None:
    """Write the network with the head as its own last layer, temperature included, its classes and preprocessing."""
    assert isinstance(run.head, LinearHead)
    model = with_head(run.backbone, *(torch.from_numpy(array) for array in run.head.folded()))
    write_tensors(folder / WEIGHTS, model.state_dict(), {"format": "pt"})
    write_json(folder / CONFIG, timm_config(run.backbone, run.classes))


def open_timm_folder(folder: Path) -> Callable[[np.ndarray], np.ndarray]:
    """Return what timm says of pixels (height, width, 3): its own model, preprocessing included, and a softmax."""
    import timm
    from PIL import Image

    model = timm.create_model(f"local-dir:{folder}", pretrained=True).eval()
    see = timm.data.create_transform(**timm.data.resolve_data_config({}, model=model), is_training=False)

    def run(pixels: np.ndarray) -> np.ndarray:
        with torch.inference_mode():
            return model(see(Image.fromarray(pixels))[None]).softmax(1).numpy()

    return run
