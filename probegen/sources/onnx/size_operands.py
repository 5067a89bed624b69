"""Operands of nodes that known sizes decide: targets of reshapes, bounds of slices."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import onnx_ir as ir

from probegen.graph.core.size_products import product_of, told_by_equal
from probegen.graph.core.values import Dim, attribute, constant_of, new_initializer, shape_of
from probegen.graph.passes.before.name_open_sizes import reshaped
from probegen.sources.onnx.known_elements import Known, known_of
from probegen.sources.onnx.rewriting import graph_of

#: From here on an end stands for "to the end", as the ONNX specification recommends it.
_UNBOUNDED = 2**31 - 1
#: Where a Reshape notes its target as it was known before it was written with a -1.
_TARGET = "probegen.known_target"


def _fix_reshape_target(node: ir.Node, known: Mapping[ir.Value, Known]) -> bool:
    """Writes the target of a Reshape as a constant, where at most one size has to be inferred."""
    source, target = node.inputs[0], node.inputs[1]
    if source is None or target is None or target not in known:
        return False
    literal = bool(attribute(node, "allowzero", 0))
    given = shape_of(source)
    wanted = known[target].reshape(-1).tolist()
    if not literal and given is not None:
        wanted = list(reshaped(given, wanted) or wanted)
    if told_by_reshape(node, known) is not None:
        return False  # once it is written, nothing tells it any more
    sizes: list[int] = []
    for axis, size in enumerate(wanted):
        if not isinstance(size, str):
            if size is None or (literal and size == 0):
                sizes.append(-1 if size is None else 0)
            else:
                sizes.append(int(size))
        elif not literal and given is not None and axis < len(given) and given[axis] == size:
            sizes.append(0)
        else:
            sizes.append(-1)
    if sizes.count(-1) > 1 or (literal and 0 in sizes) or _may_be_no_size(known[target]):
        return False
    node.attributes.pop("allowzero", None)
    node.meta[_TARGET] = np.asarray(wanted, dtype=object)
    name = f"{node.outputs[0].name}/target"
    node.replace_input_with(
        1, new_initializer(graph_of(node), name, np.asarray(sizes, dtype=np.int64))
    )
    return True


def told_by_reshape(node: ir.Node, known: Mapping[ir.Value, Known]) -> tuple[str, int] | None:
    """Returns an open size of the inputs and the one number that a Reshape lets it be; else None.

    `Reshape(x [time, batch, 8], [6, 2 * batch, 4])` -> `time` is 6

    A target that was written before the shape of what is reshaped was known counts as it was.

    Args:
        node: a Reshape.
        known: what is known of values.
    """
    source, target = node.inputs[0], node.meta.get(_TARGET)
    if target is None:
        target = known_of(node.inputs[1], known)
    given = None if source is None else shape_of(source)
    if given is None or target is None or not node.outputs[0].uses():
        return None
    sizes = target.reshape(-1).tolist()
    if not attribute(node, "allowzero", 0):
        sizes = [given[i] if d == 0 and i < len(given) else d for i, d in enumerate(sizes)]
    if any(d is None or (not isinstance(d, str) and d < 1) for d in sizes):
        return None
    told = told_by_equal(product_of(given), product_of(sizes))
    inputs = {d for value in graph_of(node).inputs for d in shape_of(value) or ()}
    return told if told is not None and told[0] in inputs else None


def _may_be_no_size(target: Known) -> bool:
    """Tells whether an element that is not known may be a request (-1, 0) and no size.

    Beside a -1 it is a size, or the target was invalid; alone it is inferred all the same: from
    -1 as from the size itself.
    """
    flat = target.reshape(-1).tolist()
    return flat.count(None) > 1


def _drop_expand(node: ir.Node, known: Mapping[ir.Value, Known]) -> bool:
    """Takes out an Expand to the shape that its input has."""
    source, target = node.inputs[0], node.inputs[1]
    if source is None or target is None or node.outputs[0].is_graph_output():
        return False
    wanted, given = known_of(target, known), shape_of(source)
    if wanted is None or given is None or len(wanted) > len(given):
        return False
    own: tuple[Dim, ...] = given[len(given) - len(wanted) :]
    if any(w is None or (w not in (1, o)) for w, o in zip(wanted.tolist(), own, strict=True)):
        return False
    ir.convenience.replace_all_uses_with(node.outputs[0], source)
    graph_of(node).remove(node, safe=True)
    return True


def _shorten_resize_sizes(node: ir.Node, known: Mapping[ir.Value, Known]) -> bool:
    """Leaves out of the sizes of a Resize those that its input has already.

    `Resize(x, sizes=[N, 2, 6, 10])` -> `Resize<axes=[2, 3]>(x, sizes=[6, 10])`

    Needs: opset 18 or later.
    """
    source, sizes = node.inputs[0], node.inputs[3] if len(node.inputs) > 3 else None
    if source is None or sizes is None or sizes not in known or "axes" in node.attributes:
        return False
    if attribute(node, "coordinate_transformation_mode") == "tf_crop_and_resize":
        return False
    wanted, given = known[sizes].tolist(), shape_of(source)
    if given is None or attribute(node, "keep_aspect_ratio_policy", "stretch") != "stretch":
        return False
    axes = [i for i, (w, g) in enumerate(zip(wanted, given, strict=True)) if w is None or w != g]
    kept = [wanted[i] for i in axes]
    if not axes or not all(isinstance(size, int) for size in kept):
        return False
    name = f"{node.outputs[0].name}/sizes"
    node.replace_input_with(3, new_initializer(graph_of(node), name, np.asarray(kept, np.int64)))
    node.attributes["axes"] = ir.AttrInt64s("axes", axes)
    return True


def _shorten_slice(  # noqa: PLR0911
    node: ir.Node, known: Mapping[ir.Value, Known]
) -> bool:
    """Leaves out of a Slice the axes of which it takes everything; all of it where it takes all.

    `Slice(x, [0], [N], [0])` of x with N rows -> `x`
    """
    source = node.inputs[0]
    shape = None if source is None else shape_of(source)
    bounds = [known_of(v, known) for v in node.inputs[1:]]
    if source is None or shape is None or len(bounds) < 2 or bounds[0] is None or bounds[1] is None:
        return False
    if any(b is None and v is not None for b, v in zip(bounds, node.inputs[1:], strict=True)):
        return False
    starts, ends = bounds[0].tolist(), bounds[1].tolist()
    axes = bounds[2] if len(bounds) > 2 and bounds[2] is not None else np.arange(len(starts))
    steps = bounds[3] if len(bounds) > 3 and bounds[3] is not None else np.ones(len(starts), int)
    if not all(isinstance(n, int) for n in (*axes.tolist(), *steps.tolist())):
        return False
    cuts = [
        cut
        for cut in zip(starts, ends, axes.tolist(), steps.tolist(), strict=True)
        if not _takes_all(shape[cut[2]], *cut[:2], cut[3])
    ]
    if not cuts:
        if node.outputs[0].is_graph_output():
            return False
        ir.convenience.replace_all_uses_with(node.outputs[0], source)
        graph_of(node).remove(node, safe=True)
        return True
    if len(cuts) == len(starts) or not all(isinstance(n, int) for cut in cuts for n in cut):
        return False
    node.resize_inputs(5)
    for position, numbers in enumerate(zip(*cuts, strict=True), start=1):
        name = f"{node.outputs[0].name}/bound_{position}"
        array = np.asarray(numbers, dtype=np.int64)
        node.replace_input_with(position, new_initializer(graph_of(node), name, array))
    return True


def _takes_all(size: Dim, start: Any, end: Any, step: int) -> bool:
    if step != 1 or start != 0 or end is None or size is None:
        return isinstance(end, int) and end >= _UNBOUNDED and step == 1 and start == 0
    if isinstance(end, int):
        return end >= _UNBOUNDED or (isinstance(size, int) and end >= size)
    return bool(end == size)


def _fix_range_bounds(node: ir.Node, known: Mapping[ir.Value, Known]) -> bool:  # noqa: ARG001
    """Makes numbers of vectors of one element, which onnx' own bodies of operators hand over."""
    changed = False
    for position, value in enumerate(node.inputs):
        array = constant_of(value)
        if value is not None and array is not None and array.ndim == 1 and array.size == 1:
            name = f"{node.outputs[0].name}/number_{position}"
            number = new_initializer(graph_of(node), name, array.reshape(()))
            node.replace_input_with(position, number)
            changed = True
    return changed


#: By operator: rewrites a node, and tells whether it did.
FIXES: Mapping[str, Callable[[ir.Node, Mapping[ir.Value, Known]], bool]] = {
    "Reshape": _fix_reshape_target,
    "Expand": _drop_expand,
    "Resize": _shorten_resize_sizes,
    "Slice": _shorten_slice,
    "Range": _fix_range_bounds,
}
