"""A case: a model and its probes as lines of Python, so that it can be cut down and printed."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterable, Mapping
from typing import Any

from fuzz.dangers import avoid_dangers

#: What the lines of every case begin with.
HEADER = """\
import keras
import numpy as np
import tensorflow as tf
from keras import layers, ops

import probegen as pg
from fuzz import own_blocks, own_layers
from sweep.subject import stir
"""


@dataclasses.dataclass(frozen=True)
class Line:
    """`name = code`.

    Attributes:
        name: the variable.
        code: an expression over earlier variables.
        role: `"input"` where it is an input of the model; `"layer"` where it is a layer and no
            tensor; `""` otherwise.
    """

    name: str
    code: str
    role: str = ""

    @property
    def uses(self) -> tuple[str, ...]:
        """Variables of lines that the expression reads, in their order, each once."""
        return tuple(dict.fromkeys(re.findall(r"\bv\d+\b", self.code)))

    def renamed(self, old: str, new: str) -> Line:
        """Returns the line with another variable in the place of one that it reads."""
        return dataclasses.replace(self, code=re.sub(rf"\b{old}\b", new, self.code))


@dataclasses.dataclass(frozen=True)
class Case:
    """A model, its probes, and how they are exported.

    Attributes:
        key: what it was drawn from, `"<seed>:<number>"`.
        policy: Keras' dtype policy.
        lines: what the model is made of.
        outputs: the variables that it gives out.
        logits: output variable -> an expression of what its last softmax or sigmoid reads; the
            output itself where it has none. What the witness differentiates.
        probes: expressions.
        options: of `pg.compile`, as expressions.
        by_name: whether the model takes and gives dicts.
        form: `"whole"` where the model is a class of one's own around the functional one,
            `"sequential"` where its layers stand in a row; `""` for the functional model itself.
    """

    key: str
    policy: str
    lines: tuple[Line, ...]
    outputs: tuple[str, ...]
    logits: Mapping[str, str]
    probes: tuple[str, ...]
    options: Mapping[str, str]
    by_name: bool = False
    form: str = ""

    @property
    def inputs(self) -> tuple[str, ...]:
        """The variables that are inputs."""
        return tuple(line.name for line in self.lines if line.role == "input")

    def code(self) -> str:
        """Returns a program that makes the model, `probes`, and compiles them."""
        options = "".join(f", {name}={value}" for name, value in self.options.items())
        return "\n".join(
            [
                f"# case {self.key}",
                HEADER,
                *self.setting(),
                *(f"{line.name} = {line.code}" for line in self.lines),
                *self.closing(),
                f'pg.compile(model, probes, "case.onnx"{options})',
                "",
            ]
        )

    def setting(self) -> list[str]:
        """Returns the lines that say in which numbers is computed, and where weights start."""
        seed = self.key.replace(":", "")
        floatx = "float64" if self.policy == "float64" else "float32"
        return [
            f'keras.config.set_floatx("{floatx}")',
            f'keras.config.set_dtype_policy("{self.policy}")',
            f"keras.utils.set_random_seed({int(seed) % 2**31})",
        ]

    def closing(self) -> list[str]:
        """Returns the lines that make the model and its probes of the lines before.

        What makes the functional model comes first, `model` in the end is what is explained.
        """
        inputs, outputs = _listed(self.inputs), _listed(self.outputs)
        if self.by_name:
            inputs = f"{{{', '.join(f'{x}.name: {x}' for x in self.inputs)}}}"
            outputs = f"{{{', '.join(f'{x!r}: {x}' for x in self.outputs)}}}"
        return [
            f'model = core = keras.Model({inputs}, {outputs}, name="fuzzed")',
            "stir(model)",
            *_FORMS[self.form],
            f"probes = [{', '.join(self.probes)}]",
        ]


#: What makes another model of the functional one.
_FORMS = {
    "": (),
    "whole": ("model = own_layers.Whole.of(core)",),
    "sequential": ("model = keras.Sequential(core.layers)",),
}


def namespace() -> dict[str, Any]:
    """Returns what the lines of a case are run in."""
    avoid_dangers()
    found: dict[str, Any] = {}
    exec(HEADER, found)
    return found


def pruned(lines: Iterable[Line], wanted: Iterable[str]) -> tuple[Line, ...]:
    """Returns the lines that some variables are made of, inputs among them or not."""
    needed = set(wanted)
    kept = []
    for line in reversed(tuple(lines)):
        if line.name in needed:
            needed |= set(line.uses)
            kept.append(line)
    return tuple(reversed(kept))


def _listed(names: tuple[str, ...]) -> str:
    return names[0] if len(names) == 1 else f"[{', '.join(names)}]"
