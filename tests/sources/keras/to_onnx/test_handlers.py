"""TensorFlow operations that are converted by handlers of our own, and those that are refused."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import keras
import numpy as np
import onnx
import pytest
import tensorflow as tf
from keras import layers, ops

import probegen as pg
from probegen import runtime
from probegen.errors import ExportError, UnsupportedOpsError
from probegen.parity import measure
from probegen.sources.keras.to_onnx import conversion
from sweep.subject import stir
from sweep.tensorflow_ops.row import Row, run, session
from sweep.tensorflow_ops.samples import floats, pairs, whole, whole_pairs


@pytest.fixture
def policy() -> Iterator[Callable[[str], None]]:
    """Sets the dtype policy, and puts the old one back."""
    before = keras.config.dtype_policy()
    yield keras.config.set_dtype_policy
    keras.config.set_dtype_policy(before)


def around(function: Callable[[Any], Any], shape: tuple[int, ...], dtype: Any = None) -> Any:
    """Returns a model of one function, each of whose outputs has a gradient of its own."""
    keras.utils.set_random_seed(3)
    x = keras.Input(shape, dtype=dtype, name="x")
    y = layers.Lambda(function)(x) if not isinstance(function, layers.Layer) else function(x)
    y = layers.Flatten()(y if dtype is None else layers.Embedding(9, 3)(y))
    model = keras.Model(x, layers.Dense(3, name="scores")(layers.Activation("softsign")(y)))
    stir(model)
    return model


DIAGONALS = {
    "diag": (tf.linalg.diag, (5,)),
    "diag above": (lambda x: tf.linalg.diag(x, k=2), (5,)),
    "diag below, wider": (
        lambda x: tf.linalg.diag(x, k=-1, num_rows=5, num_cols=6, padding_value=0.5),
        (2, 4),
    ),
    "set diag": (lambda x: tf.linalg.set_diag(x, x[..., 0, :4] * 2), (4, 5)),
    "set diag below": (lambda x: tf.linalg.set_diag(x, x[..., 0, :3] * 2, k=-1), (4, 5)),
    "diag part": (lambda x: tf.linalg.diag_part(x, k=1), (4, 5)),
    "diag part below": (lambda x: tf.linalg.diag_part(x, k=-2), (5, 4)),
    "diag part of whole numbers": (
        lambda x: x[..., 0] * tf.cast(tf.linalg.diag_part(tf.cast(3 * x, tf.int32)), tf.float32),
        (4, 5),
    ),
    "diagonal of other axes": (lambda x: ops.diagonal(x, axis1=1, axis2=-1), (4, 2, 3)),
}


@pytest.mark.parametrize("name", DIAGONALS)
def test_diagonals(name: str, tmp_path: Path) -> None:
    function, shape = DIAGONALS[name]
    model = around(function, shape)
    pg.compile(model, [pg.InputGradient()], tmp_path / "m.onnx", verify=False)
    x = np.random.default_rng(0).standard_normal((3, *shape))
    report = measure(tmp_path / "m.onnx", model, x)
    assert all(p.max_rel < 1e-5 for p in report.values())


@pytest.mark.parametrize("by_input", [False, True])
def test_steps_of_fake_quantisation_pass_gradients(by_input: bool, tmp_path: Path) -> None:
    """What is beyond the bounds passes none; 0 is a step, which moves the bounds."""
    rounded = {
        False: lambda x: tf.quantization.fake_quant_with_min_max_args(x, -1.1, 2.0, 4, True),
        True: lambda x: tf.quantization.fake_quant_with_min_max_vars(x, -0.3, 1.7),
    }[by_input]
    model = around(rounded, (5,))
    pg.compile(model, [pg.InputGradient(1), pg.LRP(target=1)], tmp_path / "m.onnx")
    x = tf.constant(np.random.default_rng(0).normal(0, 2, (3, 5)), tf.float32)
    with tf.GradientTape() as tape:
        tape.watch(x)
        scores = model(x)
        score = scores[:, 1]
    got = runtime.load(tmp_path / "m.onnx").run(x.numpy())
    np.testing.assert_allclose(got["scores"].array, scores, rtol=0, atol=1e-6)
    gradient = tape.gradient(score, x).numpy()
    np.testing.assert_allclose(got["input_gradient/x"].array, gradient, atol=1e-6)
    assert 3 < np.count_nonzero(gradient) < gradient.size - 3


def test_open_matrices(tmp_path: Path) -> None:
    x = keras.Input((None,), name="x")
    y = layers.Lambda(tf.linalg.diag, output_shape=(None, None))(x)
    y = layers.Lambda(lambda v: tf.linalg.diag_part(v[:, :-1] + 1))(y) * 2 - x[:, :-1]
    y = layers.Lambda(tf.linalg.diag, output_shape=(None, None))(y)
    y = layers.Lambda(lambda v: tf.reduce_sum(tf.tanh(v), 2)[:, :2], output_shape=(2,))(y)
    model = keras.Model(x, layers.Identity(name="rows")(y))
    pg.compile(model, [pg.InputGradient(1)], tmp_path / "m.onnx", verify=False)
    for shape in ((3, 4), (1, 7)):
        draw = np.random.default_rng(0).standard_normal(shape)
        report = measure(tmp_path / "m.onnx", model, draw)
        assert all(p.max_rel < 1e-5 for p in report.values())


def test_open_matrices_of_given_size_are_refused(tmp_path: Path) -> None:
    x = keras.Input((None,), name="x")
    y = layers.Lambda(lambda v: tf.linalg.diag(v, num_rows=9)[..., :2], output_shape=(9, 2))(x)
    with pytest.raises(UnsupportedOpsError, match=r"MatrixDiagV3.*sizes known at compile time"):
        pg.compile(keras.Model(x, y), [pg.Activations("*")], tmp_path / "m.onnx")


REFUSED = {
    "hashing": (
        lambda x: tf.strings.to_hash_bucket_fast(tf.strings.as_string(x, width=4), 9),
        *((4,), "int64", "Split the model"),
    ),
    "inverse": (tf.linalg.inv, (4, 4), None, "MatrixInverse.*ONNX has no operator"),
    "spectrum": (
        lambda x: tf.math.real(tf.signal.fft3d(tf.cast(x, tf.complex64))),
        (4, 3, 5),
        None,
        "come from FFT3D.*layer 'lambda",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_refusal_says_what_to_do(name: str, tmp_path: Path) -> None:
    function, shape, dtype, says = REFUSED[name]
    with pytest.raises(ExportError, match=rf"(?s){says}.*format='savedmodel'"):
        pg.compile(around(function, shape, dtype), [pg.Saliency("argmax")], tmp_path / "m.onnx")


def test_whole_numbers_are_hashed_as_keras_does(tmp_path: Path) -> None:
    """Of each number of bytes, 1 to 20, of either sign: FarmHash differs from 4, 8 and 17 on."""
    ends = [10**k + d for k in range(19) for d in (-1, 0, 1)]
    numbers = np.array([*ends, *(-n for n in ends), -(2**63), 2**63 - 1, 2**62, 12345678])
    wide, narrow = (keras.Input((7,), dtype=t, name=t) for t in ("int64", "int32"))
    hashed = {
        "plain": layers.Hashing(1009)(wide),
        "masked": layers.Hashing(97, mask_value=-1)(narrow),
        "salted": layers.Hashing(2**40 + 1, salt=[2**63 - 1, 133], mask_value=0)(wide),
        "salt": layers.Hashing(1, salt=5)(narrow),
        "counted": layers.Hashing(11, salt=3, output_mode="count")(narrow),
    }
    model = keras.Model([wide, narrow], hashed)
    pg.compile(model, [], tmp_path / "m.onnx", verify=False)
    for rows in (2, 3):
        fed = np.resize(numbers, (-(-len(numbers) // 7) * rows, 7))
        found = runtime.load(tmp_path / "m.onnx").run(
            {"int64": fed, "int32": np.int32(fed % 2**32 - 2**31)}
        )
        expected = model([fed, np.int32(fed % 2**32 - 2**31)])
        for name, value in expected.items():
            np.testing.assert_array_equal(found[name], value, err_msg=name)


@pytest.mark.parametrize("interpolation", ["nearest", "bilinear"])
def test_images_of_16_bits_are_pooled_and_resized(
    interpolation: str, policy: Callable[[str], None], tmp_path: Path
) -> None:
    """Where onnxruntime neither adds at indices nor mixes precisions."""
    policy("mixed_float16")
    x = keras.Input((11, 9, 3), name="image")
    y = layers.Conv2D(4, 3, padding="same", activation="tanh")(x)
    y = layers.MaxPooling2D(3, 2)(layers.Resizing(13, 17, interpolation=interpolation)(y))
    y = layers.Lambda(lambda v: tf.gather(v, [0, 2, 2, 1], axis=1))(y)
    model = keras.Model(x, layers.Dense(3)(layers.Flatten()(y)))
    exported = pg.compile(model, [pg.Saliency()], tmp_path / "m.onnx")
    assert exported.report["saliency/image"].l2_rel < 5e-3
    found = onnx.load(tmp_path / "m.onnx").graph
    kernels = [i for i in found.initializer if i.data_type == onnx.TensorProto.FLOAT16]
    assert kernels


def test_sizes_behind_resized_bytes_are_known(tmp_path: Path) -> None:
    """A dilated convolution and a Dense ask for them, and a transposed one needs them."""
    x = keras.Input((8, 9, 3), dtype="uint8", name="image")
    y = layers.Rescaling(1 / 255)(layers.Resizing(5, 7)(x))
    y = layers.Conv2D(2, (1, 2), dilation_rate=2)(y)
    y = layers.Conv2DTranspose(2, (2, 1), activation="tanh")(layers.Dense(3)(y))
    model = keras.Model(x, layers.Dense(3)(layers.Flatten()(y)))
    assert pg.compile(model, [pg.InputGradient(target=1)], tmp_path / "m.onnx").report.passed
    operators = {n.op_type for n in onnx.load(tmp_path / "m.onnx").graph.node}
    assert "Range" not in operators


def test_an_embedding_of_16_bits_adds_up_repeated_tokens_and_masks_by_a_large_number(
    policy: Callable[[str], None], tmp_path: Path
) -> None:
    """A query all of whose keys are masked weighs them alike: of `scores - 65504` nothing stays."""
    policy("mixed_float16")
    x = keras.Input((9,), dtype="int32", name="tokens")
    y = layers.Embedding(5, 6, name="embedding")(x)
    y = layers.Lambda(lambda v: tf.gather(v, [0, 8, 8, 3], axis=1))(y)
    y = layers.AdditiveAttention()([y, y], mask=[None, x[:, :4] > 3])
    model = keras.Model(x, layers.Dense(3)(layers.Flatten()(layers.Activation("tanh")(y))))
    table = np.random.default_rng(0).normal(size=(5, 6))
    model.get_layer("embedding").set_weights([table])
    exported = pg.compile(model, [pg.InputGradient()], tmp_path / "m.onnx")
    assert next(p for n, p in exported.report.items() if "gradient" in n).l2_rel < 5e-3


def test_a_bias_along_the_second_axis(tmp_path: Path) -> None:
    """Keras writes the sum of `[1, 4, 6]` and `[1, 4, 1]` so, where the batch is fixed."""
    model = around(lambda x: keras.ops.add(x, keras.ops.max(x, -1, keepdims=True)), (4, 6))
    path = tmp_path / "model.onnx"
    done = pg.compile(model, [pg.Saliency(target=1)], path, dynamic_batch=False)
    assert done.report is not None
    assert done.report.passed


def mean_of_words(ids: Any) -> Any:
    """Returns the mean of the ids that are not padding, 0 where all are."""
    mask = ops.cast(ids != 0, "float32")
    count = ops.sum(mask, 1, keepdims=True)
    total = ops.sum(ops.cast(ids, "float32") * mask, 1, keepdims=True)
    return ops.where(count > 0, total / count, 0.0)


def test_a_row_of_padding_has_the_mean_that_the_model_gives_it(tmp_path: Path) -> None:
    """tf2onnx writes where as a sum of products, in which 0 / 0 spoils the branch taken."""
    x = keras.Input((5,), dtype="int32", name="ids")
    y = layers.Lambda(mean_of_words, output_shape=(1,))(x)
    ids = np.array([[0, 0, 0, 0, 0], [3, 0, 7, 0, 0], [2, 4, 4, 1, 9]], np.int32)
    model = keras.Model(x, layers.Identity(name="mean")(y))
    pg.compile(model, pg.Activations("*"), tmp_path / "m.onnx", samples=ids)
    found = np.asarray(runtime.load(tmp_path / "m.onnx").run(ids)["mean"].array)
    np.testing.assert_array_equal(found, np.asarray(model(ids)))
    np.testing.assert_array_equal(found[:, 0], [0, 5, 4])


#: Numbers of issue 7 and their kind: what a handler of tf2onnx gets wrong on hard samples.
ROWS = [
    Row("SelectV2", "1 / x", lambda x: tf.where(x != 0, 1 / x, 0.0), floats()),
    Row("SelectV2", "elu by hand", lambda x: tf.where(x > 0, x, tf.exp(x) - 1), floats()),
    Row("SelectV2", "log", lambda x: tf.where(x > 0, tf.math.log(x), x), floats()),
    Row("SelectV2", "nan_to_num", ops.nan_to_num, floats()),
    Row("Select", "", lambda x: tf.raw_ops.Select(condition=x[:, 0] > 0, x=x, y=1 / x), floats()),
    Row("OneHot", "-1", lambda i: ops.one_hot(i, 5), whole()),
    Row("FloorDiv", "-3 by 2", ops.floor_divide, whole_pairs(zero=False)),
    Row("FloorMod", "-1 by 3", ops.mod, whole_pairs(zero=False)),
    Row("FloorMod", "1 by infinity", ops.mod, pairs()),
    Row("RightShift", "-5 by 1", lambda x: tf.bitwise.right_shift(x, 1), whole()),
    Row("Atan2", "", tf.math.atan2, pairs()),
    Row("ArgMax", "0 and -0", lambda x: ops.argmax(x, -1), floats()),
    Row("ArgMin", "of booleans", lambda x: ops.argmin(x > 1, 0), floats()),
    Row("Bitcast", "signbit", ops.signbit, floats()),
    Row("Bucketize", "digitize", lambda x: ops.digitize(x, [-1.0, 0.0, 0.5]), floats()),
    Row("LowerBound", "", lambda x: ops.searchsorted([-3.0, 0, 0, 2.5], x[0]), floats()),
    Row("Cast", "by way of 16 bits", lambda x: tf.cast(tf.cast(x, "half"), "float"), floats()),
    Row("Cast", "0.5 to int, to bool", lambda x: tf.cast(tf.cast(x, "int32"), "bool"), floats()),
    Row("Less", "x * (x < 1)", lambda x: x * tf.cast(x < 1.0, x.dtype), floats()),
    Row("Maximum", "slopes", lambda x: tf.maximum([0.1, 0.2, 0.3, 0.4, 0.5] * x, x), floats()),
    Row(
        "StridedSlice", "size", lambda x: x * tf.cast(tf.shape(x)[0][..., None], "float"), floats()
    ),
    Row("Roll", "by more than there are", lambda x: tf.roll(x, [-17, 8], [1, -1]), floats()),
    Row("Reshape", "", lambda x: tf.reshape(x, [tf.shape(tf.transpose(x))[0], -1]), floats()),
]


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
def test_an_operation_agrees_on_hard_samples(row: Row) -> None:
    outcome = run(row)
    assert outcome.verdict == "agrees", outcome.reason


def test_a_row_that_differs_is_found() -> None:
    """The rows' own check: TensorFlow's answer is compared with one of another function."""

    def function(x: Any) -> Any:
        return x + (1.0 if tf.executing_eagerly() else 1.001)

    row = Row("AddV2", "", function, floats(wild=False))
    assert run(row).verdict == "differs"


def test_integer_valued_operations_as_output_mask_and_target(tmp_path: Path) -> None:
    x = keras.Input((7,), name="x")
    y = layers.Dense(5, activation="tanh")(x)
    kinds = {
        "best": ops.argmax(y, -1),
        "worst": ops.argmin(y, -1),
        "sign": ops.cast(ops.signbit(y), "int32"),
        "bin": ops.digitize(y, np.array([-0.5, 0.0, 0.5])),
    }
    kept = y * ops.one_hot(kinds["best"], 5) + y * ops.cast(kinds["bin"], "float32")
    scores = layers.Dense(3, name="scores")(kept)
    named = [layers.Identity(name=n)(v) for n, v in kinds.items()]
    model = keras.Model(x, [scores, *named])
    draw = np.random.default_rng(5).standard_normal((6, 7)).astype(np.float32)

    def chosen(outputs: Any) -> Any:
        best = ops.argmax(outputs[0], -1)
        return ops.sum(outputs[0] * ops.one_hot(best, 3), -1)

    probes = [pg.InputGradient(target=chosen)]
    report = pg.compile(model, probes, tmp_path / "m.onnx", samples=draw).report
    assert report is not None
    assert report["input_gradient/x"].max_rel < 1e-5
    result = runtime.load(tmp_path / "m.onnx").run(draw)
    for name, value in zip(model.output_names, model(draw), strict=True):
        found, expected = np.asarray(result[name].array), np.asarray(value)
        assert found.dtype == expected.dtype
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


def fourier_of_patches(x):
    """Fourier mixing of patches: sizes are lost where the graph is frozen, and parts by a cast."""
    patches = ops.image.extract_patches(x, 2)
    rows = ops.reshape(patches, (ops.shape(x)[0], 6, 8))
    mixed = tf.tensordot(rows, tf.linspace(tf.ones(5), -0.5, 8), 1)
    return tf.cast(tf.signal.fft2d(tf.cast(mixed, tf.complex64)), tf.float32)


SIGNALS = {
    "patches": (lambda x: tf.image.extract_patches(x, *PATCHES, "VALID"), (7, 9, 2)),
    "padded patches": (lambda x: tf.image.extract_patches(x, *PATCHES, "SAME"), (7, 9, 2)),
    "short-time spectrum": (lambda x: tf.abs(tf.signal.stft(x, 8, 3)), (20,)),
    "spectrum's parts": (lambda x: ops.stack(ops.rfft(x), -1), (9,)),
    "Fourier mixing": (lambda x: ops.fft2((x, 0 * x))[0], (5, 4)),
    "Fourier mixing of patches": (fourier_of_patches, (4, 6, 2)),
}
PATCHES = ([1, 3, 2, 1], [1, 2, 2, 1], [1, 1, 1, 1])


@pytest.mark.parametrize("name", SIGNALS)
def test_patches_and_spectra(name: str, tmp_path: Path) -> None:
    function, shape = SIGNALS[name]
    model = around(function, shape)
    pg.compile(model, [pg.InputGradient(1)], tmp_path / "m.onnx", verify=False)
    x = np.random.default_rng(0).standard_normal((3, *shape)).astype(np.float32)
    x[1] = 0  # silence
    report = measure(tmp_path / "m.onnx", model, x)
    assert all(p.max_rel < 1e-4 for p in report.values())


def transforms(x: Any) -> Any:
    """Every discrete Fourier transform, forth and back, of a tensor whose middle axis is open."""
    turned = tf.transpose(x, (0, 2, 1))
    spectrum = ops.rfft(turned)
    parts = [
        *ops.fft2((x, ops.cos(x))),
        *ops.ifft2((x, ops.tanh(x))),
        *(part * ops.square(part) for part in spectrum),
        ops.irfft(spectrum) ** 3,  # of an even length, whatever that of x is
        tf.signal.irfft(tf.complex(*spectrum), [tf.shape(x)[1]]) * turned,
        tf.signal.irfft2d(tf.signal.rfft2d(x), [tf.shape(x)[1], 4]) * x,
    ]
    return ops.stack([ops.sum(ops.tanh(part / 8), axis=(1, 2)) for part in parts], axis=-1)


def test_transforms_of_an_open_length(tmp_path: Path) -> None:
    keras.utils.set_random_seed(3)
    x = keras.Input((None, 4), name="x")
    y = layers.Lambda(transforms, output_shape=(9,))(x)
    model = keras.Model(x, layers.Dense(3, name="scores")(layers.Activation("softsign")(y)))
    pg.compile(model, [pg.InputGradient(1)], tmp_path / "m.onnx", verify=False)
    for length in (2, 9):
        values = np.random.default_rng(0).standard_normal((3, length, 4)).astype(np.float32)
        values[1] = 0
        report = measure(tmp_path / "m.onnx", model, values)
        assert all(p.max_rel < 1e-4 for p in report.values()), length


OPEN_SIZES = {
    "bicubic": lambda x: tf.image.resize(x, (5, 7), "bicubic"),
    "lanczos3": lambda x: tf.image.resize(x, (5, 7), "lanczos3"),
    "area": lambda x: tf.image.resize(x, (5, 7), "area"),
}


@pytest.mark.parametrize("method", OPEN_SIZES)
def test_resizing_at_open_size_says_what_works(method: str, tmp_path: Path) -> None:
    x = keras.Input((None, None, 2))
    y = layers.Lambda(OPEN_SIZES[method], output_shape=(5, 7, 2), name="resized")(x)
    model = keras.Model(x, layers.GlobalAveragePooling2D()(y))
    with pytest.raises(UnsupportedOpsError) as caught:
        pg.compile(model, [pg.Activations("resized")], tmp_path / "m.onnx")
    message = str(caught.value)
    assert all(said in message for said in ("'resized'", "fixed", "bilinear", "savedmodel"))


def test_a_failing_handler_names_operation_and_layer(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def fails(*_: object) -> None:
        raise IndexError("list index out of range")

    handlers = {**conversion.HANDLERS, "Softplus": (fails, [])}
    monkeypatch.setattr(conversion, "HANDLERS", handlers)
    model = around(layers.Activation("softplus", name="soft"), (4,))
    with pytest.raises(ExportError, match=r"Softplus: .*index out of range.* in layer 'soft'"):
        pg.compile(model, [pg.Saliency()], tmp_path / "m.onnx")


def test_an_operation_that_shares_its_name_with_one_of_onnx_is_refused() -> None:
    """It would pass for that of ONNX where tf2onnx has no handler for it."""

    def chosen(scores: Any) -> Any:
        boxes = tf.constant([[0, 0, 1, 1], [0, 0, 0.9, 0.9], [0.5, 0.5, 1, 1]])
        return tf.raw_ops.NonMaxSuppression(boxes=boxes, scores=scores, max_output_size=2)

    with pytest.raises(UnsupportedOpsError, match=r"NonMaxSuppression: .*that name is another"):
        session(chosen, [tf.TensorSpec((3,))])


def test_random_numbers_are_refused() -> None:
    with pytest.raises(UnsupportedOpsError, match=r"RandomUniform: it draws random numbers"):
        session(lambda x: x + tf.random.uniform((4,)), [tf.TensorSpec((3, 4))])


EXACT = {
    "gelu": lambda x: keras.ops.gelu(x, approximate=False),
    "approximate gelu": lambda x: keras.ops.gelu(x, approximate=True),
    "erf": keras.ops.erf,
    "arctangents": lambda x: (
        keras.ops.arctan(x)
        + keras.ops.arctan2(x * x - 20, x - 1.3)
        + keras.ops.arctan2(-x, 0.5 + x * x)
    ),
    "arcsine": lambda x: keras.ops.arcsin(x / 51),
    "arccosine": lambda x: keras.ops.arccos(x / 51),
    "tangent": keras.ops.tan,
    "softplus": keras.ops.softplus,
    "mish": lambda x: x * keras.ops.tanh(keras.ops.softplus(x)),
    "selu": keras.ops.selu,
    "inverse hyperbolic": lambda x: (
        keras.ops.arcsinh(x)
        + keras.ops.arccosh(1.2 + x * x)
        + keras.ops.arctanh(0.5 * keras.ops.sin(x))
    ),
}


#: Where the exponential of the input is lost beside 1.
FAR = {"softplus": -41.0, "mish": -41.0}


@pytest.mark.parametrize("name", EXACT)
def test_functions_of_float64_are_exact(
    name: str, policy: Callable[[str], None], tmp_path: Path
) -> None:
    """Their gradients are verified too, at 0 as well."""
    policy("float64")
    model = keras.Sequential(
        [keras.Input((9,), dtype="float64", name="x"), layers.Lambda(EXACT[name])]
    )
    pg.compile(model, [pg.InputGradient(target=2)], tmp_path / "m.onnx")
    x = np.concatenate([np.linspace(-9, 9, 88), [0.0, 50.0]]).reshape(10, 9)
    x[4, 2] = 0.0
    x[5, 3] = FAR.get(name, x[5, 3])
    result = runtime.load(tmp_path / "m.onnx").run(x)
    inputs = tf.constant(x)
    with tf.GradientTape() as tape:
        tape.watch(inputs)
        right = model(inputs)
        score = right[:, 2]
    (prediction,) = (r for r in result.values() if r.spec.kind == "prediction")
    np.testing.assert_allclose(prediction.array, right, rtol=1e-12, atol=1e-15)
    if name in FAR:  # what signs and logarithms read is exact in itself, not beside 1
        np.testing.assert_allclose(prediction.array[5, 3], right[5, 3], rtol=1e-12)
    slope = result["input_gradient/x"].array
    np.testing.assert_allclose(slope, tape.gradient(score, inputs), rtol=1e-11, atol=1e-14)


@pytest.mark.parametrize("kind", ["LSTM", "GRU", "SimpleRNN"])
@pytest.mark.parametrize("precision", ["float64", "mixed_float16"])
def test_recurrence_that_no_fused_operator_computes(
    kind: str, precision: str, policy: Callable[[str], None], tmp_path: Path
) -> None:
    policy(precision)
    x = keras.Input((7, 2), name="x")
    model = keras.Model(x, layers.Dense(3)(getattr(layers, kind)(4)(x)))
    pg.compile(model, [pg.InputGradient(target=1)], tmp_path / "m.onnx")


def test_windows_further_apart_than_large_at_open_sizes(tmp_path: Path) -> None:
    """ONNX pads them by less than nothing, TensorFlow not at all; a Keras layer has no `pads=`."""
    x = keras.Input((None, None, 2), name="x")
    y = layers.Conv2D(4, 2, dilation_rate=2, groups=2, padding="same")(x)
    given = {"padding": "same", "bias_initializer": "normal", "groups": 2}
    y = layers.Conv2D(4, (2, 1), strides=(4, 3), **given)(y)
    y = layers.DepthwiseConv2D(1, strides=3, padding="same")(y)
    y = layers.MaxPooling2D(1, strides=2, padding="same")(y)
    y = layers.Dense(3, name="y")(layers.GlobalAveragePooling2D()(y))
    model = keras.Model(x, y)
    pg.compile(model, [pg.InputGradient(target=1)], tmp_path / "m.onnx", verify=False)
    art = runtime.load(tmp_path / "m.onnx")
    for rows, columns in ((16, 9), (17, 10), (18, 11), (19, 6)):
        data = np.random.default_rng(rows).normal(size=(2, rows, columns, 2)).astype("f4")
        inputs = tf.constant(data)
        with tf.GradientTape() as tape:
            tape.watch(inputs)
            right = model(inputs)
            score = right[:, 1]
        result = art.run(data)
        np.testing.assert_allclose(result["y"].array, right, rtol=1e-5, atol=1e-6)
        slope = result["input_gradient/x"].array
        np.testing.assert_allclose(slope, tape.gradient(score, inputs), rtol=1e-5, atol=1e-7)


def test_maxima_further_apart_than_large_at_open_sizes(tmp_path: Path) -> None:
    """All numbers are negative: what is padded must not be the largest."""
    x = keras.Input((None, 2), name="x")
    y = layers.MaxPooling1D(2, strides=3, padding="same")(-ops.exp(x))
    model = keras.Model(x, layers.Dense(3, name="y")(layers.GlobalAveragePooling1D()(y)))
    pg.compile(model, [pg.InputGradient(target=1)], tmp_path / "m.onnx", verify=False)
    art = runtime.load(tmp_path / "m.onnx")
    for steps in (10, 11, 12, 1):
        inputs = tf.constant(np.random.default_rng(steps).normal(size=(2, steps, 2)), "float32")
        with tf.GradientTape() as tape:
            tape.watch(inputs)
            right = model(inputs)
            score = right[:, 1]
        result = art.run(inputs.numpy())
        np.testing.assert_allclose(result["y"].array, right, rtol=1e-5, atol=1e-6)
        slope = tape.gradient(score, inputs)
        np.testing.assert_allclose(result["input_gradient/x"].array, slope, rtol=1e-5, atol=1e-7)


def test_averages_further_apart_than_large_say_what_works() -> None:
    pooling = layers.AveragePooling2D(2, strides=4, padding="same")
    with pytest.raises(UnsupportedOpsError, match=r"give the model's Input them.*padding='valid'"):
        session(pooling, [tf.TensorSpec((2, None, None, 3))])
