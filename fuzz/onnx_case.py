"""A graph with its probes, and how it is cut down."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import numpy_helper

from fuzz.onnx_drawing import Input, named, read_by, session_of
from fuzz.shrinking import without_arguments

Array = npt.NDArray[Any]

_BATCHES, _SIZES = (3, 5), (9, 12)


@dataclasses.dataclass(frozen=True)
class Output:
    """An output that is explained.

    Attributes:
        name: what it is called.
        scores: the tensor that its last softmax or sigmoid reads; itself where it has none.
        class_axis: the axis of the classes, the batch counted.
    """

    name: str
    scores: str
    class_axis: int


@dataclasses.dataclass(frozen=True, eq=False)
class OnnxCase:
    """A graph, its probes, and how they are compiled.

    Attributes:
        key: what it was drawn from, `"<seed>:<number>"`.
        model: the graph.
        inputs: what it is fed.
        outputs: those that can be explained; others may stand beside them.
        probes: expressions.
        options: of `pg.compile`, as expressions.
    """

    key: str
    model: onnx.ModelProto
    inputs: tuple[Input, ...]
    outputs: tuple[Output, ...]
    probes: tuple[str, ...]
    options: Mapping[str, str]

    def code(self) -> str:
        """Returns a program that makes the model and compiles its probes."""
        options = "".join(f", {name}={value}" for name, value in self.options.items())
        return "\n".join(
            [
                f"# case {self.key}",
                "import numpy as np",
                "import onnx",
                "",
                "import probegen as pg",
                "",
                f'model = onnx.parser.parse_model("""{onnx.printer.to_text(self.model)}""")',
                f"probes = [{', '.join(self.probes)}]",
                f'pg.compile(model, probes, "case.onnx"{options})',
                "",
            ]
        )

    def samples(self, call: int) -> dict[str, Array]:
        """Returns one of two batches of hard samples: other batch, other open sizes.

        Rows: ordinary, zeros, ties and negatives; the larger batch also large values and rows that
        are padded behind.
        """
        rng = np.random.default_rng(call)
        found = {}
        for made in self.inputs:
            x = made.drawn(rng, _BATCHES[call], _SIZES[call])
            half = max(1, (x.shape[1] if x.ndim > 1 else 1) // 2)
            x[1] = made.low if np.issubdtype(x.dtype, np.integer) else 0
            if np.issubdtype(x.dtype, np.floating):
                x[2] = np.round(x[2])
                if len(x) > 3:
                    x[3] *= 20
            if len(x) > 3 and x.ndim > 1:
                x[4, half:] = 0
            found[made.name] = x
        return found


def smaller(case: OnnxCase) -> Iterator[OnnxCase]:
    """Yields cases with less in them, the boldest cuts first."""
    if len(case.probes) > 1:
        for probe in case.probes:
            yield dataclasses.replace(case, probes=(probe,))
    for name in case.options:
        options = {k: v for k, v in case.options.items() if k != name}
        yield dataclasses.replace(case, options=options)
    yield from _with_less_outputs(case)
    wanted = {name for output in case.outputs for name in (output.name, output.scores)}
    weights = {tensor.name for tensor in case.model.graph.initializer}
    for at in reversed(range(len(case.model.graph.node))):
        node = case.model.graph.node[at]
        for i, out in enumerate(node.output):
            if out in wanted:
                continue
            for name in node.input:
                if name and name not in weights:
                    yield _bypassed(case, at, i, name)
        for i in range(len(node.attribute)):
            if not node.attribute[i].HasField("g"):
                yield _without_attribute(case, at, i)
    for i, probe in enumerate(case.probes):
        for code in without_arguments(probe):
            probes = (*case.probes[:i], code, *case.probes[i + 1 :])
            yield dataclasses.replace(case, probes=probes)


def _with_less_outputs(case: OnnxCase) -> Iterator[OnnxCase]:
    for at in range(len(case.model.graph.output)):
        if len(case.model.graph.output) == 1:
            return
        changed = _copy(case.model)
        name = changed.graph.output[at].name
        del changed.graph.output[at]
        outputs = tuple(o for o in case.outputs if o.name != name)
        if outputs:
            yield dataclasses.replace(_with(case, changed), outputs=outputs)


def _bypassed(case: OnnxCase, at: int, output: int, name: str) -> OnnxCase:
    """Returns a case in which an output of a node is one of the node's inputs."""
    changed = _copy(case.model)
    gone = changed.graph.node[at].output[output]
    _rename(changed.graph, gone, name)
    return _with(case, _fitted(case, changed))


def _without_attribute(case: OnnxCase, at: int, attribute: int) -> OnnxCase:
    changed = _copy(case.model)
    del changed.graph.node[at].attribute[attribute]
    return _with(case, _fitted(case, changed))


def _fitted(case: OnnxCase, changed: onnx.ModelProto) -> onnx.ModelProto:
    """Returns a model whose last matrices have as many rows as their inputs then are wide."""
    changed = pruned(changed)
    last = {output.scores for output in case.outputs}
    for node in changed.graph.node:
        if node.op_type not in ("Gemm", "MatMul") or node.output[0] not in last:
            continue
        probe = _copy(changed)
        del probe.graph.output[:]
        probe.graph.output.append(named(node.input[0]))
        try:
            width = session_of(pruned(probe)).run(None, case.samples(0))[0].shape[-1]
        except Exception:  # it is none: whoever tries the case finds out
            return changed
        for tensor in changed.graph.initializer:
            if tensor.name == node.input[1]:
                array = numpy_helper.to_array(tensor)
                grown = np.resize(array, (width, array.shape[1]))
                tensor.CopyFrom(numpy_helper.from_array(grown, tensor.name))
    return changed


def pruned(model: onnx.ModelProto) -> onnx.ModelProto:
    """Returns a model without the nodes and weights that no output needs."""
    kept = _copy(model)
    wanted = {value.name for value in kept.graph.output}
    nodes = []
    for node in reversed(model.graph.node):
        if wanted & set(node.output):
            wanted |= set(read_by([node]))
            nodes.append(node)
    del kept.graph.node[:], kept.graph.initializer[:]
    kept.graph.node.extend(reversed(nodes))
    kept.graph.initializer.extend(t for t in model.graph.initializer if t.name in wanted)
    return kept


def _with(case: OnnxCase, model: onnx.ModelProto) -> OnnxCase:
    return dataclasses.replace(case, model=model)


def _copy(model: onnx.ModelProto) -> onnx.ModelProto:
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    return copy


def _rename(graph: onnx.GraphProto, old: str, new: str) -> None:
    for node in graph.node:
        for i, name in enumerate(node.input):
            if name == old:
                node.input[i] = new
        for attribute in node.attribute:
            if attribute.HasField("g"):
                _rename(attribute.g, old, new)
