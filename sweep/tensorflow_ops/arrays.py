"""Rows of operations that move, pick, count and reduce."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from sweep.tensorflow_ops.row import BATCH, FIXED, OPEN, Row
from sweep.tensorflow_ops.samples import floats, normal, ties, whole

_raw = tf.raw_ops
_SOME_IDS = {"ids": (np.array([[0, 1, -1], [4, 5, -5], [2, 127, 3]], np.int32),)}
_SORTED = tf.constant([0, 0, 1, 3])
_UNSORTED = tf.constant([2, 0, 2, -1])


def rows() -> Iterator[Row]:
    """Yields the rows."""
    yield from _shapes()
    yield from _moves()
    yield from _slices()
    yield from _picks()
    yield from _scatters()
    yield from _positions()
    yield from _reductions()
    yield from _running()
    yield from _segments()
    yield from _blocks()


def _plain(
    op: str, cases: dict[str, Callable[..., Any]], samples: Any, **given: Any
) -> Iterator[Row]:
    for case, function in cases.items():
        yield Row(op, case, function, samples, **given)


def _shapes() -> Iterator[Row]:
    cube = normal((4, 3, 5))
    yield from _plain(
        "Reshape",
        {
            "-1 first": lambda x: tf.reshape(x, [-1, 5]),
            "-1 last": lambda x: tf.reshape(x, [tf.shape(x)[0], -1]),
            "sizes turned": lambda x: tf.reshape(x, tf.gather(tf.shape(x), [2, 1, 0])),
            "a scalar": lambda x: tf.reshape(tf.reduce_sum(x), []),
            "split an axis": lambda x: tf.reshape(x, [-1, 3, 5, 1]),
            "to the product of two sizes": lambda x: tf.reshape(x, [tf.shape(x)[0] * 3, 5]),
        },
        cube,
        forms=(FIXED, BATCH),
    )
    yield from _plain(
        "Transpose",
        {
            "plain": tf.transpose,
            "perm": lambda x: tf.transpose(x, [1, 0, 2]),
            "negative": lambda x: tf.transpose(x, [-1, 0, 1]),
            "conjugate": lambda x: tf.transpose(x, conjugate=True),
        },
        cube,
    )
    yield Row("ExpandDims", "-1", lambda x: tf.expand_dims(x, -1), cube)
    yield Row("ExpandDims", "-2", lambda x: tf.expand_dims(x, -2), cube)
    yield Row("ExpandDims", "0", lambda x: tf.expand_dims(x, 0), cube)
    yield Row("Squeeze", "an axis", lambda x: tf.squeeze(x[:, :1], 1), cube)
    yield Row("Squeeze", "a negative axis", lambda x: tf.squeeze(x[..., :1], -1), cube)
    yield Row("Squeeze", "two", lambda x: tf.squeeze(x[:, :1, :1], [1, -1]), cube)
    yield Row("Squeeze", "all", lambda x: tf.squeeze(x[:, :1, :1]), cube, forms=(FIXED,))
    yield from _plain(
        "ConcatV2",
        {
            "0": lambda x: tf.concat([x, x * 2], 0),
            "-1": lambda x: tf.concat([x, x[..., :1]], -1),
            "with a constant": lambda x: tf.concat([x, tf.ones_like(x[:, :1])], 1),
        },
        cube,
    )
    yield Row("Concat", "", lambda x: _raw.Concat(concat_dim=1, values=[x, x]), cube)
    yield Row("ConcatV2", "integers", lambda x: tf.concat([x, x], -1), whole(np.int64))
    yield from _plain(
        "Pack",
        {
            "0": lambda x: tf.stack([x, -x]),
            "-1": lambda x: tf.stack([x, -x], -1),
            "1": lambda x: tf.stack([x, -x], 1),
        },
        cube,
    )
    yield Row("Unpack", "1", lambda x: tf.unstack(x, axis=1), cube, forms=(FIXED, BATCH))
    yield Row("Unpack", "-1", lambda x: tf.unstack(x, axis=-1), cube, forms=(FIXED, BATCH))
    yield Row("Split", "equal", lambda x: tf.split(x[..., :4], 2, -1), cube)
    yield Row("SplitV", "sizes", lambda x: tf.split(x, [1, 4], -1), cube, forms=(FIXED, BATCH))
    yield Row("SplitV", "-1", lambda x: tf.split(x, [1, -1, 2], -1), cube, forms=(FIXED, BATCH))
    yield Row("Tile", "", lambda x: tf.tile(x, [2, 1, 3]), cube)
    yield Row("Tile", "to the batch", lambda x: tf.tile(x[:1], [tf.shape(x)[0], 1, 1]), cube)
    yield Row("Tile", "integers", lambda x: tf.tile(x, [1, 2]), whole())
    yield Row("BroadcastTo", "", lambda x: tf.broadcast_to(x[:, :1], tf.shape(x)), cube)
    yield Row(
        "BroadcastTo", "more axes", lambda x: tf.broadcast_to(x, [2, 4, 3, 5]), cube, forms=(FIXED,)
    )
    yield Row("BroadcastTo", "booleans", lambda x: tf.broadcast_to(x[:, :1] > 0, tf.shape(x)), cube)
    yield Row(
        "BroadcastArgs",
        "",
        lambda x: tf.broadcast_to(x[:, :1], tf.broadcast_dynamic_shape(tf.shape(x), [1, 3, 1])),
        cube,
        forms=(BATCH,),
    )
    yield Row("Shape", "", tf.shape, cube, forms=(BATCH, OPEN))
    yield Row("Shape", "int64", lambda x: tf.shape(x, out_type=tf.int64), cube, forms=(BATCH, OPEN))
    yield Row("ShapeN", "", lambda x: tf.shape_n([x, x[:1]]), cube)
    yield Row("Size", "", tf.size, cube, forms=(BATCH,))
    yield Row("Rank", "", lambda x: _raw.Rank(input=x), cube)
    yield Row("Fill", "", lambda x: tf.fill([tf.shape(x)[0], 2], 0.5), cube, forms=(BATCH,))
    yield Row("Fill", "computed", lambda x: tf.fill(tf.shape(x), x[0, 0, 0]), cube, forms=(BATCH,))
    yield Row("ZerosLike", "", lambda x: _raw.ZerosLike(x=x) + 1, floats())
    yield Row("OnesLike", "", lambda x: _raw.OnesLike(x=x), floats())
    yield Row("OnesLike", "booleans", lambda x: _raw.OnesLike(x=x > 0), floats())
    yield Row(
        "Range",
        "",
        lambda x: tf.range(tf.shape(x)[1]) * tf.shape(x)[0],
        cube,
        forms=(BATCH, OPEN),
    )
    yield Row("Range", "down", lambda x: tf.range(tf.shape(x)[0], -3, -2), cube, forms=(BATCH,))
    yield Row(
        "Range",
        "floats",
        lambda x: tf.range(0.0, tf.cast(tf.shape(x)[0], tf.float32), 0.5),
        cube,
        forms=(BATCH,),
    )
    yield Row(
        "LinSpace", "", lambda x: _raw.LinSpace(start=x[0, 0, 0], stop=x[0, 0, 1], num=7), cube
    )
    yield Row("Identity", "", tf.identity, cube)
    yield Row("IdentityN", "", lambda x: tf.identity_n([x, x + 1]), cube)
    yield Row(
        "EnsureShape", "", lambda x: tf.ensure_shape(x, [None, 3, 5]), cube, forms=(FIXED, BATCH)
    )
    yield Row("StopGradient", "", tf.stop_gradient, cube)
    yield Row("PreventGradient", "", lambda x: _raw.PreventGradient(input=x), cube)
    yield Row("CheckNumerics", "", lambda x: tf.debugging.check_numerics(x, ""), cube)


def _moves() -> Iterator[Row]:
    cube = normal((4, 3, 5))
    yield Row("Roll", "", lambda x: tf.roll(x, 2, 1), cube)
    yield Row("Roll", "negative shift", lambda x: tf.roll(x, -1, -1), cube)
    yield Row("Roll", "far", lambda x: tf.roll(x, -17, 1), cube)
    yield Row("Roll", "two axes", lambda x: tf.roll(x, [1, -2], [0, 2]), cube)
    yield Row("ReverseV2", "", lambda x: tf.reverse(x, [1]), cube)
    yield Row("ReverseV2", "two axes", lambda x: tf.reverse(x, [0, -1]), cube)
    yield Row("ReverseV2", "integers", lambda x: tf.reverse(x, [-1]), whole())
    yield Row("ReverseV2", "booleans", lambda x: tf.reverse(x > 0, [0]), whole())
    for case, axes in (("", (1, 0)), ("batch behind", (0, 1))):
        lengths = [1, 3, 2, 0] if axes == (1, 0) else [4, 0, 2]
        yield Row(
            "ReverseSequence",
            case,
            lambda x, n=lengths, a=axes: tf.reverse_sequence(x, n, seq_axis=a[0], batch_axis=a[1]),
            cube,
            forms=(FIXED,),
        )
    for case, pads, value in (
        ("", [[0, 0], [1, 2], [0, 3]], 0.0),
        ("with a value", [[0, 0], [1, 0], [2, 0]], -1.5),
        ("the batch", [[1, 0], [0, 0], [0, 0]], 0.0),
    ):
        op = "PadV2" if value else "Pad"
        yield Row(op, case, lambda x, p=pads, v=value: tf.pad(x, p, constant_values=v), cube)
    yield Row("Pad", "integers", lambda x: tf.pad(x, [[0, 0], [2, 1]]), whole())
    yield Row("Pad", "booleans", lambda x: tf.pad(x > 0, [[0, 0], [2, 1]]), whole())
    yield Row("Pad", "int64 widths", lambda x: tf.pad(x, np.array([[0, 0], [2, 1]])), floats())
    for mode in ("REFLECT", "SYMMETRIC"):
        yield Row(
            "MirrorPad",
            mode.lower(),
            lambda x, m=mode: tf.pad(x, [[0, 0], [1, 2], [2, 1]], mode=m),
            normal((4, 5, 6)),
        )
        yield Row(
            "MirrorPad",
            f"{mode.lower()}, whole",
            lambda x, m=mode: tf.pad(x, [[0, 0], [2, 2]], mode=m),
            normal((2, 3)),
        )


def _slices() -> Iterator[Row]:
    cube = normal((4, 5, 6))
    yield from _plain(
        "StridedSlice",
        {
            "a step": lambda x: x[:, ::2],
            "backwards": lambda x: x[:, ::-1],
            "backwards by 2": lambda x: x[:, -1:0:-2],
            "from behind": lambda x: x[:, -3:-1],
            "one": lambda x: x[:, -1],
            "one of the first": lambda x: x[0],
            "a new axis": lambda x: x[:, None, 1:],
            "an ellipsis": lambda x: x[..., 2:5],
            "an ellipsis and one": lambda x: x[..., -1, 1:],
            "nothing": lambda x: x[:, 3:3],
            "too far": lambda x: x[:, 2:99],
            "computed": lambda x: x[:, tf.shape(x)[0] - 3 :],
            "one computed": lambda x: x[:, tf.shape(x)[0] - 3],
            "all of it": lambda x: x[:, :, ::-1][::-1],
            "from behind, backwards": lambda x: x[:, :-3:-1],
        },
        cube,
    )
    yield Row("StridedSlice", "integers", lambda x: x[:, 1::2], whole(np.int64))
    yield Row("StridedSlice", "booleans", lambda x: (x > 0)[:, 1::2], whole())
    yield Row("StridedSlice", "uint8", lambda x: x[:, ::-1], whole(np.uint8))
    yield Row("Slice", "", lambda x: tf.slice(x, [0, 1, 2], [-1, 3, -1]), cube)
    yield Row("Slice", "computed", lambda x: tf.slice(x, [0, 1, 2], [tf.shape(x)[0], 3, 2]), cube)
    yield Row(
        "Slice",
        "start computed",
        lambda x: tf.slice(x, [0, tf.shape(x)[0] // 4, 0], [-1, 2, 3]),
        cube,
    )


def _picks() -> Iterator[Row]:
    cube = normal((4, 5, 6))
    ids = (np.array([[0, 4, 2], [1, 1, 3], [4, 0, 0], [2, 3, 1]], np.int32),)
    both = {"drawn": (*cube["drawn"], *ids)}
    yield Row(
        "GatherV2", "axis 1", lambda x: tf.gather(x, [4, 0, 0], axis=1), cube, forms=(FIXED, BATCH)
    )
    yield Row(
        "GatherV2", "axis -1", lambda x: tf.gather(x, [5, 0], axis=-1), cube, forms=(FIXED, BATCH)
    )
    yield Row("GatherV2", "one", lambda x: tf.gather(x, 2, axis=1), cube)
    yield Row("GatherV2", "matrix of ids", lambda x, i: tf.gather(x, i, axis=1), both)
    yield Row(
        "GatherV2",
        "a table",
        lambda x, i: tf.gather(tf.constant(np.eye(5, 7, dtype=np.float32)), i) + x[:, :1, :1],
        both,
    )
    yield Row("GatherV2", "batch_dims", lambda x, i: tf.gather(x, i, axis=1, batch_dims=1), both)
    yield Row(
        "GatherV2",
        "batch_dims, last axis",
        lambda x, i: tf.gather(x, i, axis=2, batch_dims=1),
        both,
    )
    yield Row(
        "GatherV2",
        "batch_dims, vector",
        lambda x, i: tf.gather(x, i[:, 0], axis=1, batch_dims=1),
        both,
    )
    yield Row(
        "GatherV2",
        "int64",
        lambda x, i: tf.gather(x, tf.cast(i, tf.int64), axis=1, batch_dims=1),
        both,
    )
    yield Row(
        "GatherV2",
        "integers",
        lambda x: tf.gather(x, [3, 0], axis=1),
        whole(np.int64),
        forms=(FIXED, BATCH),
    )
    yield Row(
        "GatherV2",
        "booleans",
        lambda x: tf.gather(x > 0, [3, 0], axis=1),
        whole(),
        forms=(FIXED, BATCH),
    )
    yield Row(
        "GatherV2",
        "keras.ops.take, negative",
        lambda x: keras.ops.take(x, [-1, 0, -3], axis=1),
        cube,
        forms=(FIXED, BATCH),
    )
    yield Row(
        "GatherV2",
        "keras.ops.take, flat",
        lambda x: keras.ops.take(x, [-1, 0, 7]),
        cube,
        forms=(FIXED, BATCH),
    )
    yield Row(
        "GatherV2",
        "keras.ops.take_along_axis",
        lambda x, i: keras.ops.take_along_axis(x, i[:, :, None], axis=1),
        both,
    )
    yield Row(
        "Gather", "", lambda x: _raw.Gather(params=x, indices=[2, 0, 0]), cube, forms=(FIXED,)
    )
    yield Row("ResourceGather", reason="a variable is a constant by the time of the conversion")
    yield Row("GatherNd", "", lambda x: tf.gather_nd(x, [[0, 1], [3, 4]]), cube, forms=(FIXED,))
    yield Row("GatherNd", "batch_dims", lambda x, i: tf.gather_nd(x, i[:, :1], batch_dims=1), both)
    yield Row("GatherNd", "rows", lambda x, i: tf.gather_nd(x, i[:, :1] % 4), both, forms=(FIXED,))
    yield Row("Where", "boolean_mask", lambda x: tf.boolean_mask(x, x[:, 0, 0] > 0), cube)


def _scatters() -> Iterator[Row]:
    ids = [[1], [3], [1]]
    rows = normal((3, 4))
    for kind in (np.float32, np.int32):
        given = rows if kind == np.float32 else {"i": ((rows["drawn"][0] * 9).astype(kind),)}
        name = np.dtype(kind).name
        yield Row(
            "ScatterNd",
            f"repeated, {name}",
            lambda x: tf.scatter_nd(ids, x, [5, 4]),
            given,
            forms=(FIXED,),
        )
        for op in ("Add", "Sub", "Max", "Min"):
            f = getattr(tf, f"tensor_scatter_nd_{op.lower()}")
            yield Row(
                f"TensorScatter{op}",
                f"repeated, {name}",
                lambda x, f=f: f(tf.cast(tf.ones((5, 4)), x.dtype), ids, x),
                given,
                forms=(FIXED,),
            )
        yield Row(
            "TensorScatterUpdate",
            name,
            lambda x: tf.tensor_scatter_nd_update(
                tf.cast(tf.ones((5, 4)), x.dtype), [[1], [3], [0]], x
            ),
            given,
            forms=(FIXED,),
        )
    yield Row(
        "XlaDynamicUpdateSlice",
        "keras.ops.slice_update",
        lambda x: keras.ops.slice_update(x, [0, 1], x[:, :2] * 2),
        rows,
        forms=(FIXED,),
    )
    yield Row(
        "ScatterNd",
        "keras.ops.scatter",
        lambda x: keras.ops.scatter(np.array(ids), x, (5, 4)),
        rows,
        forms=(FIXED,),
    )
    yield Row(
        "TensorScatterUpdate",
        "keras.ops.scatter_update",
        lambda x: keras.ops.scatter_update(
            x, np.array([[0, 1], [2, 3]]), np.array([1.0, 2.0], np.float32)
        ),
        rows,
        forms=(FIXED,),
    )


def _extremes() -> Iterator[Row]:
    for kind in (np.float32, np.float64, np.int32, np.int64, np.uint8, np.float16):
        name = np.dtype(kind).name
        given = {**ties(kind), **whole(kind)}
        if np.dtype(kind).kind == "f":
            given |= floats(kind)
        elif kind == np.uint8:
            given = whole(kind)
        for op in ("ArgMax", "ArgMin"):
            f = getattr(tf, op.lower())
            for axis in (0, 1, -1):
                yield Row(op, f"{name}, axis {axis}", lambda x, f=f, a=axis: f(x, a), given)
            k = getattr(keras.ops, op.lower())
            for way in (None, -1):
                yield Row(
                    op, f"keras, {name}, axis {way}", lambda x, f=k, a=way: f(x, axis=a), given
                )
            yield Row(op, f"int32 of {name}", lambda x, f=f: f(x, 1, output_type=tf.int32), given)
        calm = {k: v for k, v in given.items() if k not in ("NaN",)}
        yield Row("TopKV2", name, lambda x: tf.math.top_k(x, 3), calm)
        yield Row("TopKV2", f"sort, {name}", lambda x: tf.sort(x, -1), calm)
        yield Row("TopKV2", f"sort down, {name}", lambda x: tf.sort(x, -1, "DESCENDING"), calm)
        yield Row("TopKV2", f"argsort, {name}", lambda x: keras.ops.argsort(x, -1), calm)
        yield Row(
            "TopKV2", f"sort, first axis, {name}", lambda x: tf.sort(x, 0), calm, forms=(FIXED,)
        )


def _positions() -> Iterator[Row]:
    yield from _extremes()
    large = {"large": (np.array([[2**24, 2**24 + 1, 2**24 + 3, -(2**31), 2**31 - 1]], np.int32),)}
    yield Row("TopKV2", "large integers", lambda x: tf.math.top_k(x, 5), large)
    yield Row("TopKV2", "large integers sorted", lambda x: tf.sort(x, -1), large)
    yield Row(
        "TopKV2",
        "a computed number",
        lambda x: tf.math.top_k(x, tf.shape(x)[0]),
        ties(),
        forms=(BATCH,),
    )
    yield Row("TopKV2", "of one", lambda x: tf.math.top_k(x[:, :1], 1), ties())
    for kind in (np.int32, np.int64, np.uint8, np.int8):
        ids = {"ids": (_SOME_IDS["ids"][0].astype(kind),)}
        yield Row("OneHot", np.dtype(kind).name, lambda i: tf.one_hot(i, 5), ids)
    for kind in (tf.int32, tf.int64, tf.float64, tf.float16, tf.uint8):
        yield Row(
            "OneHot", f"to {kind.name}", lambda i, t=kind: tf.one_hot(i, 5, dtype=t), _SOME_IDS
        )
    yield Row(
        "OneHot", "to bool", lambda i: tf.one_hot(i, 5, True, False, dtype=tf.bool), _SOME_IDS
    )
    for axis in (0, 1, 2, -1):
        yield Row(
            "OneHot",
            f"axis {axis}, values",
            lambda i, a=axis: tf.one_hot(i, 5, 3.0, -2.0, axis=a),
            _SOME_IDS,
        )
    yield Row("OneHot", "a computed depth", lambda i: tf.one_hot(i, tf.shape(i)[1] + 1), _SOME_IDS)
    yield Row(
        "OneHot",
        "computed values",
        lambda i: tf.one_hot(i, 5, tf.cast(i[0, 1], tf.float32) * 3, 0.5),
        _SOME_IDS,
    )
    yield Row("OneHot", "a scalar", lambda i: tf.one_hot(i[0, 1], 5), _SOME_IDS)
    yield Row("OneHot", "keras.ops.one_hot", lambda i: keras.ops.one_hot(i, 5), _SOME_IDS)
    yield Row("Bucketize", "", lambda x: keras.ops.digitize(x, [-1.0, 0.0, 0.5, 3.0]), floats())
    kinds: tuple[Any, ...] = (np.int32, np.int64, np.uint8, np.float64, np.float16)
    for number in kinds:
        given = floats(number) if np.dtype(number).kind == "f" else whole(number)
        yield Row(
            "Bucketize",
            np.dtype(number).name,
            lambda x: keras.ops.digitize(x, [-1.0, 0.0, 0.5, 3.0]),
            given,
        )
    row = tf.constant([-3.0, -1.0, 0.0, 0.0, 0.5, 0.5, 7.3])
    for side, op in (("left", "LowerBound"), ("right", "UpperBound")):
        yield Row(
            op, "keras", lambda x, s=side: keras.ops.searchsorted(row, x[:, 0], side=s), floats()
        )
        yield Row(op, "matrix", lambda x, s=side: tf.searchsorted(tf.sort(x), x, side=s), ties())
        yield Row(
            op,
            "int64",
            lambda x, s=side: tf.searchsorted(tf.sort(x), x, side=s, out_type=tf.int64),
            ties(np.int64),
        )
    yield Row(
        "InvertPermutation",
        "",
        tf.math.invert_permutation,
        {"p": (np.array([2, 0, 3, 1], np.int32),)},
        forms=(FIXED,),
    )
    for case, function in {
        "": lambda x: tf.unique(x[:, 0]),
        "counts": lambda x: tf.unique_with_counts(x[:, 0]),
    }.items():
        yield Row("UniqueWithCounts" if case else "Unique", case, function, whole())
        yield Row("UniqueWithCounts" if case else "Unique", f"{case} floats", function, ties())
    yield Row("UniqueV2", "", lambda x: _raw.UniqueV2(x=x[:, 0], axis=[0]), ties(np.int32))
    yield Row(
        "UniqueWithCountsV2",
        "",
        lambda x: _raw.UniqueWithCountsV2(x=x[:, 0], axis=[0]),
        ties(np.int32),
    )
    yield Row("ListDiff", "", lambda x: _raw.ListDiff(x=x[:, 0], y=x[:, 1]), whole())
    counted = {"c": (np.array([[0, 3, 3], [1, 0, 5]], np.int32),)}
    yield Row(
        "DenseBincount",
        "",
        lambda x: tf.math.bincount(x, minlength=7, maxlength=7, axis=-1),
        counted,
    )
    yield Row(
        "DenseBincount",
        "flat",
        lambda x: tf.math.bincount(tf.reshape(x, [-1]), minlength=7, maxlength=7, axis=0),
        counted,
    )
    yield Row(
        "DenseBincount", "keras.ops.bincount", lambda x: keras.ops.bincount(x, minlength=7), counted
    )
    yield Row(
        "Bincount",
        "",
        lambda x: _raw.Bincount(arr=x, size=7, weights=tf.constant([], tf.int32)),
        counted,
    )
    yield Row(
        "Bincount",
        "weights",
        lambda x: _raw.Bincount(arr=x, size=7, weights=tf.cast(x, tf.float32) / 2),
        counted,
    )
    yield Row(
        "InTopKV2",
        "",
        lambda x: tf.math.in_top_k(tf.constant([0, 1, 2, 3]), x, 2),
        ties(),
        forms=(FIXED,),
    )


def _reductions() -> Iterator[Row]:
    names = {
        "Sum": tf.reduce_sum,
        "Mean": tf.reduce_mean,
        "Max": tf.reduce_max,
        "Min": tf.reduce_min,
        "Prod": tf.reduce_prod,
    }
    for op, f in names.items():
        for axis in (None, 0, -1, [0, 1], [-1]):
            for keep in (False, True):
                case = f"axis {axis}, keepdims {keep}"
                yield Row(op, case, lambda x, f=f, a=axis, k=keep: f(x, a, keepdims=k), floats())
        yield Row(op, "no axis", lambda x, f=f: f(x, []), floats())
        yield Row(op, "an axis of 1", lambda x, f=f: f(x[:, :1], 1), floats())
        yield Row(op, "inner of four", lambda x, f=f: f(x, [1, 2]), normal((2, 3, 4, 5)))
        for kind in (np.int32, np.int64, np.float16, np.float64, np.uint8, np.int8):
            given = whole(kind)
            if np.dtype(kind).kind == "f":
                given = {"f": (np.linspace(-2, 2, 20).reshape(4, 5).astype(kind),)}
            yield Row(
                op,
                np.dtype(kind).name,
                lambda x, f=f: f(x % 5 if x.dtype.is_integer else x, 1),
                given,
            )
    for op in ("Max", "Min", "Sum", "Mean", "Prod"):
        known = {"drawn": "onnxruntime's mean of no elements is 0"} if op == "Mean" else {}
        f, given = names[op], normal((4, 5))
        yield Row(op, "of nothing", lambda x, f=f: f(x[:, 3:3], 1), given, known=known)
    yield Row(
        "EuclideanNorm", "", lambda x: tf.math.reduce_euclidean_norm(x, -1), floats(wild=False)
    )
    yield Row("Sum", "count_nonzero", lambda x: tf.math.count_nonzero(x, 1), whole())
    yield Row("Mean", "global pooling", lambda x: tf.reduce_mean(x, [1, 2]), normal((2, 4, 5, 3)))
    yield Row("Mean", "variance", lambda x: tf.math.reduce_variance(x, 1), normal((4, 5)))
    yield Row("Sqrt", "std", lambda x: tf.math.reduce_std(x, 1), normal((4, 5)))


def _running() -> Iterator[Row]:
    for kind in (np.float32, np.int32, np.int64, np.float64, np.float16):
        given = whole(kind)
        for op, f in (("Cumsum", tf.cumsum), ("Cumprod", tf.math.cumprod)):
            small = {"s": (given["integers"][0] % 3 - 1,)} if op == "Cumprod" else given
            small = {"s": (small["s"][0].astype(kind),)} if op == "Cumprod" else small
            for exclusive in (False, True):
                for reverse in (False, True):
                    yield Row(
                        op,
                        f"{np.dtype(kind).name}, exclusive {exclusive}, reverse {reverse}",
                        lambda x, f=f, e=exclusive, r=reverse: f(x, 1, exclusive=e, reverse=r),
                        small,
                    )
    for op, f in (("Cumsum", tf.cumsum), ("Cumprod", tf.math.cumprod)):
        yield Row(op, "axis -1 of three", lambda x, f=f: f(x, -1), normal((2, 3, 4)))
        yield Row(op, "axis 0", lambda x, f=f: f(x, 0), normal((4, 3)))
        yield Row(op, "one step", lambda x, f=f: f(x[:, :1], 1), normal((4, 3)))
        yield Row(
            op, "one step, exclusive", lambda x, f=f: f(x[:, :1], 1, exclusive=True), normal((4, 3))
        )
        yield Row(op, "infinite", lambda x, f=f: f(x, 1), floats())
    yield Row(
        "CumulativeLogsumexp", "", lambda x: tf.math.cumulative_logsumexp(x, 1), normal((4, 3))
    )


def _segments() -> Iterator[Row]:
    given = normal((4, 3))
    for op in ("Sum", "Mean", "Prod", "Max", "Min"):
        f = getattr(tf.math, f"segment_{op.lower()}")
        yield Row(f"Segment{op}", "a gap", lambda x, f=f: f(x, _SORTED), given, forms=(FIXED,))
        g = getattr(tf.math, f"unsorted_segment_{op.lower()}")
        if op != "Mean":
            yield Row(
                f"UnsortedSegment{op}",
                "negative ids",
                lambda x, f=g: f(x, _UNSORTED, 4),
                given,
                forms=(FIXED,),
            )
            yield Row(
                f"UnsortedSegment{op}",
                "plain",
                lambda x, f=g: f(x, [1, 0, 1, 1], 3),
                given,
                forms=(FIXED,),
            )
            whole_numbers = {"w": ((given["drawn"][0] * 5).astype(np.int32),)}
            yield Row(
                f"UnsortedSegment{op}",
                "int32",
                lambda x, f=g: f(x, [1, 0, 1, 1], 3),
                whole_numbers,
                forms=(FIXED,),
            )
    for op in ("Sum", "Mean", "SqrtN"):
        name = {"SqrtN": "sqrt_n"}.get(op, op.lower())
        f = getattr(tf.sparse, f"segment_{name}")
        yield Row(
            f"SparseSegment{op}",
            "",
            lambda x, f=f: f(x, [3, 0, 0], [0, 0, 1]),
            given,
            forms=(FIXED,),
        )
        yield Row(
            f"SparseSegment{op}WithNumSegments",
            "",
            lambda x, f=f: f(x, [3, 0, 0], [0, 0, 2], num_segments=4),
            given,
            forms=(FIXED,),
        )
    yield Row(
        "DynamicPartition",
        "",
        lambda x: tf.dynamic_partition(x, [0, 1, 1, 0], 2),
        given,
        forms=(FIXED,),
    )
    yield Row(
        "DynamicStitch",
        "",
        lambda x: tf.dynamic_stitch([[0, 2], [1, 3]], [x[:2], x[2:]]),
        given,
        forms=(FIXED,),
    )
    yield Row(
        "ParallelDynamicStitch",
        "",
        lambda x: _raw.ParallelDynamicStitch(indices=[[0, 2], [1, 3]], data=[x[:2], x[2:]]),
        given,
        forms=(FIXED,),
    )


def _blocks() -> Iterator[Row]:
    image = normal((2, 4, 6, 8))
    yield Row("SpaceToDepth", "", lambda x: tf.nn.space_to_depth(x, 2), image, forms=(FIXED, BATCH))
    yield Row("DepthToSpace", "", lambda x: tf.nn.depth_to_space(x, 2), image)
    yield Row("SpaceToBatchND", "", lambda x: tf.space_to_batch(x, [2, 3], [[0, 0], [0, 0]]), image)
    yield Row(
        "SpaceToBatchND", "padded", lambda x: tf.space_to_batch(x, [2, 2], [[1, 1], [0, 2]]), image
    )
    yield Row(
        "BatchToSpaceND",
        "",
        lambda x: tf.batch_to_space(tf.concat([x, x], 0), [2, 2], [[0, 1], [1, 0]]),
        image,
        forms=(FIXED,),
    )
    vector, square = normal((3, 4)), normal((2, 3, 4))
    for k in (0, 1, -2):
        yield Row("MatrixDiagV3", f"k={k}", lambda x, k=k: tf.linalg.diag(x, k=k), vector)
        yield Row("MatrixDiagPartV3", f"k={k}", lambda x, k=k: tf.linalg.diag_part(x, k=k), square)
    yield Row("MatrixDiag", "", lambda x: _raw.MatrixDiag(diagonal=x), vector)
    yield Row(
        "MatrixDiagV2",
        "",
        lambda x: _raw.MatrixDiagV2(diagonal=x, k=1, num_rows=-1, num_cols=-1, padding_value=0.5),
        vector,
    )
    yield Row("MatrixDiagPart", "", lambda x: _raw.MatrixDiagPart(input=x), normal((2, 3, 3)))
    yield Row(
        "MatrixDiagPartV2",
        "",
        lambda x: _raw.MatrixDiagPartV2(input=x, k=1, padding_value=0.0),
        square,
    )
    yield Row("MatrixDiagPartV3", "two", lambda x: tf.linalg.diag_part(x, k=(-1, 1)), square)
    yield Row("MatrixSetDiagV3", "", lambda x: tf.linalg.set_diag(x, x[..., 0, :3] * 2), square)
    for low, high in ((0, -1), (-1, 0), (1, 2), (0, 0), (-1, -1)):
        yield Row(
            "MatrixBandPart",
            f"{low}, {high}",
            lambda x, a=low, b=high: tf.linalg.band_part(x, a, b),
            square,
        )
    yield Row(
        "MatrixBandPart",
        "a causal mask",
        lambda x: tf.linalg.band_part(tf.ones((tf.shape(x)[1], tf.shape(x)[1])), -1, 0),
        square,
    )
    yield Row(
        "MatrixBandPart", "infinite", lambda x: tf.linalg.band_part(1 / (x * 0), -1, 0), square
    )
    yield Row("MatrixDiagV3", "tf.eye", lambda x: tf.eye(tf.shape(x)[1]), square)
    yield Row("MatrixSetDiagV3", "tf.eye, wide", lambda x: tf.eye(tf.shape(x)[1], 7), square)
