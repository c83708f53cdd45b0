"""Export: a run written for another library, compared with the run on real images, and kept only where they agree."""

from __future__ import annotations

import dataclasses
import importlib.metadata
import json
import os
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch

from transfer.dataset import display
from transfer.display import table
from transfer.errors import ResourceError, UsageError, did_you_mean
from transfer.exporting import onnx_models, timm_folders, torch_programs
from transfer.exporting.cards import render_card
from transfer.exporting.networks import build_network, require_expressible
from transfer.exporting.parity import OTHER_RESIZING, SAME_PIXELS, Parity, compare, find_examples
from transfer.exporting.records import Record, rounded_in
from transfer.files import atomic_folder, existing_folder, require_folder, sha256, write_json, write_text
from transfer.images import decode, load_view, normalise
from transfer.machine import versions

FORMATS = ("timm", "onnx", "torch")
_ABOUT = "export.json"
_KIND = "transfer export 1"

_Classify = Callable[[Sequence[str]], np.ndarray]  # of image files, (N, C) probabilities


@dataclasses.dataclass(frozen=True)
class Export:
    """A run as it was written for another library.

    Examples
    --------
    ``export = run.export("onnx"); export.model, export.parity.largest_difference``
    """

    path: Path  # the folder
    to: str
    files: tuple[str, ...]  # names in the folder
    parity: Parity
    note: str = ""  # what differs between the run's numbers and the export, a sentence

    @property
    def model(self) -> Path:
        """What is loaded: a file, for timm the folder."""
        return self.path if self.to == "timm" else self.path / self.files[0]

    def __repr__(self) -> str:
        return f"Export({str(self.model)!r}: {self.parity.describe()})"

    def _repr_html_(self) -> str:
        rows = [[display(name), f"{(self.path / name).stat().st_size / 1e6:.1f} MB"] for name in self.files]
        return table(
            ["file", "size"], rows, display(str(self.path)), [self.parity.describe(), *filter(None, [self.note])]
        )


def export(
    run: Record,
    to: str,
    out: str | os.PathLike[str] | None = None,
    *,
    images: str | os.PathLike[str] | None = None,
    with_preprocessing: bool = False,
    force: bool = False,
) -> Export:
    """Write a run for another library, and compare what was written with the run on up to 32 real images.

    The folder gets its name when they agree; otherwise nothing is left. Probabilities are the run's calibrated ones,
    and all is in float32, as ``run.predict(images, exact=True)`` computes.

    Parameters
    ----------
    to
        ``timm``: config.json and model.safetensors, for timm and Hugging Face transformers; its scores have the
        temperature in them. ``onnx``: model.onnx. ``torch``: model.pt2, a program of `torch.export`. The last two give
        probabilities, for a batch of any size.
    out
        The folder; by default one in the run that is called like the format.
    images
        A folder of images, or one image, to compare on; by default the run's test images, then those of val.
    with_preprocessing
        The ONNX model takes uint8 images (N, height, width, 3) of any size, instead of normalised ones.
    force
        Replace an earlier export.

    Raises
    ------
    UsageError
        There is no such format, it cannot hold what the run does, or the folder exists.
    DataError
        There are no images to compare on.
    ArtefactError
        What was written does not agree with the run, or torch cannot follow the network.
    ResourceError
        A package is missing, or the folder cannot be written.
    """
    if to not in FORMATS:
        raise UsageError(f"Unknown format {to!r}.{did_you_mean(to, FORMATS)} Use {', '.join(FORMATS)}.")
    if with_preprocessing and to != "onnx":
        raise UsageError(f"--with-preprocessing goes with --to onnx, not with {to}.")
    _require_packages(onnx_models.PACKAGES if to == "onnx" else ())
    (timm_folders.require_timm if to == "timm" else require_expressible)(run)
    folder = Path(out) if out is not None else run.path / (f"{to}-with-preprocessing" if with_preprocessing else to)
    _require_place(folder, force)
    examples = find_examples(run, images)
    with atomic_folder(folder, replace=force) as building:
        about = _describe(run, to, with_preprocessing)
        classify, tolerance = _WRITERS[to](building, run, about)
        parity = compare(run, examples, classify, tolerance)
        files = sorted(path.name for path in building.iterdir())
        files.sort(key=lambda name: not name.startswith("model."))  # what one looks for comes first
        about |= {
            "checked": dataclasses.asdict(parity),
            "sha256": {name: sha256(building / name) for name in files},
            "versions": versions() | {name: _version(name) for name in onnx_models.PACKAGES if to == "onnx"},
        }
        write_json(building / _ABOUT, about)
    return Export(folder, to, (*files, _ABOUT), parity, _note(run))


