"""What random models are made of: expressions over tensors, by how many axes these have."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence

from fuzz.drawing import Draw
from fuzz.keras_functions import FUNCTIONS, OF_IMAGES, OF_SEQUENCES
from fuzz.own_blocks import BLOCKS


@dataclasses.dataclass(frozen=True)
class Tensor:
    """A tensor of a model that is being drawn.

    Attributes:
        name: its variable.
        shape: with the batch, sizes None where open.
    """

    name: str
    shape: tuple[int | None, ...]

    @property
    def rank(self) -> int:
        """Its number of axes, the batch included."""
        return len(self.shape)


#: Draws an expression over a tensor.
Make = Callable[[Draw, Tensor], str]

ACTIVATIONS = (
    *("relu", "gelu", "silu", "tanh", "sigmoid", "softplus", "elu", "selu", "hard_sigmoid"),
    *("hard_silu", "softsign", "mish", "leaky_relu", "relu6", "celu", "hard_tanh", "sparse_plus"),
    *("squareplus", "tanh_shrink", "soft_shrink", "hard_shrink", "log_sigmoid", "linear"),
)
_SMOOTH = ("tanh", "silu", "sigmoid", "softsign", "gelu")


def _activation(d: Draw, x: Tensor) -> str:
    return f"layers.Activation({d.one(ACTIVATIONS)!r})({x.name})"


def _rectifier(d: Draw, x: Tensor) -> str:
    choices = [
        f"layers.ReLU(max_value={d.number(0.5, 3)}, negative_slope={d.number(0, 0.4)}, "
        f"threshold={d.number(0, 0.3)})",
        f"layers.LeakyReLU(negative_slope={d.number(0.01, 0.5)})",
        f"layers.ELU(alpha={d.number(0.2, 1.5)})",
        "layers.ReLU()",
    ]
    if None not in x.shape[1:]:
        choices.append("layers.PReLU()")
    if x.rank > 2:
        choices.append(f"layers.PReLU(shared_axes={list(range(1, x.rank - 1))})")
    return f"{d.one(choices)}({x.name})"


def _dense(d: Draw, x: Tensor) -> str:
    given = d.arguments(
        activation=(0.5, ACTIVATIONS),
        use_bias=(0.2, (False,)),
        name=(0.0, ()),
    )
    return d.call("layers.Dense", d.whole(2, 7), **given) + f"({x.name})"


def _axis(d: Draw, x: Tensor) -> int:
    """Returns an axis that is not the batch, from the front or from the end."""
    at = d.whole(1, max(1, x.rank - 1))
    return at - x.rank if d.maybe() else at


def _normalisation(d: Draw, x: Tensor) -> str:
    channels = x.shape[-1]
    groups = [g for g in (1, 2, 3, channels or 1) if channels and channels % g == 0]
    choices = [
        f"layers.BatchNormalization(axis={_axis(d, x) if d.maybe(0.3) else -1})",
        "layers.LayerNormalization()",
        f"layers.LayerNormalization(axis={d.some(range(1, x.rank))}, epsilon=1e-6)",
        "layers.LayerNormalization(center=False, scale=False)",
        f"layers.UnitNormalization(axis={_axis(d, x)})",
        "layers.RMSNormalization()",
        f"layers.SpectralNormalization(layers.Dense({d.whole(2, 5)}))",
        f"layers.Normalization(axis=None, mean={d.number(-1, 1)}, variance={d.number(0.3, 2)})",
    ]
    if channels:
        means = [d.number(-1, 1) for _ in range(channels)]
        invert = d.maybe(0.3)
        choices.append(
            f"layers.Normalization(mean={means}, variance={[0.7] * channels}, invert={invert})"
        )
    if x.rank in (4, 5) and channels:
        kernel = [2] * (x.rank - 2)
        choices.append(f"layers.SpectralNormalization(layers.Conv{x.rank - 2}D(3, {kernel}))")
    if x.rank > 2 and groups:
        choices.append(f"layers.GroupNormalization(groups={d.one(groups)})")
    return f"{d.one(choices)}({x.name})"


#: Rank of a batch of images.
_IMAGE = 4
#: What leaves images alone outside of training.
_AUGMENTATIONS = (
    *("RandomFlip()", "RandomRotation(0.2)", "RandomZoom(0.2)", "RandomTranslation(0.1, 0.1)"),
    *("RandomContrast(0.2)", "RandomBrightness(0.2, value_range=(0, 1))"),
    "Pipeline([layers.RandomFlip(), layers.Rescaling(0.5)])",
    *("RandomErasing(value_range=(0, 1))", "RandomShear(0.1)", "RandomGaussianBlur()"),
)


def _passing(d: Draw, x: Tensor) -> str:
    choices = [
        *("layers.Dropout(0.3)", "layers.Identity()", "layers.GaussianNoise(0.3)"),
        *("layers.AlphaDropout(0.2)", "layers.GaussianDropout(0.2)"),
        "layers.ActivityRegularization(l1=0.1)",
    ]
    if x.rank == _IMAGE:
        choices.append(f"layers.{d.one(_AUGMENTATIONS)}")
    if x.rank > 2:
        choices += [f"layers.SpatialDropout{x.rank - 2}D(0.3)"] if x.rank <= 5 else []
        choices.append(f"layers.Softmax(axis={_axis(d, x)})")
    choices.append(f"layers.Rescaling({d.number(-1, 1)}, {d.number(-0.5, 0.5)})")
    return f"{d.one(choices)}({x.name})"


_FUNCTIONS_BY_RANK = {3: OF_SEQUENCES, 4: OF_IMAGES}


def _function(d: Draw, x: Tensor) -> str:
    body = d.one((*FUNCTIONS, *_FUNCTIONS_BY_RANK.get(x.rank, ())))
    for mark, value in (("{a}", _axis(d, x)), ("{b}", _axis(d, x)), ("{n}", d.whole(-2, 3))):
        body = body.replace(mark, str(value))
    if d.maybe(0.4):
        return f"layers.Lambda(lambda t: {body})({x.name})"
    return f"(lambda t: {body})({x.name})"


def _own(d: Draw, x: Tensor) -> str:
    choices = ["own_layers.Gathered()", "own_layers.Outer()"]
    if x.rank == 3:
        choices += ["own_layers.Pooled()", "own_layers.Block()", "own_layers.Running()"]
        choices += ["own_layers.Between()", "layers.RNN(own_layers.Cell(), return_sequences=True)"]
    if x.rank > 2:
        choices.append("own_layers.Excited()")
    choices.append("own_layers.Twice()")
    if x.shape[-1] is not None:
        choices += [f"own_blocks.{block.__name__}()" for block in BLOCKS.get(x.rank, ())]
    if d.maybe(0.1):
        return f"own_layers.Both()({x.name})[{d.one(('bent', 'gate'))!r}]"
    return f"{d.one(choices)}({x.name})"


def _convolution(d: Draw, x: Tensor) -> str:
    rank = x.rank - 2
    channels = x.shape[-1] or 1
    kernel = [d.whole(1, 3) for _ in range(rank)]
    given = d.arguments(
        padding=(0.6, ("same",) + (("causal",) if rank == 1 else ())),
        activation=(0.4, ACTIVATIONS),
        use_bias=(0.2, (False,)),
    )
    given |= d.arguments(data_format=(0.1, ("channels_first",)))
    if "data_format" in given:
        channels = x.shape[1] or 1
    kind = d.one(("Conv", "Conv", "Conv", "Transpose", "Depthwise", "Separable"))
    if d.maybe(0.4):
        given["strides"] = d.whole(2, 3) if rank == 1 or d.maybe() else [2, 2, 1][:rank]
        if kind in ("Depthwise", "Separable"):
            given["strides"] = 2
    elif d.maybe(0.3):
        given["dilation_rate"] = 2
    if kind == "Transpose":
        given.pop("dilation_rate", None)
        if given.get("padding") == "'causal'":
            given["padding"] = "'same'"
        return (
            d.call(f"layers.Conv{rank}DTranspose", d.whole(2, 5), kernel, **given) + f"({x.name})"
        )
    if kind in ("Depthwise", "Separable") and rank < 3:
        given |= d.arguments(depth_multiplier=(0.3, (2,)))
        if given.get("padding") == "'causal'" and kind == "Depthwise":
            given["padding"] = "'valid'"
        first = [] if kind == "Depthwise" else [d.whole(2, 5)]
        return d.call(f"layers.{kind}Conv{rank}D", *first, kernel, **given) + f"({x.name})"
    filters = d.whole(2, 6)
    groups = [g for g in (2, 3) if channels % g == 0 and filters % g == 0]
    if groups and d.maybe(0.5):
        given["groups"] = d.one(groups)
    return d.call(f"layers.Conv{rank}D", filters, kernel, **given) + f"({x.name})"


def _pooling(d: Draw, x: Tensor) -> str:
    rank = x.rank - 2
    kind = d.one(("Max", "Average"))
    known = [size for size in x.shape[1 : 1 + rank] if size]
    if len(known) == rank and d.maybe(0.15):  # of more positions than there are TensorFlow dies
        sizes = [d.whole(1, min(3, size)) for size in known]
        return f"layers.Adaptive{kind}Pooling{rank}D({sizes if rank > 1 else sizes[0]})({x.name})"
    if d.maybe(0.25):
        given = d.arguments(keepdims=(0.4, (True,)), data_format=(0.1, ("channels_first",)))
        return d.call(f"layers.Global{kind}Pooling{rank}D", **given) + f"({x.name})"
    given = d.arguments(
        padding=(0.5, ("same",)),
        strides=(0.5, (1, 2, 3)),
        data_format=(0.1, ("channels_first",)),
    )
    return d.call(f"layers.{kind}Pooling{rank}D", d.whole(2, 3), **given) + f"({x.name})"


def _resampling(d: Draw, x: Tensor) -> str:
    rank = x.rank - 2
    pads = [[d.whole(0, 2), d.whole(0, 2)] for _ in range(rank)]
    crops = [[d.whole(0, 1), d.whole(0, 1)] for _ in range(rank)]
    flat = rank == 1
    choices = [
        f"layers.ZeroPadding{rank}D({pads[0] if flat else pads})",
        f"layers.Cropping{rank}D({crops[0] if flat else crops})",
        f"layers.UpSampling{rank}D({2 if flat else [2, 1, 2][:rank]})",
    ]
    if rank == 2:
        ways = ("bilinear", "bicubic", "nearest")
        choices += [
            f"layers.UpSampling2D(2, interpolation={d.one(ways)!r})",
            f"layers.Resizing({d.whole(3, 8)}, {d.whole(3, 8)}, interpolation={d.one(ways)!r})",
            f"layers.CenterCrop({d.whole(2, 4)}, {d.whole(2, 4)})",
        ]
    return f"{d.one(choices)}({x.name})"


def _recurrent_layer(d: Draw, sequences: bool | None = None) -> str:
    kind = d.one(("LSTM", "GRU", "SimpleRNN"))
    given = d.arguments(
        return_sequences=(0.6, (True,)),
        go_backwards=(0.2, (True,)),
        activation=(0.25, ("relu", *_SMOOTH)),
        recurrent_activation=(0.2, ("hard_sigmoid", "tanh")),
        use_bias=(0.15, (False,)),
        unroll=(0.1, (True,)),
        reset_after=(0.3, (False,)),
        dropout=(0.1, (0.2,)),
        recurrent_dropout=(0.1, (0.2,)),
        zero_output_for_mask=(0.1, (True,)),
        unit_forget_bias=(0.1, (False,)),
        kernel_regularizer=(0.05, ("l2",)),
    )
    if kind != "LSTM":
        given.pop("unit_forget_bias", None)
    if sequences is not None:
        given["return_sequences"] = str(sequences)
    if kind == "SimpleRNN":
        given.pop("recurrent_activation", None)
    if kind != "GRU":
        given.pop("reset_after", None)
    return d.call(f"layers.{kind}", d.whole(2, 5), **given)


def _recurrent(d: Draw, x: Tensor) -> str:
    wrapped = d.whole(0, 8)
    if wrapped == 0:
        merge = d.one(("concat", "sum", "mul", "ave"))
        return f"layers.Bidirectional({_recurrent_layer(d)}, merge_mode={merge!r})({x.name})"
    if wrapped == 1:
        cells = d.some(_CELLS)
        given = d.arguments(return_sequences=(0.5, (True,)), go_backwards=(0.2, (True,)))
        made = f"[{', '.join(cells)}]"
        if d.maybe(0.3):
            made = f"layers.StackedRNNCells({made})"
        return d.call("layers.RNN", made, **given) + f"({x.name})"
    if wrapped == 2:
        layer = _recurrent_layer(d)
        return f"{layer[:-1]}, return_state=True)({x.name})[{d.one((0, 1, -1))}]"
    if wrapped == 3:
        layer = f"layers.Bidirectional({_recurrent_layer(d)}, merge_mode=None)"
        return f"{layer}({x.name})[{d.whole(0, 1)}]"
    if wrapped == 4:
        whole, units = d.maybe(), d.whole(2, 4)
        ways = [
            f"layers.{d.one(('LSTM', 'GRU', 'SimpleRNN'))}({units}, return_sequences={whole}{way})"
            for way in ("", ", go_backwards=True")
        ]
        return f"layers.Bidirectional({ways[0]}, backward_layer={ways[1]})({x.name})"
    return f"{_recurrent_layer(d)}({x.name})"


_CELLS = (
    *("layers.LSTMCell(3)", "layers.GRUCell(4)", "layers.SimpleRNNCell(3)"),
    *("layers.GRUCell(3, reset_after=False)", "own_layers.Cell(3)"),
    "layers.LSTMCell(4, activation='relu', use_bias=False)",
)


def _masked(d: Draw, x: Tensor) -> str:
    value = d.one((0.0, 0.0, 1.0))
    return f"layers.Masking({value})({x.name})"


def _attention(d: Draw, x: Tensor) -> str:
    heads = d.whole(1, 3)
    given = d.arguments(use_causal_mask=(0.3, (True,)))
    if d.maybe(0.2):
        given["attention_mask"] = f"ops.{d.one(('tril', 'triu'))}(" + _SQUARE.format(x=x.name) + ")"
    gated = d.arguments(use_gate=(0.15, (True,)), sliding_window=(0.1, (2,)))
    made = d.arguments(
        value_dim=(0.3, (2, 5)),
        use_bias=(0.2, (False,)),
        output_shape=(0.2, (4,)),
        dropout=(0.2, (0.1,)),
    )
    other = f"ops.flip({x.name}, 1)[:, 1:]" if d.maybe(0.2) else x.name
    if other != x.name:
        given = {}
    masked = {"mask": _MASKS.format(x=x.name)} if d.maybe(0.2) and other == x.name else {}
    causal = {k: v for k, v in given.items() if k == "use_causal_mask"}
    scored = d.arguments(
        use_scale=(0.5, (True,)), score_mode=(0.3, ("concat",)), dropout=(0.2, (0.1,))
    )
    choices = [
        d.call("layers.MultiHeadAttention", heads, d.whole(2, 4), **made, **gated)
        + d.call("", x.name, other, **given),
        d.call("layers.GroupedQueryAttention", d.whole(2, 4), 4, 2, **gated)
        + d.call("", x.name, other, **given),
        d.call("layers.Attention", **scored)
        + d.call("", f"[{x.name}, {other}]", **causal, **masked),
        d.call("layers.AdditiveAttention") + d.call("", f"[{x.name}, {other}]", **causal, **masked),
        d.call("layers.MultiHeadAttention", heads, 3, **made)
        + d.call("", x.name, other, return_attention_scores=True, **given)
        + f"[{d.whole(0, 1)}]",
    ]
    return d.one(choices)


#: A square of ones beside a sequence, and masks of queries and keys.
_SQUARE = "ops.ones((1, {x}.shape[1], {x}.shape[1]), dtype='bool')"
_MASKS = "[None, {x}[..., 0] > -0.5]"


def _attention_of_images(d: Draw, x: Tensor) -> str:
    axes = d.one(((1,), (2,), (1, 2)))
    return f"layers.MultiHeadAttention(2, 3, attention_axes={axes})({x.name}, {x.name})"


def _spectrum(d: Draw, x: Tensor) -> str:
    given = d.arguments(
        mode=(0.7, ("magnitude", "psd", "real", "imag", "log")),
        scaling=(0.2, ("spectrum",)),
        padding=(0.2, ("same",)),
        expand_dims=(0.3, (True,)),
        window=(0.3, (None, "hamming")),
    )
    if d.maybe(0.25):
        mel = "num_mel_bins=3, sampling_rate=40, sequence_stride=2, fft_length=4, min_freq=1"
        return f"layers.MelSpectrogram({mel})({x.name})"
    return (
        d.call("layers.STFTSpectrogram", frame_length=4, frame_step=2, fft_length=4, **given)
        + f"({x.name})"
    )


def _over_time(d: Draw, x: Tensor) -> str:
    inner = Tensor("", (x.shape[0], *x.shape[2:]))
    makes: Sequence[Make] = (
        _dense,
        _activation,
        *((_convolution, _pooling) if inner.rank > 2 else ()),
    )
    if inner.rank == 3:
        makes = (*makes, _recurrent)
    layer = d.one(makes)(d, inner)
    if d.maybe(0.2):
        return f"layers.TimeDistributed(own_layers.Outer(3))({x.name})"
    if not layer.endswith("()") or layer.startswith("("):
        return f"layers.TimeDistributed(layers.Dense(3))({x.name})"
    return f"layers.TimeDistributed({layer[:-2]})({x.name})"


def _conv_recurrent(d: Draw, x: Tensor) -> str:
    rank = x.rank - 3
    given = d.arguments(
        padding=(0.6, ("same",)), return_sequences=(0.5, (True,)), go_backwards=(0.2, (True,))
    )
    return d.call(f"layers.ConvLSTM{rank}D", d.whole(2, 3), 2, **given) + f"({x.name})"


def _shaped(d: Draw, x: Tensor) -> str:
    order = [int(i) for i in d.rng.permutation(range(1, x.rank))]
    choices = [f"layers.Permute({order})"]
    if x.rank > 1 and None not in x.shape[1:]:
        sizes = [s or 1 for s in x.shape[1:]]
        d.rng.shuffle(sizes)
        merged = [sizes[0] * sizes[1], *sizes[2:]] if len(sizes) > 1 else [1, *sizes]
        choices += [f"layers.Reshape({sizes})", f"layers.Reshape({merged})", "layers.Flatten()"]
        choices.append(f"layers.Reshape([-1, {sizes[0]}])")
    if x.rank == 2:
        choices.append(f"layers.RepeatVector({d.whole(2, 4)})")
    return f"{d.one(choices)}({x.name})"


def _einsum(d: Draw, x: Tensor) -> str:
    letters = "bcdefg"[: x.rank - 2]
    open_ = [None if size is None else size for size in x.shape[1:-1]]
    forms = [
        (f"a{letters}z,zyx->a{letters}yx", [*open_, 2, 3], "x"),
        (f"a{letters}z,zy->a{letters}y", [*open_, 4], "y"),
    ]
    if x.rank == 3 and x.shape[1] is not None:
        forms += [("abz,zbx->abx", [x.shape[1], 3], "bx"), ("abz,bzx->ax", [3], "x")]
    equation, shape, bias = d.one(forms)
    given = d.arguments(activation=(0.3, ACTIVATIONS))
    if d.maybe(0.7):
        given["bias_axes"] = repr(bias)
    return d.call("layers.EinsumDense", repr(equation), output_shape=shape, **given) + f"({x.name})"


#: Makes by how often they are drawn, for tensors of any number of axes.
_ANY: tuple[tuple[int, Make], ...] = (
    (3, _dense),
    (3, _activation),
    (2, _rectifier),
    (3, _normalisation),
    (1, _passing),
    (8, _function),
    (5, _own),
    (2, _shaped),
)
_BY_RANK: Mapping[int, tuple[tuple[int, Make], ...]] = {
    2: ((1, _spectrum), (1, _einsum)),
    3: (
        (5, _convolution),
        (3, _pooling),
        (1, _resampling),
        (7, _recurrent),
        (2, _masked),
        (5, _attention),
        (1, _over_time),
        (2, _einsum),
    ),
    4: (
        (9, _convolution),
        (5, _pooling),
        (3, _resampling),
        (2, _over_time),
        (1, _conv_recurrent),
        (1, _attention_of_images),
        (1, _einsum),
    ),
    5: (
        (6, _convolution),
        (4, _pooling),
        (1, _resampling),
        (2, _over_time),
        (2, _conv_recurrent),
    ),
}


def drawn(d: Draw, x: Tensor) -> str:
    """Returns an expression over a tensor."""
    table = (*_ANY, *_BY_RANK.get(x.rank, ()))
    makes = [make for weight, make in table for _ in range(weight)]
    return d.one(makes)(d, x)


def layer_alone(d: Draw, x: Tensor) -> str:
    """Returns a layer that can be called more than once on tensors like one."""
    table = (_dense, _convolution, _recurrent, _normalisation) if x.rank == 3 else (_dense,)
    table = (*table, _convolution) if x.rank in (4, 5) else table
    for _ in range(5):
        code = d.one(table)(d, x)
        call = f"({x.name})"
        if code.startswith("layers.") and code.endswith(call) and code.count(x.name) == 1:
            return code[: -len(call)]
    return "layers.Dense(4, activation='tanh')"
