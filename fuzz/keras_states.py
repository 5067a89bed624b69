"""Models whose recurrent layers keep their states: stateful ones, and states that are fed.

The witness of both is Keras' own stateful model. It has one batch size, and goes on from where its
last call ended, so that each call here is told where to start.
"""

from __future__ import annotations

import ast
import dataclasses
from collections.abc import Callable, Iterator
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from fuzz.case import Case
from fuzz.drawing import Draw
from fuzz.scoring import Array

#: Samples of a stateful model.
BATCH = 5
_LAYERS = frozenset({"LSTM", "GRU", "SimpleRNN", "RNN", "ConvLSTM1D", "ConvLSTM2D", "ConvLSTM3D"})
#: What reads a series from its end, or runs a layer more than once: such states cannot be fed.
_NOT_FED = ("go_backwards", "Bidirectional", "TimeDistributed")
#: How often a model with recurrent layers keeps their states; and then feeds them; and is then
#: no stateful model itself.
_KEPT, _FED, _STATELESS = 0.4, 0.6, 0.5


class _Stateful(ast.NodeTransformer):
    """Makes the recurrent layers of an expression stateful, and gives inputs a batch size."""

    def visit_Call(self, node: ast.Call) -> ast.Call:
        """Changes one call, and those in it."""
        if any(given.arg == "initial_state" for given in node.keywords):
            node.args = [self.visit(argument) for argument in node.args]
            return node
        self.generic_visit(node)
        name = ast.unparse(node.func)
        kind = name.removeprefix("layers.")
        if name == "keras.Input":
            node.keywords.append(ast.keyword("batch_size", ast.Constant(BATCH)))
        elif kind in _LAYERS and name != kind:
            node.keywords.append(ast.keyword("stateful", ast.Constant(value=True)))
        return node


def stateful(case: Case) -> Case:
    """Returns the case with stateful layers, and with a batch size."""
    lines = tuple(
        dataclasses.replace(
            line, code=ast.unparse(_Stateful().visit(ast.parse(line.code, mode="eval")))
        )
        for line in case.lines
    )
    return dataclasses.replace(case, lines=lines, form="" if case.form == "whole" else case.form)


def is_stateful(case: Case) -> bool:
    """Tells whether a case has stateful layers."""
    return any("stateful=True" in line.code for line in case.lines)


def drawn_states(d: Draw, case: Case, works: Callable[[Case], bool]) -> Case:
    """Draws whether a case keeps states, and how.

    Args:
        d: draws.
        case: any case.
        works: tells whether Keras can make a case.
    """
    kept = stateful(case)
    if not is_stateful(kept) or not d.maybe(_KEPT) or not works(kept):
        return case
    if not d.maybe(_FED) or any(word in line.code for line in case.lines for word in _NOT_FED):
        return kept
    options = {**case.options, "states": "'io'"}
    return dataclasses.replace(case if d.maybe(_STATELESS) else kept, options=options)


@dataclasses.dataclass
class States:
    """The states of a model's stateful layers, and what each call starts from.

    Attributes:
        layers: those layers.
        start: what they start from, in the order of `variables`.
        repeated: whether one of them runs more than once in a call. It goes on from where it ended
            then, by way of a variable, which TensorFlow's tape does not follow.
    """

    layers: list[Any]
    start: list[Array]
    repeated: bool = False

    @classmethod
    def of(cls, model: Any) -> States:
        """Returns those of a model, that start from where they are."""
        every = list(model._flatten_layers(include_self=False))
        kept = [x for x in every if isinstance(x, keras.layers.RNN) and x.stateful]
        repeated = any(
            (len(x._inbound_nodes) > 1 or isinstance(x, keras.layers.TimeDistributed))
            and any(part in kept for part in x._flatten_layers())
            for x in every
        )
        found = cls(kept, [], repeated)
        return dataclasses.replace(found, start=found.now())

    def __bool__(self) -> bool:
        return bool(self.layers)

    @property
    def variables(self) -> Iterator[Any]:
        """The states, layer by layer."""
        return (v for layer in self.layers for v in keras.tree.flatten(layer.states))

    def now(self) -> list[Array]:
        """Returns the values of the states."""
        return [np.asarray(keras.ops.convert_to_numpy(v)) for v in self.variables]

    def ends(self) -> dict[str, Array]:
        """Returns the values of the states by what an artefact calls where they end.

        Layers that share their name with another are left out.
        """
        names = [layer.name for layer in self.layers]
        found = {}
        for layer in self.layers:
            for k, v in enumerate(keras.tree.flatten(layer.states)):
                if names.count(layer.name) == 1:
                    name = f"{layer.name}:{k}" if k else layer.name
                    found[name] = np.asarray(keras.ops.convert_to_numpy(v))
        return found

    def reset(self) -> None:
        """Sets the states to what a call starts from."""
        for variable, value in zip(self.variables, self.start, strict=True):
            variable.assign(value)


class Started:
    """A model each call of which starts from the same states, for any number of its batches.

    Args:
        model: the model.
        states: of its layers.
    """

    def __init__(self, model: Any, states: States) -> None:
        self._model = model
        self._states = states

    def __getattr__(self, name: str) -> Any:
        return getattr(self._model, name)

    def __call__(self, fed: Any, training: bool = False) -> Any:
        """Returns what the model gives for each batch, joined."""
        tensors = keras.tree.flatten(fed)
        found = []
        for first in range(0, len(tensors[0]), BATCH):
            self._states.reset()
            rows = [x[first : first + BATCH] for x in tensors]
            given = self._model(rows[0] if len(rows) == 1 else rows, training=training)
            found.append(keras.tree.flatten(given))
        return [tf.concat(every, axis=0) for every in zip(*found, strict=True)]
