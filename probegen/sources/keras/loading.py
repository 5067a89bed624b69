"""Model files: loaded without running code that they hold, and what to do where that fails."""

from __future__ import annotations

import contextlib
import re
import threading
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import keras

from probegen.errors import SourceError

KERAS_SUFFIXES = (".keras", ".h5", ".hdf5")

#: Arguments that Keras 2 wrote and Keras 3 no longer takes, with the value that means what
#: Keras 3 does anyway. Files that hold this value are read as if the argument was not there.
_NEUTRAL_ARGUMENTS: Mapping[str, Mapping[str, Any]] = {
    "LSTM": {"time_major": False},
    "GRU": {"time_major": False},
    "SimpleRNN": {"time_major": False},
    "RNN": {"time_major": False},
    "ConvLSTM1D": {"time_major": False},
    "ConvLSTM2D": {"time_major": False},
    "ConvLSTM3D": {"time_major": False},
    "DepthwiseConv1D": {"groups": 1},
    "DepthwiseConv2D": {"groups": 1},
    "SeparableConv1D": {"groups": 1},
    "SeparableConv2D": {"groups": 1},
    "Conv1DTranspose": {"groups": 1},
    "Conv2DTranspose": {"groups": 1},
    "Conv3DTranspose": {"groups": 1},
    "BatchNormalization": {
        "renorm": False,
        "fused": None,
        "virtual_batch_size": None,
        "adjustment": None,
    },
}
_UNKNOWN_ARGUMENTS = "nrecognized keyword argument"
_lock = threading.Lock()


def load_model(path: str | Path, custom_objects: dict[str, Any] | None = None) -> Any:
    """Loads a `.keras`, `.h5` or `.hdf5` file without running code that it holds.

    Files that Keras 2 wrote may name arguments that Keras 3 no longer has; where their value says
    what Keras 3 does anyway (`time_major: false`), they are passed over.

    Raises:
        SourceError: there is no such file, it is no Keras model, or it needs custom objects; says
            which of these, and what works.
    """
    path = Path(path)
    if path.is_dir():
        raise SourceError(
            f"{str(path)!r} is a folder. A SavedModel holds no Keras layers any more: load the "
            "model in Python and pass the object, or save it as a .keras file."
        )
    if not path.is_file():
        raise SourceError(f"there is no model file {str(path)!r}.")
    if path.suffix.lower() not in KERAS_SUFFIXES:
        hint = " An ONNX file is compiled as it is: pg.compile(path, probes, ...)."
        raise SourceError(
            f"{str(path)!r} is no Keras model file: expected one of {', '.join(KERAS_SUFFIXES)}."
            + (hint if path.suffix.lower() == ".onnx" else "")
        )
    if path.suffix.lower() == ".keras" and not zipfile.is_zipfile(path):
        raise SourceError(f"Keras cannot load {str(path)!r}: the file is cut short or no model.")
    try:
        return _load(path, custom_objects)
    except Exception as error:
        raise SourceError(
            f"Keras cannot load {str(path)!r}: {_cause(error)} {_remedy(error, path)}"
        ) from error


def _load(path: Path, custom_objects: dict[str, Any] | None) -> Any:
    try:
        return _load_as_it_is(path, custom_objects)
    except Exception as error:
        if _UNKNOWN_ARGUMENTS not in str(error):
            raise
    with _without_neutral_arguments():
        return _load_as_it_is(path, custom_objects)


def _load_as_it_is(path: Path, custom_objects: dict[str, Any] | None) -> Any:
    return keras.saving.load_model(
        path, custom_objects=custom_objects, compile=False, safe_mode=True
    )


@contextlib.contextmanager
def _without_neutral_arguments() -> Iterator[None]:
    """Lets Keras' own layers pass over `_NEUTRAL_ARGUMENTS` when made from a config."""
    with _lock:
        changed = []
        try:
            for name, neutral in _NEUTRAL_ARGUMENTS.items():
                cls = getattr(keras.layers, name)
                changed.append((cls, cls.__dict__.get("from_config")))
                cls.from_config = classmethod(_passing_over(cls.from_config.__func__, neutral))
            yield
        finally:
            for cls, own in changed:
                if own is None:
                    del cls.from_config
                else:
                    cls.from_config = own


def _passing_over(from_config: Any, neutral: Mapping[str, Any]) -> Any:
    def cleaned(cls: Any, config: dict[str, Any], *rest: Any, **named: Any) -> Any:
        kept = {k: v for k, v in config.items() if k not in neutral or v != neutral[k]}
        return from_config(cls, kept, *rest, **named)

    return cleaned


def _cause(error: Exception) -> str:
    """Returns the first sentence of what Keras found wrong, without the configs it prints."""
    innermost = str(error).rpartition("Exception encountered: ")[2].strip()
    sentence = (innermost.splitlines() or [type(error).__name__])[0].partition(". ")[0]
    return sentence if sentence.endswith(".") else sentence + "."


def _remedy(error: Exception, path: Path) -> str:
    """Says what works instead."""
    said = str(error)
    if re.search(r"lambda", said, re.IGNORECASE):
        return (
            "A lambda is Python code, which no file is let run here. If you trust the file, load "
            f"it yourself, model = keras.saving.load_model({path.name!r}, safe_mode=False), and "
            "pass the object."
        )
    if "No model config" in said or "config.json" in said or path.name.endswith(".weights.h5"):
        return (
            "The file holds weights alone, without the layers they belong to: build the model in "
            f"Python, call model.load_weights({path.name!r}) on it, and pass the object."
        )
    if _UNKNOWN_ARGUMENTS in said:
        return (
            "An older Keras wrote this argument, and no layer of Keras 3 does what it asks for. "
            "If the model does not need it, load the file yourself with custom_objects= that "
            "map the layer's name to a class whose from_config drops the argument, and pass the "
            "object."
        )
    return (
        "If it holds classes of your own, import the module that registers them first (on the "
        "command line: --import MODULE), or load it yourself with custom_objects= and pass the "
        "object."
    )
