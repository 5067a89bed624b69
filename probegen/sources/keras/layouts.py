"""Which axes a tensor has, told from the layers that make and read it.

Nothing is told from the place of an axis alone. Layers say what theirs are: a convolution or a
pooling by its `data_format`, a recurrent layer and `TimeDistributed` by their time axis, a
normalisation by its channel axis. From there the names go along the graph, through whatever keeps
axes (activations, sums, paddings, transpositions, reshapes that leave an axis whole), to what
nothing else tells of: the inputs above all. Inputs and predictions that are still without names
then have the usual ones (see `axes.complete`), and so has what hands their axes on. Inner tensors
with several unnamed axes of positions keep neutral names: heads that a reshape splits off are no
height.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import keras

from probegen.plan.axes import (
    BATCH,
    CHANNEL,
    SPATIAL,
    TIME,
    Axes,
    Names,
    complete,
    is_neutral,
    look_up_axes,
)
from probegen.sources.keras.layer_calls import LayerCall
from probegen.sources.keras.links import BROADCASTS, Link, Pairs, links
from probegen.sources.keras.logits import PASSES_THROUGH
from probegen.sources.keras.roles import role_of

_CONV_LSTM = (keras.layers.ConvLSTM1D, keras.layers.ConvLSTM2D, keras.layers.ConvLSTM3D)
_GLOBAL_POOLING = (
    keras.layers.GlobalAveragePooling1D,
    keras.layers.GlobalAveragePooling2D,
    keras.layers.GlobalAveragePooling3D,
    keras.layers.GlobalMaxPooling1D,
    keras.layers.GlobalMaxPooling2D,
    keras.layers.GlobalMaxPooling3D,
)
_SPECTROGRAMS = (keras.layers.STFTSpectrogram, keras.layers.MelSpectrogram)
#: Layers that keep the axes of their (first) input, in ways that the graph may not show.
_KEEP_AXES = ("activation", "normalisation", "regularisation", "attention")
#: Tensors of this rank that nothing is known of are taken for `[batch, time, channel]`.
_SERIES = 3
#: Passes over the graph; each carries names as far as they go in one direction.
_MOST_PASSES = 8


class Layouts:
    """The axes of every tensor of a trace."""

    def __init__(
        self,
        graph: Any,
        calls: Sequence[LayerCall],
        inputs: Iterable[Any] = (),
        predictions: Iterable[Any] = (),
    ) -> None:
        """Works the names out.

        Args:
            graph: the graph that the calls were traced in.
            calls: the layer calls in the order in which they begin.
            inputs: what the model takes.
            predictions: what the model gives out. The axis that a last softmax sums over holds
                classes, whatever maps in front of it have for channels.
        """
        self._graph = graph
        self._names: dict[int, list[str | None]] = {}
        self._links = [*self._of_layers(calls), *self._of_operations()]
        given_out = [*filter(self._here, predictions)]
        for prediction in given_out:
            for tensor in _around_softmax(prediction):
                self._learn(tensor, (BATCH, *[None] * (tensor.shape.rank - 2), CHANNEL))
        for tier in (_made_and_read, _by_axis, _pooled_whole):
            for call in calls:
                self._anchor(call, tier)
            if tier is _made_and_read:
                self._carry()
                self._anchor_operations()
            self._carry()
        for tensor in (*filter(self._here, inputs), *given_out):
            if tensor.shape.rank > _SERIES:
                names = complete(self._known(tensor))
                self._learn(tensor, [None if is_neutral(name) else name for name in names])
        self._carry()

    def of(self, tensor: Any) -> Axes:
        """Returns a name for each axis of a tensor; channels are called `channel`."""
        rank = tensor.shape.rank
        if rank is None:
            return ()
        return complete(self._known(tensor), usual=rank <= _SERIES)

    # -- what is known at once ---------------------------------------------------------------

    def _anchor(self, call: LayerCall, tier: _Tier) -> None:
        made = [t for t in call.outputs if self._here(t)]
        read = [t for t in call.inputs if self._here(t)][:1]
        steps = len(call.folds) if call.in_steps else 0  # axes of time that only the output has
        for position, tensor in enumerate(made):
            names = tier(call.layer, tensor.shape.rank - steps, True, position)
            if steps:
                inner = names or [None] * (tensor.shape.rank - steps)
                names = _in_steps(inner, steps, _inner_time(call.layer))
            self._learn(tensor, names)
        for tensor in read:
            self._learn(tensor, tier(call.layer, tensor.shape.rank, False, 0))

    def _anchor_operations(self) -> None:
        """Names what convolutions and poolings read and make that no layer stands around."""
        for op in self._graph.get_operations():
            spatial = _IMAGE_OPERATIONS.get(op.type)
            if spatial is None or not op.outputs:
                continue
            for tensor in (op.inputs[-1 if "Backprop" in op.type else 0], op.outputs[0]):
                if tensor.shape.rank == spatial + 2:
                    self._learn(tensor, (BATCH, *self._spatial(op, spatial), CHANNEL))

    def _spatial(self, op: Any, count: int) -> Names:
        """Returns the names between batch and channels: a series is convolved as a flat image."""
        flat = op.inputs[-1 if "Backprop" in op.type else 0]
        if count == 2 and flat.op.type == "ExpandDims":
            return (None, TIME) if flat.shape[1] == 1 else (TIME, None)
        return SPATIAL[count]

    def _known(self, tensor: Any) -> list[str | None]:
        return self._names.get(id(tensor)) or [None] * tensor.shape.rank

    def _here(self, tensor: Any) -> bool:
        return getattr(tensor, "graph", None) is self._graph and tensor.shape.rank is not None

    def _learn(self, tensor: Any, names: Names | None) -> bool:
        """Takes names over where they contradict nothing; tells whether something was new."""
        if names is None or len(names) != tensor.shape.rank:
            return False
        known = self._names.setdefault(id(tensor), [None] * len(names))
        fits = all(a is None or b is None or a == b for a, b in zip(known, names, strict=True))
        merged = [a or b for a, b in zip(known, names, strict=True)]
        given = [n for n in merged if n]
        if not fits or len(set(given)) < len(given) or merged == known:
            return False
        known[:] = merged
        return True

    # -- along the graph ---------------------------------------------------------------------

    def _of_operations(self) -> list[Link]:
        found = (link for op in self._graph.get_operations() for link in links(op))
        sure = (link._replace(pairs=_one_axis_each(link)) for link in found)
        return [link for link in sure if link.pairs]

    def _of_layers(self, calls: Sequence[LayerCall]) -> list[Link]:
        found = []
        for call in calls:
            for read, made in zip(call.inputs[:1], call.outputs[:1], strict=False):
                if self._here(read) and self._here(made):
                    kept = _axes_kept(call.layer, read, made)
                    found.append(Link(read, made, tuple((i, i) for i in range(kept))))
        return found

    def _carry(self) -> None:
        for _ in range(_MOST_PASSES):
            forward = [self._pass(link.operand, link.result, link.pairs) for link in self._links]
            backward = [
                self._pass(link.result, link.operand, [(b, a) for a, b in link.pairs])
                for link in reversed(self._links)
            ]
            if not any(forward) and not any(backward):
                return

    def _pass(self, start: Any, end: Any, pairs: Iterable[tuple[int, int]]) -> bool:
        known = self._names.get(id(start))
        rank = end.shape.rank
        if known is None or not rank:
            return False
        there = self._known(end)
        new: list[str | None] = [None] * rank
        for a, b in pairs:
            if not a or not b:  # a weight's first axis is no batch
                continue
            if known[a] is None or there[b] is not None or known[a] in (*there, *new):
                continue
            if known[a] != CHANNEL or not _one_feature_each(start, end, a, b):
                new[b] = known[a]
        return any(new) and self._learn(end, new)


def _one_axis_each(link: Link) -> Pairs:
    """Returns the pairs of a link whose two axes are surely the same.

    Not so an axis of one entry that is broadcast: a column `[batch, 1]` has not the time of the
    series that it weighs. And which of several axes of one entry a reshape leaves, nobody can tell.
    """
    kind, sizes = link.result.op.type, (link.operand.shape, link.result.shape)
    if kind == "Reshape" and sizes[0].rank != sizes[1].rank:
        return tuple((a, b) for a, b in link.pairs if not a or sizes[0][a] != 1)
    if kind in BROADCASTS:
        return tuple((a, b) for a, b in link.pairs if (sizes[0][a] == 1) == (sizes[1][b] == 1))
    return link.pairs


def _one_feature_each(before: Any, after: Any, a: int, b: int) -> bool:
    """Tells whether an axis gets a last one of one entry behind it: `[24]` becomes `[24, 1]`.

    That is how a series of one feature, or its forecast, is made of a vector, whose entries are the
    steps then. What is multiplied with a map by channels tells so by the map.
    """
    rank = before.shape.rank
    return bool(a == b == rank - 1 and after.shape.rank == rank + 1 and after.shape[-1] == 1)


_Tier = Callable[[Any, int, bool, int], Names | None]

_IMAGE_OPERATIONS = {
    "Conv2D": 2,
    "Conv3D": 3,
    "Conv2DBackpropInput": 2,
    "Conv3DBackpropInputV2": 3,
    "DepthwiseConv2dNative": 2,
    "MaxPool": 2,
    "MaxPool3D": 3,
    "AvgPool": 2,
    "AvgPool3D": 3,
    "ResizeBilinear": 2,
    "ResizeNearestNeighbor": 2,
    "ResizeBicubic": 2,
    "ResizeArea": 2,
}


def _around_softmax(prediction: Any) -> list[Any]:
    """Returns a prediction that a softmax makes, and what goes into it; nothing of others.

    TensorFlow's sums over the last axis; where Keras is asked for another, it turns that one last.
    Weights that something is weighed with are given out beside it, and hold no classes.
    """
    found, op = [prediction], prediction.op
    while op.type in PASSES_THROUGH:
        found.append(op.inputs[0])
        op = op.inputs[0].op
    last = all(reader.type in PASSES_THROUGH for reader in op.outputs[0].consumers())
    if op.type not in ("Softmax", "LogSoftmax") or not last:
        return []
    return [tensor for tensor in (*found, op.inputs[0]) if (tensor.shape.rank or 0) > 1]


# -- what layers say ---------------------------------------------------------------------------


def _made_and_read(layer: Any, rank: int, made: bool, position: int) -> Names | None:
    """Returns the axes of an output, or of the (first) input, of a layer that knows them."""
    if isinstance(layer, keras.layers.TimeDistributed):
        return _over_time(layer.layer, rank, made)
    if isinstance(layer, keras.layers.RNN | keras.layers.Bidirectional):
        return _recurrent(layer, rank, made, position)
    if isinstance(layer, keras.Model):
        return _of_model(layer, rank, made)
    if isinstance(layer, _SPECTROGRAMS) and not made:
        return _waves(layer, rank)
    role = role_of(layer)
    if role == "embedding":
        return look_up_axes(rank) if made else look_up_axes(rank + 1)[:-1]
    whole = isinstance(layer, _GLOBAL_POOLING)
    return None if whole else _image(rank - 1, _data_format(layer, role, rank))


def _data_format(layer: Any, role: str, rank: int) -> str | None:
    """Returns where a layer on maps expects the channels; None for other layers."""
    given = getattr(layer, "data_format", None)
    if isinstance(layer, keras.layers.Flatten) or given not in ("channels_first", "channels_last"):
        return None
    spatial = getattr(layer, "rank", rank - 2)
    of_images = role != "preprocessing" or rank == 4
    return str(given) if of_images and spatial == rank - 2 else None


def _image(rank: int, data_format: str | None) -> Names | None:
    """Returns the axes of a map with `rank` axes behind the batch."""
    spatial = SPATIAL.get(rank - 1)
    if spatial is None or data_format is None:
        return None
    first = data_format == "channels_first"
    return (BATCH, CHANNEL, *spatial) if first else (BATCH, *spatial, CHANNEL)


def _waves(layer: Any, rank: int) -> Names | None:
    """Returns the axes of the waveforms that a layer makes spectrograms of."""
    if rank == 3 and getattr(layer, "data_format", "channels_first") == "channels_last":
        return (BATCH, TIME, CHANNEL)
    return {2: (BATCH, TIME), 3: (BATCH, CHANNEL, TIME)}.get(rank)


def _recurrent(layer: Any, rank: int, made: bool, position: int) -> Names | None:
    inner = getattr(layer, "forward_layer", layer)
    timed = not made or (inner.return_sequences and position == 0)
    if not isinstance(inner, _CONV_LSTM):
        if not timed or rank < _SERIES:  # a cell may have states with positions
            return None
        return (BATCH, TIME, CHANNEL) if rank == _SERIES else (BATCH, TIME, *[None] * (rank - 2))
    maps = _image(rank - 1 - timed, inner.data_format)
    if maps is None:
        return None
    return [BATCH, *[TIME] * timed, *("width" if n == TIME else n for n in maps[1:])]


def _over_time(child: Any, rank: int, made: bool) -> Names:
    """Returns the axes of a layer that runs its child once a step."""
    inner = _made_and_read(child, rank - 1, made, 0) or [None] * (rank - 1)
    again = _inner_time(child)
    return [BATCH, TIME, *(again if n == TIME else n for n in inner[1:])]


def _inner_time(child: Any) -> str:
    """Returns what the time of a layer is called that runs in each step of another time."""
    over_time = keras.layers.RNN | keras.layers.Bidirectional | keras.layers.TimeDistributed
    return "step" if isinstance(child, over_time) else "width"


def _in_steps(names: Names, steps: int, again: str) -> Names:
    """Returns the axes of what has axes of time in front of its own, which is called `again`."""
    times = [TIME] if steps == 1 else [None] * steps
    return [BATCH, *times, *(again if n == TIME and times[0] else n for n in names[1:])]


def _of_model(model: Any, rank: int, made: bool) -> Names | None:
    """Returns the axes of a model as its first layers read, or its last ones make them."""
    layers = list(getattr(model, "layers", ()))
    for layer in reversed(layers) if made else layers:
        names = _made_and_read(layer, rank, made, 0)
        if names is not None:
            return names
        if role_of(layer) not in ("input", "preprocessing", *_KEEP_AXES):
            return None
    return None


def _by_axis(layer: Any, rank: int, made: bool, position: int) -> Names | None:
    """Returns where a normalisation or a dense layer takes the channels to be."""
    del made
    role = role_of(layer)
    axis = getattr(layer, "axis", None) if role in ("normalisation", "preprocessing") else None
    if isinstance(axis, list | tuple):
        axis = axis[0] if len(axis) == 1 else None
    if role == "dense":
        axis = -1
    if isinstance(layer, keras.layers.Flatten):  # it flattens channels-last by itself
        axis = 1 if layer.data_format == "channels_first" and rank > 3 else None
    if not isinstance(axis, int) or position or not -rank < axis < rank or axis == 0:
        return None
    names: list[str | None] = [BATCH, *([None] * (rank - 1))]
    names[axis] = CHANNEL
    return names


def _pooled_whole(layer: Any, rank: int, made: bool, position: int) -> Names | None:
    """Returns the axes that a global pooling expects, which counts where nothing else is known.

    Models that attend to a series take its mean over the features by `channels_first`.
    """
    if isinstance(layer, keras.layers.TimeDistributed):
        inner = _pooled_whole(layer.layer, rank - 1, made, position)
        return None if inner is None else (BATCH, TIME, *inner[1:])
    if not isinstance(layer, _GLOBAL_POOLING):
        return None
    return _image(rank - 1, _data_format(layer, role_of(layer), rank))


def _axes_kept(layer: Any, read: Any, made: Any) -> int:
    """Returns how many axes, from the left, a layer hands on as they are."""
    if read.shape.rank != made.shape.rank:
        return 0
    role = role_of(layer)
    if role == "dense":
        return int(made.shape.rank) - 1
    return int(made.shape.rank) if role in _KEEP_AXES else 0
