"""Every function of `keras.ops` in a functional graph, or why it cannot stand in one."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from keras import ops

from sweep.subject import IMAGE, Subject, absent, around

Call = Callable[..., Any]

_GRID = (4, 5)

_WHOLE = "its output is whole numbers or truth values, which have no gradient"
_MADE = "makes a tensor from sizes or constants: no gradient passes it"
_STEPS = "its output moves in steps, so that its slope is 0 wherever it has one"
_WHOLE_IN = "takes whole numbers, which carry no gradient"
_COMPLEX = "works on complex numbers, which ONNX has no tensors of"
_LOSS = "compares with labels: part of training, not of a model"
_NO_SYMBOL = "cannot stand in a functional graph"
_HELPER = "no operation on tensors"


def _all(reason: str, names: str) -> dict[str, str]:
    return dict.fromkeys(names.split(), reason)


#: Functions that are not called, and why.
REASONS: Mapping[str, str] = {
    **_all(
        _WHOLE,
        """all allclose any argmax argmin argpartition argsort bincount count_nonzero digitize equal
        greater greater_equal histogram in_top_k isclose isfinite isin isinf isnan isneginf isposinf
        isreal less less_equal logical_and logical_not logical_or logical_xor matrix_rank nanargmax
        nanargmin nonzero not_equal searchsorted signbit unravel_index""",
    ),
    **_all(
        _MADE,
        """arange bartlett blackman empty empty_like eye full full_like hamming hanning identity
        kaiser linspace logspace geomspace meshgrid multi_hot one_hot ones ones_like tri zeros
        zeros_like""",
    ),
    **_all(_STEPS, "ceil floor floor_divide heaviside round sign trunc nextafter"),
    **_all(
        _WHOLE_IN,
        """bitwise_and bitwise_invert bitwise_left_shift bitwise_not bitwise_or bitwise_right_shift
        bitwise_xor gcd lcm left_shift right_shift""",
    ),
    **_all(_COMPLEX, "angle conj conjugate eig imag polar real view_as_complex view_as_real"),
    **_all(
        _LOSS,
        """binary_crossentropy categorical_crossentropy sparse_categorical_crossentropy ctc_decode
        ctc_loss""",
    ),
    **_all(
        _HELPER,
        "array convert_to_numpy convert_to_tensor dtype is_tensor ndim shape size custom_gradient",
    ),
    **_all(
        _NO_SYMBOL,
        "jvp vectorize view unique associative_scan cond fori_loop scan switch while_loop map",
    ),
    "correlate": "works on vectors without a batch",
    "diag": "works on vectors without a batch",
    "diagflat": "works on vectors without a batch",
    "corrcoef": "works on matrices without a batch",
    "flipud": "flips the batch",
    "psnr": "a measure over the whole batch",
    "slice": "needs the batch size given",
    "vdot": "works on vectors without a batch",
    "kron": "works on matrices without a batch",
    "lstsq": "works on matrices without a batch",
    "vsplit": "splits the batch",
    "vstack": "joins along the batch",
    "rearrange": "needs a fixed batch",
    "stop_gradient": "stops the gradient by definition; the tests of the package hold it",
    "vectorized_map": "maps over the batch, which functional graphs leave open",
    "linalg": "a module of functions that stand here by themselves",
    "nn": "a module of functions that stand here by themselves",
    "numpy": "a module of functions that stand here by themselves",
    "image": "a module, whose functions follow as image.*",
    "image.elastic_transform": "random by definition",
}


def subjects() -> list[Subject]:
    """Returns the rows of `keras.ops`, then of `keras.ops.image`."""
    rows = []
    for name in public_functions():
        if name in REASONS:
            rows.append(absent(f"ops.{name}", REASONS[name]))
        elif name in RECIPES:
            rows.append(Subject(f"ops.{name}", RECIPES[name]))
        else:
            rows.append(Subject(f"ops.{name}", _model(_function(name))))
    return rows


def public_functions() -> list[str]:
    """Returns the names in `keras.ops`, those of its `image` module with a prefix."""
    own = [n for n in dir(ops) if not n.startswith("_")]
    images = [n for n in dir(ops.image) if inspect.isfunction(getattr(ops.image, n))]
    return own + [f"image.{n}" for n in images if not n.startswith("_")]


def _function(name: str) -> Call:
    found: Call = functools.reduce(getattr, name.split("."), ops)
    return found


def _model(call: Call, *shapes: tuple[int | None, ...], **kinds: Any) -> Callable[[], Any]:
    return functools.partial(around, call, *(shapes or (_GRID,)), **kinds)


def _on(prepare: Call, *names: str) -> dict[str, Callable[[], Any]]:
    """Functions of one tensor that are defined on part of the numbers only."""
    return {name: _model(functools.partial(_prepared, _function(name), prepare)) for name in names}


def _prepared(function: Call, prepare: Call, *inputs: Any) -> Any:
    return function(*map(prepare, inputs))


def _positive(x: Any) -> Any:
    return ops.square(x) + 0.5


def _small(x: Any) -> Any:
    return 0.8 * ops.tanh(x)


def _above_one(x: Any) -> Any:
    return ops.square(x) + 1.2


def _pairs(*names: str) -> dict[str, Callable[[], Any]]:
    """Functions of two tensors that broadcast."""
    return {name: _model(_function(name), _GRID, (1, 5)) for name in names}


def _positive_pairs(*names: str) -> dict[str, Callable[[], Any]]:
    return {
        name: _model(functools.partial(_prepared, _function(name), _positive), _GRID, (1, 5))
        for name in names
    }


def _of_many(*names: str) -> dict[str, Callable[[], Any]]:
    """Functions of a list of tensors."""

    def called(function: Call, *inputs: Any) -> Any:
        return function(list(inputs))

    return {
        name: _model(functools.partial(called, _function(name)), _GRID, _GRID) for name in names
    }


def _along(axis: int, *names: str, **given: Any) -> dict[str, Callable[[], Any]]:
    """Functions along an axis."""
    return {name: _model(functools.partial(_function(name), axis=axis, **given)) for name in names}


def _matrix(x: Any) -> Any:
    """Makes a well-conditioned symmetric matrix a sample of `[batch, n, m]`."""
    return ops.matmul(x, ops.transpose(x, (0, 2, 1))) + 2 * ops.eye(x.shape[1])


def _of_matrix(*names: str) -> dict[str, Callable[[], Any]]:
    return {name: _model(functools.partial(_prepared, _function(name), _matrix)) for name in names}


def _constant(*shape: int, low: float = -1, high: float = 1) -> Any:
    return np.random.default_rng(5).uniform(low, high, shape).astype("float32")


def _recipes() -> dict[str, Callable[[], Any]]:
    image = ops.image
    return {
        **_on(_positive, "log", "log10", "log1p", "log2", "rsqrt", "sqrt", "reciprocal", "cbrt"),
        **_on(_small, "arccos", "arcsin", "arctanh", "erfinv"),
        **_on(_above_one, "arccosh"),
        **_pairs("add", "subtract", "multiply", "maximum", "minimum", "arctan2", "logaddexp"),
        **_pairs("logaddexp2", "hypot", "fmax", "fmin", "divide_no_nan"),
        **_positive_pairs("divide", "true_divide", "power", "mod", "fmod"),
        **_of_many("hstack", "dstack"),
        **_along(1, "max", "min", "amax", "amin", "mean", "sum", "prod", "std", "var", "median"),
        **_along(1, "ptp", "logsumexp", "nanmax", "nanmin", "nanmean", "nansum", "nanprod"),
        **_along(1, "nanstd", "nanvar", "nanmedian", "average", "cumsum", "cumprod"),
        **_along(1, "nancumsum", "nancumprod", "flip", "sort", "softmax", "log_softmax", "diff"),
        **_along(-1, "sparsemax", "expand_dims", "norm", "trapezoid"),
        **_along(1, "roll", shift=2),
        **_along(1, "repeat", repeats=2),
        **_along(1, "percentile", "nanpercentile", q=30.0),
        **_along(1, "quantile", "nanquantile", q=0.3),
        **_of_matrix("cholesky", "cholesky_inverse", "det", "inv", "logdet", "eigh"),
        **_of_matrix("svd", "qr", "pinv", "lu_factor"),
        "solve": _model(lambda x, y: ops.solve(_matrix(x), y), (4, 5), (4, 2)),
        "solve_triangular": _model(
            lambda x, y: ops.solve_triangular(ops.tril(_matrix(x)), y, lower=True), (4, 5), (4, 2)
        ),
        "abs": _model(ops.abs),
        "append": _model(lambda a, b: ops.append(a, b, axis=1), _GRID, _GRID),
        "array_split": _model(lambda x: ops.array_split(x, 3, axis=2)),
        "average_pool": _model(lambda x: ops.average_pool(x, 2, 2, "same"), IMAGE),
        "max_pool": _model(lambda x: ops.max_pool(x, 2, 2, "same"), IMAGE),
        "adaptive_average_pool": _model(
            lambda x: ops.adaptive_average_pool(x, (3, 4), "channels_last"), IMAGE
        ),
        "adaptive_max_pool": _model(
            lambda x: ops.adaptive_max_pool(x, (3, 4), "channels_last"), IMAGE
        ),
        "batch_normalization": _model(
            lambda x: ops.batch_normalization(x, _constant(5), _constant(5, low=0.5), axis=-1)
        ),
        "broadcast_to": _model(lambda x: x * ops.broadcast_to(_constant(1, 5), (4, 5))),
        "cast": _model(lambda x: ops.cast(x, "float16")),
        "saturate_cast": _model(lambda x: ops.saturate_cast(x, "float16")),
        "cdist": _model(ops.cdist, (4, 5), (3, 5)),
        "clip": _model(lambda x: ops.clip(x, -0.5, 0.7)),
        "conv": _model(lambda x: ops.conv(x, _constant(3, 2, 3, 4)), IMAGE),
        "conv_transpose": _model(
            lambda x: ops.conv_transpose(
                x, _constant(3, 2, 4, 3), strides=2, padding="valid", data_format="channels_last"
            ),
            IMAGE,
        ),
        "depthwise_conv": _model(lambda x: ops.depthwise_conv(x, _constant(3, 2, 3, 1)), IMAGE),
        "separable_conv": _model(
            lambda x: ops.separable_conv(x, _constant(3, 2, 3, 1), _constant(1, 1, 3, 4)), IMAGE
        ),
        "cross": _model(ops.cross, (4, 3), (4, 3)),
        "depth_to_space": _model(lambda x: ops.depth_to_space(x, 2), (3, 5, 8)),
        "space_to_depth": _model(lambda x: ops.space_to_depth(x, 2), (4, 6, 3)),
        "diagonal": _model(lambda x: ops.diagonal(x, axis1=1, axis2=2)),
        "dot": _model(lambda x: ops.dot(x, _constant(5, 3))),
        "dot_product_attention": _model(ops.dot_product_attention, (4, 2, 3), (5, 2, 3), (5, 2, 3)),
        "dsplit": _model(lambda x: ops.dsplit(x, 3), (4, 6)),
        "hsplit": _model(lambda x: ops.hsplit(x, 2)),
        "einsum": _model(lambda a, b: ops.einsum("bij,bkj->bik", a, b), _GRID, (3, 5)),
        "extract_sequences": _model(lambda x: ops.extract_sequences(x, 3, 2), (11,)),
        "fft": _model(lambda x: ops.fft((x, ops.sin(x)))),
        "fft2": _model(lambda x: ops.fft2((x, ops.sin(x)))),
        "ifft2": _model(lambda x: ops.ifft2((x, ops.sin(x)))),
        "rfft": _model(ops.rfft),
        "irfft": _model(lambda x: ops.irfft((x, ops.sin(x)))),
        "stft": _model(lambda x: ops.stft(x, 8, 5, 10), (41,)),
        "istft": _model(lambda x: ops.istft(ops.stft(x, 8, 4, 8), 8, 4, 8), (41,)),
        "fold": _model(lambda x: ops.fold(x, (6, 4), 2, stride=2), (12, 6)),
        "unfold": _model(lambda x: ops.unfold(x, 2, stride=2), (3, 6, 4)),
        "get_item": _model(lambda x: ops.get_item(x, (slice(None), slice(3, None, -2)))),
        "glu": _model(ops.glu, (4, 6)),
        "inner": _model(lambda x: ops.inner(x, _constant(5))),
        "layer_normalization": _model(lambda x: ops.layer_normalization(x)),
        "rms_normalization": _model(lambda x: ops.rms_normalization(x)),
        "ldexp": _model(lambda x: ops.ldexp(x, np.arange(5))),
        "matmul": _model(lambda a, b: ops.matmul(a, b), _GRID, (5, 3)),
        "moveaxis": _model(lambda x: ops.moveaxis(x, 1, 3), IMAGE),
        "nan_to_num": _model(ops.nan_to_num),
        "normalize": _model(lambda x: ops.normalize(x, axis=-1, order=2)),
        "outer": _model(lambda x: ops.outer(x, _constant(3)), (1,)),
        "pad": _model(lambda x: ops.pad(x, ((0, 0), (1, 2), (0, 3)))),
        "ravel": _model(lambda x: ops.reshape(ops.ravel(x), (-1, 20))),
        "reshape": _model(lambda x: ops.reshape(x, (-1, 2, 10))),
        "rot90": _model(lambda x: ops.rot90(x, axes=(1, 2))),
        "scatter": _model(
            lambda x: x * ops.scatter(np.array([[0, 1], [3, 2]]), _constant(2), (4, 5))
        ),
        "scatter_update": _model(
            lambda x: ops.scatter_update(x, np.array([[0, 1, 2]]), x[0, 0, :1])
        ),
        "segment_max": _segments("segment_max"),
        "segment_min": _segments("segment_min"),
        "segment_prod": _segments("segment_prod"),
        "segment_sum": _segments("segment_sum"),
        "select": _model(lambda x: ops.select([x > 0.5, x < -0.5], [x * x, ops.sin(x)])),
        "slice_update": _model(
            lambda x: ops.slice_update(x, [0, 1, 2], ops.sin(x[:1, :2, :2])),
        ),
        "moments": _model(lambda x: ops.moments(x, axes=(1,))),
        "slogdet": _model(lambda x: ops.slogdet(_matrix(x))[1][:, None]),
        "concatenate": _model(lambda a, b: ops.concatenate([a, b], axis=1), _GRID, (2, 5)),
        "stack": _model(lambda a, b: ops.stack([a, b], axis=1), _GRID, _GRID),
        "split": _model(lambda x: ops.split(x, 2, axis=1)),
        "squeeze": _model(lambda x: ops.squeeze(x, axis=2), (4, 1, 5)),
        "swapaxes": _model(lambda x: ops.swapaxes(x, 1, 3), IMAGE),
        "take": _model(lambda x: ops.take(x, [3, 0, 3], axis=1)),
        "take_along_axis": _model(lambda x: ops.take_along_axis(x, ops.argsort(x, axis=1), axis=1)),
        "tensordot": _model(lambda x: ops.tensordot(x, _constant(5, 3), axes=1)),
        "threshold": _model(lambda x: ops.threshold(x, 0.3, -0.2)),
        "tile": _model(lambda x: ops.tile(x, (1, 2, 3))),
        "top_k": _model(lambda x: ops.top_k(x, 3)[0]),
        "trace": _model(lambda x: ops.trace(x, axis1=1, axis2=2)[:, None]),
        "transpose": _model(lambda x: ops.transpose(x, (0, 3, 1, 2)), IMAGE),
        "unstack": _model(lambda x: ops.unstack(x, axis=1)),
        "vander": _model(lambda x: ops.vander(ops.reshape(x, (-1,)), 4), (1,)),
        "where": _model(lambda a, b: ops.where(a > b, a, ops.sin(b)), _GRID, _GRID),
        "image.affine_transform": _warped("bilinear"),
        "image.crop_images": _model(lambda x: image.crop_images(x, 1, 2, 2, 1), IMAGE),
        "image.extract_patches": _model(lambda x: image.extract_patches(x, 3, 2), IMAGE),
        "image.extract_patches_3d": _model(
            lambda x: image.extract_patches_3d(x, 2, 2), (5, 4, 6, 2)
        ),
        "image.gaussian_blur": _model(image.gaussian_blur, IMAGE),
        "image.hsv_to_rgb": _model(lambda x: image.hsv_to_rgb(ops.sigmoid(x)), IMAGE),
        "image.map_coordinates": _model(
            lambda x: image.map_coordinates(
                x, np.stack(np.meshgrid([0, 0], [0.3, 1.6], [1.2, 2.7], indexing="ij")), order=1
            )
        ),
        "image.pad_images": _model(lambda x: image.pad_images(x, 1, 2, 2, 1), IMAGE),
        "image.perspective_transform": _model(
            lambda x: image.perspective_transform(
                x,
                np.array([[0.0, 0], [0, 6], [8, 0], [8, 6]], "float32"),
                np.array([[1.0, 0], [0, 5], [7, 1], [8, 6]], "float32"),
            ),
            IMAGE,
        ),
        "image.resize": _model(lambda x: image.resize(x, (13, 5)), IMAGE),
        "image.rgb_to_grayscale": _model(image.rgb_to_grayscale, IMAGE),
        "image.rgb_to_hsv": _model(lambda x: image.rgb_to_hsv(0.6 + 0.4 * ops.sin(x)), IMAGE),
        "image.scale_and_translate": _model(
            lambda x: image.scale_and_translate(
                ops.reshape(x, (-1, 9, 7, 3)),
                (1, 5, 4, 3),
                np.array([0.5, 0.6], "float32"),
                np.array([0.1, 0.2], "float32"),
                (1, 2),
                "linear",
            ),
            IMAGE,
        ),
        "image.sobel_edges": _model(image.sobel_edges, IMAGE),
        "image.ssim": _model(
            lambda a, b: ops.reshape(image.ssim(a, b, 4.0), (-1, 1)), (13, 12, 3), (13, 12, 3)
        ),
    }


def _segments(name: str) -> Callable[[], Any]:
    """The axis of segments is the first, so the batch goes to the back."""
    function = _function(name)

    def make(x: Any) -> Any:
        rows = ops.transpose(x, (1, 0, 2))
        return ops.transpose(function(rows, np.array([0, 2, 0, 1]), 3), (1, 0, 2))

    return _model(make)


def _warped(way: str) -> Callable[[], Any]:
    turn = np.array([[0.9, 0.2, 0.3, -0.1, 1.1, -0.2, 0, 0]], "float32")
    return _model(lambda x: ops.image.affine_transform(x, turn[0], interpolation=way), IMAGE)


RECIPES: Mapping[str, Callable[[], Any]] = _recipes()
