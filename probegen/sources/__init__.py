"""Where models come from: one kind of source a package, and the table of them."""

from __future__ import annotations

import contextlib
import dataclasses
import importlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from probegen.errors import SourceError, SpecError

if TYPE_CHECKING:
    from probegen.sources.base import Program, Source


@dataclasses.dataclass(frozen=True)
class Kind:
    """One kind of source.

    Attributes:
        title: what it is called in messages.
        module: what is imported for it, and only for it.
        takes: tells whether a model, or the path of one, is of this kind.
        extra: what has to be installed for it: `pip install 'probegen[<extra>]'`.
        needs_tensorflow: whether reading such a model imports TensorFlow.
        takes_axes: whether `inputs` are names of axes, which a manifest holds.
        computing_in_float32: module with the function of that name, which lets such a model
            compute in float32 for a while; none where operators say what they compute in.
    """

    title: str
    module: str
    takes: Callable[[Any], bool]
    extra: str
    needs_tensorflow: bool = False
    takes_axes: bool = False
    computing_in_float32: str = ""

    def open(self, model: Any, inputs: Any) -> Source:
        """Returns the source of a model."""
        opened: Source = importlib.import_module(self.module).open_source(model, inputs)
        return opened


def _is_onnx(model: Any) -> bool:
    if isinstance(model, str | Path):
        return Path(model).suffix.lower() == ".onnx"
    return isinstance(model, bytes) or type(model).__module__.split(".")[0] in ("onnx", "onnx_ir")


#: Every kind; the first that takes a model opens it.
SOURCES = (
    Kind("an ONNX file", "probegen.sources.onnx.source", _is_onnx, "onnx", takes_axes=True),
    Kind(
        "a Keras model",
        "probegen.sources.keras.source",
        lambda _: True,
        "compiler",
        needs_tensorflow=True,
        computing_in_float32="probegen.sources.keras.precision",
    ),
)

#: What models can be told to compute in.
PRECISIONS = (None, "float32")


def kind_of(model: Any) -> Kind:
    """Returns what kind of source a model, or the path of one, is."""
    return next(k for k in SOURCES if k.takes(model))


def open_source(model: Any, inputs: Any = None) -> Source:
    """Returns a model, or the file of one, as a source.

    Args:
        model: a built `keras.Model`, the path of a `.keras`, `.h5`, `.hdf5` or `.onnx` file, or
            an `onnx.ModelProto`.
        inputs: for a subclassed Keras model whose inputs Keras does not record: sample arrays or
            `keras.InputSpec`s in the nest that its `call` takes. For an ONNX model whose sizes
            do not tell: input or output -> the names of its axes, `"time,batch,feature"`.

    Raises:
        SourceError: it is no model, or cannot be read.
    """
    kind = kind_of(model)
    try:
        return kind.open(model, inputs)
    except ModuleNotFoundError as error:
        if (error.name or "").split(".")[0] == "probegen":
            raise
        raise SourceError(
            f"{kind.title} needs {error.name}, which is not installed: "
            f"pip install 'probegen[{kind.extra}]'"
        ) from error


@contextlib.contextmanager
def computing_in(model: Any, precision: str | None) -> Iterator[Any]:
    """Yields a model, or what the path of one holds, that computes in another type meanwhile.

    Args:
        model: what `open_source` takes, or a program.
        precision: `"float32"`, or None for the model as it is.

    Raises:
        SpecError: it is another precision, or no Keras model.
        SourceError: there is no such file.
    """
    if precision not in PRECISIONS:
        raise SpecError(f"precision= takes 'float32' or None, got {precision!r}.")
    if precision is None:
        yield model
        return
    kind = kind_of(model)
    if not kind.computing_in_float32:
        raise SpecError(
            f"precision= is for Keras models, whose layers say what they compute in; {kind.title} "
            "says it by its operators. Export the model in float32, and leave precision out."
        )
    with importlib.import_module(kind.computing_in_float32).computing_in_float32(model) as changed:
        yield changed


def instrumented_program(model: Any) -> Program | None:
    """Returns an instrumented model as a source and its plan; None for anything else."""
    from probegen.sources.base import Program

    if isinstance(model, Program):
        return model
    if not getattr(model, "is_instrumented", False):
        return None
    return Program(open_source(model.keras_model), model.plan)
