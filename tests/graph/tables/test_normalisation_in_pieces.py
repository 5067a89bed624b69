"""Normalisations in pieces: which are known as one, and which are none."""

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from probegen.graph.core.marks import MARK_DOMAIN
from probegen.graph.tables.normalisation_in_pieces import (
    divided_by_own_size,
    normalisation_in_pieces,
)

CONSTANTS = {
    "tiny": np.float32(1e-3),
    "two": np.float32(2),
    "three": np.float32(3),
    "third": np.float32(1 / 3),
    "half": np.float32(-0.5),
    "scale": np.array([0.7, -1.3, 1.1, 0.4], np.float32),
    "shift": np.array([0.1, 0.3, -0.5, 2.0], np.float32),
    "flat": np.array([0, 3, 4, 1]),
    "same": np.array([0, 3, 4]),
    "behind": np.array([2, 4, 1]),
    "before": np.array([2, 1, 4]),
}
#: How the scale over the deviation is spelled in Keras.
KERAS = (
    "mean = {mean} (x) s = probegen.StopGradient (mean) c = Sub (x, s) q = Mul (c, c) "
    "v = {mean} (q) e = Add (v, tiny) d = Sqrt (e) i = Reciprocal (d) m = Mul (i, scale) "
)
LAST = "ReduceMean <axes = [-1]>"


def node_at_y(body, sizes="n, 3, 4"):
    """The node that makes `y`."""
    text = f"""<ir_version: 8, opset_import: ["" : 13, "{MARK_DOMAIN}" : 1]>
      g (float[{sizes}] x, float[{sizes}] z) => (float[{sizes}] y) {{ {body} }}"""
    proto = onnx.parser.parse_model(text)
    for name, array in CONSTANTS.items():
        proto.graph.initializer.append(onnx.numpy_helper.from_array(np.asarray(array), name))
    model = ir.from_proto(onnx.shape_inference.infer_shapes(proto))
    return model.graph.outputs[0].producer()


@pytest.mark.parametrize(
    ("body", "axes", "factors"),
    [
        (
            KERAS.format(mean=LAST)
            + "a = Mul (x, m) n = Neg (mean) b = Mul (n, m) t = Add (b, shift) y = Add (a, t)",
            (2,),
            [("m", False)],
        ),
        (
            KERAS.format(mean="GlobalAveragePool")
            + "a = Mul (m, x) b = Mul (mean, m) t = Sub (shift, b) y = Add (t, a)",
            (2,),
            [("m", False)],
        ),
        (
            KERAS.format(mean="ReduceMean <axes = [1, 2]>")
            + "a = Mul (x, m) b = Mul (mean, m) y = Sub (a, b)",
            (1, 2),
            [("m", False)],
        ),
        (
            f"mean = {LAST} (x) c = Sub (x, mean) q = Pow (c, two) v = {LAST} (q) "
            "e = Add (v, tiny) d = Sqrt (e) n = Div (c, d) k = Mul (n, scale) y = Add (k, shift)",
            (2,),
            [("d", True), ("scale", False)],
        ),
        (  # the deviation by itself, and the scale first
            f"mean = {LAST} (x) c = Sub (x, mean) other = {LAST} (x) o = Sub (x, other) "
            f"q = Mul (o, o) v = {LAST} (q) d = Pow (v, half) k = Mul (scale, c) y = Mul (k, d)",
            (2,),
            [("scale", False), ("d", False)],
        ),
        (  # the variance by the mean of squares
            f"mean = {LAST} (x) q = Mul (x, x) p = {LAST} (q) r = Mul (mean, mean) "
            "v = Sub (p, r) e = Add (v, tiny) d = Sqrt (e) c = Sub (x, mean) y = Div (c, d)",
            (2,),
            [("d", True)],
        ),
    ],
)
def test_a_mean_taken_away_and_a_deviation(body, axes, factors):
    found = normalisation_in_pieces(node_at_y(body))
    assert found is not None
    assert (found.x.name, found.axes) == ("x", axes)
    assert [(v.name, divides) for v, divides in found.factors] == factors


