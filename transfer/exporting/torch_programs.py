"""Torch program: a network as `torch.export` writes it, a .pt2 file. It needs torch and neither timm nor this package.

A .pt2 file is a ZIP archive: the graph as JSON, the weights as the bytes of their numbers, and, unless they are left
out, example inputs as a pickle. They are left out here, and a file that holds any pickle is refused.
"""

from __future__ import annotations

import io
import json
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import nn

from transfer.errors import ArtefactError, ResourceError
from transfer.files import write_bytes

FILE = "model.pt2"
_N_EXAMPLES = 2  # with one, the size of the batch would be taken for a constant


def trace_program(network: nn.Module, input_shape: tuple[int, int, int], name: str) -> torch.export.ExportedProgram:
    """Return the program of a network for a batch of any size.

    Raises
    ------
    ArtefactError
        `torch.export` cannot follow the network.
    """
    example = torch.zeros(_N_EXAMPLES, *input_shape)
    batch = {0: torch.export.Dim("batch", min=1)}
    try:
        with warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter("ignore")  # about how models are written: nothing that a user could act on
            return torch.export.export(network, (example,), dynamic_shapes={"images": batch}, strict=False)
    except Exception as error:  # it runs foreign code on stand-ins: any error means that it cannot be followed
        raise cannot_follow(name, error) from error


def cannot_follow(name: str, error: Exception) -> ArtefactError:
    """Say in one line that a network cannot be exported."""
    why = next((line.strip() for line in str(error).splitlines() if line.strip()), "")
    return ArtefactError(
        f"torch cannot export {name} ({type(error).__name__}: {why[:200]}). Use --to timm, another network, or "
        "run.predict."
    )


def write_program(path: Path, program: torch.export.ExportedProgram, about: dict[str, Any]) -> None:
    """Write a program as a .pt2 file, with what it is as ``extra/about.json``.

    Raises
    ------
    ResourceError
        This version of torch writes pickles into such files.
    """
    program.example_inputs = None
    data = io.BytesIO()
    torch.export.save(program, data, extra_files={"about.json": json.dumps(about, indent=2)})
    if pickled := find_pickles(data.getvalue()):
        raise ResourceError(
            f"torch {torch.__version__} writes {pickled[0]} as a pickle, and nothing here is one: upgrade torch (2.14 "
            "writes none), or use --to onnx."
        )
    write_bytes(path, data.getvalue())


def find_pickles(archive: bytes) -> list[str]:
    """Return the names of the files in a .pt2 archive that are a pickle or hold one."""
    found = []
    with zipfile.ZipFile(io.BytesIO(archive)) as files:
        for name in files.namelist():
            data = files.read(name)
            if name.endswith("_config.json"):  # says of every tensor whether its bytes are a pickle
                payloads = json.loads(data)["config"].values()
                found += [f"{name}: {payload['path_name']}" for payload in payloads if payload["use_pickle"]]
            elif name.endswith((".pt", ".pkl", ".bin")) and data:
                found.append(name)
    return found


def open_program(path: Path) -> Callable[[torch.Tensor], torch.Tensor]:
    """Return what a written program computes."""
    module = torch.export.load(path).module()

    def run(images: torch.Tensor) -> torch.Tensor:
        with torch.no_grad():
            return module(images)

    return run
