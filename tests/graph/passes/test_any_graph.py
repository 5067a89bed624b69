"""Passes on random graphs: whatever they change, the outputs stay.

They run on files of any exporter. Here each runs on graphs of every form that `random_graphs`
knows, alone and in its row, and onnxruntime says what comes out before and after.
"""

from __future__ import annotations

import os
from random import Random

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from probegen.graph.passes import AFTER, BEFORE, Pass
from probegen.graph.passes.after.write_gelu import write_gelu
from probegen.graph.passes.before.join_gelu import join_gelu
from probegen.graph.passes.before.narrow_slices import narrow_slices
from probegen.graph.passes.tidy import make_names_unique
from probegen.graph.shape_inference import infer_shapes
from tests.graph.passes.harness import onnxruntime_of
from tests.graph.passes.random_graphs import BATCH, random_model

#: Graphs tried; more on a machine of one's own.
EXAMPLES = int(os.environ.get("PROBEGEN_RANDOM_GRAPHS", "20"))
#: How far outputs may be apart, beside their largest element: rounding adds up over some nodes.
TOLERANCE = {np.dtype("f4"): 2e-4, np.dtype("f8"): 1e-9, np.dtype("f2"): 1e-1}
ALL = tuple(dict.fromkeys((narrow_slices, *BEFORE, *AFTER)))

Outputs = list[np.ndarray]


class Tried:
    """A random model and what comes out of it."""

    def __init__(self, proto: onnx.ModelProto, draw: Random) -> None:
        self.proto = proto
        model = ir.from_proto(proto)
        self.described = draw.random() < 0.8
        random = np.random.default_rng(draw.randrange(2**32))
        self.feeds = []
        for batch in (BATCH, 3):
            feed = {}
            for value in model.graph.inputs[:2]:
                sizes = [d if isinstance(d, int) else batch for d in value.shape]
                array = random.uniform(-2, 2, sizes)
                array = np.where(random.random(sizes) < 0.5, array, np.round(array))
                feed[value.name] = array.astype(value.dtype.numpy())
            self.feeds.append({**feed, "on": np.array(bool(draw.randrange(2)))})
        self.expected = self.run(model)

    def model(self) -> ir.Model:
        """Returns a fresh copy, its shapes inferred or not known."""
        model = ir.from_proto(self.proto)
        if self.described:
            infer_shapes(model)
        return model

    def run(self, model: ir.Model) -> list[Outputs]:
        session = onnxruntime_of(model)
        return [session(feed) for feed in self.feeds]

    def check(self, model: ir.Model, told: str) -> None:
        """Compares what a changed model gives with what it gave before.

        Raises:
            AssertionError: it is not the same; `told` says what was done.
        """
        text = f"{told}\n{onnx.printer.to_text(self.proto)}"
        try:
            found = self.run(model)
        except Exception as error:
            raise AssertionError(f"{error}\n{text}") from error
        for results, wanted in zip(found, self.expected, strict=True):
            assert len(results) == len(wanted), text
            for position, (a, b) in enumerate(zip(results, wanted, strict=True)):
                assert a.shape == b.shape, f"output {position}: {a.shape}, not {b.shape}\n{text}"
                assert a.dtype == b.dtype, text
                finite = np.isfinite(b)
                largest = float(np.abs(b[finite]).max(initial=0.0)) if b.dtype.kind == "f" else 0.0
                if largest > 1e4 or not finite.all():
                    continue  # what is lost here was lost to rounding before
                bound = TOLERANCE.get(b.dtype, 0) * max(largest, 1.0)
                apart = np.abs(a.astype("f8") - b.astype("f8")).max(initial=0.0)
                assert apart <= bound, f"output {position}: {apart} apart, {bound} allowed\n{text}"


def tried(draw: Random, size: int) -> Tried | None:
    """Returns a random model, or None where onnxruntime does not run it as it is."""
    proto = random_model(draw, size)
    try:
        return Tried(proto, draw)
    except Exception as error:
        if "NOT_IMPLEMENTED" in str(error) or isinstance(error, onnxruntime_errors()):
            return None
        raise


def onnxruntime_errors() -> tuple[type[Exception], ...]:
    states = onnxruntime.capi.onnxruntime_pybind11_state
    return (states.Fail, states.InvalidGraph, states.RuntimeException, states.InvalidArgument)


def finish(model: ir.Model, change: Pass) -> None:
    """Does what others do later in the row, where a pass ran alone: for composites and names."""
    if change is join_gelu:
        write_gelu(model)
    make_names_unique(model)


@settings(
    max_examples=EXAMPLES,
    deadline=None,
    derandomize=EXAMPLES == 20,
    suppress_health_check=list(HealthCheck),
    phases=[Phase.explicit, Phase.generate],
)
@given(draw=st.randoms(use_true_random=True), size=st.integers(2, 14))
def test_each_pass_alone_and_all_in_a_row(draw: Random, size: int) -> None:
    case = tried(draw, size)
    if case is None:
        return
    for change in ALL:
        model = case.model()
        before = ir.to_proto(model).SerializeToString(deterministic=True)
        change(model)
        finish(model, change)
        if ir.to_proto(model).SerializeToString(deterministic=True) != before:
            case.check(model, change.__name__)
    model = case.model()
    for row, told in ((BEFORE, "BEFORE"), (AFTER, "BEFORE and AFTER")):
        for change in row:
            change(model)
        whole = ir.from_proto(ir.to_proto(model))
        write_gelu(whole)
        case.check(whole, told)


@pytest.mark.parametrize("seed", range(3))
def test_most_random_graphs_run(seed: int) -> None:
    draw = Random(seed)
    cases = [tried(draw, 8) for _ in range(10)]
    assert sum(case is not None for case in cases) >= 7
