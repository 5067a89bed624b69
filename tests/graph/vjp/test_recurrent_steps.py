"""LSTM, GRU and RNN in unusual forms: their equations against onnxruntime, their gradients
against finite differences of the equations."""

from __future__ import annotations

import dataclasses

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from probegen.errors import UnsupportedOpsError
from probegen.graph.core.builder import Builder
from probegen.graph.vjp.recurrent_steps import forward
from tests.graph.vjp.harness import (
    Case,
    differentiate,
    feeds_of,
    finite_differences,
    one_node,
    run,
    runner,
    uniform,
)
from tests.graph.vjp.test_recurrent import HIDDEN, cut, layer


def form(op, direction="forward", *, lengths=False, peepholes=False, weights=False, **more):
    """Returns a layer in an unusual form; one of its sequences is shorter with `lengths`.

    Args:
        op: the operator.
        direction: its direction.
        lengths: give lengths of sequences.
        peepholes: give peepholes.
        weights: ask for the gradients of weights.
        more: see `layer`.
    """
    case = layer(op, direction, **more)
    inputs = list(case.inputs)
    time = case.inputs[0].shape[0]
    inputs[4] = np.array([time, 2 * time // 5], np.int32) if lengths else None
    if peepholes:
        count = 2 if direction == "bidirectional" else 1
        inputs += [None] * (7 - len(inputs))
        inputs.append(uniform(count, 3 * HIDDEN, seed=9))
    constants = {4} if weights else {1, 2, 3, 4, 7}
    marks = [n for n, on in (("lengths", lengths), ("peepholes", peepholes)) if on]
    name = "-".join([case.name, *marks, *(["weights"] if weights else [])])
    return dataclasses.replace(case, inputs=inputs, constants=constants, name=name)


CASES = [
    *(form(op, way, weights=True) for op in ("LSTM", "GRU", "RNN") for way in
      ("reverse", "bidirectional")),
    form("GRU", "bidirectional", weights=True, linear_before_reset=1, name="reset after"),
    form("GRU", weights=True, bias=False, initial=False, seeds=(0,), linear_before_reset=1),
    *(form(op, way, lengths=True) for op in ("LSTM", "GRU", "RNN") for way in
      ("forward", "reverse", "bidirectional")),
    # More than a block of the rule for the usual form.
    form("LSTM", "bidirectional", lengths=True, time=19, name="blocks"),
    form("GRU", "bidirectional", lengths=True, time=18, linear_before_reset=1, name="blocks"),
    form("RNN", "reverse", lengths=True, time=18, initial=False, seeds=(0,), name="blocks"),
    form("LSTM", "bidirectional", peepholes=True, weights=True),
    form("LSTM", peepholes=True, lengths=True, bias=False, initial=False, seeds=(0, 2)),
    form("LSTM", "bidirectional", clip=0.7, name="clip"),
    form("GRU", clip=0.5, name="clip"),
    form("RNN", "reverse", clip=0.9, name="clip"),
    form("LSTM", input_forget=1, weights=True, name="coupled"),
    form("LSTM", activations=("HardSigmoid", "Softsign", "ScaledTanh"),
         activation_alpha=[0.3, 1.2], activation_beta=[0.4, 0.8], name="with parameters"),
    form("GRU", "bidirectional", activations=("HardSigmoid", "LeakyRelu"),
         activation_alpha=[0.4, 0.2, 0.3, 0.1], activation_beta=[0.1, 0.2], name="hard, leaky"),
    form("RNN", activations=("Affine",), activation_alpha=[0.4], activation_beta=[0.1],
         name="affine"),
    form("RNN", activations=("Elu",), activation_alpha=[0.7], name="elu"),
    form("RNN", "bidirectional", activations=("Softplus",), name="softplus"),
]  # fmt: skip


def equations(case: Case, element: type) -> onnx.ModelProto:
    """Returns a model of what the operator computes, written in simpler ones."""
    parsed = ir.from_proto(one_node(case, element))
    node = next(n for n in parsed.graph if n.op_type == case.op)
    builder = Builder(parsed.graph, case.opset)
    written = forward(builder, node)
    names = [v.name for v in node.outputs]
    builder.attach()
    parsed.graph.outputs[:] = written
    parsed.graph.remove(node, safe=False)
    for name, value in zip(names, written, strict=True):
        value.name = name
    return ir.to_proto(parsed)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_equations_agree_with_onnxruntime(case: Case) -> None:
    feeds = feeds_of(case, np.float32)
    expected = run(one_node(case, np.float32), feeds, need_kernels=True)
    found = run(equations(case, np.float32), feeds, need_kernels=True)
    for name, value in expected.items():
        np.testing.assert_allclose(found[name], value, rtol=2e-4, atol=2e-5, err_msg=name)


def test_the_batch_first_moves_axes_alone() -> None:
    """onnxruntime has no kernel with the batch first."""
    usual = layer("LSTM", "bidirectional")
    swapped = list(usual.inputs)
    for k in (0, 5, 6):
        swapped[k] = swapped[k].swapaxes(0, 1).copy()
    first = dataclasses.replace(usual, inputs=swapped, attributes={**usual.attributes, "layout": 1})
    y, *states = run(equations(first, np.float64), feeds_of(first, np.float64)).values()
    expected, *kept = run(equations(usual, np.float64), feeds_of(usual, np.float64)).values()
    np.testing.assert_allclose(y, expected.transpose(2, 0, 1, 3), rtol=1e-12)
    for a, b in zip(states, kept, strict=True):
        np.testing.assert_allclose(a, b.swapaxes(0, 1), rtol=1e-12)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_gradients_agree_with_differences_of_the_equations(case: Case) -> None:
    go = runner(equations(case, np.float64), need_kernels=True)
    feeds = feeds_of(case, np.float64)
    outputs = go(feeds)
    dys = {f"y{s}": uniform(*outputs[f"y{s}"].shape, seed=20 + s) for s in case.seeds}
    names = [f"x{k}" for k in case.wanted]
    expected = finite_differences(go, feeds, dys, names)
    for open_axes in ({}, case.batch):
        made = differentiate(one_node(case, np.float64, open_axes), names, list(dys))
        cut(made.model, case.op)  # its outputs are fed, where the gradient reads them
        given = {i.name for i in made.model.graph.input}
        known = {k: v for k, v in outputs.items() if k in given}
        dys_fed = {f"dy/{k}": dy for k, dy in dys.items()}
        found = run(made.model, feeds | dys_fed | known, need_kernels=True)
        for name, gradient in zip(names, expected, strict=True):
            np.testing.assert_allclose(
                found[f"d/{name}"], gradient, rtol=1e-5, atol=1e-7, err_msg=name
            )


def test_an_activation_that_onnx_does_not_name_is_refused() -> None:
    case = layer("RNN")
    model = one_node(case, np.float32)
    model.graph.node[0].attribute.append(onnx.helper.make_attribute("activations", ["Sinc"]))
    with pytest.raises(UnsupportedOpsError, match=r"RNN: its activation Sinc is none .*Softplus"):
        differentiate(model, ["x0"], ["y0"])
