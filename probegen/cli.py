"""The command line: inspect, compile, verify, run."""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from probegen import __version__
from probegen.errors import InputError, ProbegenError, SpecError

if TYPE_CHECKING:
    from rich.console import Console

_CONTEXT = {"help_option_names": ["-h", "--help"], "max_content_width": 100}


def main() -> None:
    """Runs the command line; a refusal ends with one message and status 1, no traceback."""
    # TensorFlow's start-up notes would drown what the user asked for.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    arguments = [a for a in sys.argv[1:] if a != "--traceback"]
    try:
        cli.main(arguments, prog_name="probegen")
    except (ProbegenError, ModuleNotFoundError) as error:
        if len(arguments) < len(sys.argv) - 1:
            raise
        _complain(error)
        sys.exit(1)


def _complain(error: Exception) -> None:
    if isinstance(error, ModuleNotFoundError):
        click.echo(
            f"probegen: {error.name} is not installed. This command needs the compiler: "
            "pip install 'probegen[compiler]'.",
            err=True,
        )
    else:
        click.echo(f"probegen: {error}", err=True)


@click.group(context_settings=_CONTEXT)
@click.version_option(__version__, prog_name="probegen")
@click.option("--traceback", is_flag=True, help="Show Python's traceback of an error.")
def cli(traceback: bool) -> None:
    """Compile Keras models into one file that returns its explanation beside its prediction.

    \b
    Typical use:
      probegen inspect model.keras
      probegen compile model.keras -o model.onnx --saliency --grad-cam
      probegen run model.onnx photo.png --html report.html
    """
    del traceback  # handled in main, so that it works wherever it stands


def _with_imports(command: Callable[..., Any]) -> Callable[..., Any]:
    return click.option(
        "--import",
        "modules",
        multiple=True,
        metavar="MODULE",
        help="Import a Python module first: one that registers the model's custom classes.",
    )(command)


# -- inspect -----------------------------------------------------------------------------------


