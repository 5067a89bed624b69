"""Guided backpropagation and deconvolution: rules of rectifiers, by what they compute.

`x` is a rectifier's input, f the rectifier, `g` the gradient of its output:

- guided (Springenberg et al. 2014, eq. for `R^l`): `max(f'(x), 0) * max(g, 0)`. For ReLU that
  is g where both g and x are positive. A smooth or leaky rectifier lets through by its own slope;
  where it falls (GELU and SiLU below -0.75 and -1.28) it lets nothing through.
- deconvolution (Zeiler and Fergus 2014, sec. 2.1): `max(g, 0)`, whatever x is, times what f scales
  large x by (1 for all but SELU).

Rectifiers are `RECTIFIERS`, `Clip` from 0 (ReLU6; also as a minimum of a maximum, and the other
way) or without an upper bound, `Max` with a constant, and every function of one tensor spelled in
several nodes that rises on the right by more than on the left, where it does not fall
(`is_rectifier`): `x * sigmoid(x)`, the pieces of a GELU, `max(x, x / 10)`. Sigmoids, hard ones
in pieces too (`Clip(x + 3, 0, 6)`, whose middle is at x = 0), tanh, softmax,
gates with an input of their own (`a * sigmoid(b)`) and a maximum of two tensors are none: they keep
their gradient. The bodies of loops and branches are walked by the same rules; a recurrent cell with
a rectifier inside is walked step by step.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from probegen.graph.autodiff import Refused, Rule, Walk
from probegen.graph.core.composite_ops import COMPOSITE_DOMAIN, GELU
from probegen.graph.core.elementwise import COMPUTED, FunctionOfOne, function_of_one
from probegen.graph.core.marks import HARD_SIGMOID
from probegen.graph.core.queries import RECURRENT, key_of, varying_inputs
from probegen.graph.core.values import attribute, constant_of, dtype_of, shape_of
from probegen.graph.tables.common import plainly, sloped
from probegen.graph.vjp import FAMILIES, RULES
from probegen.graph.vjp.common import Dys, Gradients
from probegen.graph.vjp.decomposition import through
from probegen.graph.vjp.recurrent_steps import forward

Array = npt.NDArray[Any]

#: Operators that are rectifiers, whatever their attributes are -> whether they may fall somewhere.
RECTIFIERS: Mapping[str, bool] = {
    "Relu": False,
    "ThresholdedRelu": False,
    "Softplus": False,
    "LeakyRelu": True,
    "PRelu": True,
    "Elu": True,
    "Selu": True,
    "Celu": True,
    "Swish": True,
    "Mish": True,
    "HardSwish": True,
    "Gelu": True,
    f"{COMPOSITE_DOMAIN}::{GELU}": True,
}
#: Operators that join several tensors, in which a rectifier may be spelled.
_JOINING = ("Add", "Sub", "Mul", "Div", "Max", "Min", "Where", "Sum")
#: Activations of LSTM, GRU and RNN that are rectifiers, in small letters.
RECTIFIERS_OF_CELLS = frozenset({"relu", "thresholdedrelu", "leakyrelu", "elu", "softplus"})

#: Between which points a function is looked at.
_NEAR, _FAR, _BEYOND = 6.0, 32.0, 64.0


def guided() -> Mapping[str, Rule]:
    """Returns the gradients' rules with those of guided backpropagation for rectifiers."""
    return _table(_guided)


def deconvolved() -> Mapping[str, Rule]:
    """Returns the gradients' rules with those of deconvolution for rectifiers."""
    return _table(_deconvolved)


#: Writes what arrives before a rectifier: (walk, the rectifier, whether it may fall, gradient).
_Rectify = Callable[[Walk, FunctionOfOne, bool, ir.Value], "ir.Value | None"]


def _table(rectify: _Rectify) -> Mapping[str, Rule]:
    bodies = FAMILIES["control"]
    own = {key: rule if key in bodies else _of_gradients(rule) for key, rule in RULES.items()}
    for key in (*RECTIFIERS, *_JOINING, "Clip"):
        own[key] = _with_rectifiers(own[key], rectify)
    for key in RECURRENT:
        own[key] = _in_steps(own[key])
    return own


