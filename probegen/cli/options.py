"""Options that several commands have."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import click

from probegen.errors import SpecError

with_json = click.option("--json", "as_json", is_flag=True, help="Print JSON.")
with_onnx_output = click.option(
    "-o", "--output", required=True, type=click.Path(), metavar="OUT", help="NAME.onnx."
)
with_overwritten_data = click.option(
    "--overwrite", is_flag=True, help="Replace an existing data file."
)
with_overwritten_folder = click.option(
    "--overwrite", is_flag=True, help="Replace an existing folder."
)
#: Of servers.
with_model_name = click.option(
    "--name", help="What requests call the model.  [default: ARTEFACT's name]"
)
with_max_batch = click.option(
    "--max-batch",
    type=click.IntRange(1),
    default=16,
    show_default=True,
    help="Most samples that are run together.",
)


def with_engine(command: Callable[..., Any]) -> Callable[..., Any]:
    """Gives a command `--engine` and `--device`; see `engine_of`."""
    engine = click.option(
        "--engine",
        metavar="NAME",
        help="What runs ARTEFACT: onnxruntime or openvino for ONNX files, savedmodel for "
        "SavedModels.  [default: onnxruntime, savedmodel]",
    )
    device = click.option(
        "--device",
        metavar="NAME",
        help="Where it computes: with onnxruntime for instance cuda or cuda:1 (onnxruntime-gpu), "
        "with openvino GPU.  [default: the CPU]",
    )
    return engine(device(command))


def engine_of(options: Mapping[str, Any]) -> dict[str, Any]:
    """Returns what `with_engine`'s options say, as arguments of `runtime.load`."""
    return {"engine": options["engine"], "device": options["device"]}


def with_axes(command: Callable[..., Any]) -> Callable[..., Any]:
    """Gives a command the option that says what axes an ONNX model has."""
    return click.option(
        "--axes",
        multiple=True,
        metavar="NAME=A,B,...",
        help="Axes of an input or output of an ONNX model, where sizes do not tell: "
        "x=time,batch,feature.",
    )(command)


def axes_of(given: Sequence[str], model: str) -> dict[str, str] | None:
    """Returns what `--axes` says, None where it says nothing.

    Raises:
        SpecError: one is not of the form, or the model is no ONNX file.
    """
    from probegen.sources import kind_of

    if given and not kind_of(model).takes_axes:
        raise SpecError("--axes is for ONNX files; a Keras model says itself what its axes are.")
    found = {}
    for text in given:
        name, equals, axes = text.partition("=")
        if not equals or not name or not axes:
            raise SpecError(f"--axes takes for instance x=time,batch,feature, got {text!r}.")
        found[name] = axes
    return found or None


def with_imports(command: Callable[..., Any]) -> Callable[..., Any]:
    """Gives a command the option `--import`."""
    return click.option(
        "--import",
        "modules",
        multiple=True,
        metavar="MODULE",
        help="Import a Python module first: one that registers the model's custom classes.",
    )(command)
