"""Finds the layers that a manifest names in a model that was built anew.

Keras numbers the names of layers that got none, a process through: a `MultiHeadAttention` inside
a custom layer may be `multi_head_attention_3` where the artefact was made and
`multi_head_attention` where the model is loaded from its file. So a manifest lists the names of
all probe points of its model. A model whose list differs in such numbers alone is the same model.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

from probegen.artefact.manifest import Manifest
from probegen.methods.base import Probe
from probegen.plan.plan import ChainOutput, GradientOutput, PlainOutput
from probegen.plan.points import ProbePoint
from probegen.plan.selectors import OF_STATES

_Output = TypeVar("_Output", bound=PlainOutput | GradientOutput | ChainOutput)


def new_names(points: Sequence[ProbePoint], earlier: Manifest | None) -> dict[str, str]:
    """Returns, for a model that a manifest knows under other numbers, its name -> the one now."""
    then = earlier.points if earlier is not None else ()
    now = [p.name for p in points]
    if [_without_numbers(n) for n in then] != [_without_numbers(n) for n in now]:
        return {}
    return {a: b for a, b in zip(then, now, strict=True) if a != b}


def with_new_names(probe: Probe, names: Mapping[str, str]) -> Probe:
    """Returns a probe that selects the same layers under their names of now."""
    renamed = probe.with_selector(_renamed(probe.selector, names))
    of = getattr(renamed, "of", None)
    if of is None:
        return renamed
    changes: dict[str, Any] = {"of": _renamed(of, names)}
    return dataclasses.replace(renamed, **changes)


def with_earlier_names(outputs: Sequence[_Output], names: Mapping[str, str]) -> list[_Output]:
    """Returns planned outputs under the names that they had in the manifest.

    Args:
        outputs: the outputs, which are called after the layers of now.
        names: earlier name of a layer -> its name now.
    """
    back = {now: then for then, now in names.items()}
    return [
        dataclasses.replace(o, spec=dataclasses.replace(o.spec, name=_output_name(o, back)))
        for o in outputs
    ]


def _output_name(
    output: PlainOutput | GradientOutput | ChainOutput, back: Mapping[str, str]
) -> str:
    """Returns an output's name with the layer in it under the name that it had.

    A layer's name stands behind the kind, perhaps behind an output of the model, and ends where
    `:1` says which of its outputs, or `/lookup` what inside it is meant.
    """
    name = output.spec.name
    for now in sorted(back, key=len, reverse=True):
        found = re.search(rf"(?<=/){re.escape(now)}(?=[/:]|$)", name)
        if found:
            return name[: found.start()] + back[now] + name[found.end() :]
    return name


def _renamed(selector: Any, names: Mapping[str, str]) -> Any:
    if isinstance(selector, list | tuple):
        return [_renamed(part, names) for part in selector]
    if not isinstance(selector, str):
        return selector
    if selector.startswith(OF_STATES):
        layer, colon, number = selector.removeprefix(OF_STATES).partition(":")
        return f"{OF_STATES}{names.get(layer, layer)}{colon}{number}"
    return names.get(selector, selector)


def _without_numbers(name: str) -> str:
    return re.sub(r"_\d+(?=/|#|$)", "", name)