def _of_gradients(plain: Rule) -> Rule:
    """Returns the rule of an operator whose own parts are no rectifiers.

    What bounds a place in a picture, where such a rule writes it out, is a `Max` with 0.
    """

    def rule(walk: Walk, node: ir.Node, dy: Dys) -> Gradients:
        yield from plain(plainly(walk), node, dy)

    return rule


def _guided(walk: Walk, function: FunctionOfOne, falls: bool, g: ir.Value) -> ir.Value | None:
    b = walk.builder
    positive = b.op("Relu", g, shape=g)
    found = sloped(walk, function, positive)
    return b.op("Relu", found, shape=found) if falls and found is not None else found


def _deconvolved(walk: Walk, function: FunctionOfOne, falls: bool, g: ir.Value) -> ir.Value | None:
    del falls
    b = walk.builder
    positive, scale = b.op("Relu", g, shape=g), scale_of(function)
    if np.allclose(scale, 1.0, rtol=1e-5):
        return positive
    return b.mul(positive, b.const(scale, dtype_of(g)))


def _with_rectifiers(plain: Rule, rectify: _Rectify) -> Rule:
    """Returns the rule of an operator that is, or may end, a rectifier."""

    def rule(walk: Walk, node: ir.Node, dy: Dys) -> Gradients:
        found = rectifier_at(node)
        if found is None or dy[0] is None:
            yield from plain(walk, node, dy)
            return
        function, falls = found
        if any(v in walk.asked_for for v in function.inner):
            raise Refused(
                "it ends a rectifier that is spelled in several operators, and what is explained "
                "lies between them; explain what comes before or behind"
            )
        if function.entry in walk.wanted:
            arrived = rectify(walk, function, falls, dy[0])
            if arrived is not None:  # in the entry's type, where the function casts on its way
                yield function.entry, walk.builder.cast(arrived, dtype_of(function.entry))
        if len(function.nodes) == 1:  # what else it reads: the slope of a PRelu
            for value, gradient in plain(walk, node, dy):
                if value is not function.entry:
                    yield value, gradient

    return rule


def _in_steps(plain: Rule) -> Rule:
    """Returns the rule of a recurrent cell, which goes step by step where rectifiers are in it."""

    def rule(walk: Walk, node: ir.Node, dy: Dys) -> Gradients:
        if rectifiers_in(node):
            yield from through(walk, node, dy, forward)
        else:
            yield from plain(walk, node, dy)

    return rule


def rectifiers_in(node: ir.Node) -> set[str]:
    """Returns which activations of a recurrent cell are rectifiers, in small letters."""
    named = attribute(node, "activations", []) or []
    return {str(name).lower() for name in named} & RECTIFIERS_OF_CELLS


def rectifier_at(node: ir.Node) -> tuple[FunctionOfOne, bool] | None:
    """Returns the rectifier that a node is or ends, and whether it may fall; None for others."""
    if node.meta.get(HARD_SIGMOID, False):
        return None
    pair = _between_bounds(node)
    if pair is not None:
        return (pair, False) if _is_from_zero(pair) else None
    key = key_of(node)
    first = node.inputs[0] if node.inputs else None
    if first is None or _begins_a_clip(node):
        return None
    varying = varying_inputs(node)
    if key in RECTIFIERS:
        found = FunctionOfOne(first, (node,)), RECTIFIERS[key]
    elif key == "Clip" and _is_rectifying_clip(node):
        found = FunctionOfOne(first, (node,)), False
    elif key == "Max" and len(varying) == 1 and len(node.inputs) > 1:
        found = FunctionOfOne(varying[0], (node,)), False
    elif key in _JOINING and len(varying) > 1:
        function = function_of_one(node)
        return (function, True) if function is not None and is_rectifier(function) else None
    else:
        return None
    return found


def _begins_a_clip(node: ir.Node) -> bool:
    """Tells whether a maximum is half of a Clip that is no rectifier."""
    pairs = [_between_bounds(use.node) for use in node.outputs[0].uses()]
    begun = [p for p in pairs if p is not None and p.nodes[0] is node]
    return key_of(node) == "Max" and any(not _is_from_zero(p) for p in begun)


