"""What is hidden where inputs hold whole numbers: the numbers, or what stands for ids."""

import keras
import numpy as np
import onnx.numpy_helper
import onnx.parser
import pytest
from keras import layers, ops

import probegen as pg
from probegen import runtime
from probegen.errors import InstrumentError, VerificationError
from probegen.plan.making import make_plan
from probegen.sources.keras.source import open_source
from probegen.sources.onnx import source as onnx_source

#: Wider than float32 is exact for, negative ones, ties, zeros, a row of padding.
AGES = np.array([[3, 0, 2**25 + 1], [-25, 3, 7], [12, 9, 4], [0, 0, 0]])


def cut(x):
    return ops.clip(ops.cast(x, "int32"), 0, 3)


COMPUTED = {
    "added": lambda x: ops.cast(x + 1, "float32") / 9,
    "compared": lambda x: ops.cast(ops.equal(x, 3), "float32"),
    "compared beside its cast": lambda x: ops.where(x > 3, ops.cast(x, "float32") / 9, 0.4),
    "counted in tens": lambda x: ops.cast(x // 10, "float32") / 9,
    "clipped": lambda x: ops.cast(ops.clip(x, 1, 8), "float32") / 9,
    "odd": lambda x: ops.cast(x % 2, "float32"),
    "in bins": layers.Discretization([2, 5, 10], output_mode="one_hot"),
    "bounds below, embedded": lambda x: layers.Embedding(4, 2)(
        ops.sum(ops.cast(x[..., None] > np.array([2, 5, 10]), "int32"), -1)
    ),
    "divided and cut": lambda x: layers.Embedding(4, 2)(cut(ops.cast(x, "float32") / 4)),
    "scaled and cut": lambda x: layers.Embedding(4, 2)(cut(ops.cast(x, "float32") * 0.3)),
    "logarithm, cut": lambda x: layers.Embedding(4, 2)(
        cut(ops.log1p(ops.abs(ops.cast(x, "float32"))))
    ),
    "bins embedded": lambda x: layers.Embedding(4, 2)(layers.Discretization([2, 5, 10])(x)),
}


def hidden_plainly(score, x, fill):
    """Returns what hiding each column of raw inputs takes from the score."""
    columns = np.arange(x.shape[1])
    return np.stack([score(x) - score(np.where(columns == i, fill, x)) for i in columns], 1)


@pytest.mark.parametrize("path", ["m.onnx", "saved"])
@pytest.mark.parametrize("dtype", ["int64", "int8"])
def test_whole_numbers_that_are_computed_with_are_hidden_themselves(tmp_path, path, dtype):
    keras.utils.set_random_seed(4)
    x = keras.Input((3,), dtype=dtype, name="age")
    made = [layers.Flatten()(make(x)) for make in COMPUTED.values()]
    score = layers.Dense(2, name="score")(ops.tanh(layers.Dense(5)(layers.Concatenate()(made))))
    model = keras.Model(x, score)
    ages = AGES.astype(dtype)
    probes = [
        pg.FeatureAblation(fill=3, target=1),
        pg.KernelSHAP(background=[[5, 0, 2], [-1, 30, 2]], target=1, completeness=True),
        pg.Occlusion(1, fill=3, target="top:2"),
    ]
    pg.compile(model, probes, tmp_path / path)
    result = runtime.load(tmp_path / path).run(ages)
    values = lambda of: np.asarray(model(of.astype(dtype)))[:, 1]  # noqa: E731
    expected = hidden_plainly(values, ages, 3)
    given = result["feature_ablation/age"]
    assert given.array.dtype == np.float32
    np.testing.assert_allclose(given.array, expected, rtol=1e-4, atol=1e-5)
    ranks = result["occlusion/age/classes"].array == 1
    np.testing.assert_allclose(result["occlusion/age"].array[ranks], expected, atol=1e-5)
    hidden = np.mean([values(np.tile(b, (4, 1))) for b in ([[5, 0, 2]], [[-1, 30, 2]])], 0)
    total = result["kernel_shap/age"].array.sum(1)
    np.testing.assert_allclose(total, values(ages) - hidden, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(result["completeness/kernel_shap/age"].array, 0, atol=1e-5)


@pytest.mark.parametrize("name", COMPUTED)
def test_each_of_them_is_found_by_itself(name):
    x = keras.Input((3,), dtype="int32", name="age")
    model = keras.Model(x, layers.Dense(2)(layers.Flatten()(COMPUTED[name](x))))
    (output,) = make_plan(open_source(model).view, (pg.LIME(kernel_width=1.0),)).groups[0].outputs
    assert output.ref.is_input


def test_ids_and_whole_numbers_that_are_only_cast_are_hidden_as_before():
    """A picture of bytes takes any number; what hides an id is a vector of zeros."""
    x = keras.Input((3,), dtype="uint8", name="x")
    cast = keras.Model(x, layers.Dense(2)(ops.cast(x, "float32")))
    embed = lambda ids: layers.Dense(2)(layers.Flatten()(layers.Embedding(257, 2)(ids)))  # noqa: E731
    shifted = ops.cast(ops.cast(x, "float32") + 1, "int32")
    masked = ops.cast(ops.cast(x, "float32") * ops.cast(x > 3, "float32"), "int32")
    looked_up = [(keras.Model(x, embed(ids)), pg.FeatureAblation()) for ids in (x, shifted, masked)]
    for model, probe in ((cast, pg.FeatureAblation(fill=0.5)), *looked_up):
        (output,) = make_plan(open_source(model).view, (probe,)).groups[0].outputs
        assert not output.ref.is_input


WORDS, NUMBERS = np.array([["c", "a", "?"]] * 2), np.array([[9, 3, 4]] * 2)
VOCABULARIES = {
    "StringLookup": ("string", ["a", "b", "c"], WORDS),
    "IntegerLookup": ("int64", [3, 5, 9], NUMBERS),
}


@pytest.mark.parametrize("path", ["m.onnx", "saved"])
@pytest.mark.parametrize("mode", ["one_hot", "count"])
@pytest.mark.parametrize("kind", VOCABULARIES)
def test_rows_of_categories_are_the_same_in_every_form(tmp_path, path, mode, kind):
    """Layers of Keras count and encode in whole numbers, which are cast only behind that."""
    dtype, vocabulary, data = VOCABULARIES[kind]
    data = data[:, :1] if mode == "one_hot" else data
    x = keras.Input(data.shape[1:], dtype=dtype, name="x")
    rows = getattr(layers, kind)(vocabulary=vocabulary, output_mode=mode)(x)
    encoder = keras.Model(x, rows)
    model = keras.Model(x, layers.Dense(2, name="out")(layers.Flatten()(rows)))
    pg.compile(model, pg.FeatureAblation(target=1), tmp_path / path)
    if dtype == "string":
        fed = (
            data if path == "saved" else [row if len(row) > 1 else row[0] for row in data.tolist()]
        )
    else:
        fed = data
    found = runtime.load(tmp_path / path).run(fed)["feature_ablation/x"].array
    expected = (
        np.asarray(encoder(keras.ops.convert_to_tensor(data)))
        * (model.get_layer("out").get_weights()[0][:, 1])
    )
    expected = expected.sum(-1) if mode == "one_hot" else expected
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


def test_no_input_is_left_out_without_a_word(tmp_path):
    """Days are compared, lengths say which steps count, flags are called a mask."""
    keras.utils.set_random_seed(2)
    inputs = {
        "day": keras.Input((2,), dtype="int32", name="day"),
        "length": keras.Input((1,), dtype="int32", name="length"),
        "mask": keras.Input((3,), dtype="int32", name="mask"),
        "series": keras.Input((3, 2), name="series"),
    }
    steps = ops.less(ops.arange(3)[None], inputs["length"]) & ops.equal(inputs["mask"], 1)
    kept = ops.sum(inputs["series"] * ops.cast(steps, "float32")[:, :, None], 1)
    days = ops.cast(ops.equal(inputs["day"], 3), "float32")
    model = keras.Model(
        inputs, layers.Dense(2)(ops.tanh(layers.Dense(4)(ops.concatenate([kept, days], 1))))
    )
    pg.compile(model, [pg.FeatureAblation(fill=3, target=1), pg.Saliency()], tmp_path / "m.onnx")
    artefact = runtime.load(tmp_path / "m.onnx")
    told = {spec.name: spec.method for spec in artefact.manifest.explanations}
    assert list(told) == ["feature_ablation/day", "feature_ablation/series", "saliency/series"]
    assert told["feature_ablation/day"].endswith("; 'length' stays as fed")
    assert told["saliency/series"].endswith("; no gradient reaches 'day' and 'length'")
    data = {
        "day": np.int32([[3, 1], [2, 2]]),
        "length": np.int32([[2], [3]]),
        "mask": np.int32([[1, 1, 0], [1, 0, 1]]),
        "series": np.random.default_rng(1).normal(size=(2, 3, 2)).astype("float32"),
    }
    score = lambda days: np.asarray(model({**data, "day": days}))[:, 1]  # noqa: E731
    found = artefact.run(data)["feature_ablation/day"].array
    np.testing.assert_allclose(found, hidden_plainly(score, data["day"], 3), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("kind", ["softmax", "mean", "sum"])
def test_what_only_weighs_others_is_a_mask_by_whatever_name(kind):
    """Where all of it is hidden the model divides by 0."""
    series, valid = keras.Input((4, 3), name="series"), keras.Input((4,), dtype="int32", name="ok")
    if kind == "softmax":
        scores = ops.where(ops.equal(valid, 0), -np.inf, ops.sum(series, -1))
        pooled = ops.sum(ops.softmax(scores)[:, :, None] * series, 1)
    else:
        weights = ops.cast(ops.equal(valid, 1), "float32")[:, :, None]
        pooled = ops.sum(series * weights, 1)
        pooled = pooled / ops.sum(weights, 1) if kind == "mean" else pooled + 1
    model = keras.Model([series, valid], layers.Dense(2)(pooled))
    (group,) = make_plan(open_source(model).view, (pg.KernelSHAP(),)).groups
    (output,) = group.outputs
    assert output.spec.name == "kernel_shap/series"
    assert output.spec.method.endswith("; 'ok' stays as fed")


def test_what_only_weighs_others_in_a_file_is_a_mask_by_whatever_name():
    body = "a = Equal(x, two) k = Cast<to = 1>(a) n = ReduceSum(k, one) m = Mul(s, k) h = Div(m, n)"
    numbers = {"two": np.int64(2), "one": np.int64([1])}
    model = of_text("int64[n, 3] x, float[n, 3] s", body, **numbers, W=WEIGHTS[:3])
    (group,) = make_plan(onnx_source.open_source(model).view, (pg.KernelSHAP(),)).groups
    (output,) = group.outputs
    assert output.spec.name == "kernel_shap/s"
    assert output.spec.method.endswith("; 'x' stays as fed")


def test_pictures_that_are_resized_are_hidden_behind_that(tmp_path):
    """In a size that is known, though that of the picture is open."""
    x = keras.Input((None, None, 1), dtype="uint8", name="photo")
    small = ops.cast(layers.Resizing(2, 3, name="small")(x), "float32")
    bright = ops.cast(small > 99, "float32")
    flat = layers.Flatten(name="flat")(small / 99 + bright)
    model = keras.Model(x, layers.Dense(2)(flat))
    probes = [pg.FeatureAblation(fill=99.5, target=1), pg.LIME(background=0.5, samples=64)]
    pg.compile(model, probes, tmp_path / "m.onnx")
    data = np.random.default_rng(3).integers(0, 256, (2, 5, 4, 1)).astype("uint8")
    result = runtime.load(tmp_path / "m.onnx").run(data)
    seen = np.asarray(model.get_layer("small")(data), "float32")
    head = keras.Model(model.get_layer("flat").input, model.output)
    score = lambda of: np.asarray(head(of / 99 + (of > 99)))[:, 1]  # noqa: E731
    places = list(np.ndindex(2, 3))
    expected = np.stack([score(seen) - score(_filled(seen, at)) for at in places], 1)
    found = result["feature_ablation/photo"].array
    np.testing.assert_allclose(found.reshape(2, 6), expected, rtol=1e-4, atol=1e-5)
    assert result["lime/photo"].array.shape == (2, 2, 3)


def _filled(pictures, at):
    filled = pictures.copy()
    filled[:, *at] = 99.5
    return filled


def test_pictures_of_their_own_size_are_hidden_themselves(tmp_path):
    x = keras.Input((2, 3, 1), dtype="uint8", name="photo")
    bright = ops.cast(x > 99, "float32")
    model = keras.Model(x, layers.Dense(2)(layers.Flatten()(ops.cast(x, "float32") / 99 + bright)))
    pg.compile(model, pg.FeatureAblation(fill=100, target=1), tmp_path / "m.onnx")
    data = np.random.default_rng(3).integers(0, 256, (2, 2, 3, 1)).astype("uint8")
    found = runtime.load(tmp_path / "m.onnx").run(data)["feature_ablation/photo"].array
    score = lambda of: np.asarray(model(of.reshape(-1, 2, 3, 1)))[:, 1]  # noqa: E731
    expected = hidden_plainly(score, data.reshape(2, 6), 100)
    np.testing.assert_allclose(found.reshape(2, 6), expected, rtol=1e-4, atol=1e-5)


def of_text(inputs, body, **weights):
    model = onnx.parser.parse_model(
        f"""<ir_version: 8, opset_import: ["" : 18, "ai.onnx.ml" : 3]>
        g ({inputs}) => (float[n, 2] y) {{ {body} y = Gemm(h, W) }}"""
    )
    for name, array in weights.items():
        model.graph.initializer.append(onnx.numpy_helper.from_array(np.asarray(array), name))
    return model


TABLE = np.float32([[1, 0], [0, -2], [3, 1], [0.5, 4], [-1, 1]])
WEIGHTS = np.float32([[1, -2], [0.5, 3], [2, 1], [1, 1], [-1, 2], [3, 0.5]])


@pytest.mark.parametrize(
    "body",
    [
        "a = Add(x, two) h = Cast<to = 1>(a)",
        "a = Equal(x, two) b = Cast<to = 1>(x) c = Cast<to = 1>(a) h = Add(b, c)",
        "a = ai.onnx.ml.LabelEncoder<keys_int64s = [0, 2], values_int64s = [7, 5], "
        "default_int64 = 9>(x) h = Cast<to = 1>(a)",
        "u = Unsqueeze(x, three) a = Greater(u, bounds) b = Cast<to = 7>(a) "
        "c = ReduceSum<keepdims = 0>(b, three) e = Gather(table, c) "
        "h = ReduceSum<keepdims = 0>(e, three)",
    ],
)
def test_whole_numbers_of_files_are_hidden_themselves(tmp_path, body):
    numbers = {"two": np.int64(2), "three": np.int64([2]), "bounds": np.int64([0, 2, 5])}
    used = {name: v for name, v in {**numbers, "table": TABLE}.items() if name in body}
    model = of_text("int64[n, 3] x", body, **used, W=WEIGHTS[:3])
    pg.compile(model, [pg.FeatureAblation(fill=2, target=1)], tmp_path / "m.onnx")
    x = np.array([[2, 0, 7], [1, 2, 2]])
    plain = runtime.load(pg.compile(model, [], tmp_path / "plain.onnx").path)
    expected = hidden_plainly(lambda of: plain.run(of)["y"].array[:, 1], x, 2)
    found = runtime.load(tmp_path / "m.onnx").run(x)["feature_ablation/x"].array
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)


def test_no_input_of_a_file_is_left_out_without_a_word():
    body = """a = Equal(x, two) b = Cast<to = 1>(a) r = Range(zero, three, one) l = Less(r, length)
        c = Cast<to = 1>(l) d = Mul(s, c) h = Add(b, d)"""
    model = of_text(
        "int64[n, 3] x, int64[n, 1] length, float[n, 3] s",
        body,
        **{n: np.int64(v) for v, n in enumerate(("zero", "one", "two", "three"))},
        W=WEIGHTS[:3],
    )
    view = onnx_source.open_source(model).view
    (group,) = make_plan(view, (pg.FeatureAblation(fill=2), pg.Saliency())).groups
    told = {output.spec.name: output.spec.method for output in group.outputs}
    assert list(told) == ["feature_ablation/x", "feature_ablation/s", "saliency/s"]
    assert told["feature_ablation/x"].endswith("; 'length' stays as fed")
    assert told["saliency/s"].endswith("; no gradient reaches 'x' and 'length'")


def test_ids_that_a_file_holds_as_floats_are_hidden_as_what_they_look_up(tmp_path):
    """As those of whole numbers, and as those of a Keras model: the id 0 is a word like others."""
    body = "a = Cast<to = 7>(x) e = Gather(T, a) h = Reshape(e, six)"
    model = of_text("float[n, 3] x", body, T=TABLE, W=WEIGHTS, six=np.int64([-1, 6]))
    pg.compile(
        model, [pg.FeatureAblation(target=1), pg.GradientXInput(target=1)], tmp_path / "m.onnx"
    )
    x = np.float32([[4, 0, 1], [2, 2, 3]])
    result = runtime.load(tmp_path / "m.onnx").run(x)
    expected = TABLE[x.astype(int)] * WEIGHTS[:, 1].reshape(3, 2)
    np.testing.assert_allclose(result["gradient_x_input/x"].array, expected, rtol=1e-5)
    np.testing.assert_allclose(result["feature_ablation/x"].array, expected.sum(-1), rtol=1e-5)
    view = onnx_source.open_source(model).view
    with pytest.raises(InstrumentError, match="may be meant as numbers of input 'x' itself"):
        make_plan(view, (pg.FeatureAblation(fill=9),))


def test_what_hides_a_number_must_be_in_the_table_that_it_is_looked_up_in(tmp_path):
    body = "a = Div(x, ten) e = Gather(T, a) h = Reshape(e, six)"
    more = {"ten": np.int64(10), "six": np.int64([-1, 6])}
    model = of_text("int64[n, 3] x", body, T=TABLE, W=WEIGHTS, **more)
    pg.compile(model, [pg.FeatureAblation(fill=49)], tmp_path / "m.onnx")
    expected = r"'feature_ablation/x': the model runs on the samples, and not where fill=50.0"
    with pytest.raises(VerificationError, match=expected):
        pg.compile(model, [pg.FeatureAblation(fill=50)], tmp_path / "n.onnx")
