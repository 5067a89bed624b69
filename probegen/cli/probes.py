"""The options that say which probes are meant: each method of the table has its own."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import click

from probegen import methods
from probegen.cli.reading import read_text
from probegen.errors import SpecError
from probegen.methods import text_forms
from probegen.methods.base import GradientProbe, OfInputs, OfLayers, Probe
from probegen.methods.fields import OPTION, Option
from probegen.methods.targets import parse_target

SUCH_AS = (
    "add for instance --saliency, --grad-cam, --activations 'type:Conv2D' or --spec probes.toml."
)

#: Field that selects -> what the help calls its value.
_METAVARS = {"select": "SEL", "layer": "LAYER"}
#: Attribute of a command's function: how many options stand behind those of the methods.
_BEHIND = "options_behind_probes"


def with_probes(command: Callable[..., Any]) -> Callable[..., Any]:
    """Gives a command of the class `TakesProbes` the options of the methods, at this place."""
    setattr(command, _BEHIND, len(getattr(command, "__click_params__", [])))
    return command


class TakesProbes(click.Command):
    """A command with an option for each method, and those that say what is explained."""

    def get_params(self, ctx: click.Context) -> list[click.Parameter]:
        """Returns all parameters; those of the methods as the table is now."""
        found = list(super().get_params(ctx))
        place = len(self.params) - getattr(self.callback, _BEHIND, 0)
        return [*found[:place], *_options(), *found[place:]]

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Parses; says so where an option with an optional value took MODEL for it."""
        try:
            return super().parse_args(ctx, args)
        except click.MissingParameter as error:
            if error.param is None or error.param.name != "model":
                raise
            greedy = [_flag(m) for m in methods.METHODS if _selector_default(m) is not None]
            hint = f"Put MODEL first: {' and '.join(greedy)} take the next word"
            raise click.MissingParameter(hint, ctx, error.param) from error


def probes_of(options: Mapping[str, Any]) -> list[Probe]:
    """Returns the probes that the options ask for, which may be none.

    Raises:
        SpecError: an option that none of them takes.
    """
    common = {
        "target": parse_target(options["target"] or "argmax"),
        "output": options["model_output"],
        "of": options["of"],
        "region": "input" if options["region"] else None,
    }
    probes = list(_spec_file(options["spec"])) if options["spec"] else []
    asked = [method for method in methods.METHODS if options[method.text_name]]
    for method in asked:
        make: Callable[..., Probe] = method
        given = options[method.text_name]
        fields = {
            field.name: _read(options[_destination(field, found)], found)
            for field, found in _options_of(method)
            if options[_destination(field, found)] is not None
        }
        _refuse_missing(method, fields)
        if issubclass(method, GradientProbe):
            fields |= common
            if method.has_completeness:
                fields["completeness"] = bool(options["completeness"])
        if issubclass(method, OfLayers):
            probes += [make(**{method.selects: selector}, **fields) for selector in given]
        elif issubclass(method, OfInputs):
            probes.append(make(**fields))
        else:
            probes.append(make(**{method.selects: given}, **fields))
    differentiate = any(issubclass(method, GradientProbe) for method in asked)
    for name in ("target", "model_output", "of", "region"):
        _refuse_idle(options, name, differentiate, "--saliency or --grad-cam")
    complete = [m for m in methods.METHODS if getattr(m, "has_completeness", False)]
    flags = " or ".join(map(_flag, complete))
    _refuse_idle(options, "completeness", any(m in asked for m in complete), flags)
    for name, takers in _fields_by_option().items():
        flags = " or ".join(_flag(method) for method, _, _ in takers)
        _refuse_idle(options, name, any(method in asked for method, _, _ in takers), flags)
    return probes


def _read(given: Any, found: Option) -> Any:
    """Returns what was typed for a field as the field takes it."""
    return found.parse(given) if found.parse is not None else given


def _refuse_missing(method: type[Probe], fields: Mapping[str, Any]) -> None:
    """Refuses a method that is asked for without an option that it needs."""
    for field, found in _options_of(method):
        if field.default is dataclasses.MISSING and field.name not in fields:
            flag = _destination(field, found).replace("_", "-")
            raise SpecError(f"{_flag(method)} needs --{flag}.")


def _refuse_idle(options: Mapping[str, Any], name: str, used: bool, needs: str) -> None:
    if options[name] is not None and not used:
        raise SpecError(
            f"--{name.replace('_', '-')} goes with an option such as {needs}, of which there "
            "is none. Probes from --spec hold their own."
        )


def _spec_file(path: str) -> Sequence[Probe]:
    text = read_text(path)
    try:
        is_json = Path(path).suffix.lower() == ".json"
        return text_forms.from_json(text) if is_json else text_forms.from_toml(text)
    except SpecError as error:
        raise SpecError(f"{path}: {error}") from error