def _write_timm(folder: Path, run: Record, about: dict[str, Any]) -> tuple[_Classify, float]:
    timm_folders.write_timm_folder(folder, run)
    write_text(folder / "README.md", render_card(run))
    return _one_by_one(timm_folders.open_timm_folder(folder), run), OTHER_RESIZING


def _write_onnx(folder: Path, run: Record, about: dict[str, Any]) -> tuple[_Classify, float]:
    shape, seen = run.backbone.input_shape, run.backbone.preprocessing
    program = torch_programs.trace_program(build_network(run), shape, run.backbone.name)
    model = onnx_models.make_model(program, torch.zeros(2, *shape), run.backbone.name)
    with_preprocessing = about["input"]["name"] == onnx_models.PIXELS
    if with_preprocessing:
        model = onnx_models.add_preprocessing(model, seen)
    onnx_models.write_model(folder / onnx_models.FILE, model, about)
    classify = onnx_models.open_model(folder / onnx_models.FILE)
    if with_preprocessing:
        return _one_by_one(lambda pixels: classify(pixels[None]), run), OTHER_RESIZING
    return lambda paths: classify(_input(paths, run).numpy()), SAME_PIXELS


def _write_torch(folder: Path, run: Record, about: dict[str, Any]) -> tuple[_Classify, float]:
    program = torch_programs.trace_program(build_network(run), run.backbone.input_shape, run.backbone.name)
    torch_programs.write_program(folder / torch_programs.FILE, program, about)
    classify = torch_programs.open_program(folder / torch_programs.FILE)
    return lambda paths: classify(_input(paths, run)).numpy(), SAME_PIXELS


_WRITERS = {"timm": _write_timm, "onnx": _write_onnx, "torch": _write_torch}


def _one_by_one(classify: Callable[[np.ndarray], np.ndarray], run: Record) -> _Classify:
    """Return what shows images of any size to what takes pixels (height, width, 3) and gives (1, C)."""
    max_pixels = run.recipe.data.max_pixels
    return lambda paths: np.concatenate([classify(decode(path, max_pixels=max_pixels)) for path in paths])


def _input(paths: Sequence[str], run: Record) -> torch.Tensor:
    """Return images as the network takes them, (N, 3, S, S)."""
    seen, max_pixels = run.backbone.preprocessing, run.recipe.data.max_pixels
    views = torch.stack([load_view(path, seen, exact=True, max_pixels=max_pixels) for path in paths])
    return normalise(views, seen, memory_format=torch.contiguous_format)


def _describe(run: Record, to: str, with_preprocessing: bool) -> dict[str, Any]:
    """Return what an export is, for its export.json and the model's own metadata."""
    size, seen = run.backbone.preprocessing.input_size, run.backbone.preprocessing
    images = {"name": "images", "type": "float32", "shape": ["batch", 3, size, size], "holds": "normalised RGB"}
    pixels = {"name": "pixels", "type": "uint8", "shape": ["batch", "height", "width", 3], "holds": "RGB"}
    return {
        "format": _KIND,
        "to": to,
        "classes": list(run.classes),
        "preprocessing": seen.to_dict() | {"resize_size": seen.resize_size},
        "input": pixels if with_preprocessing else images,
        "output": "log-odds; their softmax is calibrated" if to == "timm" else "probabilities, calibrated",
        "backbone": run.info["backbone"],
        "strategy": run.info["strategy"],
        "data_fingerprint": run.info["data"]["fingerprint"],
        "model_sha256": run.info["model"]["sha256"],
        "computed_in": "float32",
        "run_computed_in": run.info.get("computed_in"),
    }


def _note(run: Record) -> str:
    """Return a sentence where the run's numbers were measured in another type than the export computes in."""
    kind = rounded_in(run)
    if kind is None:
        return ""
    return f"The run's accuracy was measured in {kind}, the export computes in float32: a few images may differ."


def _require_packages(names: Sequence[str]) -> None:
    missing = [name for name in names if find_spec(name) is None]
    if missing:
        raise ResourceError(f"--to onnx needs {', '.join(names)}: pip install {' '.join(missing)}.")


def _require_place(folder: Path, force: bool) -> None:
    """Make sure that the folder can be made, or is an earlier export that may be replaced."""
    if os.path.lexists(folder) and (not folder.is_dir() or any(folder.iterdir())):
        if not _is_export(folder):
            raise UsageError(f"{folder} exists and is no export of this toolkit. Choose another --out, or delete it.")
        if not force:
            raise UsageError(f"{folder} exists. Replace it with --force, or choose another --out.")
    require_folder(existing_folder(folder.absolute().parent))


def _is_export(folder: Path) -> bool:
    try:
        return bool(json.loads((folder / _ABOUT).read_text(encoding="utf-8"))["format"] == _KIND)
    except (OSError, ValueError, KeyError, TypeError):
        return False


def _version(name: str) -> str:
    return importlib.metadata.version(name)
