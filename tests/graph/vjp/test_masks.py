"""Masks are exact: at the bound itself and at its nearest neighbours, in every form."""

from __future__ import annotations

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from probegen.graph.core.builder import Builder
from probegen.graph.vjp.masks import above, below
from tests.graph.vjp.harness import IR_VERSION, run

#: Bounds of both signs, whole powers of two (uneven neighbours) and others, near and far.
BOUNDS = [0.0, 1.0, 6.0, -3.0, 0.1, -0.75, 2.0**-40, -(2.0**90), 3.0e38, 1e-30, -1e-36]

COMPARISONS = {
    (above, False): np.greater,
    (above, True): np.greater_equal,
    (below, False): np.less,
    (below, True): np.less_equal,
}


def _masks(bound, x):
    """Returns the four masks of x at `bound`, as the runtime computes them, and their nodes."""
    source = ir.Value(
        name="x", shape=ir.Shape(["n"]), type=ir.TensorType(ir.DataType.from_numpy(x.dtype))
    )
    graph = ir.Graph([source], [], nodes=[], name="masks", opset_imports={"": 18})
    b = Builder(graph, 18)
    made = {form: form[0](b, source, bound, inclusive=form[1]) for form in COMPARISONS}
    operators = [node.op_type for node in b.nodes]
    b.attach()
    graph.outputs.extend(made.values())
    model = ir.to_proto(ir.Model(graph, ir_version=IR_VERSION))
    onnx.checker.check_model(model, full_check=True)
    found = run(model, {"x": x})
    return {form: found[value.name] for form, value in made.items()}, operators


def _around(element, bound):
    """Returns the bound, its neighbours, and values near, far and infinite, all normal floats."""
    info = np.finfo(element)
    bound = element(bound)
    near = [bound, np.nextafter(bound, element(-np.inf)), np.nextafter(bound, element(np.inf))]
    scaled = [bound * element(factor) for factor in (-1, 0.5, 0.999, 1.001, 2)]
    fixed = [0, 1, -1, 1e-6, -1e-6, 3.5, -7, info.tiny, -info.tiny, info.max, info.min]
    values = np.array([*near, *scaled, *fixed, np.inf, -np.inf], dtype=element)
    normal = (np.abs(values) >= info.tiny) | (values == 0)
    return values[normal]


@pytest.mark.filterwarnings("ignore:overflow")
@pytest.mark.parametrize("bound", BOUNDS)
@pytest.mark.parametrize("element", [np.float32, np.float64])
def test_masks_are_exact(element, bound):
    x = _around(element, bound)
    found, _ = _masks(bound, x)
    for form, compare in COMPARISONS.items():
        expected = compare(x, element(bound)).astype(element)
        np.testing.assert_array_equal(found[form], expected, err_msg=f"{form} {x}")


def test_half_precision_compares():
    x = np.array([-1, -1e-7, 0, 1e-7, 1], dtype=np.float16)
    found, operators = _masks(0.0, x)
    assert "HardSigmoid" not in operators
    for form, compare in COMPARISONS.items():
        np.testing.assert_array_equal(found[form], compare(x, 0))


@pytest.mark.parametrize(("bound", "steps"), [(0.0, 4), (6.0, 4), (1e-36, 0)])
def test_a_bound_too_near_zero_for_a_step_compares(bound, steps):
    _, operators = _masks(bound, np.ones(3, np.float32))
    assert operators.count("HardSigmoid") == steps


def test_a_bound_that_is_not_finite_compares():
    x = np.array([-np.inf, 0, np.inf], dtype=np.float32)
    found, operators = _masks(np.inf, x)
    assert "HardSigmoid" not in operators
    np.testing.assert_array_equal(found[(below, False)], [1, 1, 0])


def test_the_shift_that_stands_for_0_changes_no_bit():
    """At all kinds of floats: OpenVINO reads a shift of 0 as 0.5, and so it is never 0."""
    rng = np.random.default_rng(0)
    info = np.finfo(np.float32)
    few = [0.0, info.smallest_subnormal, info.tiny, np.nextafter(info.tiny, np.float32(0)), 1e-40]
    few += [info.max, 1.0, np.inf]
    any_bits = rng.integers(0, 2**32, 200_000, dtype=np.uint64).astype(np.uint32)
    near_0 = rng.integers(0, 2**24, 100_000, dtype=np.uint64).astype(np.uint32)
    half = np.concatenate([np.array(few, np.float32), near_0.view(np.float32)])
    x = np.concatenate([half, -half, any_bits.view(np.float32)])
    for form, slope in ((above, 2.0**127), (below, -(2.0**127))):
        found = {}
        for written in (True, False):
            source = ir.Value(
                name="x", shape=ir.Shape(["n"]), type=ir.TensorType(ir.DataType.FLOAT)
            )
            graph = ir.Graph([source], [], nodes=[], name="masks", opset_imports={"": 18})
            b = Builder(graph, 18)
            mask = form(b, source, 0.0)
            (node,) = b.nodes
            assert node.attributes["alpha"].as_float() == slope
            assert node.attributes["beta"].as_float() != 0
            if not written:
                node.attributes["beta"] = ir.AttrFloat32("beta", 0.0)
            b.attach()
            graph.outputs.append(mask)
            model = ir.to_proto(ir.Model(graph, ir_version=IR_VERSION))
            found[written] = run(model, {"x": x})[mask.name]
        np.testing.assert_array_equal(found[True].view(np.uint32), found[False].view(np.uint32))
