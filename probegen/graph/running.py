"""Opens a graph in onnxruntime as it lies in memory, for what the compiler itself computes."""

from __future__ import annotations

from collections.abc import Sequence

import onnx_ir as ir
import onnxruntime

from probegen.graph.external_data import (
    external_tensors,
    fits_one_message,
    read_small_weights,
    take_out_weights,
)
from probegen.runtime.engines.onnxruntime_faults import FLOAT_PRODUCTS, disabled_optimizers

#: Keeps onnxruntime from writing to the terminal: what it says is in its exceptions.
_LOG_FATAL = 4
#: Where weights lie that are not in the model; without it onnxruntime refuses them.
_FOLDER = "session.model_external_initializers_file_folder_path"
#: Bytes of weights in files that each session has a copy of; more stay where they lie.
_READ = 2**28


def session_options() -> onnxruntime.SessionOptions:
    """Returns options for what the compiler itself runs, a few times each.

    Threads that have nothing to do sleep. By default they spin while they wait for the next run,
    which costs more than small graphs do, and takes processors from whatever runs beside.
    """
    options = onnxruntime.SessionOptions()
    options.log_severity_level = _LOG_FATAL
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.add_session_config_entry(*FLOAT_PRODUCTS)
    return options


def open_graph(
    model: ir.Model,
    options: onnxruntime.SessionOptions | None = None,
    without: Sequence[str] = (),
) -> onnxruntime.InferenceSession:
    """Returns a session of a model, which is left as it is.

    Its weights may lie in files beside its source. Where they lie in memory and are more than one
    message can hold, onnxruntime is given them apart from it.

    Args:
        model: the model.
        options: what `session_options` returned, changed; by default as it returns them.
        without: what onnxruntime must not rewrite, by its names.

    Raises:
        Exception: onnxruntime cannot run it.
    """
    options = options or session_options()
    folders = {str(tensor.base_dir) for tensor in external_tensors(model)}
    for folder in folders:  # of one source, and so one
        options.add_session_config_entry(_FOLDER, folder)
    if folders:
        model = model.clone()
        read_small_weights(model, _READ)
        large = {str(t.name): t.numpy() for t in external_tensors(model)}
        own = {name: array for name, array in large.items() if name in model.graph.initializers}
        values = [onnxruntime.OrtValue.ortvalue_from_numpy(array) for array in own.values()]
        options.add_external_initializers(list(own), values)
    if not fits_one_message(model):
        model = model.clone()
        taken = take_out_weights(model)
        values = [onnxruntime.OrtValue.ortvalue_from_numpy(a) for a in taken.values()]
        options.add_external_initializers(list(taken), values)
    data = ir.serde.serialize_model(model).SerializeToString()
    return onnxruntime.InferenceSession(
        data,
        options,
        providers=["CPUExecutionProvider"],
        disabled_optimizers=[*without, *(disabled_optimizers(data) or ())],
    )
