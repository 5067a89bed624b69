"""The command line: inspect, compile, verify, run."""

from __future__ import annotations

import contextlib
import dataclasses
import importlib
import json
import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from probegen._version import __version__
from probegen.errors import InputError, ProbegenError, SourceError, SpecError

if TYPE_CHECKING:
    from rich.console import Console

    from probegen.artefact.manifest import Manifest
    from probegen.cost.report import Costs

_CONTEXT = {"help_option_names": ["-h", "--help"], "max_content_width": 100}
_TRACEBACK = "--traceback"
#: Rows of a batch whose classes `run` prints.
_MOST_CHOICES = 10


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs the command line; an error ends with one message and status 1, no traceback.

    Args:
        arguments: by default those of the process.
    """
    # TensorFlow's start-up notes would drown what the user asked for.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    given = list(sys.argv[1:] if arguments is None else arguments)
    try:
        # Taken out here, so that it works wherever it stands.
        cli.main([a for a in given if a != _TRACEBACK], prog_name="probegen")
    except Exception as error:
        if _TRACEBACK in given:
            raise
        click.echo(f"probegen: {_explain(error)}", err=True)
        sys.exit(1)


def _explain(error: Exception) -> str:
    """Returns what a user is told of an error."""
    if isinstance(error, ProbegenError):
        return str(error)
    if isinstance(error, ModuleNotFoundError):
        return (
            f"{error.name} is not installed. This command needs the compiler: "
            "pip install 'probegen[compiler]'."
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
    """Compile Keras models into one file that returns its explanation beside its prediction.

    \b
    Typical use:
      probegen inspect model.keras
      probegen inspect model.keras --cost --saliency
      probegen compile model.keras -o model.onnx --saliency --grad-cam
      probegen verify model.onnx --against model.keras
      probegen verify model.onnx
      probegen run model.onnx photo.png --html report.html
    """
    del traceback  # see main


def _with_imports(command: Callable[..., Any]) -> Callable[..., Any]:
    return click.option(
        "--import",
        "modules",
        multiple=True,
        metavar="MODULE",
        help="Import a Python module first: one that registers the model's custom classes.",
    )(command)


# -- probes ------------------------------------------------------------------------------------

_PROBE_OPTIONS = (
    click.option("--activations", multiple=True, metavar="SEL", help="Outputs of layers."),
    click.option(
        "--attention",
        multiple=True,
        is_flag=False,
        flag_value="*",
        metavar="[SEL]",
        help="Attention weights; of all layers that have some if SEL is left out.",
    ),
    click.option("--saliency", is_flag=True, help="Largest |gradient| over the channels."),
    click.option("--input-gradient", is_flag=True, help="The raw, signed gradient."),
    click.option(
        "--grad-cam",
        is_flag=False,
        flag_value="auto",
        metavar="[LAYER]",
        help="Grad-CAM at LAYER; at the last layer with positions if left out.",
    ),
    click.option("--integrated-gradients", is_flag=True, help="Integrated gradients from zero."),
    click.option(
        "--steps", type=click.IntRange(1), help="Points of --integrated-gradients.  [default: 32]"
    ),
    click.option(
        "--target",
        metavar="T",
        help="What is explained: argmax, input (chosen a request), a class index, or a tuple "
        "such as '(None, 3)' with an index or None (sum) for each axis of the output.  "
        "[default: argmax]",
    ),
    click.option("--model-output", metavar="NAME", help="Which output of a model with several."),
    click.option(
        "--spec",
        type=click.Path(exists=True, dir_okay=False),
        help="Probes from a TOML or JSON file; they come before those of the options.",
    ),
)


_SUCH_AS = (
    "add for instance --saliency, --grad-cam, --activations 'type:Conv2D' or --spec probes.toml."
)


def _with_probes(command: Callable[..., Any]) -> Callable[..., Any]:
    """Gives a command the options that say which probes are meant; see `_probes`."""
    for option in reversed(_PROBE_OPTIONS):
        command = option(command)
    return command


class _TakesProbes(click.Command):
    """A command that says so where an option with an optional value took MODEL for it."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Parses as any command does."""
        try:
            return super().parse_args(ctx, args)
        except click.MissingParameter as error:
            if error.param is None or error.param.name != "model":
                raise
            hint = "Put MODEL first: --attention and --grad-cam take the next word"
            raise click.MissingParameter(hint, ctx, error.param) from error


