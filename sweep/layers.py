"""Every class in `keras.layers`: models with it, or why there is none."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping
from typing import Any

import keras
import numpy as np
from keras import layers as kl

from sweep.subject import IMAGE, SERIES, VECTOR, VOLUME, Subject, absent, around

Make = Callable[..., Any]
Variants = dict[str, Callable[[], Any]]

_TEXT = "takes strings, which no ONNX runtime preprocesses as Keras does"
_LOOKUP = "looks up or counts: its output is whole numbers, which have no gradient"
_CELL = "one step of a recurrent layer, swept inside RNN"
_OTHER = "wraps a model of another framework or format, which Keras cannot show"

#: Classes around which no model is built, and why.
REASONS: Mapping[str, str] = {
    "Layer": "the base class of all layers",
    "Wrapper": "the base class of wrappers",
    "InputLayer": "an input, swept with every model",
    "InputSpec": "no layer but a description of an input",
    "CategoryEncoding": _LOOKUP,
    "Discretization": _LOOKUP,
    "HashedCrossing": _TEXT,
    "Hashing": _TEXT,
    "IntegerLookup": _LOOKUP,
    "StringLookup": _TEXT,
    "TextVectorization": _TEXT,
    "MaxNumBoundingBoxes": "takes bounding boxes beside images, and prepares data sets",
    "FlaxLayer": _OTHER,
    "JaxLayer": _OTHER,
    "TFSMLayer": _OTHER,
    "TorchModuleWrapper": _OTHER,
    "LSTMCell": _CELL,
    "GRUCell": _CELL,
    "SimpleRNNCell": _CELL,
}


def subjects() -> list[Subject]:
    """Returns the rows of `keras.layers`, by class in alphabetical order."""
    rows: list[Subject] = []
    first: dict[type, str] = {}
    for name, cls in public_classes().items():
        if cls in first or (cls.__name__ != name and cls.__name__ in public_classes()):
            rows.append(absent(name, f"another name of {cls.__name__}"))
            continue
        first[cls] = name
        if name in REASONS:
            rows.append(absent(name, REASONS[name]))
            continue
        variants = VARIANTS.get(name)
        if variants is None:
            variants = _by_configuration(cls)
        rows += [
            Subject(f"{name}: {label}" if label else name, build)
            for label, build in variants.items()
        ]
    return rows


def public_classes() -> dict[str, type]:
    """Returns the classes of `keras.layers` by public name."""
    found = {n: getattr(kl, n) for n in dir(kl) if not n.startswith("_")}
    return {name: item for name, item in found.items() if inspect.isclass(item)}


def _by_configuration(cls: type) -> Variants:
    """A class that came with a newer Keras: tried as it comes, on an image."""
    return {"": lambda: around(cls(), IMAGE)}


def _layer(cls: Any, *shapes: tuple[int | None, ...], **given: Any) -> Callable[[], Any]:
    """Returns what builds a model around one layer; several inputs go in as a list."""

    def make(*inputs: Any) -> Any:
        layer = cls(**given)
        return layer(list(inputs)) if len(inputs) > 1 else layer(inputs[0])

    return lambda: around(make, *shapes)


def _configured(
    cls: Any, shape: tuple[int | None, ...], variants: Mapping[str, Mapping[str, Any]], **base: Any
) -> Variants:
    return {label: _layer(cls, shape, **{**base, **given}) for label, given in variants.items()}


def _model(make: Make, *shapes: tuple[int | None, ...], **kinds: Any) -> Callable[[], Any]:
    return functools.partial(around, make, *shapes, **kinds)


# -- convolutions and pooling ------------------------------------------------------------------

_CONVOLUTIONS: Mapping[str, Mapping[str, Any]] = {
    "valid": {},
    "same": {"padding": "same"},
    "stride 2": {"strides": 2},
    "same, stride 2": {"padding": "same", "strides": 2},
    "same, even kernel": {"padding": "same", "kernel_size": 2},
    "stride over kernel": {"kernel_size": 2, "strides": 3},
    "same, stride over kernel": {"kernel_size": 2, "strides": 3, "padding": "same"},
    "dilation 2": {"dilation_rate": 2},
    "same, dilation 2": {"dilation_rate": 2, "padding": "same"},
    "1x1, no bias": {"kernel_size": 1, "use_bias": False},
}
_GROUPS: Mapping[str, Mapping[str, Any]] = {
    "groups": {"groups": 2},
    "groups, same, stride 2": {"groups": 2, "padding": "same", "strides": 2},
}
_POOLS: Mapping[str, Mapping[str, Any]] = {
    "valid": {},
    "same": {"padding": "same"},
    "overlapping": {"pool_size": 3, "strides": 2},
    "overlapping, same": {"pool_size": 3, "strides": 2, "padding": "same"},
    "stride 1, same": {"pool_size": 3, "strides": 1, "padding": "same"},
    "stride over pool": {"pool_size": 2, "strides": 3},
}
_SERIES, _IMAGE, _VOLUME = (11, 4), (9, 7, 4), (6, 7, 5, 2)
_BY_RANK: Mapping[int, tuple[int | None, ...]] = {1: _SERIES, 2: _IMAGE, 3: _VOLUME}


def _convolutions() -> dict[str, Variants]:
    found: dict[str, Variants] = {}
    base = {"filters": 6, "kernel_size": 3}
    for rank, shape in _BY_RANK.items():
        plain = getattr(kl, f"Conv{rank}D")
        found[f"Conv{rank}D"] = _configured(plain, shape, {**_CONVOLUTIONS, **_GROUPS}, **base)
        transposed = getattr(kl, f"Conv{rank}DTranspose")
        found[f"Conv{rank}DTranspose"] = _configured(transposed, shape, _CONVOLUTIONS, **base)
    for rank in (1, 2):
        shape = _BY_RANK[rank]
        separable = getattr(kl, f"SeparableConv{rank}D")
        found[f"SeparableConv{rank}D"] = _configured(
            separable, shape, {**_CONVOLUTIONS, "depth 2": {"depth_multiplier": 2}}, **base
        )
        depthwise = getattr(kl, f"DepthwiseConv{rank}D")
        found[f"DepthwiseConv{rank}D"] = _configured(
            depthwise, shape, {**_CONVOLUTIONS, "depth 2": {"depth_multiplier": 2}}, kernel_size=3
        )
    causal = {"causal": {"padding": "causal"}}
    found["Conv1D"] |= _configured(
        kl.Conv1D,
        _SERIES,
        {**causal, "causal, dilation 2": {"padding": "causal", "dilation_rate": 2}},
        **base,
    )
    found["Conv1D"]["open time"] = _model(
        lambda x: kl.GlobalMaxPooling1D()(kl.Conv1D(**base, padding="same", strides=2)(x)),
        (None, 4),
    )
    found["Conv2D"] |= {
        "channels first": _layer(kl.Conv2D, (4, 9, 7), **base, data_format="channels_first"),
        "open height and width": _pooled(kl.Conv2D(**base, strides=2, padding="same")),
        "unequal": _layer(
            kl.Conv2D, _IMAGE, filters=5, kernel_size=(2, 3), strides=(3, 2), padding="same"
        ),
    }
    found["Conv2DTranspose"] |= {
        "open, stride over kernel": _pooled(
            kl.Conv2DTranspose(5, 2, strides=3, padding="same"),
        ),
        "output padding": _layer(
            kl.Conv2DTranspose, _IMAGE, **base, strides=2, output_padding=1, padding="same"
        ),
        "open height and width": _pooled(kl.Conv2DTranspose(**base, strides=2, padding="same")),
    }
    return found


def _pooled(layer: Any) -> Callable[[], Any]:
    """A layer on images of any size: a mean over the positions comes behind."""

    def make(x: Any) -> Any:
        return kl.GlobalAveragePooling2D()(kl.Activation("softsign")(layer(x)))

    return _model(make, (None, None, 4))


def _pools() -> dict[str, Variants]:
    found: dict[str, Variants] = {}
    for rank, shape in _BY_RANK.items():
        for kind in ("Average", "Max"):
            name = f"{kind}Pooling{rank}D"
            found[name] = _configured(getattr(kl, name), shape, _POOLS, pool_size=2)
            name = f"Global{kind}Pooling{rank}D"
            keep = {"": {}, "keepdims": {"keepdims": True}}
            found[name] = _configured(getattr(kl, name), shape, keep)
            name = f"Adaptive{kind}Pooling{rank}D"
            even: Any = {1: 11, 2: (3, 7), 3: (3, 7, 5)}[rank]
            sizes: Mapping[str, Mapping[str, Any]] = {
                "even": {"output_size": even},
                "uneven": {"output_size": 4},
            }
            found[name] = _configured(getattr(kl, name), shape, sizes)
    found["MaxPooling2D"] |= {
        "channels first": _layer(kl.MaxPooling2D, (4, 9, 7), data_format="channels_first"),
        "open height and width": _pooled(kl.MaxPooling2D(3, 2, padding="same")),
    }
    found["AveragePooling2D"] |= {
        "open height and width": _pooled(kl.AveragePooling2D(3, 2, padding="same"))
    }
    return found


def _resampling() -> dict[str, Variants]:
    ways = ("nearest", "bilinear", "bicubic", "lanczos3", "lanczos5")
    resizing: Variants = {}
    for way in ways:
        for label, height, width in (("up", 13, 17), ("down", 4, 5)):
            resizing[f"{way}, {label}"] = _layer(
                kl.Resizing, IMAGE, height=height, width=width, interpolation=way
            )
    resizing |= {
        "bilinear, down, antialias": _layer(kl.Resizing, IMAGE, height=4, width=5, antialias=True),
        "crop to aspect": _layer(kl.Resizing, IMAGE, height=6, width=8, crop_to_aspect_ratio=True),
        "pad to aspect": _layer(kl.Resizing, IMAGE, height=6, width=8, pad_to_aspect_ratio=True),
        "from open height and width": _pooled(kl.Resizing(6, 8)),
        "crop to aspect, open": _pooled(kl.Resizing(6, 8, crop_to_aspect_ratio=True)),
        "pad to aspect, open": _pooled(kl.Resizing(6, 8, pad_to_aspect_ratio=True)),
    }
    return {
        "UpSampling1D": {"": _layer(kl.UpSampling1D, SERIES, size=3)},
        "UpSampling2D": {
            way: _layer(kl.UpSampling2D, IMAGE, size=(2, 3), interpolation=way) for way in ways
        }
        | {"open height and width": _pooled(kl.UpSampling2D(2, interpolation="bilinear"))},
        "UpSampling3D": {"": _layer(kl.UpSampling3D, VOLUME, size=(1, 2, 3))},
        "Resizing": resizing,
        "CenterCrop": {"": _layer(kl.CenterCrop, IMAGE, height=4, width=5)},
        "ZeroPadding1D": {"": _layer(kl.ZeroPadding1D, SERIES, padding=(1, 2))},
        "ZeroPadding2D": {"": _layer(kl.ZeroPadding2D, IMAGE, padding=((1, 2), (0, 3)))},
        "ZeroPadding3D": {"": _layer(kl.ZeroPadding3D, VOLUME, padding=((1, 2), (0, 1), (2, 0)))},
        "Cropping1D": {"": _layer(kl.Cropping1D, SERIES, cropping=(1, 2))},
        "Cropping2D": {"": _layer(kl.Cropping2D, IMAGE, cropping=((1, 2), (0, 3)))},
        "Cropping3D": {"": _layer(kl.Cropping3D, VOLUME, cropping=((1, 2), (0, 1), (2, 0)))},
        "Rescaling": {"": _layer(kl.Rescaling, IMAGE, scale=0.3, offset=-0.2)},
    }


# -- recurrence --------------------------------------------------------------------------------


def _recurrence() -> dict[str, Variants]:
    common: Mapping[str, Mapping[str, Any]] = {
        "": {},
        "sequences": {"return_sequences": True},
        "sequences and states": {"return_sequences": True, "return_state": True},
        "backwards": {"go_backwards": True, "return_sequences": True},
        "unrolled": {"unroll": True},
        "no bias": {"use_bias": False},
        "other activations": {
            "activation": "softsign",
            "recurrent_activation": "hard_sigmoid",
        },
    }
    found: dict[str, Variants] = {}
    for cls in (kl.LSTM, kl.GRU, kl.SimpleRNN):
        variants = {
            label: {k: v for k, v in given.items() if _takes(cls, k)}
            for label, given in common.items()
        }
        rows = _configured(cls, SERIES, variants, units=4)
        rows["masked"] = _model(
            lambda x, cls=cls: cls(4, return_sequences=True)(kl.Masking()(x)),
            SERIES,
        )
        rows["initial state"] = _model(_with_initial_state(cls), SERIES, (4,))
        rows["open time"] = _model(lambda x, cls=cls: cls(4)(x), (None, 3))
        found[cls.__name__] = rows
    found["GRU"]["reset before"] = _layer(kl.GRU, SERIES, units=4, reset_after=False)
    for rank in (1, 2, 3):
        cls = getattr(kl, f"ConvLSTM{rank}D")
        shape = (3, *((5, 6, 4)[:rank]), 2)
        found[cls.__name__] = _configured(
            cls,
            shape,
            {"": {}, "sequences, same": {"return_sequences": True, "padding": "same"}},
            filters=3,
            kernel_size=2,
        )
    cells = {"LSTMCell": kl.LSTMCell, "GRUCell": kl.GRUCell, "SimpleRNNCell": kl.SimpleRNNCell}
    found["RNN"] = {
        name: _model(lambda x, cell=cell: kl.RNN(cell(4), return_sequences=True)(x), SERIES)
        for name, cell in cells.items()
    }
    found["StackedRNNCells"] = {
        "": _model(lambda x: kl.RNN(kl.StackedRNNCells([kl.LSTMCell(4), kl.GRUCell(3)]))(x), SERIES)
    }
    found["Bidirectional"] = {
        f"{cls.__name__}, {mode}": _model(
            lambda x, cls=cls, mode=mode: kl.Bidirectional(
                cls(4, return_sequences=True), merge_mode=mode
            )(x),
            SERIES,
        )
        for cls in (kl.LSTM, kl.GRU, kl.SimpleRNN)
        for mode in ("concat", "sum", "mul", "ave")
    }
    found["TimeDistributed"] = {
        "Dense": _model(lambda x: kl.TimeDistributed(kl.Dense(4))(x), SERIES),
        "Conv2D": _model(lambda x: kl.TimeDistributed(kl.Conv2D(4, 3))(x), (3, *IMAGE)),
        "LSTM": _model(lambda x: kl.TimeDistributed(kl.LSTM(4))(x), (3, *SERIES)),
    }
    return found


def _takes(cls: type, argument: str) -> bool:
    own = inspect.signature(cls).parameters
    return argument in own or argument in (
        "return_sequences",
        "return_state",
        "go_backwards",
        "unroll",
    )


def _with_initial_state(cls: Any) -> Make:
    def make(x: Any, state: Any) -> Any:
        states = [state, keras.ops.tanh(state)] if cls is kl.LSTM else state
        return cls(4)(x, initial_state=states)

    return make


# -- attention ---------------------------------------------------------------------------------


def _attention() -> dict[str, Variants]:
    def together(cls: Any, given: Mapping[str, Any], call: Mapping[str, Any]) -> Callable[[], Any]:
        return _model(lambda q, v: cls(**given)([q, v], **call), (5, 6), (7, 6))

    def apart(cls: Any, given: Mapping[str, Any], call: Mapping[str, Any]) -> Callable[[], Any]:
        return _model(lambda q, v: cls(**given)(q, v, **call), (5, 6), (7, 6))

    def padded(tokens: Any) -> Any:
        x = kl.Embedding(13, 6, mask_zero=True)(tokens)
        return kl.MultiHeadAttention(2, 3)(x, x)

    heads = {"num_heads": 2, "key_dim": 3}
    groups = {"head_dim": 4, "num_query_heads": 4, "num_key_value_heads": 2}
    return {
        "Attention": {
            "dot": together(kl.Attention, {}, {}),
            "dot, scaled": together(kl.Attention, {"use_scale": True}, {}),
            "concat": together(kl.Attention, {"score_mode": "concat"}, {}),
            "causal": together(kl.Attention, {}, {"use_causal_mask": True}),
        },
        "AdditiveAttention": {
            "": together(kl.AdditiveAttention, {}, {}),
            "causal": together(kl.AdditiveAttention, {}, {"use_causal_mask": True}),
        },
        "MultiHeadAttention": {
            "cross": apart(kl.MultiHeadAttention, heads, {}),
            "self": _model(lambda x: kl.MultiHeadAttention(**heads)(x, x), (7, 6)),
            "causal": _model(
                lambda x: kl.MultiHeadAttention(**heads)(x, x, use_causal_mask=True), (7, 6)
            ),
            "two axes": _model(
                lambda x: kl.MultiHeadAttention(**heads, attention_axes=(1, 2))(x, x), (4, 3, 6)
            ),
            "mask of tokens": _model(padded, (7,), dtype="int32"),
            "open time": _model(
                lambda x: kl.GlobalAveragePooling1D()(kl.MultiHeadAttention(**heads)(x, x)),
                (None, 6),
            ),
        },
        "GroupQueryAttention": {
            "cross": apart(kl.GroupQueryAttention, groups, {}),
            "causal": _model(
                lambda x: kl.GroupQueryAttention(**groups)(x, x, use_causal_mask=True), (7, 6)
            ),
            "gate": apart(kl.GroupQueryAttention, {**groups, "use_gate": True}, {}),
        },
    }


# -- all others --------------------------------------------------------------------------------


def _merging() -> dict[str, Variants]:
    found = {
        name: {
            "": _layer(getattr(kl, name), SERIES, SERIES, SERIES),
            "broadcast": _layer(getattr(kl, name), SERIES, (1, 3)),
        }
        for name in ("Add", "Average", "Maximum", "Minimum", "Multiply")
    }
    return {
        **found,
        "Subtract": {"": _layer(kl.Subtract, SERIES, SERIES)},
        "Concatenate": {
            "last axis": _layer(kl.Concatenate, SERIES, (11, 2)),
            "axis 1": _layer(kl.Concatenate, SERIES, (4, 3), axis=1),
        },
        "Dot": {
            "": _layer(kl.Dot, SERIES, (5, 3), axes=2),
            "normalised": _layer(kl.Dot, SERIES, (5, 3), axes=2, normalize=True),
            "vectors": _layer(kl.Dot, VECTOR, VECTOR, axes=1),
        },
    }


def _normalisation() -> dict[str, Variants]:
    adapted = {"mean": [0.1, -0.2, 0.3], "variance": [0.5, 1.5, 2.0]}

    def adapt(x: Any) -> Any:
        layer = kl.Normalization()
        layer.adapt(np.random.default_rng(0).normal(1, 2, (20, *IMAGE)))
        return layer(x)

    return {
        "BatchNormalization": {
            "": _layer(kl.BatchNormalization, IMAGE),
            "axis 1": _layer(kl.BatchNormalization, IMAGE, axis=1),
            "no scale, no centre": _layer(kl.BatchNormalization, SERIES, scale=False, center=False),
            "behind a convolution": _model(
                lambda x: kl.BatchNormalization()(kl.Conv2D(5, 3, use_bias=False)(x)), IMAGE
            ),
        },
        "LayerNormalization": {
            "": _layer(kl.LayerNormalization, IMAGE),
            "two axes": _layer(kl.LayerNormalization, IMAGE, axis=(-2, -1)),
            "axis 1": _layer(kl.LayerNormalization, SERIES, axis=1),
        },
        "GroupNormalization": {
            "": _layer(kl.GroupNormalization, (9, 7, 4), groups=2),
            "instance": _layer(kl.GroupNormalization, (9, 7, 4), groups=-1),
        },
        "RMSNormalization": {"": _layer(kl.RMSNormalization, SERIES)},
        "UnitNormalization": {"": _layer(kl.UnitNormalization, SERIES)},
        "SpectralNormalization": {
            "Conv2D": _model(lambda x: kl.SpectralNormalization(kl.Conv2D(4, 3))(x), IMAGE),
            "Dense": _model(lambda x: kl.SpectralNormalization(kl.Dense(4))(x), VECTOR),
        },
        "Normalization": {
            "given": _layer(kl.Normalization, IMAGE, **adapted),
            "inverted": _layer(kl.Normalization, IMAGE, invert=True, **adapted),
            "adapted": _model(adapt, IMAGE),
        },
    }


def _core() -> dict[str, Variants]:
    def tokens(*_: Any, **given: Any) -> Callable[[], Any]:
        return _model(lambda x: kl.Embedding(13, 4, **given)(x), (7,), dtype="int32")

    def reversible(x: Any) -> Any:
        layer = kl.ReversibleEmbedding(13, 4)
        return layer(layer(x), reverse=True)

    def activated(x: Any) -> Any:
        return kl.ActivityRegularization(0.1)(x)

    return {
        "Activation": {"tanh": _layer(kl.Activation, SERIES, activation="tanh")},
        "ActivityRegularization": {"": _model(activated, SERIES)},
        "Dense": {
            "": _layer(kl.Dense, VECTOR, units=5),
            "on a sequence": _layer(kl.Dense, SERIES, units=5, activation="relu"),
            "on an image": _layer(kl.Dense, IMAGE, units=5, use_bias=False),
        },
        "EinsumDense": {
            "bc,dc->bd": _layer(kl.EinsumDense, VECTOR, equation="ab,bc->ac", output_shape=5),
            "heads": _layer(
                kl.EinsumDense,
                SERIES,
                equation="abc,cde->abde",
                output_shape=(11, 2, 5),
                bias_axes="de",
            ),
            "contracts two": _layer(
                kl.EinsumDense, (5, 2, 3), equation="abcd,cde->abe", output_shape=(5, 4)
            ),
            "mixes positions": _layer(
                kl.EinsumDense, SERIES, equation="abc,bd->adc", output_shape=(4, 3)
            ),
        },
        "Embedding": {"": tokens(), "masked": tokens(mask_zero=True)},
        "ReversibleEmbedding": {"": _model(reversible, (7,), dtype="int32")},
        "Lambda": {
            "": _layer(kl.Lambda, SERIES, function=lambda x: keras.ops.sin(x) * x),
            "slice backwards": _layer(kl.Lambda, SERIES, function=lambda x: x[:, ::-2, 1:]),
        },
        "Masking": {
            "": _layer(kl.Masking, SERIES),
            "mean over what is left": _model(
                lambda x: kl.GlobalAveragePooling1D()(kl.Masking()(x)), SERIES
            ),
        },
        "Identity": {"": _layer(kl.Identity, SERIES)},
        "Flatten": {"": _layer(kl.Flatten, IMAGE)},
        "Permute": {"": _layer(kl.Permute, IMAGE, dims=(3, 1, 2))},
        "RepeatVector": {"": _layer(kl.RepeatVector, VECTOR, n=3)},
        "Reshape": {
            "": _layer(kl.Reshape, IMAGE, target_shape=(7, 27)),
            "one size left open": _layer(kl.Reshape, IMAGE, target_shape=(3, -1)),
        },
        "ReLU": {
            "": _layer(kl.ReLU, SERIES),
            "6": _layer(kl.ReLU, SERIES, max_value=6.0),
            "slope and threshold": _layer(
                kl.ReLU, SERIES, max_value=1.0, negative_slope=0.2, threshold=0.1
            ),
        },
        "PReLU": {
            "": _layer(kl.PReLU, IMAGE),
            "shared": _layer(kl.PReLU, IMAGE, shared_axes=[1, 2]),
        },
        "LeakyReLU": {"": _layer(kl.LeakyReLU, SERIES)},
        "ELU": {"": _layer(kl.ELU, SERIES, alpha=0.7)},
        "Softmax": {
            "": _layer(kl.Softmax, SERIES),
            "axis 1": _layer(kl.Softmax, SERIES, axis=1),
            "two axes": _layer(kl.Softmax, SERIES, axis=(1, 2)),
        },
        "Dropout": {"": _layer(kl.Dropout, SERIES, rate=0.4)},
        "AlphaDropout": {"": _layer(kl.AlphaDropout, SERIES, rate=0.4)},
        "GaussianDropout": {"": _layer(kl.GaussianDropout, SERIES, rate=0.4)},
        "GaussianNoise": {"": _layer(kl.GaussianNoise, SERIES, stddev=0.4)},
        "SpatialDropout1D": {"": _layer(kl.SpatialDropout1D, SERIES, rate=0.4)},
        "SpatialDropout2D": {"": _layer(kl.SpatialDropout2D, IMAGE, rate=0.4)},
        "SpatialDropout3D": {"": _layer(kl.SpatialDropout3D, VOLUME, rate=0.4)},
    }


def _augmentation() -> dict[str, Variants]:
    """Layers for training data; in a finished model they pass images on, or transform them."""
    needed: Mapping[str, Mapping[str, Any]] = {
        "RandomBrightness": {"factor": 0.2},
        "RandomColorDegeneration": {"factor": 0.2},
        "RandomColorJitter": {"brightness_factor": 0.2},
        "RandomContrast": {"factor": 0.2},
        "RandomCrop": {"height": 5, "width": 4},
        "RandomHue": {"factor": 0.2},
        "RandomPosterization": {"factor": 4},
        "RandomRotation": {"factor": 0.2},
        "RandomSaturation": {"factor": 0.2},
        "RandomSharpness": {"factor": 0.2},
        "RandomShear": {"x_factor": 0.2, "y_factor": 0.1},
        "RandomTranslation": {"height_factor": 0.2, "width_factor": 0.1},
        "RandomZoom": {"height_factor": 0.2},
        "Pipeline": {"layers": [kl.Rescaling(0.5), kl.RandomFlip()]},
        "STFTSpectrogram": {},
        "MelSpectrogram": {},
    }
    plain = (
        *("AugMix", "AutoContrast", "CutMix", "Equalization", "MixUp", "RandAugment"),
        *("RandomElasticTransform", "RandomErasing", "RandomFlip", "RandomGaussianBlur"),
        *("RandomGrayscale", "RandomInvert", "RandomPerspective", "Solarization"),
        "ContrastLimitedAdaptiveHistogramEqualization",
    )
    found = {name: {"": _layer(getattr(kl, name), IMAGE)} for name in plain}
    for name, given in needed.items():
        found[name] = {"": _layer(getattr(kl, name), IMAGE, **given)}
    found["Solarization"] = {
        "": _layer(kl.Solarization, IMAGE, threshold_factor=0.5, value_range=(-1, 1))
    }
    sound = {"frame_length": 16, "frame_step": 7, "fft_length": 20}
    found["STFTSpectrogram"] = {
        mode: _layer(kl.STFTSpectrogram, (61, 1), mode=mode, **sound)
        for mode in ("log", "magnitude", "psd", "real", "imag", "angle", "stft")
    }
    found["MelSpectrogram"] = {
        "": _layer(kl.MelSpectrogram, (61,), fft_length=20, sequence_stride=7, num_mel_bins=5)
    }
    return found


VARIANTS: Mapping[str, Variants] = {
    **_convolutions(),
    **_pools(),
    **_resampling(),
    **_recurrence(),
    **_attention(),
    **_merging(),
    **_normalisation(),
    **_core(),
    **_augmentation(),
}
