"""Which tensors of a graph are maps: channels at several positions, one map a sample or a frame."""

from __future__ import annotations

import onnx_ir as ir

from probegen.graph.core.queries import inputs_of
from probegen.graph.core.values import known_sizes, shape_of
from probegen.methods.axes import FRAME
from probegen.plan.axes import BATCH, Axes, channel_axis, is_neutral, position_axes
from probegen.sources.onnx.layouts import Apart, Layouts

#: Parts of an axis along which samples are joined with frames; and how many positions a frame has
#: axes for, where no convolution tells that it has positions: what has one may as well be heads
#: of attention.
_WITH_FRAMES, _PLACES_OF_FRAMES = 2, 2
_CONVOLVES = frozenset({"Conv", "ConvTranspose", "MaxPool", "AveragePool", "LpPool"})


def is_map(value: ir.Value, layouts: Layouts) -> bool:
    """Tells whether a tensor has channels, not one alone, at more than one position."""
    axes, sizes = layouts.axes(value), known_sizes(value) or ()
    places = position_axes(axes)
    batched = BATCH in axes and not {"direction", "layer"} & set(axes)
    known = not any(is_neutral(axes[i]) for i in places)
    channels = channel_axis(axes)
    several = any(sizes[i] != 1 for i in places)
    return batched and known and several and channels is not None and sizes[channels] != 1


def is_map_of_frames(value: ir.Value, layouts: Layouts) -> bool:
    """Tells whether a tensor has channels at more than one position in each of some frames."""
    apart = layouts.told_apart(value)
    if apart is None or len(apart.parts or ()) != _WITH_FRAMES:
        return False
    axes = frames_named(apart)
    places, channels = position_axes(axes), channel_axis(axes)
    fewest = 1 if _is_convolved(value) else _PLACES_OF_FRAMES
    if len(places) < fewest or channels is None or apart.sizes[channels] == 1:
        return False
    return any(apart.sizes[i] != 1 for i in places)


def frames_named(apart: Apart) -> Axes:
    """Returns the axes of maps, of which those joined with the samples are called frames."""
    frames = [apart.axis + i for i, part in enumerate(apart.parts or ()) if part != -1]
    return tuple(FRAME if i in frames else name for i, name in enumerate(apart.axes))


def _is_convolved(value: ir.Value) -> bool:
    """Tells whether a convolution or pooling makes a tensor, or what it is made of by entry."""
    pending, seen = [value], {value}
    while pending:
        made = pending.pop()
        node = made.producer()
        if node is None or node.domain:
            continue
        if node.op_type in _CONVOLVES:
            return True
        for given in inputs_of(node):
            same = shape_of(given) == shape_of(made) or node.op_type == "Transpose"
            if same and given not in seen:
                seen.add(given)
                pending.append(given)
    return False
