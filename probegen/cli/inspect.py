"""`probegen inspect`: what can be probed, and what that costs."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import click

from probegen.cli.options import axes_of, with_axes, with_imports, with_json
from probegen.cli.probes import SUCH_AS, TakesProbes, probes_of, with_probes
from probegen.cli.showing import progress, show_table
from probegen.errors import SpecError

if TYPE_CHECKING:
    from probegen.cost.report import Costs


@click.command(cls=TakesProbes)
@click.argument("model", type=click.Path())
@click.option("--select", "selector", metavar="SEL", help="Show only what a selector matches.")
@click.option("--cost", is_flag=True, help="Show what the probes that follow would cost instead.")
@with_probes
@click.option(
    "--size",
    "sizes",
    multiple=True,
    metavar="NAME=N,N,...",
    help="Sizes of an input without the batch, where the model leaves some open and --cost needs "
    "them, such as image=320,240,3.",
)
@with_json
@with_axes
@with_imports
def inspect(
    model: str,
    selector: str | None,
    cost: bool,
    sizes: Sequence[str],
    as_json: bool,
    axes: Sequence[str],
    modules: tuple[str, ...],
    **options: Any,
) -> None:
    """List every point of MODEL (.onnx, .keras, .h5, .hdf5) that can be probed, and how.

    SEL is a glob on layer paths ('block*/conv1'), 're:...', 'type:Conv2D', 'role:attention' or
    'name#k' for call k of a shared layer.

    With --cost, tell what probes would add to the prediction in an ONNX file, and what would be
    refused, without making it: --cost --saliency --grad-cam.
    """
    _check_cost_options(cost, selector, sizes, options)
    probes = probes_of(options) if cost else None
    if probes == []:
        raise SpecError(f"--cost needs probes whose cost is asked for; {SUCH_AS}")
    shapes = _input_sizes(sizes)
    with progress("reading the model", modules, model):
        from probegen.inspection import Inspection
        from probegen.inspection import inspect as inspect_model
        from probegen.plan.points import COLUMNS
        from probegen.plan.selectors import select

        points = inspect_model(model, probes=probes, sizes=shapes, inputs=axes_of(axes, model))
    if points.cost is not None:
        _show_cost(points.cost, as_json)
        return
    if selector is not None:
        points = Inspection(select(points, selector), points.model_name)
    if as_json:
        click.echo(json.dumps({"model": points.model_name, "points": points.to_json()}))
    else:
        show_table(f"{points.model_name}: {len(points)} probe points", COLUMNS, points.rows())


def _show_cost(cost: Costs, as_json: bool) -> None:
    if as_json:
        click.echo(json.dumps({"model": cost.model_name, "cost": cost.to_json()}))
        return
    from probegen.cost.report import COST_COLUMNS

    show_table(cost.title, COST_COLUMNS, cost.rows())
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
