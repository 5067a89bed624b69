"""Draws random Keras models, line by line; a line that Keras refuses is drawn again."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import keras

from fuzz.case import Case, Line, namespace, pruned
from fuzz.drawing import Draw
from fuzz.keras_inputs import STRINGS, behind, kind_of
from fuzz.keras_layers import Tensor, drawn, layer_alone
from fuzz.keras_states import drawn_states
from fuzz.probes import Seen, Subject, draw_more, draw_options, draw_probes

#: Elements of a sample in one tensor.
_MOST = 1500
#: Of float64 onnxruntime has some operators; mixed_bfloat16 is compiled in float32.
_POLICIES = (
    *("float32",) * 30,
    *("float64",) * 4,
    *("mixed_float16",) * 4,
    *("float16",) * 2,
    "mixed_bfloat16",
)
_TRIES = 40
#: Probes of a model: one artefact has them all.
_MOST_PROBES = 9
#: How often an input is one of strings, and a model no functional one where it could be.
_OF_STRINGS, _WHOLE, _SEQUENTIAL = 0.03, 0.06, 0.5
#: How often what leads nowhere is kept, inputs among it.
_UNUSED = 0.03
#: What open sizes are taken as where elements are counted.
_OPEN = 9


class Drawing:
    """A model that is being drawn.

    Args:
        key: of the case.
    """

    def __init__(self, key: str) -> None:
        self.d = Draw(key)
        #: Of what was added later, so that the rest of a case stays what it was.
        self.later = Draw(f"{key}:1")
        self.key = key
        self.policy = self.d.one(_POLICIES)
        self.lines: list[Line] = []
        self.values: dict[str, Any] = namespace()
        self.count = 0
        start = Case(key, self.policy, (), (), {}, (), {})
        for line in start.setting():
            exec(line, self.values)

    def tensor(self, name: str) -> Tensor:
        """Returns what is known of a variable."""
        return Tensor(name, tuple(self.values[name].shape))

    def add(self, code: str, role: str = "") -> str | None:
        """Adds a line; returns its variable, or None where Keras refuses it or it is too large."""
        name = f"v{self.count}"
        try:
            value = eval(code, self.values)
        except Exception:  # Keras and TensorFlow raise whatever they like
            return None
        if role != "layer":
            if not isinstance(value, keras.KerasTensor) or not _fits(value):
                return None
            if role != "input" and not keras.backend.is_float_dtype(value.dtype):
                return None
        self.values[name] = value
        self.lines.append(Line(name, code, role))
        self.count += 1
        return name

    def grown(self, name: str) -> str:
        """Returns a variable made of another by one line more."""
        for _ in range(_TRIES):
            x = self.tensor(name)
            if x.rank == 1:
                return self.add(f"ops.expand_dims({name}, -1)") or name
            if self.d.maybe(0.06) and (made := self._shared(name)):
                return made
            if self.d.maybe(0.06) and (made := self._nested(name)):
                return made
            if self.d.maybe(0.1) and (made := self._joined(name)):
                return made
            if made := self.add(drawn(self.d, x)):
                return made
        return name

    def _shared(self, name: str) -> str | None:
        """Calls one layer on a tensor and on another one like it."""
        layer = self.add(layer_alone(self.d, self.tensor(name)), "layer")
        if layer is None:
            return None
        first = self.add(f"{layer}({name})")
        second = self.add(f"{layer}({self.d.one(('ops.tanh(', '0.5 * (', '-('))}{name}))")
        if first is None or second is None:
            return first
        return self.add(
            f"layers.{self.d.one(('Add', 'Concatenate', 'Maximum'))}()([{first}, {second}])"
        )

    def _nested(self, name: str) -> str | None:
        """Puts some layers into a model inside of the model."""
        shape = list(self.tensor(name).shape[1:])
        if self.d.maybe(0.4):
            parts = [layer_alone(self.d, self.tensor(name))]
            parts.append(f"layers.Activation({self.d.one(('relu', 'tanh'))!r})")
            return self.add(f"keras.Sequential([{', '.join(parts)}])({name})")
        inside = self.add(f"keras.Input({shape}, dtype={name}.dtype)", "inner")
        if inside is None:
            return None
        end = inside
        for _ in range(self.d.whole(1, 3)):
            end = self.add(drawn(self.d, self.tensor(end))) or end
        if end == inside:
            return None
        model = self.add(f"keras.Model({inside}, {end})", "layer")
        return self.add(f"{model}({name})") if model else None

    def _joined(self, name: str) -> str | None:
        """Joins a tensor with an earlier one, or adds what is made of it (a residual branch)."""
        x = self.tensor(name)
        d = self.d
        kind = d.one(
            ("Add", "Multiply", "Average", "Maximum", "Minimum", "Subtract", "Concatenate")
        )
        usable = [line.name for line in self.lines if line.role == "" and line.name != name]
        if usable and d.maybe(0.5):
            other = self.tensor(d.one(usable))
            code = f"layers.{kind}()([{name}, {other.name}])"
            if d.maybe(0.3):
                code = f"layers.Dot(axes={d.whole(1, max(1, x.rank - 1))})([{name}, {other.name}])"
            elif d.maybe(0.3) and x.rank == other.rank == 3:
                code = f"layers.MultiHeadAttention(2, 3)({name}, {other.name})"
            elif d.maybe(0.2) and x.rank == 3 and other.rank == 2:
                state = f"layers.Dense(3)({other.name})"
                code = f"layers.GRU(3, return_sequences=True)({name}, initial_state={state})"
            elif d.maybe(0.3):
                code = f"{name} {d.one(('+', '*', '-', '/ (1.5 + 0 *'))} ops.tanh({other.name})"
                code += ")" if "(1.5" in code else ""
            return self.add(code)
        units = x.shape[-1]
        branch = f"layers.Dense({units}, activation='relu')({name})"
        return self.add(f"layers.{kind}()([{name}, {branch}])")


def draw_case(key: str) -> Case:
    """Returns the case of a key; the same one whenever it is called.

    The session of Keras is cleared, and the dtype policy set to that of the case.
    """
    keras.backend.clear_session(free_memory=False)
    drawing = Drawing(key)
    d = drawing.d
    ends = []
    for _ in range(d.one((1, 1, 1, 2, 2, 3))):
        end = _input(drawing)
        for _ in range(d.whole(1, 5)):
            end = drawing.grown(end)
        ends.append(end)
    while len(ends) > 1:
        ends = [*ends[2:], _merged(drawing, ends[0], ends[1])]
    for _ in range(d.whole(0, 2)):
        ends = [drawing.grown(ends[0])]
    outputs: dict[str, str] = {}
    for _ in range(d.one((1, 1, 1, 1, 2))):
        outputs |= _head(drawing, ends[0])
    scored = [name for code in outputs.values() for name in Line("", code).uses]
    lines = pruned(drawing.lines, [*outputs, *scored])
    if d.maybe(_UNUSED):
        lines = tuple(drawing.lines)
    model = keras.Model(
        [drawing.values[line.name] for line in lines if line.role == "input"],
        [drawing.values[name] for name in outputs],
    )
    subject = _subject(d, model)
    probes = draw_probes(d, subject, _MOST_PROBES)
    options, by_name = draw_options(d), d.maybe(0.1)
    case = Case(
        key,
        drawing.policy,
        lines,
        tuple(outputs),
        outputs,
        draw_more(drawing.later, subject, probes),
        options,
        by_name=by_name,
        form="" if by_name else _form(drawing.later, model),
    )
    return drawn_states(drawing.later, case, _is_made)


def _is_made(case: Case) -> bool:
    """Tells whether Keras can make a case."""
    values = namespace()
    try:
        for setting in case.setting():
            exec(setting, values)
        for line in case.lines:
            values[line.name] = eval(line.code, values)
    except Exception:  # Keras and TensorFlow raise whatever they like
        return False
    return True


def _form(d: Draw, model: Any) -> str:
    """Draws what form a model has."""
    tensors = [layer.output for layer in model.layers]
    in_a_row = len(model.inputs) == 1 and all(
        len(layer._inbound_nodes) == 1 and layer._inbound_nodes[0].input_tensors == [before]
        for layer, before in zip(model.layers[1:], tensors, strict=False)
    )
    if in_a_row and tensors[-1] is model.outputs[0] and d.maybe(_SEQUENTIAL):
        return "sequential"
    is_closed = all(None not in x.shape[1:] for x in model.inputs)
    return "whole" if is_closed and d.maybe(_WHOLE) else ""


def _subject(d: Draw, model: Any) -> Subject:
    """Returns a model as probes see it; its layers are told by index, from either end."""
    layers: dict[str, int | None] = {}
    for i, layer in enumerate(model.layers):
        if not isinstance(layer, keras.layers.InputLayer):
            made = layer.output
            units = (made[0] if isinstance(made, list | tuple) else made).shape[-1]
            layers[str(i - len(model.layers) if d.maybe(0.3) else i)] = units
    output = model.outputs[0]
    at = "[0]" if len(model.outputs) > 1 else ""
    places = list(range(1, len(output.shape) - 1))
    product = f"lambda y: ops.sum(y{at}[..., 0] * y{at}[..., 1], axis={places})"
    return Subject(_seen(model.inputs), _seen(model.outputs), layers, (product,))


def _seen(tensors: Sequence[Any]) -> list[Seen]:
    return [Seen(x.name, tuple(x.shape), keras.backend.is_float_dtype(x.dtype)) for x in tensors]


def _input(drawing: Drawing) -> str:
    """Adds an input; returns it, or what it is embedded as where it holds whole numbers."""
    d = drawing.d
    kind = kind_of(d)
    if drawing.later.maybe(_OF_STRINGS):
        d = drawing.later
        kind = d.one(STRINGS)
    shape, name = kind.shape(d, d.maybe(0.25)), f"in{drawing.count}"
    given = {"name": repr(name)} | ({"dtype": repr(kind.dtype)} if kind.dtype else {})
    made = drawing.add(d.call("keras.Input", shape, **given), "input")
    if made is None:
        raise ValueError(f"no input of the shape {shape}")
    if kind.behind:
        for _ in range(_TRIES):
            if found := drawing.add(behind(d, kind, made)):
                return found
        raise ValueError(f"nothing makes floating numbers of {kind.dtype} {shape}")
    return made


def _merged(drawing: Drawing, one: str, other: str) -> str:
    for _ in range(6):
        if made := drawing._joined(one):
            return made
        a, b = drawing.tensor(one), drawing.tensor(other)
        if a.shape == b.shape and (made := drawing.add(f"layers.Add()([{one}, {other}])")):
            return made
        break
    parts = [_flat(drawing, name) for name in (one, other)]
    made = drawing.add(f"layers.Concatenate()([{', '.join(parts)}])")
    return made or one


def _flat(drawing: Drawing, name: str) -> str:
    """Returns a tensor as `[batch, feature]`."""
    x = drawing.tensor(name)
    d = drawing.d
    if x.rank == 1:
        return drawing.add(f"ops.expand_dims({name}, -1)") or name
    if x.rank == 2 and x.shape[1] is not None:
        return name
    choices = []
    if None not in x.shape[1:]:
        choices.append("layers.Flatten()")
    if x.rank in (3, 4, 5) and x.shape[-1] is not None:
        choices += [
            f"layers.GlobalAveragePooling{x.rank - 2}D()",
            f"layers.GlobalMaxPooling{x.rank - 2}D()",
        ]
    if x.rank == 3 and x.shape[-1] is not None:
        choices += ["layers.LSTM(4)", "own_layers.Pooled()"]
    d.rng.shuffle(choices)
    for choice in choices:
        if made := drawing.add(f"{choice}({name})"):
            return made
    axes = [i for i, size in enumerate(x.shape) if i and size is None] or [*range(1, x.rank - 1)]
    made = drawing.add(f"ops.mean({name}, axis={axes})") or name
    if made == name:
        raise ValueError(f"{x} cannot be made flat")
    return _flat(drawing, made)


def _head(drawing: Drawing, name: str) -> dict[str, str]:
    """Adds an output; returns its variable and what is differentiated of it."""
    d = drawing.d
    x = drawing.tensor(name)
    by_position = x.rank in (3, 4) and x.shape[-1] is not None and d.maybe(0.25)
    scored = name if by_position else _flat(drawing, name)
    units = d.whole(2, 5)
    last = d.one(("softmax", "softmax", "sigmoid", None, None, "tanh"))
    if last is None or (d.maybe(0.3) and last != "tanh"):
        fused = f"layers.Dense({units}, activation={last!r})" if last else f"layers.Dense({units})"
        layer = drawing.add(fused, "layer")
        end = drawing.add(f"{layer}({scored})")
        if layer is None or end is None:
            raise ValueError(f"no head for {x}")
        if last is None:
            return {end: end}
        read = f"ops.cast({scored}, {layer}.kernel.dtype)"
        return {end: f"ops.matmul({read}, {layer}.kernel) + {layer}.bias"}
    scores = drawing.add(f"layers.Dense({units})({scored})")
    end = drawing.add(f"layers.Activation({last!r})({scores})")
    if scores is None or end is None:
        raise ValueError(f"no head for {x}")
    return {end: scores if last != "tanh" else end}


def _fits(value: Any) -> bool:
    sizes = [_OPEN if size is None else size for size in value.shape[1:]]
    if len(value.shape) < 1 or value.shape[0] is not None or len(value.shape) > 6:
        return False
    return 0 < math.prod(sizes) <= _MOST