def _probes(options: dict[str, Any]) -> list[Any]:
    """Returns the probes that the options ask for, which may be none.

    Raises:
        SpecError: an option that none of them takes.
    """
    from probegen.methods.targets import parse_target
    from probegen.methods.text_forms import by_text_name

    table: dict[str, Any] = dict(by_text_name())
    common = {
        "target": parse_target(options["target"] or "argmax"),
        "output": options["model_output"],
    }
    probes: list[Any] = list(_spec_file(options["spec"])) if options["spec"] else []
    probes += [table["activations"](s) for s in options["activations"]]
    probes += [table["attention"](s) for s in options["attention"]]
    gradients: list[Any] = []
    if options["input_gradient"]:
        gradients.append(table["input_gradient"](**common))
    if options["saliency"]:
        gradients.append(table["saliency"](**common))
    if options["grad_cam"]:
        gradients.append(table["grad_cam"](options["grad_cam"], **common))
    if options["integrated_gradients"]:
        gradients.append(table["integrated_gradients"](options["steps"] or 32, **common))
    _refuse_idle(options, ("target", "model_output"), bool(gradients), "--saliency or --grad-cam")
    integrates = bool(options["integrated_gradients"])
    _refuse_idle(options, ("steps",), integrates, "--integrated-gradients")
    return [*probes, *gradients]


def _refuse_idle(options: dict[str, Any], names: Sequence[str], used: bool, needs: str) -> None:
    for name in names:
        if options[name] is not None and not used:
            raise SpecError(
                f"--{name.replace('_', '-')} goes with an option such as {needs}, of which there "
                "is none. Probes from --spec hold their own."
            )


def _spec_file(path: str) -> Sequence[Any]:
    from probegen.methods import text_forms as spec

    text = _read_text(path)
    try:
        is_json = Path(path).suffix.lower() == ".json"
        return spec.from_json(text) if is_json else spec.from_toml(text)
    except SpecError as error:
        raise SpecError(f"{path}: {error}") from error


# -- inspect -----------------------------------------------------------------------------------