FIRST = (
    "t = Transpose <perm = [0, 2, 1]> (x) mean = ReduceMean <axes = [{axis}]> (x) "
    "c = Sub (x, mean) q = Mul (c, c) v = ReduceMean <axes = [{axis}]> (q) d = Sqrt (v) "
    "i = Reciprocal (d) m = Transpose <perm = [0, 2, 1]> (i) n = Neg (mean) "
    "{form} a = Mul (t, m) b = Mul (f, m) z2 = Add (a, b) y = Transpose <perm = [0, 1, 2]> (z2)"
)


@pytest.mark.parametrize(
    ("axis", "form", "axes"),
    [
        (1, "f = Transpose <perm = [0, 2, 1]> (n)", (2,)),
        (2, "f = Transpose <perm = [0, 2, 1]> (n)", (1,)),
        (1, "f = Reshape (n, behind)", (2,)),
        (1, "f = Reshape (n, before)", None),  # the means of others
    ],
)
def test_statistics_of_a_tensor_before_it_is_transposed(axis, form, axes):
    node = node_at_y(FIRST.format(axis=axis, form=form), "2, 4, 4").inputs[0].producer()
    found = normalisation_in_pieces(node)
    assert (None if found is None else (found.x.name, found.axes)) == (
        None if axes is None else ("t", axes)
    )


def test_what_must_lie_apart_does():
    body = f"mean = {LAST} (x) c = Sub (x, mean) q = Mul (c, c) v = {LAST} (q) y = Div (c, v)"
    node = node_at_y(body)
    assert normalisation_in_pieces(node, apart=[node.inputs[1]]) is not None
    assert normalisation_in_pieces(node, apart=[node.inputs[0]]) is None


@pytest.mark.parametrize(
    ("body", "divided"),
    [
        (f"q = Mul (x, x) m = {LAST} (q) i = Pow (m, half) f = Mul (i, scale) y = Mul (f, x)", "x"),
        ("n = ReduceL1 <axes = [1]> (x) e = Max (n, tiny) y = Div (x, e)", "x"),
        ("a = Abs (x) n = ReduceMax <axes = [2]> (a) y = Div (x, n)", "x"),
        (
            "a = Abs (x) p = Pow (a, three) s = ReduceSum (p) r = Pow (s, third) "
            "i = Reciprocal (r) k = Mul (x, scale) y = Mul (i, k)",
            "k",
        ),
        (  # the deviation, but no mean taken away
            f"mean = {LAST} (x) c = Sub (x, mean) q = Mul (c, c) v = {LAST} (q) "
            "d = Sqrt (v) y = Div (x, d)",
            "x",
        ),
    ],
)
def test_sizes_alone(body, divided):
    node = node_at_y(body)
    assert divided_by_own_size(node).name == divided
    assert normalisation_in_pieces(node) is None


@pytest.mark.parametrize(
    "body",
    [
        f"q = Mul (x, x) m = {LAST} (q) d = Sqrt (m) y = Mul (x, d)",  # times its size
        f"q = Mul (z, z) m = {LAST} (q) d = Sqrt (m) y = Div (x, d)",  # another's size
        "a = Abs (x) e = Add (a, tiny) y = Div (x, e)",  # element by element
        f"e = Exp (x) s = {LAST} (e) y = Div (e, s)",
        f"mean = {LAST} (z) c = Sub (x, mean) q = Mul (c, c) v = {LAST} (q) y = Div (x, v)",
        "y = Sub (x, z)",
    ],
)
def test_what_is_no_normalisation(body):
    node = node_at_y(body)
    assert divided_by_own_size(node) is None
    assert normalisation_in_pieces(node) is None


@pytest.mark.parametrize(
    "end",
    [
        "b = Mul (mean, m) y = Add (a, b)",  # the mean is added
        "b = Mul (mean, i) y = Sub (a, b)",  # times something else
        "o = ReduceMean <axes = [1]> (z) b = Mul (o, m) y = Sub (a, b)",  # another's mean
        "b = Mul (mean, m) t = Sub (z, b) y = Add (a, t)",  # a shift that changes
    ],
)
def test_what_only_begins_as_one(end):
    assert (
        normalisation_in_pieces(node_at_y(KERAS.format(mean=LAST) + "a = Mul (x, m) " + end))
        is None
    )
