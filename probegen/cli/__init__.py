"""The command line: one command a file; this one puts them together."""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Sequence
from typing import Any

import click

from probegen._version import __version__
from probegen.cli.compile import compile
from probegen.cli.differentiate import differentiate
from probegen.cli.drift import drift
from probegen.cli.generate import generate
from probegen.cli.inspect import inspect
from probegen.cli.litert import litert
from probegen.cli.maximise import maximise
from probegen.cli.quantise import quantise
from probegen.cli.run import run
from probegen.cli.serve import serve
from probegen.cli.serve_config import serve_config
from probegen.cli.verify import verify
from probegen.cli.web import web
from probegen.errors import ProbegenError
from probegen.text import extra_for

_CONTEXT = {"help_option_names": ["-h", "--help"], "max_content_width": 100}
_TRACEBACK = "--traceback"


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs the command line; an error ends with one message and status 1, no traceback.

    Args:
        arguments: by default those of the process.
    """
    # TensorFlow's start-up notes would drown what the user asked for.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    given = list(sys.argv[1:] if arguments is None else arguments)
    try:
        with warnings.catch_warnings():
            warnings.showwarning = _warn
            # Taken out here, so that it works wherever it stands.
            cli.main([a for a in given if a != _TRACEBACK], prog_name="probegen")
    except Exception as error:
        if _TRACEBACK in given:
            raise
        click.echo(f"probegen: {_explain(error)}", err=True)
        sys.exit(1)


def _warn(message: Warning | str, category: type[Warning], *_: Any, **__: Any) -> None:
    """Shows warnings of ours without the line of code that gave them."""
    if category.__module__.startswith("probegen.") or category is UserWarning:
        click.echo(f"probegen: warning: {message}", err=True)


def _explain(error: Exception) -> str:
    """Returns what a user is told of an error."""
    if isinstance(error, ProbegenError):
        return str(error)
    if isinstance(error, ModuleNotFoundError):
        return (
            f"{error.name} is not installed. This command needs the compiler: pip install "
            f"{extra_for(error.name or '')}."
        )
    if isinstance(error, OSError):
        return f"{error.strerror or error}" + (f": {error.filename}" if error.filename else "")
    return (
        f"{type(error).__name__}: {error}\nThis is a fault in probegen, or in a layer of the "
        f"model; {_TRACEBACK} shows where."
    )


@click.group(context_settings=_CONTEXT)
@click.version_option(__version__, prog_name="probegen")
@click.option(_TRACEBACK, is_flag=True, help="Show Python's traceback of an error.")
def cli(traceback: bool) -> None:
    """Compile Keras and ONNX models into one file that predicts, and explains its prediction.

    \b
    Typical use:
      probegen inspect model.keras
      probegen inspect model.keras --cost --saliency
      probegen compile model.keras -o model.onnx --saliency --grad-cam
      probegen verify model.onnx --against model.keras
      probegen verify model.onnx
      probegen differentiate any.onnx -o gradient.onnx --wrt image
      probegen run model.onnx photo.png --html report.html
      probegen generate model.onnx --text "a cat in" --steps 20
      probegen maximise model.onnx --target 3 -o picture.png
      probegen quantise model.onnx -o small.onnx --to int8
      probegen litert saved_model -o model.tflite
      probegen serve model.onnx --port 8080
      probegen serve-config triton model.onnx -o repository
      probegen drift model.onnx results.npz
      probegen web model.onnx -o site
    """
    del traceback  # see main


for _command in (
    inspect,
    compile,
    differentiate,
    verify,
    run,
    generate,
    maximise,
    quantise,
    litert,
    serve,
    serve_config,
    drift,
    web,
):
    cli.add_command(_command)