def _between_bounds(node: ir.Node) -> FunctionOfOne | None:
    """Returns what two nodes keep between constants, one after the other; None for all others.

    `Min(Relu(x), 6)`, `Relu(Min(x, 6))`, `Max(Min(x, 6), 0)`: a Clip in two nodes
    """
    inner = None if (x := _bounded(node)) is None else x.producer()
    entry = None if inner is None else _bounded(inner)
    if inner is None or entry is None or (key_of(node) == "Min") == (key_of(inner) == "Min"):
        return None
    shape = shape_of(entry)
    same = shape is not None and shape == shape_of(inner.outputs[0]) == shape_of(node.outputs[0])
    return FunctionOfOne(entry, (inner, node)) if same else None


def _bounded(node: ir.Node) -> ir.Value | None:
    """Returns what a node bounds by a constant; None for nodes that do nothing of the kind."""
    key = key_of(node)
    varying = varying_inputs(node)
    bounds = key == "Relu" or (key in ("Min", "Max") and len(node.inputs) > 1)
    return varying[0] if bounds and len(varying) == 1 else None


def _is_from_zero(function: FunctionOfOne) -> bool:
    """Tells whether what two bounds keep begins at 0 and ends above."""
    for node in function.nodes:
        arrays = [a for v in node.inputs if (a := constant_of(v)) is not None]
        if key_of(node) == "Min" and any(np.any(a <= 0) for a in arrays):
            return False
        if key_of(node) == "Max" and np.any(np.maximum.reduce(np.broadcast_arrays(*arrays))):
            return False
    return True


def _is_rectifying_clip(node: ir.Node) -> bool:
    """Tells whether a Clip is a rectifier: from 0 up, or without an upper bound."""
    bounds = [*node.inputs[1:], None, None][:2]
    low, high = (constant_of(b) for b in bounds)
    from_zero = low is not None and not np.any(low)
    if not from_zero:
        return bounds[0] is not None and bounds[1] is None
    return high is None or not np.any(high <= 0)


def is_rectifier(function: FunctionOfOne) -> bool:
    """Tells by its values whether a function of one tensor is a rectifier.

    From 0 to 6 it rises, and by more than from -6 to 0, where it does not fall by much; beyond, it
    goes on as a line at most. So do ReLU and its kin, and not |x|, a sigmoid, a square or a line.
    Of a function with constants of several elements (slopes a channel), each has to.
    """
    found = _rises(function)
    if found is None:
        return False
    far_left, left, right, far_right, _ = found
    farther = (_FAR - _NEAR) / _NEAR
    bent = (right > 0) & (left < 0.9 * right) & (left > -0.1 * right)
    bent &= (far_left < 0.9 * farther * right) & (far_left > -0.1 * farther * right)
    return bool((bent & (far_right < 1.5 * farther * right)).all())


def scale_of(function: FunctionOfOne) -> Array:
    """Returns what a rectifier's input is scaled by far on the right; 1 where it is bounded."""
    found = _rises(function)
    if found is None:
        return np.ones(())
    # SiLU is not yet the line at 6 that it becomes: only far out its rise is its scale.
    *_, right, _, beyond = found
    slope = beyond / (_BEYOND - _FAR)
    return np.where(slope < 0.5 * right / _NEAR, 1.0, slope)


def _rises(function: FunctionOfOne) -> tuple[Array, ...] | None:
    """Returns how much a function rises between a few points, None where it is not known."""
    places = np.array([-_FAR, -_NEAR, 0.0, _NEAR, _FAR, _BEYOND])
    points = places.reshape(-1, *[1] * function.constant_rank)
    if any(key_of(n) not in COMPUTED for n in function.nodes):
        return None
    try:
        values = function.at(points)
    except (ValueError, TypeError):
        return None
    values = np.broadcast_to(values, np.broadcast_shapes(values.shape, points.shape))
    return tuple(np.diff(values, axis=0)) if np.isfinite(values).all() else None
