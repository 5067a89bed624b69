"""`probegen compile`: one artefact with the asked explanations."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from probegen.cli.options import axes_of, with_axes, with_imports, with_json
from probegen.cli.preprocessing import preprocess_of, with_preprocess
from probegen.cli.probes import SUCH_AS, TakesProbes, probes_of, with_probes
from probegen.cli.reading import samples_of, with_verification, words
from probegen.cli.showing import note, progress, show_table
from probegen.errors import SpecError

if TYPE_CHECKING:
    from probegen.compiler import Exported

_GATES = ("required", "optional", "split", "none")


class _TakesGate(TakesProbes):
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
    return chosen if chosen in ("optional", "split") else True


@click.command(cls=_TakesGate)
@click.argument("model", type=click.Path())
@click.option(
    "-o",
    "--output",
    required=True,
    type=click.Path(),
    metavar="OUT",
    help="NAME.onnx, NAME.keras, or a folder: SavedModel.",
)
@with_probes
@click.option(
    "--vertex",
    type=click.Path(exists=True, dir_okay=False),
    metavar="FILE",
    help="Explain what Vertex AI was told to: an explanation_metadata.json, or an ExplanationSpec.",
)
@click.option(
    "--vertex-parameters",
    type=click.Path(exists=True, dir_okay=False),
    metavar="FILE",
    help="The ExplanationParameters, where FILE of --vertex does not hold them.",
)
@click.option("--class-names", metavar="A,B,...|FILE", help="Class names, or a file, one a line.")
@click.option(
    "--feature-names",
    metavar="A,B,...|FILE",
    help="Names of the features of a table or series, with units if known: 'wind [m/s],load [MW]'.",
)
@click.option(
    "--format",
    "kind",
    type=click.Choice(["onnx", "savedmodel", "keras"]),
    help="What to write, whatever OUT's suffix says.",
)
@click.option(
    "--precision",
    type=click.Choice(["float32"]),
    help="Compute a Keras model in float32 whose layers ask for bfloat16 or float16.",
)
@click.option("--opset", type=int, default=18, show_default=True, help="ONNX operator set.")
@click.option(
    "--gate",
    is_flag=False,
    flag_value="required",
    type=click.Choice(_GATES),
    help="ONNX: the input `explain`, false for the prediction alone. A required input works in "
    "every runtime; an optional one is false by default, which only onnxruntime's Python, C, C# "
    "and Java honour; split writes two graphs, OUT and OUT's name with .explain, for engines "
    "without If.  [default: required]",
)
@click.option("--no-gate", is_flag=True, help="The same as --gate=none.")
@click.option(
    "--external-data/--no-external-data",
    default=None,
    help="ONNX: weights in OUT.data beside OUT.  [default: only above protobuf's 2 GB]",
)
@click.option(
    "--tokenizer",
    type=click.Path(exists=True, dir_okay=False),
    metavar="FILE",
    help="For models that take ids: a tokenizer.json (Hugging Face), so that OUT takes text.",
)
@click.option(
    "--feed-states",
    "states_fed",
    metavar="io|io:SEL|IN=OUT,...",
    help="Recurrent states as inputs state/PATH and outputs next_state/PATH, to run a series in "
    "chunks: of stateful layers, of all where none is, or of SEL. IN=OUT: output OUT of MODEL is "
    "the next value of its input IN.",
)
@with_preprocess
@click.option("--static-batch", is_flag=True, help="Fix the batch size at 1.")
@with_verification
@click.option(
    "--answers/--no-answers",
    default=True,
    help="Keep some made-up requests and their answers in OUT (some kB), for probegen verify OUT.  "
    "[default: with --verify]",
)
@click.option(
    "--reference",
    type=click.Path(exists=True, dir_okay=False),
    help="Inputs (.npy, .npz) whose attributions later ones are compared with: see probegen drift.",
)
@click.option("--overwrite", is_flag=True, help="Replace an existing folder or data file.")
@with_json
@with_axes
@with_imports
def compile(
    model: str, output: str, as_json: bool, modules: tuple[str, ...], **options: Any
) -> None:
    """Compile MODEL (.onnx, .keras, .h5, .hdf5) into one artefact with the asked explanations.

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
    probes = probes_of(options)
    if options["vertex_parameters"] and not options["vertex"]:
        raise SpecError("--vertex-parameters goes with --vertex FILE, which is not given.")
    if not probes and not options["vertex"]:
        said = "no probes: the artefact gives the predictions alone, and explains nothing;"
        note(f"{said} {SUCH_AS}")
    with progress("reading the model", modules, model) as say:
        from probegen.compiler import compile as compile_model

        axes = axes_of(options["axes"], model)
        named = {n: words(options[n]) for n in ("class_names", "feature_names")}
        if options["vertex"]:
            from probegen.vertex import from_vertex

            found = from_vertex(options["vertex"], model, options["vertex_parameters"], inputs=axes)
            probes += found.probes
            named |= {n: names for n, names in found.options.items() if named[n] is None}
            for line in found.notes:
                note(line)
        exported = compile_model(
            model,
            probes,
            output,
            class_names=named["class_names"],
            inputs=axes,
            format=options["kind"],
            precision=options["precision"],
            opset=options["opset"],
            gate=_gate(options["gate"], options["no_gate"]),
            states=_states(options["states_fed"]),
            preprocess=preprocess_of(options["preprocess"]),
            dynamic_batch=not options["static_batch"],
            external_data=options["external_data"],
            verify=options["verify"],
            samples=samples_of(options["samples"]),
            answers=options["answers"],
            tokenizer=options["tokenizer"],
            feature_names=named["feature_names"],
            reference=samples_of(options["reference"]),
            overwrite=options["overwrite"],
            progress=say,
        )
    _show(exported, as_json)


def _show(exported: Exported, as_json: bool) -> None:
    """Prints what was written, and how it agrees with the source model."""
    beside = [file for file in (exported.explain, exported.data) if file is not None]
    files = [exported.path, *beside]
    size = sum(map(_size_of, files))
    if as_json:
        click.echo(
            json.dumps(
                {
                    "path": str(exported.path),
                    "data": str(exported.data) if exported.data else None,
                    "explain": str(exported.explain) if exported.explain else None,
                    "format": exported.format,
                    "bytes": size,
                    "outputs": [o.name for o in exported.manifest.outputs],
                    "verification": exported.report.to_json() if exported.report else None,
                }
            )
        )
        return
    if exported.report is not None:
        from probegen.parity import REPORT_COLUMNS

        show_table("against the source model", REPORT_COLUMNS, exported.report.rows())
    click.echo(f"{' + '.join(map(str, files))}  {exported.format}  {size / 1e6:.2f} MB")


def _states(given: str | None) -> str | dict[str, str] | None:
    """Returns `IN=OUT,...` as a dict, and a word as it is.

    Raises:
        click.UsageError: an entry is no pair.
    """
    if given is None or "=" not in given:
        return given
    pairs = [entry.partition("=") for entry in given.split(",")]
    wrong = next((entry for entry in pairs if not all(entry)), None)
    if wrong is not None:
        raise click.UsageError(
            f"--feed-states takes io, io:SEL or IN=OUT,...; {''.join(wrong)!r} is no pair of names."
        )
    return {name: following for name, _, following in pairs}


def _size_of(path: Path) -> int:
    """Returns the bytes of a file, or of all files in a folder."""
    if path.is_file():
        return path.stat().st_size
    return sum(p.stat().st_size for p in path.rglob("*") if p.is_file())