@cli.command(cls=_TakesProbes)
@click.argument("model", type=click.Path())
@click.option("--select", "selector", metavar="SEL", help="Show only what a selector matches.")
@click.option("--cost", is_flag=True, help="Show what the probes that follow would cost instead.")
@_with_probes
@click.option(
    "--size",
    "sizes",
    multiple=True,
    metavar="NAME=N,N,...",
    help="Sizes of an input without the batch, where the model leaves some open and --cost needs "
    "them, such as image=320,240,3.",
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@_with_imports
def inspect(
    model: str,
    selector: str | None,
    cost: bool,
    sizes: Sequence[str],
    as_json: bool,
    modules: tuple[str, ...],
    **options: Any,
) -> None:
    """List every point of MODEL (.keras, .h5, .hdf5) that can be probed, and how.

    SEL is a glob on layer paths ('block*/conv1'), 're:...', 'type:Conv2D', 'role:attention' or
    'name#k' for call k of a shared layer.

    With --cost, tell what probes would add to the prediction in an ONNX file, and what would be
    refused, without making it: --cost --saliency --grad-cam.
    """
    _check_cost_options(cost, selector, sizes, options)
    probes = _probes(options) if cost else None
    if probes == []:
        raise SpecError(f"--cost needs probes whose cost is asked for; {_SUCH_AS}")
    shapes = _input_sizes(sizes)
    with _progress("reading the model", modules):
        from probegen.inspection import Inspection
        from probegen.inspection import inspect as inspect_model
        from probegen.plan.points import COLUMNS
        from probegen.plan.selectors import select

        points = inspect_model(model, probes=probes, sizes=shapes)
    if points.cost is not None:
        _show_cost(points.cost, as_json)
        return
    if selector is not None:
        points = Inspection(select(points, selector), points.model_name)
    if as_json:
        click.echo(json.dumps({"model": points.model_name, "points": points.to_json()}))
    else:
        _table(f"{points.model_name}: {len(points)} probe points", COLUMNS, points.rows())


def _show_cost(cost: Costs, as_json: bool) -> None:
    if as_json:
        click.echo(json.dumps({"model": cost.model_name, "cost": cost.to_json()}))
        return
    from probegen.cost.report import COST_COLUMNS

    _table(cost.title, COST_COLUMNS, cost.rows())
    for note in cost.notes():
        click.echo(note)


def _check_cost_options(
    cost: bool, selector: str | None, sizes: Sequence[str], options: Mapping[str, Any]
) -> None:
    """Refuses options that go with the other use of `inspect`.

    Raises:
        SpecError: there is one.
    """
    if cost and selector is not None:
        raise SpecError(
            "--select says which points are listed, and --cost lists none; leave one of them out."
        )
    given = [name for name, value in options.items() if value] + (["size"] if sizes else [])
    if given and not cost:
        raise SpecError(
            f"--{given[0].replace('_', '-')} goes with --cost, which tells what probes would cost."
        )


def _input_sizes(given: Sequence[str]) -> dict[str, tuple[int, ...]]:
    """Reads sizes of inputs as typed: `image=320,240,3`.

    Raises:
        SpecError: one is not of this form.
    """
    sizes = {}
    for text in given:
        name, equals, numbers = text.rpartition("=")
        if not equals or not all(n.strip().isdecimal() for n in numbers.split(",")):
            raise SpecError(f"--size takes for instance image=320,240,3, got {text!r}.")
        sizes[name] = tuple(map(int, numbers.split(",")))
    return sizes


# -- compile -----------------------------------------------------------------------------------

_GATES = ("required", "optional", "none")


class _TakesGate(_TakesProbes):
    """A command with `--gate`, which takes the next word only where that names a gate."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Parses as any command does."""
        following = [*args[1:], ""]
        bare = (a == "--gate" and b not in _GATES for a, b in zip(args, following, strict=True))
        named = ["--gate=required" if b else a for a, b in zip(args, bare, strict=True)]
        return super().parse_args(ctx, named)


def _gate(chosen: str | None, none: bool) -> bool | str:
    """Returns what `export` takes as `gate`.

    Raises:
        SpecError: the two options contradict each other.
    """
    if none and chosen not in (None, "none"):
        raise SpecError("--gate and --no-gate were both given; leave one of them out.")
    if none or chosen == "none":
        return False
    return "optional" if chosen == "optional" else True


@cli.command(cls=_TakesGate)
@click.argument("model", type=click.Path())
@click.option(
    "-o",
    "--output",
    required=True,
    type=click.Path(),
    metavar="OUT",
    help="NAME.onnx, NAME.keras, or a folder: SavedModel.",
)
@_with_probes
@click.option("--class-names", metavar="A,B,...|FILE", help="Class names, or a file, one a line.")
@click.option(
    "--format",
    "kind",
    type=click.Choice(["onnx", "savedmodel", "keras"]),
    help="What to write, whatever OUT's suffix says.",
)
@click.option("--opset", type=int, default=18, show_default=True, help="ONNX operator set.")
@click.option(
    "--gate",
    is_flag=False,
    flag_value="required",
    type=click.Choice(_GATES),
    help="ONNX: the input `explain`, false for the prediction alone. A required input works in "
    "every runtime; an optional one is false by default, which only onnxruntime's Python, C, C# "
    "and Java honour.  [default: required]",
)
@click.option("--no-gate", is_flag=True, help="The same as --gate=none.")
@click.option(
    "--external-data/--no-external-data",
    default=None,
    help="ONNX: weights in OUT.data beside OUT.  [default: only above protobuf's 2 GB]",
)
@click.option("--static-batch", is_flag=True, help="Fix the batch size at 1.")
@click.option("--verify/--no-verify", default=True, help="Compare with the model, as is default.")
@click.option(
    "--samples",
    type=click.Path(exists=True, dir_okay=False),
    help="Inputs to verify on (.npy, .npz).",
)
@click.option("--overwrite", is_flag=True, help="Replace an existing folder or data file.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@_with_imports
def compile(
    model: str, output: str, as_json: bool, modules: tuple[str, ...], **options: Any
) -> None:
    """Compile MODEL (.keras, .h5, .hdf5) into one artefact with the asked explanations.

    SEL is a glob on layer paths ('block*/conv1'), 're:...', 'type:Conv2D', 'role:attention' or
    'name#k' for call k of a shared layer; see `probegen inspect MODEL`. Options whose value may
    be left out, like --grad-cam, take the next word as their value: put MODEL first.

    \b
    A spec file holds what the options cannot say, for instance in TOML:
      [[probes]]
      probe = "saliency"
      target = 3
      wrt = "embedding"
    """
    probes = _probes(options)
    if not probes:
        note = "no probes: the artefact gives the predictions alone, and explains nothing;"
        click.echo(f"{note} {_SUCH_AS}", err=True)
    with _progress("reading the model", modules) as say:
        from probegen.compiler import compile as compile_model
        from probegen.parity import REPORT_COLUMNS

        exported = compile_model(
            model,
            probes,
            output,
            class_names=_words(options["class_names"]),
            format=options["kind"],
            opset=options["opset"],
            gate=_gate(options["gate"], options["no_gate"]),
            dynamic_batch=not options["static_batch"],
            external_data=options["external_data"],
            verify=options["verify"],
            samples=_load_arrays(options["samples"]) if options["samples"] else None,
            overwrite=options["overwrite"],
            progress=say,
        )
    files = [exported.path, *([exported.data] if exported.data else [])]
    size = sum(map(_size, files))
    if as_json:
        click.echo(
            json.dumps(
                {
                    "path": str(exported.path),
                    "data": str(exported.data) if exported.data else None,
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
    click.echo(f"{' + '.join(map(str, files))}  {exported.format}  {size / 1e6:.2f} MB")


# -- verify ------------------------------------------------------------------------------------


@cli.command()
@click.argument("artefact", type=click.Path())
@click.option("--against", type=click.Path(), metavar="MODEL", help="Its source.")
@click.option(
    "--samples", type=click.Path(exists=True, dir_okay=False), help="Inputs (.npy, .npz)."
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@_with_imports
def verify(
    artefact: str,
    against: str | None,
    samples: str | None,
    as_json: bool,
    modules: tuple[str, ...],
) -> None:
    """Compare ARTEFACT (ONNX file or SavedModel) with the model it was made from.

    Ends with status 1 where an output differs by more than its limit.

    Without --against: compare its contents with the digests that it was written with, which finds
    a bit that flipped in a weight; and open it, which checks its manifest and graph.
    """
    if against is None:
        if samples is not None or modules:
            raise SpecError("--samples and --import go with --against MODEL, which is not given.")
        _check_contents(artefact, as_json)
        return
    with _progress("comparing", modules):
        from probegen.parity import REPORT_COLUMNS, measure, require_agreement

        report = measure(artefact, against, _load_arrays(samples) if samples else None)
    if as_json:
        click.echo(json.dumps({"artefact": artefact, **report.to_json()}))
    else:
        made = "generated " if report.generated else ""
        title = f"{artefact} against {report.against} on {report.samples} {made}samples"
        _table(title, REPORT_COLUMNS, report.rows())
    require_agreement(report)


def _check_contents(artefact: str, as_json: bool) -> None:
    from probegen import runtime
    from probegen.artefact import integrity

    if Path(artefact).is_dir():
        _start_tensorflow()
    runtime.load(artefact, check=True)
    digest = integrity.sealed(Path(artefact))
    if as_json:
        click.echo(json.dumps({"artefact": artefact, "sha256": digest, "passed": True}))
    else:
        click.echo(f"{artefact} is as probegen wrote it: SHA-256 {digest}")


# -- run ---------------------------------------------------------------------------------------


@cli.command()
@click.argument("artefact", type=click.Path())
@click.argument("input", type=click.Path(exists=True, dir_okay=False))
@click.option(
    "--target",
    metavar="T",
    help="Class to explain, where the artefact takes one: an index, a name, argmax, or one of "
    "these for each row, separated by commas.",
)
@click.option("--no-explain", is_flag=True, help="Compute the prediction alone.")
@click.option("--check", is_flag=True, help="Check ARTEFACT's contents by its digests first.")
@click.option("--check-finite", is_flag=True, help="Refuse NaN and infinity in the input.")
@click.option(
    "--scale",
    type=float,
    help="Multiply the values of floating inputs by this: images are read as 0 to 255.",
)
@click.option(
    "--header/--no-header",
    default=None,
    help="Whether the first row of a table holds names.  [default: where no cell is a number]",
)
@click.option("--plot", type=click.Path(dir_okay=False), help="Draw all outputs into a PNG.")
@click.option("--html", type=click.Path(dir_okay=False), help="Write a self-contained report.")
@click.option("--npz", type=click.Path(dir_okay=False), help="Write all arrays.")
@click.option("--sample", type=int, default=0, show_default=True, help="The row that --plot draws.")
@click.option("--class-names", metavar="A,B,...|FILE", help="Names of the classes in pictures.")
@click.option("--feature-names", metavar="A,B,...|FILE", help="Names of the features in pictures.")
@click.option(
    "--tokens",
    type=click.Path(exists=True, dir_okay=False),
    help="What stands along a sequence: a text file, a line a row of the batch, tokens separated "
    "by spaces; or JSON: a list, a list of lists, or an object from id to token.",
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def run(artefact: str, input: str, as_json: bool, **options: Any) -> None:
    """Run ARTEFACT on INPUT and show what comes out. Needs no TensorFlow for ONNX.

    INPUT is an .npy file with a batch axis, an .npz file with an array for each input, a .csv
    file with a sample a row (for a series: a time step a row), or an image.

    Cells of a table are divided by tab, ';', ',' or '|', and have decimal points. The values of an
    image go from 0 to 255, or what --scale makes of them; the range is printed.
    """
    from probegen import runtime
    from probegen.runtime.classes import chosen_classes
    from probegen.runtime.read import read_input

    if Path(artefact).is_dir():
        _start_tensorflow()
    art = runtime.load(artefact, check=True) if options["check"] else runtime.load(artefact)
    feed, names = read_input(
        Path(input),
        art.manifest,
        scale=options["scale"],
        header=options["header"],
        say=_note,
    )
    result = art.run(
        feed,
        target=_request(options["target"]),
        explain=not options["no_explain"],
        check_finite=options["check_finite"],
    )
    labels = {"feature_names": names, **_labels(options)}
    _check_class_names(labels.get("class_names"), art.manifest)
    written = _write_all(result, options, {k: v for k, v in labels.items() if v is not None})
    fed = [
        {"name": name, "kind": "input", **_figures(array)}
        for name, array in result.run.inputs.items()
    ]
    records = [_described(record) for record in result.values()]
    chosen = {
        r.name: chosen_classes(r, labels.get("class_names")) for r in result.predictions.values()
    }
    if as_json:
        predictions = {p.name: p.array.tolist() for p in result.predictions.values()}
        classes = {name: [dataclasses.asdict(c) for c in found] for name, found in chosen.items()}
        told = {"inputs": fed, "outputs": records, "predictions": predictions}
        told |= {"classes": {n: found for n, found in classes.items() if found}}
        click.echo(json.dumps({**told, "written": written}))
        return
    columns = ("name", "kind", "shape", "min", "max")
    _table(f"{artefact} on {input}", columns, _rows([*fed, *records]))
    for name, found in chosen.items():
        for row, choice in enumerate(found[:_MOST_CHOICES]):
            click.echo(f"{name}, row {row}: {choice}")
        if len(found) > _MOST_CHOICES:
            click.echo(f"{name}: {len(found) - _MOST_CHOICES} more rows; --json has them all")
    for record in result.predictions.values():
        if not chosen[record.name]:
            _say_values(record)
    for path in written:
        click.echo(f"wrote {path}")


def _say_values(record: Any) -> None:
    """Prints a prediction of one number a row, which has no class."""
    array = record.array
    if (
        array.ndim not in (1, 2)
        or array.shape[1:] not in ((), (1,))
        or array.dtype.kind not in "fiu"
    ):
        return
    probable = record.spec.detail.get("activation")
    for row, value in enumerate(array.reshape(-1)[:_MOST_CHOICES].tolist()):
        click.echo(f"{record.name}, row {row}: {'probability ' if probable else ''}{value:.4g}")
    if len(array) > _MOST_CHOICES:
        click.echo(f"{record.name}: {len(array) - _MOST_CHOICES} more rows; --json has them all")


def _request(text: str | None) -> Any:
    """Returns the target of a run: an index or a name, or a list with one a row."""
    if text is None:
        return None
    parts = [_one_target(part.strip()) for part in text.split(",")]
    return parts if len(parts) > 1 else parts[0]


def _one_target(text: str) -> int | str:
    if text == "argmax":
        return -1
    return int(text) if text.removeprefix("-").isdigit() else text


def _labels(options: dict[str, Any]) -> dict[str, Any]:
    """Returns what pictures are labelled with."""
    labels = {name: _words(options[name]) for name in ("class_names", "feature_names")}
    given = {name: words for name, words in labels.items() if words is not None}
    return {**given, **({"tokens": _tokens(options["tokens"])} if options["tokens"] else {})}


def _tokens(path: str) -> Any:
    text = _read_text(path)
    if Path(path).suffix.lower() != ".json":
        return [line.split() for line in text.splitlines() if line.strip()]
    try:
        tokens = json.loads(text)
        return {int(k): str(v) for k, v in tokens.items()} if isinstance(tokens, dict) else tokens
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path} holds no tokens: {error}") from error


def _write_all(result: Any, options: dict[str, Any], labels: dict[str, Any]) -> list[str]:
    """Writes the files that were asked for; returns their paths."""
    written = []
    if options["plot"]:
        result.plot(options["plot"], sample=options["sample"], **labels)
        written.append(options["plot"])
    if options["html"]:
        result.to_html(options["html"], **labels)
        written.append(options["html"])
    if options["npz"]:
        result.to_npz(options["npz"])
        written.append(options["npz"])
    return written


def _check_class_names(names: Sequence[str] | None, manifest: Manifest) -> None:
    """Raises an InputError for class names that fit no prediction."""
    from probegen.artefact.manifest import class_axis, wrong_class_names

    sizes = [p.shape[class_axis(p.axes)] for p in manifest.predictions if len(p.shape) > 1]
    wrong = None if names is None else wrong_class_names(names, sizes)
    if wrong is not None:
        raise InputError(wrong)


def _described(record: Any) -> dict[str, Any]:
    """Returns what JSON says of a record."""
    return {
        "name": record.name,
        "kind": record.kind,
        "layer": record.layer,
        "axes": list(record.axes),
        **_figures(record.array),
    }


def _figures(array: Any) -> dict[str, Any]:
    numeric = bool(array.size) and array.dtype.kind in "biuf"
    return {
        "shape": list(array.shape),
        "dtype": str(array.dtype),
        "min": float(array.min()) if numeric else None,
        "max": float(array.max()) if numeric else None,
    }


def _rows(records: Sequence[Mapping[str, Any]]) -> list[tuple[str, ...]]:
    return [
        (
            r["name"],
            r["kind"],
            "x".join(map(str, r["shape"])),
            *("" if r[key] is None else f"{r[key]:.4g}" for key in ("min", "max")),
        )
        for r in records
    ]


# -- reading inputs ----------------------------------------------------------------------------


def _read_text(path: str) -> str:
    try:
        return Path(path).read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise InputError(f"{path} is no UTF-8 text: {error}") from error


def _words(given: str | None) -> list[str] | None:
    """Returns the names in a file, one a line, or between commas."""
    if given is None:
        return None
    # Not Path.is_file, which raises where many names make one too long for a file.
    parts = _read_text(given).splitlines() if os.path.isfile(given) else given.split(",")
    return [part.strip() for part in parts if part.strip()]


def _load_arrays(path: str) -> Any:
    """Returns the arrays of an .npy or .npz file."""
    from probegen.runtime.read import arrays

    return arrays.read(Path(path))


def _note(line: str) -> None:
    click.echo(line, err=True)


# -- showing -----------------------------------------------------------------------------------


def _import(modules: Sequence[str]) -> None:
    if modules:
        sys.path.insert(0, os.getcwd())
    for module in modules:
        try:
            importlib.import_module(module)
        except Exception as error:
            raise SourceError(f"--import {module}: {type(error).__name__}: {error}") from error


@contextlib.contextmanager
def _progress(first: str, modules: Sequence[str]) -> Iterator[Callable[[str], None]]:
    """Shows on standard error what is being done, one stage after the other.

    Args:
        first: the first stage.
        modules: imported before it.
    """
    console = _console(stderr=True)
    if not console.is_terminal:
        _stage(first)
        _start_tensorflow()
        _import(modules)
        yield _stage
        return
    with console.status(first) as status:
        _start_tensorflow()
        _import(modules)
        yield status.update


def _stage(what: str) -> None:
    click.echo(f"{what} ...", err=True)


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
    """Prints a table: folded into a terminal, else with every row on one line."""
    console = _console()
    if not console.is_terminal:
        from probegen.text import indented_table

        click.echo(f"{title}\n{indented_table(columns, rows)}")
        return
    from rich.box import SIMPLE
    from rich.markup import escape
    from rich.table import Table

    table = Table(title=escape(title), box=SIMPLE, title_justify="left", padding=(0, 1, 0, 0))
    for column in columns:
        table.add_column(column, overflow="fold")
    for row in rows:
        table.add_row(*(escape(cell) for cell in row))
    console.print(table)


def _size(path: Path) -> int:
    """Returns the bytes of a file, or of all files in a folder."""
    if path.is_file():
        return path.stat().st_size
    return sum(p.stat().st_size for p in path.rglob("*") if p.is_file())


if __name__ == "__main__":
    main()