# -- options -----------------------------------------------------------------------------------


def _options() -> Iterator[click.Option]:
    """Yields the options of all methods, then those that several share."""
    for method in methods.METHODS:
        yield _method_option(method)
    for name, takers in _fields_by_option().items():
        yield _field_option(name, takers)
    yield click.Option(
        ["--target"],
        metavar="T",
        help="What is explained: argmax, input (chosen a request), a class index; top:3, all or "
        "'[1, 4]' for several classes at once; 'contrast(3, argmax)' for a difference of two; "
        "steps for one map a step of a sequence; or a tuple such as '(None, 3)' with an index or "
        "None (sum) for each axis of the output.  "
        "[default: argmax]",
    )
    yield click.Option(
        ["--model-output"], metavar="NAME", help="Which output of a model with several."
    )
    yield click.Option(
        ["--of"],
        metavar="SEL",
        help="Explain the output of this layer in the place of the model's: --target is a channel.",
    )
    yield click.Option(
        ["--region"],
        is_flag=True,
        default=None,
        help="Let each request weigh the positions of the output: an input 'region'.",
    )
    yield click.Option(
        ["--completeness"],
        is_flag=True,
        default=None,
        help="Give out what is missing to the sum of scores as well, of methods that have one: "
        f"{', '.join(_flag(m) for m in methods.METHODS if getattr(m, 'has_completeness', False))}.",
    )
    yield click.Option(
        ["--spec"],
        type=click.Path(exists=True, dir_okay=False),
        help="Probes from a TOML or JSON file; they come before those of the options.",
    )


def _method_option(method: type[Probe]) -> click.Option:
    """Returns the option that asks for a method.

    A flag where it explains the inputs; one that takes layers otherwise, which may be left out
    where the method knows which, and several times where it gives out many.
    """
    flag = [_flag(method)]
    if issubclass(method, OfInputs):
        return click.Option(flag, is_flag=True, help=method.help)
    several = issubclass(method, OfLayers)
    metavar = _METAVARS[method.selects]
    default = _selector_default(method)
    if default is None:
        return click.Option(flag, multiple=several, metavar=metavar, help=method.help)
    return click.Option(
        flag,
        multiple=several,
        is_flag=False,
        flag_value=default,
        metavar=f"[{metavar}]",
        help=method.help,
    )


def _field_option(
    name: str, takers: Sequence[tuple[type[Probe], dataclasses.Field[Any], Option]]
) -> click.Option:
    """Returns the option for a field, which several methods may have."""
    _, field, found = takers[0]
    kind: click.ParamType[Any] = click.STRING
    text = f"{found.what} of {', '.join(_flag(method) for method, _, _ in takers)}."
    if any(option.parse is not None for _, _, option in takers):
        pass  # each reads what is typed
    elif isinstance(field.default, bool):
        return click.Option([f"--{name.replace('_', '-')}"], is_flag=True, default=None, help=text)
    elif isinstance(field.default, int):
        kind = click.INT if found.at_least is None else click.IntRange(found.at_least)
    elif isinstance(field.default, float):
        kind = click.FLOAT
    defaults = {repr(f.default) for _, f, _ in takers}
    if len(defaults) == 1 and field.default not in (dataclasses.MISSING, None):
        text += f"  [default: {field.default}]"
    return click.Option([f"--{name.replace('_', '-')}"], type=kind, help=text)


def _fields_by_option() -> dict[str, list[tuple[type[Probe], dataclasses.Field[Any], Option]]]:
    """Returns the name of an option -> the methods and fields that it is for."""
    takers: dict[str, list[tuple[type[Probe], dataclasses.Field[Any], Option]]] = {}
    for method in methods.METHODS:
        for field, found in _options_of(method):
            takers.setdefault(_destination(field, found), []).append((method, field, found))
    return takers


def _options_of(method: type[Probe]) -> list[tuple[dataclasses.Field[Any], Option]]:
    return [(f, f.metadata[OPTION]) for f in dataclasses.fields(method) if OPTION in f.metadata]


def _destination(field: dataclasses.Field[Any], found: Option) -> str:
    return (found.flag or field.name).replace("-", "_")


def _flag(method: type[Probe]) -> str:
    return f"--{method.text_name.replace('_', '-')}"


def _selector_default(method: type[Probe]) -> str | None:
    """Returns what an option means whose value is left out; None where it may not be."""
    if issubclass(method, OfInputs):
        return None
    field = next(f for f in dataclasses.fields(method) if f.name == method.selects)
    return None if field.default is dataclasses.MISSING else str(field.default)
