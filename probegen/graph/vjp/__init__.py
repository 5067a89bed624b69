"""The table of vector-Jacobian products: operator -> rule, one family of operators a file.

An operator of another domain than ONNX's own is keyed `"domain::Op"`. Three answers are kept
apart: an operator in `RULES` has a gradient (its rule may still refuse a use of it), one in
`BLOCKING` passes none by definition, and one in neither is not supported.
"""

from __future__ import annotations

from collections.abc import Mapping

from probegen.graph.autodiff import Rule
from probegen.graph.core.marks import MARK_DOMAIN, STOP_GRADIENT
from probegen.graph.vjp.activation import RULES as ACTIVATION
from probegen.graph.vjp.composite_ops import RULES as COMPOSITE
from probegen.graph.vjp.control import RULES as CONTROL
from probegen.graph.vjp.convolution import RULES as CONVOLUTION
from probegen.graph.vjp.elementwise import RULES as ELEMENTWISE
from probegen.graph.vjp.linear import RULES as LINEAR
from probegen.graph.vjp.mark import RULES as MARK
from probegen.graph.vjp.max_pooling import RULES as MAX_POOLING
from probegen.graph.vjp.normalisation import RULES as NORMALISATION
from probegen.graph.vjp.pad import RULES as PAD
from probegen.graph.vjp.pooling import RULES as POOLING
from probegen.graph.vjp.recurrent import RULES as RECURRENT
from probegen.graph.vjp.reduce import RULES as REDUCE
from probegen.graph.vjp.resize import RULES as RESIZE
from probegen.graph.vjp.sampling import RULES as SAMPLING
from probegen.graph.vjp.selection import RULES as SELECTION
from probegen.graph.vjp.shape import RULES as SHAPE
from probegen.graph.vjp.signal import RULES as SIGNAL

#: Every family; no operator stands in two of them.
FAMILIES: Mapping[str, Mapping[str, Rule]] = {
    "elementwise": ELEMENTWISE,
    "activation": ACTIVATION,
    "reduce": REDUCE,
    "linear": LINEAR,
    "shape": SHAPE,
    "selection": SELECTION,
    "normalisation": NORMALISATION,
    "convolution": CONVOLUTION,
    "pooling": POOLING,
    "max_pooling": MAX_POOLING,
    "pad": PAD,
    "resize": RESIZE,
    "sampling": SAMPLING,
    "signal": SIGNAL,
    "recurrent": RECURRENT,
    "control": CONTROL,
    "mark": MARK,
    "composite": COMPOSITE,
}

RULES: Mapping[str, Rule] = {
    op_type: rule for family in FAMILIES.values() for op_type, rule in family.items()
}

_STEPWISE = "its output moves in steps, so that its slope is 0 wherever it has one"
_COMPARES = "a comparison is true or false and has no slope"
_LOGIC = "logic has no slope"
_POSITIONS = "its output is positions, which have no slope"
_SIZES = "its output is sizes, which do not depend on values"
_RANDOM = "its output is drawn at random"
_INTEGERS = "it rounds to integers"

#: Operators that no gradient passes, by definition, and why.
BLOCKING: Mapping[str, str] = {
    f"{MARK_DOMAIN}::{STOP_GRADIENT}": "the model stops the gradient here",
    "Sign": _STEPWISE,
    "Floor": _STEPWISE,
    "Ceil": _STEPWISE,
    "Round": _STEPWISE,
    "Hardmax": _STEPWISE,
    "Equal": _COMPARES,
    "Greater": _COMPARES,
    "GreaterOrEqual": _COMPARES,
    "Less": _COMPARES,
    "LessOrEqual": _COMPARES,
    "IsNaN": _COMPARES,
    "IsInf": _COMPARES,
    "And": _LOGIC,
    "Or": _LOGIC,
    "Xor": _LOGIC,
    "Not": _LOGIC,
    "ArgMax": _POSITIONS,
    "ArgMin": _POSITIONS,
    "NonZero": _POSITIONS,
    "NonMaxSuppression": _POSITIONS,
    "Shape": _SIZES,
    "Size": _SIZES,
    "ConstantOfShape": _SIZES,
    "EyeLike": _SIZES,
    "RandomNormalLike": _RANDOM,
    "RandomUniformLike": _RANDOM,
    "Bernoulli": _RANDOM,
    "Multinomial": _RANDOM,
    "BitCast": "it reads the bits of a number as those of another",
    "MelWeightMatrix": _STEPWISE,
    "QuantizeLinear": _INTEGERS,
    "DynamicQuantizeLinear": _INTEGERS,
}
