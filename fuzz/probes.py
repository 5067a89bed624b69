"""Draws random probes with random arguments for a model, from the table of methods."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence

from fuzz.drawing import Draw
from probegen import methods
from probegen.methods.base import OfAttention, OfInputs, OfLayer, OfLayerOutput, OfLayers, Probe
from probegen.methods.by_scores import ByScores


@dataclasses.dataclass(frozen=True)
class Seen:
    """An input or an output of a model as probes see it.

    Attributes:
        name: what it is called.
        shape: with the batch, sizes None where open.
        is_float: whether it holds floating numbers.
        class_axis: of an output, the axis of its classes.
    """

    name: str
    shape: tuple[int | None, ...]
    is_float: bool = True
    class_axis: int = -1


@dataclasses.dataclass(frozen=True)
class Subject:
    """A model as probes see it.

    Attributes:
        inputs: what it takes.
        outputs: what it predicts.
        layers: selector of a layer, as code, -> its channels, None where they are not known.
        functions: targets that are functions of the outputs, as code.
    """

    inputs: Sequence[Seen]
    outputs: Sequence[Seen]
    layers: Mapping[str, int | None]
    functions: Sequence[str] = ()


#: Fields that every method gets from its family or that the tables below say nothing of.
_BY_NAME: dict[str, tuple[float, tuple[str, ...]]] = {
    "logits": (0.15, ("False",)),
    "per_token": (0.15, ("'norm'", "'dot'")),
    "upsample": (0.3, ("True",)),
    "centre": (0.3, ("True",)),
    "gaussian": (0.3, ("False",)),
    "chunk": (0.3, ("1", "2", "3")),
    "steps": (1.0, ("2", "3", "5")),
    "rule": (0.4, ("'midpoint'", "'trapezoid'", "'gauss_legendre'")),
    "noise": (0.3, ("0.05", "0.3")),
    "statistic": (0.4, ("'mean'", "'square'", "'variance'")),
    "of_method": (0.3, ("'saliency'", "'gradient_x_input'")),
    "seed": (0.2, ("3",)),
    "samples": (1.0, ("4", "7", "32")),
    "window": (1.0, ("1", "2", "3")),
    "stride": (0.4, ("1", "2", "3")),
    "fill": (0.4, ("0.5", "-1.0")),
    "masks": (1.0, ("5", "8")),
    "cells": (1.0, ("2", "3")),
    "keep": (0.3, ("0.3", "0.8")),
    "groups": (0.5, ("'grid:2'", "'grid:3'")),
    "background": (0.4, ("0.5", "-0.2")),
    "baseline": (0.4, ("0.5", "-0.2", "'blur:2'")),
    "gamma": (0.3, ("0.1",)),
    "kernel_width": (0.3, ("0.5",)),
    "ridge": (0.3, ("0.1",)),
    "epsilon": (0.4, ("0.01", "0.1")),
    "composite": (0.3, ("'epsilon_plus'", "'epsilon_gamma_box'", "'attn_lrp'")),
    "fuse": (0.4, ("'max'", "'min'")),
    "residual": (0.3, ("0.0", "0.7")),
    "query": (0.4, ("0", "-1", "'mean'")),
    "gates": (0.4, ("True",)),
    "stack": (0.25, ("True",)),
}
_REDUCTIONS = {
    "Activations": (0.4, ("'mean'", "'max'", "'norm'")),
    "Attention": (0.4, ("'heads'", "'max'", "'last_query'", "'cls'", "'top:2'", "'heads,cls'")),
}
_TYPES = (0.15, ("'float16'", "'float32'", "'float64'"))
#: The methods whose axiom `completeness=` holds against.
_MOST_PROBES = 4


def draw_probes(d: Draw, subject: Subject, most: int = _MOST_PROBES) -> tuple[str, ...]:
    """Returns expressions of some probes of different methods, few or up to `most`."""
    chosen = list(methods.METHODS)
    d.rng.shuffle(chosen)
    probes = [_drawn(d, method, subject) for method in chosen[: d.whole(1, most)]]
    if d.maybe(0.8):
        name = d.one(("InputGradient", "Saliency", "GradientXInput", "IntegratedGradients"))
        several = len(subject.outputs) > 1
        given = {"output": d.whole(0, len(subject.outputs) - 1)} if several else {}
        if name == "IntegratedGradients":
            given["steps"] = 3
        probes.append(d.call(f"pg.{name}", **given))
    return tuple(dict.fromkeys(probes))


def draw_more(d: Draw, subject: Subject, probes: Sequence[str]) -> tuple[str, ...]:
    """Returns probes, some in the place of which others are that ask for more.

    Args:
        d: draws.
        subject: the model.
        probes: those drawn.
    """
    several = {"output": d.whole(0, len(subject.outputs) - 1)} if len(subject.outputs) > 1 else {}
    samples = _background(subject) if len(subject.inputs) == 1 else None
    background = {"background": samples} if samples else {}
    baseline = {"baseline": samples} if samples else {}
    groups = {"groups": "'input'"}
    choices = [
        d.call("pg.FeatureAblation", **groups, **several),
        d.call("pg.KernelSHAP", **groups, samples=20, max_groups=d.whole(3, 6), **several),
        d.call("pg.LIME", **groups, samples=12, max_groups=5, **several),
        d.call("pg.KernelSHAP", samples=40, groups="'grid:2'", **background, **several),
        d.call("pg.LIME", samples=9, **background, **several),
        d.call("pg.IntegratedGradients", steps=3, **baseline, **several),
        d.call("pg.SmoothGrad", samples=3, of_method="pg.IntegratedGradients(2)", **several),
    ]
    kept = list(probes)
    for code in d.some(choices, 0)[:2] if d.maybe(0.5) else ():
        name = code.partition("(")[0]
        kept = [one for one in kept if one.partition("(")[0] != name] + [code]
    return tuple(kept)


def draw_options(d: Draw) -> dict[str, str]:
    """Returns options of `pg.compile`."""
    return d.arguments(
        gate=(0.4, (False, "optional", "split")),
        opset=(0.3, (13, 15, 17, 20, 21)),
    )


def _drawn(d: Draw, method: type[Probe], subject: Subject) -> str:
    given: dict[str, str] = {}
    for field in dataclasses.fields(method):
        if field.name == "target":
            if d.maybe(0.6):
                given["target"] = _target(d, subject)
        elif field.name == "dtype":
            given |= _chosen(d, field.name, _TYPES)
        elif field.name == "reduce":
            given |= _chosen(d, field.name, _REDUCTIONS.get(method.__name__, (0.0, ("None",))))
        elif field.name == "completeness":
            if getattr(method, "has_completeness", False) and d.maybe(0.3):
                given["completeness"] = "True"
        elif field.name == "region" and len(subject.outputs[0].shape) > 2:
            given |= _chosen(d, field.name, (0.2, ("'input'",)))
        elif field.name == "of":
            if d.maybe(0.08):
                given["of"] = _layer(d, subject)
        elif field.name == "output" and len(subject.outputs) > 1:
            given["output"] = str(d.whole(0, len(subject.outputs) - 1))
        elif field.name == "per_token" and issubclass(method, ByScores):
            continue
        elif field.name in _BY_NAME:
            given |= _chosen(d, field.name, _BY_NAME[field.name])
    if method.__name__ == "LRP":
        given.pop("rule", None)
        given |= _chosen(d, "rule", (0.4, ("'gamma'", "'alpha_beta'", "'zplus'")))
    if "of" in given:
        given.pop("output", None)
    if "lambda" in given.get("target", ""):
        given.pop("region", None)
    if "completeness" in given:
        given.pop("per_token", None)
        given.pop("groups", None)
    given |= _selected(d, method, subject)
    if method.__name__ in ("ExpectedGradients", "DeepSHAP"):
        given["background"] = _background(subject)
    return d.call(f"pg.{method.__name__}", **given)


def _chosen(d: Draw, name: str, table: tuple[float, tuple[str, ...]]) -> dict[str, str]:
    chance, choices = table
    return {name: d.one(choices)} if d.maybe(chance) else {}


def _selected(d: Draw, method: type[Probe], subject: Subject) -> dict[str, str]:
    """Returns which layers or inputs are meant."""
    if issubclass(method, OfAttention) or method.__name__ in ("Attention", "States"):
        return {}
    if issubclass(method, OfLayers):
        return {"select": _layer(d, subject) if d.maybe(0.7) else d.one(_SELECTORS)}
    if issubclass(method, OfLayerOutput):
        layer = _layer(d, subject)
        size = subject.layers.get(layer) or 3
        return {"layer": layer, "vectors": f"np.linspace(-1, 1, {2 * size}).reshape(2, {size})"}
    if issubclass(method, OfLayer):
        return {"layer": _layer(d, subject)} if d.maybe(0.7) else {}
    if issubclass(method, OfInputs) and d.maybe(0.2):
        name = repr(d.one(subject.inputs).name)
        several = f"[{', '.join(repr(x.name) for x in subject.inputs)}]"
        return {"wrt": d.one((_layer(d, subject), _layer(d, subject), name, several))}
    return {}


_SELECTORS = ("'*'", "'*'", "'type:Dense'", "'role:activation'", "'re:e$'")


def _layer(d: Draw, subject: Subject) -> str:
    """Returns the selector of a layer."""
    return d.one(tuple(subject.layers)) if subject.layers else "'*'"


def _target(d: Draw, subject: Subject) -> str:
    output = subject.outputs[0]
    rank = len(output.shape)
    classes = output.shape[output.class_axis] or 2
    one = d.whole(0, classes - 1)
    choices = [
        "'argmax'",
        str(one),
        "'all'",
        "'top:2'",
        "'input'",
        f"[{one}, {(one + 1) % classes}]",
        f"pg.contrast({one}, 'argmax')",
        "pg.contrast('argmax', 'runner_up')",
        *subject.functions,
    ]
    if rank > 2:
        at = output.class_axis % rank - 1
        entries = [d.one(("None", "0", "-1")) for _ in range(rank - 1)]
        whole = ["None"] * (rank - 1)
        entries[at] = whole[at] = str(one)
        choices += [f"({', '.join(entries)})", f"({', '.join(whole)})"]
    if rank == 3 and output.class_axis == -1:
        choices += [f"('steps', {one})", "'steps'"]
    return d.one(choices)


def _background(subject: Subject) -> str:
    """Returns a background of two samples; open sizes are taken as 1."""
    first = subject.inputs[0]
    sizes = [size or 1 for size in first.shape[1:]]
    if len(subject.inputs) > 1 or not first.is_float:
        arrays = ", ".join(
            f"{x.name!r}: np.ones([2, *{[size or 1 for size in x.shape[1:]]}])"
            for x in subject.inputs
        )
        return f"{{{arrays}}}"
    return f"np.linspace(-1, 1, {2 * math.prod(sizes)}).reshape([2, *{sizes}])"
