"""Random small graphs in the many forms that exporters write, for passes to be tried on.

They hold what passes look for (convolutions between padding, scales and pools, matrix products,
normalisations and activations in pieces, slices, transposes, loops and branches) with what they
might stumble over: constants that are shared, nodes, inputs or outputs as well, of any rank;
attributes left out; values without a shape; outputs in the middle; names that passes would choose.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from random import Random

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

#: No other size is a multiple: sizes that are come from the batch, and no constant goes by them.
BATCH = 7
KINDS = {
    TensorProto.FLOAT: np.float32,
    TensorProto.DOUBLE: np.float64,
    TensorProto.FLOAT16: np.float16,
}
OPSETS = (13, 15, 17, 18, 21)
#: What passes put behind the names of values.
ENDINGS = ("scale", "shift", "kernel", "bias", "matrix", "pool", "pooled", "folded", "blocked")
UNARY = ("Relu", "Sin", "Sigmoid", "Identity", "Neg", "HardSigmoid", "Tanh", "Softplus")

Shape = tuple[int, ...]


class RandomGraph:
    """A graph in the making: nodes over values of known shapes.

    Attributes:
        kind: element type of its values.
        opset: of the standard operators.
        nodes: of the graph, or of the subgraph that is being written.
        shapes: name of a value -> its shape at a batch of `BATCH`.
        constants: name -> array.
        values: names of what may be read next, the newest last.
    """

    def __init__(self, draw: Random) -> None:
        self.draw = draw
        self.kind = draw.choice([TensorProto.FLOAT] * 4 + [TensorProto.DOUBLE, TensorProto.FLOAT16])
        self.opset = draw.choice(OPSETS)
        self.nodes: list[onnx.NodeProto] = []
        self.shapes: dict[str, Shape] = {"x": (BATCH, 16, 6, 5), "z": (BATCH, 4, 3)}
        self.constants: dict[str, np.ndarray] = {}
        self.values = ["x", "z"]
        self._count = 0
        self._taken: set[str] = set()

    # -- what it is made of ------------------------------------------------------------------

    def grow(self) -> None:
        """Adds something that reads one of the newest values."""
        steps: list[Callable[[str], object]] = [
            *[self.unary] * 2,
            *[self.with_constant] * 5,
            *[self.convolve] * 3 * (self.kind == TensorProto.FLOAT),
            *[self.transpose] * 2,
            *(self.pair, self.pad, self.pool, self.reshape, self.reduce, self.product),
            *(self.slices, self.gelu, self.layer_normalisation, self.softmax, self.again),
            *(self.mark, self.many_times, self.branch, self.loop, self.scan, *[self.twins] * 3),
            *[self.convolved, self.dense, self.preprocessed, self.averaged, self.rectified] * 2,
        ]
        self.draw.choice(steps)(self.draw.choice(self.values[-3:]))

    def unary(self, x: str) -> str | None:
        return self.node(self.draw.choice(UNARY), [x])

    def with_constant(self, x: str) -> str | None:
        shape = self.shapes[x]
        forms: list[Shape] = [(), (1,), (1,) * len(shape), (1,) * (len(shape) + 1)]
        for axis, size in enumerate(shape):
            if self.fixed(size):
                forms.append((size, *[1] * (len(shape) - axis - 1)))
                forms.append((*[1] * axis, size, *[1] * (len(shape) - axis - 1)))
        if len(shape) > 1 and self.fixed(shape[-1] * shape[-2]):
            forms.append(shape[-2:])
        form = self.draw.choice(forms)
        if shape and shape[-1] == 1 and self.draw.random() < 0.3:
            form = (3,)  # one that the constant makes many
        operator = self.draw.choice(["Mul", "Add", "Mul", "Add", "Sub", "Div"])
        inputs = [x, self.constant(form)]
        return self.node(operator, inputs if self.draw.random() < 0.7 else inputs[::-1])

    def pair(self, x: str) -> str | None:
        others = [v for v in self.values if self.shapes[v] == self.shapes[x]]
        return self.node(self.draw.choice(["Mul", "Add", "Sub"]), [x, self.draw.choice(others)])

    def convolve(self, x: str) -> str | None:
        shape = self.shapes[x]
        if len(shape) != 4 or not self.fixed(shape[1]) or min(shape[2:]) < 3:
            return None
        out = self.draw.choice([1, 3, 16, shape[1]])
        depthwise = out == shape[1] and self.draw.random() < 0.4
        size = self.draw.choice([(1, 1), (1, 1), (3, 2)])
        kernel = self.constant((out, 1 if depthwise else shape[1], *size))
        inputs = [x, kernel, *([self.constant((out,))] if self.draw.random() < 0.4 else [])]
        attributes: dict[str, object] = {"group": out} if depthwise else {}
        if self.draw.random() < 0.3:
            attributes["strides"] = [2, self.draw.choice([1, 2])]
        if self.draw.random() < 0.3:
            attributes["pads"] = [1, 0, 0, 1]
        elif self.draw.random() < 0.2:
            attributes["auto_pad"] = self.draw.choice(["SAME_UPPER", "VALID"])
        return self.node("Conv", inputs, **attributes)

    def pad(self, x: str) -> str | None:
        rank = len(self.shapes[x])
        if not rank:
            return None
        widths = [self.draw.choice([0, 0, 1, 2]) if a % rank > 1 else 0 for a in range(2 * rank)]
        if self.draw.random() < 0.2:
            widths[-1] = -1
        inputs = [x, self.constant_of(np.array(widths))]
        fill = self.draw.choice([None, 0.0, 0.0, -1.0])
        if fill is not None:
            inputs.append(self.constant_of(np.array(fill, KINDS[self.kind])))
        mode = self.draw.choice([None, None, "constant", "edge"])
        return self.node("Pad", inputs, mode=mode)

    def pool(self, x: str) -> str | None:
        if len(self.shapes[x]) != 4 or min(self.shapes[x][2:]) < 3:
            return None
        operator = self.draw.choice(["MaxPool", "AveragePool", "GlobalAveragePool"])
        if operator == "GlobalAveragePool":
            return self.node(operator, [x])
        strides = self.draw.choice([None, [2, 1], [2, 2]])
        pads = self.draw.choice([None, None, [1, 0, 0, 1]])
        ceil = self.draw.choice([None, 0, 1])
        return self.node(
            operator, [x], kernel_shape=[3, 2], strides=strides, pads=pads, ceil_mode=ceil
        )

    def transpose(self, x: str) -> str | None:
        rank = len(self.shapes[x])
        if not rank:
            return None
        orders = [list(range(rank))[::-1], self.draw.sample(range(rank), rank), None]
        if rank == 4:
            orders += [[0, 2, 3, 1], [0, 3, 1, 2]] * 2
        return self.node("Transpose", [x], perm=self.draw.choice(orders))

    def reshape(self, x: str) -> str | None:
        shape = self.shapes[x]
        if not shape or shape[0] != BATCH or not all(map(self.fixed, shape[1:])) or len(shape) < 1:
            return None
        inner = math.prod(shape[1:])
        split = next((n for n in (2, 3, 5) if inner and inner % n == 0), 1)
        targets: list[list[int]] = [[-1, *shape[1:]], [0, -1], [-1, inner], [0, split, -1]]
        if len(shape) > 2:
            targets += [[-1, shape[-1]]]
        target = self.draw.choice(targets)
        if self.draw.random() < 0.3 and -1 in target:
            start = self.node("Shape", [x], kind=TensorProto.INT64)
            first = self.constant_of(np.array([0]))
            batch = self.node("Gather", [str(start), first], kind=TensorProto.INT64, axis=0)
            rest = self.constant_of(np.array([split, inner // split]))
            sizes = self.node("Concat", [str(batch), rest], kind=TensorProto.INT64, axis=0)
            self.values = [v for v in self.values if v not in (start, batch, sizes)]
            return self.node("Reshape", [x, str(sizes)], allowzero=self.since(14, [None, 1]))
        return self.node("Reshape", [x, self.constant_of(np.array(target))])

    def reduce(self, x: str) -> str | None:
        rank = len(self.shapes[x])
        operator = self.draw.choice(["ReduceMean", "ReduceMean", "ReduceSum", "ReduceMax"])
        axes = self.draw.choice([[2, 3], [1, 2], [-1], [1], [-1, -2]])
        if rank < 2 or any(not -rank <= a < rank for a in axes):
            return None
        keepdims = self.draw.choice([None, 0, 1])
        if operator == "ReduceSum" or self.opset >= 18:
            inputs = [x, self.constant_of(np.array(axes))]
            return self.node(operator, inputs, keepdims=keepdims)
        return self.node(operator, [x], axes=axes, keepdims=keepdims)

    def product(self, x: str) -> str | None:
        size = self.shapes[x][-1] if self.shapes[x] else 0
        if not size or not self.fixed(size):
            return None
        return self.node("MatMul", [x, self.constant((size, self.draw.choice([1, 3, 5])))])

    def slices(self, x: str) -> str | None:
        axes = [a for a, n in enumerate(self.shapes[x]) if self.fixed(n) and n > 2]
        if not axes:
            return None
        axis = self.draw.choice(axes)
        size = self.shapes[x][axis]
        cuts = sorted(self.draw.sample(range(1, size), self.draw.choice([1, 2])))
        bounds = list(zip([0, *cuts], [*cuts, self.draw.choice([size, 2**31 - 1])], strict=True))
        if self.draw.random() < 0.3:
            bounds = bounds[: self.draw.choice([1, len(bounds)])]
        last = None
        for start, end in self.draw.sample(bounds, len(bounds)):
            arrays = [
                [start],
                [end],
                [axis if self.draw.random() < 0.7 else axis - len(self.shapes[x])],
            ]
            if self.draw.random() < 0.3:
                arrays = [[0, start], [2**31 - 1, end], [0 if axis else 1, axis]]
                if len(self.shapes[x]) < 2:
                    continue
            last = self.node("Slice", [x, *(self.constant_of(np.array(a)) for a in arrays)])
        return last

    def gelu(self, x: str) -> str | None:
        number = [
            self.constant_of(np.full(self.draw.choice([(), (1,)]), n, KINDS[self.kind]))
            for n in (0.5, 1.0, math.sqrt(0.5), self.draw.choice([0.5, 0.7]))
        ]
        if self.kind == TensorProto.DOUBLE:
            return None  # onnxruntime has no Erf for it
        u = self.node("Mul", [x, number[2]])
        e = self.node("Erf", [str(u)])
        p = self.node("Add", [number[1], str(e)])
        a = self.node("Mul", [x, number[self.draw.choice([0, 0, 3])]])
        return self.node("Mul", [str(a), str(p)])

    def layer_normalisation(self, x: str) -> str | None:
        shape = self.shapes[x]
        if not shape or not self.fixed(shape[-1]) or shape[-1] < 2:
            return None
        scale, shift = self.constant(shape[-1:]), self.constant(shape[-1:])
        if self.opset >= 17 and self.draw.random() < 0.5:
            inputs = [x, scale, *([shift] if self.draw.random() < 0.6 else [])]
            axis = self.draw.choice([None, -1, len(shape) - 1])
            y = self.node("LayerNormalization", inputs, axis=axis, epsilon=0.01)
            return self.product(y) if y is not None else None
        axes = {"axes": [-1]} if self.opset < 18 else {}
        more = [self.constant_of(np.array([-1]))] if self.opset >= 18 else []
        epsilon = self.constant_of(np.full(self.draw.choice([(), (1,)]), 0.01, KINDS[self.kind]))
        mean = str(self.node("ReduceMean", [x, *more], **axes))
        centred = str(self.node("Sub", [x, mean]))
        square = str(self.node("Mul", [centred, centred]))
        variance = str(self.node("ReduceMean", [square, *more], **axes))
        total = str(self.node("Add", [variance, epsilon]))
        inverse = str(self.node("Reciprocal", [str(self.node("Sqrt", [total]))]))
        m = str(self.node("Mul", [inverse, scale]))
        a = str(self.node("Mul", [x, m]))
        b = str(self.node("Mul", [str(self.node("Neg", [mean])), m]))
        return self.node("Add", [a, str(self.node("Add", [b, shift]))])

    def softmax(self, x: str) -> str | None:
        rank = len(self.shapes[x])
        return (
            self.node("Softmax", [x], axis=self.draw.choice([None, 0, rank - 1])) if rank else None
        )

    def again(self, _: str) -> str | None:
        """Writes one of the nodes a second time."""
        plain = [n for n in self.nodes if len(n.output) == 1 and n.output[0] in self.values]
        plain = [n for n in plain if all(a.type != onnx.AttributeProto.GRAPH for a in n.attribute)]
        if not plain:
            return None
        node = self.draw.choice(plain)
        attributes = {a.name: helper.get_attribute_value(a) for a in node.attribute}
        return self.node(node.op_type, list(node.input), domain=node.domain, **attributes)

    def twins(self, x: str) -> str | None:
        """Adds what one operator makes of two values, as the gradient of two branches is."""
        before = len(self.nodes)
        steps = [self.product, self.pad, self.pad, self.transpose, self.reshape]
        first = self.draw.choice(steps)(x)
        if first is None or len(self.nodes) != before + 1:
            return None
        node = self.nodes[-1]
        other = self.node(self.draw.choice(["Sin", "Identity"]), [x])
        attributes = {a.name: helper.get_attribute_value(a) for a in node.attribute}
        second = self.node(node.op_type, [str(other), *node.input[1:]], **attributes)
        return self.node("Add", [first, str(second)])

    def mark(self, x: str) -> str | None:
        return self.node(self.draw.choice(["Mark", "StopGradient"]), [x], domain="probegen")

    def many_times(self, x: str) -> str | None:
        return self.node("Sum", [x, x]) if self.draw.random() < 0.5 else self.node("Mul", [x, x])

    # -- what passes look for, most of the time ------------------------------------------------

    def chain(self, x: str | None, *steps: Callable[[str], str | None]) -> str | None:
        """Writes one step behind the other; now and then one of them is left out or is another."""
        for step in steps:
            chance = self.draw.random()
            if x is None or chance < 0.1:
                continue
            x = (self.unary(x) if chance < 0.15 else step(x)) or x
        return x

    def scaled(self, operator: str, axis: int) -> Callable[[str], str | None]:
        """Returns what writes a product or sum with one number for each entry of an axis."""

        def write(x: str) -> str | None:
            shape = self.shapes[x]
            if not -len(shape) <= axis < len(shape) or not self.fixed(shape[axis]):
                return None
            sizes = [n if i == axis % len(shape) else 1 for i, n in enumerate(shape)]
            while sizes and sizes[0] == 1 and self.draw.random() < 0.5:
                sizes = sizes[1:]
            inputs = [x, self.constant(tuple(sizes))]
            return self.node(operator, inputs if self.draw.random() < 0.6 else inputs[::-1])

        return write

    def masked(self, x: str) -> str | None:
        mask = self.node("HardSigmoid", [self.draw.choice([x, "x"])])
        return None if mask is None else self.node("Mul", [x, mask])

    def convolved(self, _: str) -> str | None:
        """Writes a convolution between padding, scales, masks and pools."""
        images = [v for v in self.values if len(self.shapes[v]) == 4]
        steps = [self.scaled("Mul", 1), self.scaled("Add", 1), self.masked, self.pool]
        more = self.draw.sample(steps, self.draw.choice([1, 2, 3]))
        return self.chain(self.draw.choice(images), self.pad, self.convolve, *more, self.convolve)

    def dense(self, x: str) -> str | None:
        """Writes a product with a matrix behind a normalisation and before a bias and a factor."""
        steps = [self.scaled("Add", -1), self.reshape, self.scaled("Mul", -1)]
        return self.chain(x, self.layer_normalisation, self.product, *steps)

    def preprocessed(self, _: str) -> str | None:
        """Writes scales and shifts of the last axis, and a Transpose that puts it in front."""
        steps = [self.scaled(self.draw.choice(["Mul", "Add", "Sub", "Div"]), -1) for _ in range(2)]
        return self.chain("x", *steps, lambda x: self.node("Transpose", [x], perm=[0, 3, 1, 2]))

    def averaged(self, _: str) -> str | None:
        """Writes the mean of images over height and width."""
        images = [v for v in self.values if len(self.shapes[v]) == 4]

        def mean(x: str) -> str | None:
            if self.opset < 18:
                return self.node("ReduceMean", [x], axes=[1, 2], keepdims=keepdims)
            axes = self.constant_of(np.array([1, 2]))
            return self.node("ReduceMean", [x, axes], keepdims=keepdims)

        keepdims = self.draw.choice([None, 0, 1])
        last = lambda x: self.node("Transpose", [x], perm=[0, 2, 3, 1])  # noqa: E731
        return self.chain(self.draw.choice(images), last, mean, self.unary)

    def rectified(self, _: str) -> str | None:
        """Writes padding between a rectifier and a maximum."""
        images = [v for v in self.values if len(self.shapes[v]) == 4]
        relu = lambda x: self.node(self.draw.choice(["Relu", "Sigmoid"]), [x])  # noqa: E731
        top = lambda x: self.node("MaxPool", [x], kernel_shape=[3, 3], strides=[1, 2])  # noqa: E731
        return self.chain(self.draw.choice(images), relu, self.pad, top)

    # -- subgraphs ---------------------------------------------------------------------------

    def branch(self, x: str) -> str | None:
        """Writes an If, one branch of which goes on with values from outside."""
        inside, last = self.within(lambda: [self.grow() for _ in range(3)])
        if last is None:
            return None
        then = helper.make_graph(inside, self.fresh("then"), [], [_info(last, self.kind)])
        other = self.fresh("other")
        nodes = [helper.make_node("Neg", [x], [other])]
        if self.shapes[last] != self.shapes[x]:
            nodes = [helper.make_node("Sin", [last], [other])]
            known = next((v for v in self.values if self.shapes[v] == self.shapes[last]), None)
            if known is None:
                return None
            nodes = [helper.make_node("Sin", [known], [other])]
        otherwise = helper.make_graph(nodes, self.fresh("else"), [], [_info(other, self.kind)])
        return self.add("If", ["on"], self.shapes[last], then_branch=then, else_branch=otherwise)

    def loop(self, x: str) -> str | None:
        """Writes a Loop with a state that no step changes, and one that is captured."""
        if self.opset >= 21 and self.kind == TensorProto.FLOAT16:
            return None
        names = [self.fresh(n) for n in ("i", "c", "s", "f", "c2", "s2", "f2", "each")]
        i, c, s, f, c2, s2, f2, each = names
        half = self.constant_of(np.array(0.5, KINDS[self.kind]))
        nodes = [
            helper.make_node("Identity", [c], [c2]),
            helper.make_node("Mul", [f, half], [f"{f}/half"]),
            helper.make_node("Add", [s, f"{f}/half"], [f"{s}/sum"]),
            helper.make_node("Tanh", [f"{s}/sum"], [s2]),
            helper.make_node(self.draw.choice(["Identity", "Identity", "Sin"]), [f], [f2]),
            helper.make_node(self.draw.choice(["Identity", "Neg"]), [s2], [each]),
        ]
        inputs = [_info(i, TensorProto.INT64, ()), _info(c, TensorProto.BOOL, ())]
        inputs += [_info(s, self.kind), _info(f, self.kind)]
        outputs = [_info(c2, TensorProto.BOOL, ()), *(_info(n, self.kind) for n in (s2, f2, each))]
        body = helper.make_graph(nodes, self.fresh("body"), inputs, outputs)
        count = self.constant_of(np.array(self.draw.choice([0, 2])))
        go = self.constant_of(np.array(True))
        self.add("Loop", [count, go, x, x], self.shapes[x], outputs=3, body=body)
        return None

    def scan(self, x: str) -> str | None:
        """Writes a Scan over axis 1 that reads values from outside."""
        shape = self.shapes[x]
        if len(shape) < 2 or not self.fixed(shape[1]):
            return None
        entry = (shape[0], *shape[2:])
        open_entry = [n if self.fixed(n) else None for n in entry]
        number = self.constant(self.draw.choice([(), entry[-1:] if self.fixed(entry[-1]) else ()]))
        outside = self.add("Tanh", [number], self.constants[number].shape)
        captured = self.draw.choice([number, outside])
        now, out = self.fresh("now"), self.fresh("out")
        nodes = [
            helper.make_node("Add", [now, captured], [f"{now}/sum"]),
            helper.make_node("Sin", [f"{now}/sum"], [out]),
        ]
        body = helper.make_graph(
            nodes, self.fresh("body"), [_info(now, self.kind)], [_info(out, self.kind, open_entry)]
        )
        whole = (shape[1], *entry)
        return self.add("Scan", [x], whole, body=body, num_scan_inputs=1, scan_input_axes=[1])

    def within(self, write: Callable[[], object]) -> tuple[list[onnx.NodeProto], str | None]:
        """Writes nodes of a subgraph; returns them and what the last one makes."""
        outer, values = self.nodes, list(self.values)
        self.nodes = []
        write()
        inside, self.nodes = self.nodes, outer
        made = [v for v in self.values if v not in values]
        self.values = values
        return inside, made[-1] if made else None

    # -- writing -----------------------------------------------------------------------------

    def node(
        self,
        operator: str,
        inputs: Sequence[str],
        domain: str = "",
        kind: int | None = None,
        **attributes: object,
    ) -> str | None:
        """Adds a node with one output, whose shape onnx works out; None where it cannot."""
        named = {k: v for k, v in attributes.items() if v is not None}
        if any(name == "None" for name in inputs):
            return None
        shape = self._shape_of(operator, inputs, domain, kind, named)
        if shape is None or not 0 < math.prod(shape) < 20_000 or len(shape) > 5:
            return None
        return self.add(operator, inputs, shape, domain=domain, **named)

    def add(
        self,
        operator: str,
        inputs: Sequence[str],
        shape: Shape,
        outputs: int = 1,
        domain: str = "",
        **attributes: object,
    ) -> str:
        """Adds a node whose outputs have a shape, but for the last of several."""
        names = [self.fresh() for _ in range(outputs)]
        label = self.draw.choice(["", f"{operator}_{self._count}"])
        made = helper.make_node(operator, inputs, names, name=label, domain=domain, **attributes)
        self.nodes.append(made)
        for name in names[:2]:
            self.shapes[name] = shape
            self.values.append(name)
        return names[0]

    def _shape_of(
        self,
        operator: str,
        inputs: Sequence[str],
        domain: str,
        kind: int | None,
        attributes: dict[str, object],
    ) -> Shape | None:
        if domain:
            return self.shapes[inputs[0]]
        node = helper.make_node(operator, inputs, ["y"], **attributes)
        kept = {n: self.constants[n] for n in inputs if n in self.constants}
        described = [
            _info(n, self._kind_of(n, kind), self.shapes[n])
            for n in dict.fromkeys(inputs)
            if n not in kept
        ]
        arrays = [numpy_helper.from_array(a, n) for n, a in kept.items()]
        graph = helper.make_graph([node], "one", described, [onnx.ValueInfoProto(name="y")], arrays)
        imports = [helper.make_opsetid("", self.opset)]
        model = helper.make_model(graph, opset_imports=imports, ir_version=8)
        try:
            inferred = onnx.shape_inference.infer_shapes(model, strict_mode=True, data_prop=True)
        except onnx.shape_inference.InferenceError:
            return None
        found = inferred.graph.output[0].type.tensor_type
        if operator == "Reshape" and not all(d.HasField("dim_value") for d in found.shape.dim):
            first = self.shapes[inputs[0]]
            rest = [d.dim_value for d in found.shape.dim[1:]]
            return (first[0], *rest) if all(rest) else self._computed(first)
        return tuple(d.dim_value for d in found.shape.dim)

    def _computed(self, shape: Shape) -> Shape:
        """Returns what `reshape` asks for where it puts the target together."""
        inner = math.prod(shape[1:])
        split = next((n for n in (2, 3, 5) if inner % n == 0), 1)
        return (shape[0], split, inner // split)

    def _kind_of(self, name: str, kind: int | None) -> int:
        integers = kind == TensorProto.INT64 and name not in ("x", "z")
        made = next((n for n in self.nodes if name in n.output), None)
        if made is not None and made.op_type in ("Shape", "Gather", "Concat") and integers:
            return TensorProto.INT64
        return TensorProto.INT64 if made is not None and made.op_type == "Concat" else self.kind

    def constant(self, shape: Shape) -> str:
        """Returns a constant of random numbers, one of old sometimes."""
        fitting = [n for n, a in self.constants.items() if a.shape == shape and a.dtype.kind == "f"]
        if fitting and self.draw.random() < 0.3:
            return self.draw.choice(fitting)
        random = np.random.default_rng(self.draw.randrange(2**32))
        array = random.uniform(0.3, 1.5, shape) * random.choice([-1.0, 1.0], shape)
        if self.draw.random() < 0.1:
            array = np.zeros(shape) if self.draw.random() < 0.5 else np.ones(shape)
        return self.constant_of(np.asarray(array, KINDS[self.kind]))

    def constant_of(self, array: np.ndarray) -> str:
        name = self.fresh("w")
        self.constants[name] = array
        self.shapes[name] = array.shape
        return name

    def fresh(self, hint: str = "v") -> str:
        """Returns a new name, now and then one that a pass might choose."""
        self._count += 1
        name = f"{hint}{self._count}"
        if hint == "v" and self.draw.random() < 0.15:
            other = f"{self.draw.choice(self.values)}/{self.draw.choice(ENDINGS)}"
            name = name if other in self._taken else other
        self._taken.add(name)
        return name

    def since(self, opset: int, choices: Sequence[object]) -> object:
        return self.draw.choice(choices) if self.opset >= opset else None

    @staticmethod
    def fixed(size: int) -> bool:
        """Tells whether a size does not come from the batch."""
        return size % BATCH != 0

    # -- the whole ---------------------------------------------------------------------------

    def model(self) -> onnx.ModelProto:
        """Returns the graph as a model: `x`, `z` and `on` are inputs, the batch open or not."""
        draw, batch = self.draw, self.draw.choice(["batch", "batch", BATCH])
        inputs = [_info(n, self.kind, (batch, *self.shapes[n][1:])) for n in ("x", "z")]
        inputs.append(_info("on", TensorProto.BOOL, ()))
        read = {name for node in self.nodes for name in node.input}
        unread = [v for v in self.values if v not in read]
        middle = [v for v in self.values[2:] if draw.random() < 0.15]
        made = {name for node in self.nodes for name in node.output}
        outputs = [v for v in dict.fromkeys([*unread[-2:], *middle]) if v in made]
        nodes, arrays = list(self.nodes), []
        for name, array in self.constants.items():
            form = draw.random()
            tensor = numpy_helper.from_array(array, name)
            if form < 0.2:
                nodes.insert(0, helper.make_node("Constant", [], [name], value=tensor))
                continue
            arrays.append(tensor)
            if form < 0.3:
                kind = helper.np_dtype_to_tensor_dtype(array.dtype)
                inputs.append(_info(name, kind, array.shape))
            elif form < 0.35:
                outputs.append(name)
        if draw.random() < 0.1:
            outputs.append("x")
        told = {value.name: value for value in inputs}
        told |= {
            n: _info(n, helper.np_dtype_to_tensor_dtype(a.dtype), a.shape)
            for n, a in self.constants.items()
        }
        results = [told.get(n, onnx.ValueInfoProto(name=n)) for n in outputs or self.values[-1:]]
        graph = helper.make_graph(nodes, "random", inputs, results, arrays)
        imports = [helper.make_opsetid("", self.opset), helper.make_opsetid("probegen", 1)]
        return helper.make_model(graph, opset_imports=imports, ir_version=8)


def random_model(draw: Random, size: int) -> onnx.ModelProto:
    """Returns a random model of about `size` nodes, of one output at least."""
    graph = RandomGraph(draw)
    for _ in range(size):
        graph.grow()
    if len(graph.values) == 2:
        graph.unary("x")
    return graph.model()


def _info(name: str, kind: int, shape: Sequence[int | str] | None = None) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, kind, shape)
