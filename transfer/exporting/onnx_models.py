"""ONNX model: a network in the Open Neural Network Exchange format, one file that many runtimes read."""

from __future__ import annotations

import contextlib
import json
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from transfer.errors import UsageError
from transfer.exporting.onnx_pixels import pixels_to_input
from transfer.exporting.torch_programs import cannot_follow
from transfer.files import readable_bytes, write_bytes
from transfer.images import Preprocessing

if TYPE_CHECKING:
    import onnx

FILE = "model.onnx"
PACKAGES = ("onnx", "onnxscript", "onnxruntime")
OPSET = 18  # the first whose Resize can smooth before it shrinks, as Pillow does
IMAGES, PIXELS, PROBABILITIES = "images", "pixels", "probabilities"
_BATCH = "batch"
_LARGEST = 2**31 - 2**24  # bytes: one protocol buffer holds no more than 2 GB


def make_model(program: torch.export.ExportedProgram, example: torch.Tensor, name: str) -> onnx.ModelProto:
    """Return a program as an ONNX model from ``images`` (batch, 3, S, S) to ``probabilities`` (batch, C).

    Raises
    ------
    ArtefactError
        torch cannot say in ONNX what the program does.
    UsageError
        It is too large for one file.
    """
    n_bytes = sum(tensor.numel() * tensor.element_size() for tensor in program.state_dict.values())
    if n_bytes > _LARGEST:
        raise UsageError(f"An ONNX file holds at most 2 GB, and {name} has {readable_bytes(n_bytes)}: use --to torch.")
    try:
        with _quietly():
            converted = torch.onnx.export(
                program,
                (example,),
                dynamo=True,
                opset_version=OPSET,
                input_names=[IMAGES],
                output_names=[PROBABILITIES],
                verbose=False,
            )
            assert converted is not None
            model = converted.model_proto
    except Exception as error:  # conversion is a large machine of others: any error means that it cannot
        raise cannot_follow(name, error) from error
    return _tidied(model)


def add_preprocessing(model: onnx.ModelProto, preprocessing: Preprocessing) -> onnx.ModelProto:
    """Return the model with a uint8 image in front: ``pixels`` (batch, height, width, 3) of any size."""
    from onnx import compose

    front = pixels_to_input(preprocessing, OPSET, model.ir_version, PIXELS, _BATCH)
    return compose.merge_models(front, model, io_map=[(front.graph.output[0].name, IMAGES)])


def write_model(path: Path, model: onnx.ModelProto, about: dict[str, Any]) -> None:
    """Write a checked model, with what it is in its metadata: a string of text or of JSON for each key."""
    import onnx

    for key, value in about.items():
        model.metadata_props.add(key=key, value=value if isinstance(value, str) else json.dumps(value))
    onnx.checker.check_model(model)
    write_bytes(path, model.SerializeToString())


def open_model(path: Path) -> Callable[[np.ndarray], np.ndarray]:
    """Return what a written model computes in ONNX Runtime, on one CPU thread."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1  # its own would wait for those of the process
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    (name,) = (given.name for given in session.get_inputs())
    return lambda batch: session.run([PROBABILITIES], {name: batch})[0]


def _tidied(model: onnx.ModelProto) -> onnx.ModelProto:
    """Leave out where the model was written down (paths of this machine), and call the batch by its name."""
    graph = model.graph
    for part in (*graph.node, *graph.input, *graph.output, *graph.initializer, *model.functions, graph):
        del part.metadata_props[:]
        part.doc_string = ""
    for function in model.functions:
        for node in function.node:
            del node.metadata_props[:]
            node.doc_string = ""
    for value in (*graph.input, *graph.output):
        size = value.type.tensor_type.shape.dim[0]
        if size.dim_param:
            size.dim_param = _BATCH
    del graph.value_info[:]  # shapes between, in which the batch has another name; a runtime infers them
    return model


@contextlib.contextmanager
def _quietly() -> Iterator[None]:
    import logging

    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)