@cli.command()
@click.argument("model", type=click.Path())
@click.option("--select", "selector", metavar="SEL", help="Show only what a selector matches.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@_with_imports
def inspect(model: str, selector: str | None, as_json: bool, modules: tuple[str, ...]) -> None:
    """List every point of MODEL (.keras, .h5, .hdf5) that can be probed, and how."""
    _import(modules)
    with _progress("reading the model"):
        from probegen.inspection import inspect as inspect_model
        from probegen.points import COLUMNS, ProbePoints
        from probegen.select import select

        points = inspect_model(model)
    if selector is not None:
        points = ProbePoints(select(points, selector), points.model_name)
    if as_json:
        click.echo(json.dumps({"model": points.model_name, "points": points.to_json()}))
    else:
        _table(f"{points.model_name}: {len(points)} probe points", COLUMNS, points.rows())


# -- compile -----------------------------------------------------------------------------------


@cli.command()
@click.argument("model", type=click.Path())
@click.option(
    "-o", "--output", required=True, type=click.Path(), help="NAME.onnx, or a folder: SavedModel."
)
@click.option("--activations", multiple=True, metavar="SEL", help="Outputs of layers.")
@click.option(
    "--attention",
    multiple=True,
    is_flag=False,
    flag_value="*",
    metavar="[SEL]",
    help="Attention weights; of all layers that have some if SEL is left out.",
)
@click.option("--saliency", is_flag=True, help="Largest |gradient| over the channels.")
@click.option("--input-gradient", is_flag=True, help="The raw, signed gradient.")
@click.option(
    "--grad-cam",
    is_flag=False,
    flag_value="auto",
    metavar="[LAYER]",
    help="Grad-CAM at LAYER; at the last layer with positions if left out.",
)
@click.option("--integrated-gradients", is_flag=True, help="Integrated gradients from zero.")
@click.option("--steps", type=click.IntRange(1), default=32, show_default=True, help="Of these.")
@click.option(
    "--target",
    default="argmax",
    show_default=True,
    metavar="T",
    help="What is explained: argmax, input (chosen a request), a class index, or a tuple such "
    "as '(None, 3)' with an index or None (sum) for each axis of the output.",
)
@click.option("--model-output", metavar="NAME", help="Which output of a model with several.")
@click.option(
    "--spec", type=click.Path(exists=True, dir_okay=False), help="Probes from a TOML or JSON file."
)
@click.option("--class-names", metavar="A,B,...|FILE", help="Class names, or a file, one a line.")
@click.option("--format", "kind", type=click.Choice(["onnx", "savedmodel", "keras"]))
@click.option("--opset", type=int, default=18, show_default=True, help="ONNX operator set.")
@click.option("--gate/--no-gate", default=True, help="ONNX: the optional input `explain`.")
@click.option("--static-batch", is_flag=True, help="Fix the batch size at 1.")
@click.option("--verify/--no-verify", default=True, help="Compare with the model before writing.")
@click.option("--samples", type=click.Path(exists=True), help="Inputs to verify on (.npy, .npz).")
@click.option("--overwrite", is_flag=True, help="Replace an existing folder.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@_with_imports
def compile(
    model: str, output: str, as_json: bool, modules: tuple[str, ...], **options: Any
) -> None:
    """Compile MODEL (.keras, .h5, .hdf5) into one artefact with the asked explanations.

    SEL is a glob on layer paths ('block*/conv1'), 're:...', 'type:Conv2D', 'role:attention' or
    'name#k' for call k of a shared layer; see `probegen inspect MODEL`. Options whose value may
    be left out, like --grad-cam, take the next word as their value: put MODEL first.
    """
    probes = _probes(options)
    _import(modules)
    with _progress("reading the model") as say:
        from probegen.compiler import compile as compile_model
        from probegen.parity import REPORT_COLUMNS

        exported = compile_model(
            model,
            probes,
            output,
            class_names=_class_names(options["class_names"]),
            format=options["kind"],
            opset=options["opset"],
            gate=options["gate"],
            dynamic_batch=not options["static_batch"],
            verify=options["verify"],
            samples=_load_arrays(options["samples"]) if options["samples"] else None,
            overwrite=options["overwrite"],
            progress=say,
        )
    size = _size(exported.path)
    if as_json:
        click.echo(
            json.dumps(
                {
                    "path": str(exported.path),
                    "format": exported.format,
                    "bytes": size,
                    "outputs": [o.name for o in exported.manifest.outputs],
                    "verification": exported.report.to_json() if exported.report else None,
                }
            )
        )
        return
    if exported.report is not None:
        _table("against the source model", REPORT_COLUMNS, exported.report.rows())
    click.echo(f"{exported.path}  {exported.format}  {size / 1e6:.2f} MB")


def _probes(options: dict[str, Any]) -> list[Any]:
    """Returns the probes that the options ask for."""
    from probegen import spec

    target = spec.parse_target(options["target"])
    common = {"target": target, "output": options["model_output"]}
    probes: list[Any] = []
    if options["spec"]:
        path = Path(options["spec"])
        text = path.read_text(encoding="utf-8")
        probes += spec.from_json(text) if path.suffix == ".json" else spec.from_toml(text)
    probes += [spec.Activations(s) for s in options["activations"]]
    probes += [spec.Attention(s) for s in options["attention"]]
    if options["input_gradient"]:
        probes.append(spec.InputGradient(**common))
    if options["saliency"]:
        probes.append(spec.Saliency(**common))
    if options["grad_cam"]:
        probes.append(spec.GradCAM(options["grad_cam"], **common))
    if options["integrated_gradients"]:
        probes.append(spec.IntegratedGradients(options["steps"], **common))
    if not probes:
        raise SpecError(
            "nothing to explain was asked for; add for instance --saliency, --grad-cam, "
            "--activations 'type:Conv2D' or --spec probes.toml."
        )
    return probes


def _class_names(given: str | None) -> list[str] | None:
    if given is None:
        return None
    if Path(given).is_file():
        return Path(given).read_text(encoding="utf-8").splitlines()
    return given.split(",")


# -- verify ------------------------------------------------------------------------------------


@cli.command()
@click.argument("artefact", type=click.Path())
@click.option("--against", required=True, type=click.Path(), metavar="MODEL", help="Its source.")
@click.option("--samples", type=click.Path(exists=True), help="Inputs (.npy, .npz).")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@_with_imports
def verify(
    artefact: str, against: str, samples: str | None, as_json: bool, modules: tuple[str, ...]
) -> None:
    """Compare ARTEFACT (ONNX file or SavedModel) with the model it was made from.

    Ends with status 1 where an output differs by more than its limit.
    """
    _import(modules)
    from probegen.errors import VerificationError

    failed: VerificationError | None = None
    with _progress("comparing"):
        from probegen.parity import REPORT_COLUMNS, Report
        from probegen.parity import verify as verify_artefact

        given = _load_arrays(samples) if samples else None
        try:
            report = verify_artefact(artefact, against, given)
        except VerificationError as error:
            if not isinstance(error.report, Report):
                raise
            failed, report = error, error.report
    if as_json:
        click.echo(json.dumps({"artefact": artefact, **report.to_json()}))
    else:
        _table(f"{artefact} against {report.against}", REPORT_COLUMNS, report.rows())
    if failed is not None:
        raise failed


# -- run ---------------------------------------------------------------------------------------


@cli.command()
@click.argument("artefact", type=click.Path())
@click.argument("input", type=click.Path(exists=True, dir_okay=False))
@click.option("--target", metavar="T", help="Class to explain: an index, a name, or argmax.")
@click.option("--no-explain", is_flag=True, help="Compute the prediction alone.")
@click.option("--scale", type=float, default=1.0, help="Multiply an image's 0-255 values by this.")
@click.option("--plot", type=click.Path(dir_okay=False), help="Draw all outputs into a PNG.")
@click.option("--html", type=click.Path(dir_okay=False), help="Write a self-contained report.")
@click.option("--npz", type=click.Path(dir_okay=False), help="Write all arrays.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def run(
    artefact: str,
    input: str,
    target: str | None,
    no_explain: bool,
    scale: float,
    plot: str | None,
    html: str | None,
    npz: str | None,
    as_json: bool,
) -> None:
    """Run ARTEFACT on INPUT and show what comes out. Needs no TensorFlow for ONNX.

    INPUT is an .npy file with a batch axis, an .npz file with an array for each input, a .csv
    file with a sample a row, or an image.
    """
    from probegen import runtime

    art = runtime.load(artefact)
    feed = _load_input(Path(input), art.manifest, scale)
    asked = int(target) if target is not None and target.lstrip("-").isdigit() else target
    asked = -1 if asked == "argmax" else asked
    result = art.run(feed, target=asked, explain=not no_explain)
    written = []
    for path, write in ((plot, result.plot), (html, result.to_html), (npz, result.to_npz)):
        if path:
            write(path)
            written.append(path)
    rows = [
        (
            name,
            record.kind,
            "x".join(map(str, record.array.shape)),
            f"{record.array.min():.4g}" if record.array.size else "",
            f"{record.array.max():.4g}" if record.array.size else "",
        )
        for name, record in result.items()
    ]
    if as_json:
        named = ("name", "kind", "shape", "min", "max")
        outputs = [dict(zip(named, row, strict=True)) for row in rows]
        predictions = {p.name: p.array.tolist() for p in result.predictions.values()}
        click.echo(json.dumps({"outputs": outputs, "predictions": predictions, "written": written}))
        return
    _table(f"{artefact} on {input}", ("output", "kind", "shape", "min", "max"), rows)
    for path in written:
        click.echo(f"wrote {path}")


# -- reading inputs ----------------------------------------------------------------------------


def _load_arrays(path: str) -> Any:
    """Returns the array of an .npy file, or the arrays of an .npz file by name."""
    import numpy as np

    try:
        loaded = np.load(path, allow_pickle=False)
    except (OSError, ValueError) as error:
        raise InputError(f"{path} is no .npy or .npz file of plain numbers: {error}") from error
    return loaded if isinstance(loaded, np.ndarray) else {name: loaded[name] for name in loaded}


def _load_input(path: Path, manifest: Any, scale: float) -> Any:
    import numpy as np

    suffix = path.suffix.lower()
    if suffix in (".npy", ".npz"):
        return _load_arrays(str(path))
    if suffix == ".csv":
        try:
            return np.loadtxt(path, delimiter=",", ndmin=2).astype(manifest.inputs[0].dtype)
        except ValueError as error:
            raise InputError(f"{path} is no table of numbers: {error}") from error
    if suffix in (".png", ".jpg", ".jpeg", ".bmp", ".gif"):
        return _load_image(path, manifest.inputs[0], scale)
    raise InputError(f"cannot read {path}; expected .npy, .npz, .csv or an image.")


def _load_image(path: Path, wanted: Any, scale: float) -> Any:
    """Reads an image as one sample of `wanted`, resized where the input has a fixed size."""
    import numpy as np
    from PIL import Image  # matplotlib brings it

    if len(wanted.shape) != 4:
        raise InputError(
            f"{path} is an image; the input {wanted.name!r} takes {wanted.axes}, not images."
        )
    height, width, channels = wanted.shape[1:]
    if channels not in (1, 3, 4):
        raise InputError(f"the input {wanted.name!r} has {channels} channels, no image has.")
    with Image.open(path) as opened:
        image = opened.convert({1: "L", 3: "RGB", 4: "RGBA"}[channels])
        if height and width and image.size != (width, height):
            click.echo(f"resized {image.size[1]}x{image.size[0]} to {height}x{width}", err=True)
            image = image.resize((width, height), Image.Resampling.BILINEAR)
        pixels = np.asarray(image, dtype=np.float32).reshape(1, image.height, image.width, channels)
    return (pixels * scale).astype(wanted.dtype)


# -- showing -----------------------------------------------------------------------------------


def _import(modules: tuple[str, ...]) -> None:
    if modules:
        sys.path.insert(0, os.getcwd())
    for module in modules:
        importlib.import_module(module)


@contextlib.contextmanager
def _progress(first: str) -> Iterator[Callable[[str], None]]:
    """Shows what is being done on standard error, one stage after the other."""
    _start_tensorflow()
    console = _console(stderr=True)
    with console.status(first) as status:
        yield status.update


def _start_tensorflow() -> None:
    """Imports TensorFlow without the notes that its libraries write past Python."""
    sys.stderr.flush()
    kept = os.dup(2)
    with open(os.devnull, "w") as nowhere:
        os.dup2(nowhere.fileno(), 2)
        try:
            importlib.import_module("tensorflow")
        finally:
            os.dup2(kept, 2)
            os.close(kept)


def _console(stderr: bool = False) -> Console:
    from rich.console import Console

    return Console(stderr=stderr)


def _table(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    from rich.box import SIMPLE
    from rich.markup import escape
    from rich.table import Table

    table = Table(title=escape(title), box=SIMPLE, title_justify="left")
    for column in columns:
        table.add_column(column, overflow="fold")
    for row in rows:
        table.add_row(*(escape(cell) for cell in row))
    _console().print(table)


def _size(path: Path) -> int:
    """Returns the bytes of a file, or of all files in a folder."""
    if path.is_file():
        return path.stat().st_size
    return sum(p.stat().st_size for p in path.rglob("*") if p.is_file())


if __name__ == "__main__":
    main()
