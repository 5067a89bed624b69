"""Smaller artefacts: what they compute, figures of their own, and what is refused."""

import warnings

import keras
import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
import pytest
from keras import layers
from onnxruntime.quantization import CalibrationDataReader, quantize_dynamic, quantize_static
from onnxruntime.transformers.float16 import DEFAULT_OP_BLOCK_LIST, convert_float_to_float16

import probegen as pg
from probegen import runtime
from probegen.artefact.manifest import OutputSpec
from probegen.errors import ArtefactError, ExportError, InputError, VerificationError
from probegen.graph.ungate import remove_gate
from probegen.quantisation import FORMS, comparison
from probegen.runtime.certified import ChangedArtefactWarning
from tests.command_line import status_of

#: How far off each form may be; the share of each file that is left.
EXPECTED = {"float16": (2e-3, 0.55), "int8": (0.18, 0.35), "int8-static": (0.18, 0.35)}

#: An empty doc_string at the end of an ONNX file: the same model in other bytes.
NOTE = b"\x32\x00"


def cnn():
    keras.utils.set_random_seed(3)
    x = keras.Input((12, 10, 3), name="image")
    y = layers.Conv2D(24, 3, activation="relu")(x)
    y = layers.MaxPooling2D()(y)
    y = layers.Conv2D(24, 3, padding="same", activation="relu", name="maps")(y)
    y = layers.Dense(300, activation="relu")(layers.Flatten()(y))
    return keras.Model(x, layers.Dense(5, activation="softmax", name="scores")(y))


def transformer():
    keras.utils.set_random_seed(3)
    x = keras.Input((None,), dtype="int32", name="tokens")
    y = layers.Embedding(31, 24)(x)
    y = layers.Add()([y, layers.MultiHeadAttention(3, 8, name="attention")(y, y)])
    y = layers.Dense(48, activation="gelu")(layers.LayerNormalization()(y))
    y = layers.GlobalAveragePooling1D()(y)
    return keras.Model(x, layers.Dense(4, activation="softmax", name="scores")(y))


SUBJECTS = {
    "cnn": (
        cnn,
        [
            pg.Saliency(),
            pg.GradCAM("maps"),
            pg.IntegratedGradients(steps=3, completeness=True),
        ],
    ),
    "transformer": (transformer, [pg.Attention(), pg.InputGradient()]),
}


def samples_of(name, count=20):
    rng = np.random.default_rng(1)
    if name == "transformer":
        return rng.integers(1, 31, (count, 9)).astype(np.int32)
    return rng.normal(size=(count, 12, 10, 3)).astype(np.float32)


def middle_of(a, b, whole):
    """Returns |a - b| / |b| of the median sample, or of single numbers over the sum of |whole|."""
    sizes = [
        np.abs(w).sum() if np.ndim(q) == 0 else np.linalg.norm(q)
        for q, w in zip(b, whole, strict=True)
    ]
    return np.median([np.linalg.norm(p - q) / n for p, q, n in zip(a, b, sizes, strict=True)])


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp("quantise")
    for name, (build, probes) in SUBJECTS.items():
        model = build()
        for gate in (True, False):
            pg.compile(model, probes, folder / f"{name}_{gate}.onnx", gate=gate)
        if name == "cnn":  # that converter spoils the bodies of loops
            pg.compile(model, probes[:2], folder / "cnn_float16.onnx", gate=False)
    return folder


@pytest.mark.parametrize("gate", [True, False])
@pytest.mark.parametrize("to", FORMS)
@pytest.mark.parametrize("name", SUBJECTS)
def test_smaller_and_near(made, tmp_path, name, to, gate):
    """Whatever the report says is measured anew, by running both files."""
    given, small = made / f"{name}_{gate}.onnx", tmp_path / "small.onnx"
    x = samples_of(name)
    done = pg.quantise(given, small, to, samples=x)
    limit, share = EXPECTED[to]
    assert done.bytes == (small.stat().st_size, given.stat().st_size)
    if (name, gate) == ("cnn", False):
        assert done.bytes[0] < share * done.bytes[1]
    with warnings.catch_warnings():
        warnings.simplefilter("error", ChangedArtefactWarning)
        before, after = runtime.load(given), runtime.load(small)
    ours, theirs = after.run(x), before.run(x)
    kept = np.argmax(ours["scores"].array, -1) == np.argmax(theirs["scores"].array, -1)
    assert kept.mean() > 0.8
    changed = 0.0
    for output in before.outputs:
        a, b = (np.asarray(r[output.name].array)[kept] for r in (ours, theirs))
        # What is missing to completeness is a small difference of what is summed up.
        whole = np.asarray(theirs[output.detail.get("of", output.name)].array)[kept]
        off = middle_of(a, b, whole)
        assert off < limit, output.name
        changed = max(changed, off)
        said = done.report[output.name]
        assert said.l2_rel == pytest.approx(off, rel=0.8, abs=1e-6)  # int8's ranges are of a batch
        assert said.passed
    assert changed > 1e-5  # something has been rounded
    certified = after.manifest.certificate["outputs"]
    assert {n: f["l2_rel"] for n, f in certified.items()} == {
        n: f.l2_rel for n, f in done.report.items()
    }
    assert after.manifest.certificate["against"] != before.manifest.certificate["against"]
    assert after.manifest.producer["quantised"] == to
    assert after.manifest.gate == before.manifest.gate
    if gate:
        assert list(after.run(x, explain=False)) == ["scores"]
        assert np.array_equal(after.run(x, explain=False)["scores"].array, ours["scores"].array)


def test_weights_are_stored_once_in_int8(made, tmp_path):
    pg.quantise(made / "cnn_True.onnx", tmp_path / "m.onnx", "int8", samples=samples_of("cnn"))
    stored = onnx.load(tmp_path / "m.onnx").graph.initializer
    large = {t.data_type for t in stored if np.prod(t.dims) > 600}
    assert large == {onnx.TensorProto.UINT8}


def test_the_gradient_is_that_of_the_weights_that_predict(tmp_path):
    """One matrix: its int8 weights are the gradient of the logits, to the last bit of float32."""
    x = keras.Input((40,), name="x")
    model = keras.Model(x, layers.Dense(7, use_bias=False, name="y")(x))
    pg.compile(model, pg.InputGradient(target="input"), tmp_path / "m.onnx")
    pg.quantise(tmp_path / "m.onnx", tmp_path / "q.onnx", "int8")
    stored = {
        t.name: onnx.numpy_helper.to_array(t)
        for t in onnx.load(tmp_path / "q.onnx").graph.initializer
    }
    whole = next(a for a in stored.values() if a.dtype == np.uint8 and a.size == 280)
    scale = next(a for n, a in stored.items() if n.endswith("_scale"))
    zero = next(a for n, a in stored.items() if n.endswith("_zero_point"))
    targets = np.arange(7)
    got = runtime.load(tmp_path / "q.onnx").run(np.ones((7, 40), np.float32), target=targets)
    weights = (whole.astype(np.float32) - zero) * scale
    assert np.abs(weights - model.get_weights()[0]).max() <= scale / 2 * 1.001
    np.testing.assert_allclose(got["input_gradient/x"].array, weights.T, rtol=1e-6)


def test_generated_samples_and_other_inputs(tmp_path):
    """An optional gate, classes and regions of a request, and no samples."""
    x = keras.Input((None, 6), name="x")
    y = layers.Conv1D(16, 3, padding="same", activation="relu", name="maps")(x)
    model = keras.Model(x, layers.Conv1D(4, 1, activation="softmax", name="y")(y))
    probes = [
        pg.GradCAM("maps", target="input", region="input"),
        pg.InputGradient(target="top:2", region="input"),
    ]
    pg.compile(model, probes, tmp_path / "m.onnx", gate="optional")
    done = pg.quantise(tmp_path / "m.onnx", tmp_path / "q.onnx")
    assert done.report.generated
    assert set(done.report) == {o.name for o in runtime.load(tmp_path / "m.onnx").outputs}
    after = runtime.load(tmp_path / "q.onnx")
    assert after.manifest.gate == "optional"
    assert after.run(np.ones((2, 5, 6), np.float32), explain=False)["y"].shape == (2, 5, 4)


def test_groups_of_a_request_and_no_samples(tmp_path):
    x = keras.Input((7, 5, 2), name="x")
    y = layers.GlobalMaxPooling2D()(layers.Conv2D(8, 3, activation="relu")(x))
    model = keras.Model(x, layers.Dense(3, name="y")(y))
    pg.compile(model, pg.FeatureAblation(groups="input"), tmp_path / "m.onnx")
    done = pg.quantise(tmp_path / "m.onnx", tmp_path / "q.onnx")
    assert 0 < max(parity.l2_rel for parity in done.report.values()) < 0.05


def test_a_weight_beyond_float16_stays(tmp_path):
    x = keras.Input((40,), name="x")
    model = keras.Model(x, layers.Dense(3, name="y")(x))
    model.set_weights([np.full((40, 3), 1e5), np.zeros(3)])
    pg.compile(model, pg.InputGradient(target=0), tmp_path / "m.onnx")
    pg.quantise(tmp_path / "m.onnx", tmp_path / "q.onnx")
    got = runtime.load(tmp_path / "q.onnx").run(np.ones((1, 40), np.float32))
    assert np.array_equal(got["input_gradient/x"].array, np.full((1, 40), 1e5))


@pytest.mark.parametrize("to", ["int8", "int8-static"])
def test_every_processor_says_the_same(made, tmp_path, to):
    """Products of weights with a sign are cut off at 16 bits by x86 processors without VNNI.

    Without optimisation what is quantised is multiplied as floats, where nothing is cut off.
    """
    small, x = tmp_path / "small.onnx", samples_of("cnn")
    pg.quantise(made / "cnn_False.onnx", small, to, samples=x)
    weights = onnx.load(small).graph.initializer
    stored = [t.data_type for t in weights if t.name.endswith("_quantized")]
    assert stored
    assert set(stored) == {onnx.TensorProto.UINT8}
    plainly = onnxruntime.SessionOptions()
    plainly.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    right = onnxruntime.InferenceSession(small, plainly).run(None, {"image": x})
    for a, b in zip(
        onnxruntime.InferenceSession(small).run(None, {"image": x}), right, strict=True
    ):
        np.testing.assert_allclose(a, b, atol=5e-3)  # a step of 8 bits


def test_what_is_too_far_off_is_not_written(made, tmp_path):
    with pytest.raises(VerificationError, match=r"'saliency/image'.*before it was quantised"):
        pg.quantise(made / "cnn_True.onnx", tmp_path / "q.onnx", "int8", limit=1e-4)
    assert list(tmp_path.iterdir()) == []


def test_explanations_that_were_never_compared_have_no_certificate(tmp_path):
    """float16 makes two classes equal, so that the one sample is explained for another class."""
    inputs = keras.Input((20,), name="x")
    dense = layers.Dense(2, use_bias=False)
    model = keras.Model(inputs, dense(inputs))
    dense.set_weights([np.tile(np.array([1.0, 1.0001], "float32"), (20, 1))])
    pg.compile(model, pg.Saliency(), tmp_path / "m.onnx")
    samples = np.ones((1, 20), "float32")
    with pytest.raises(VerificationError, match=r"'saliency/x' .*median L2 inf"):
        pg.quantise(tmp_path / "m.onnx", tmp_path / "q.onnx", samples=samples)
    assert not (tmp_path / "q.onnx").exists()


def test_a_lost_explanation_is_not_alike():
    some, none = np.array([1.0, -2.0]), np.zeros(2)
    assert comparison._cosine(some, none) == comparison._cosine(none, some) == 0.0
    assert comparison._cosine(none, none) == 1.0


def test_samples_beyond_the_limit_are_told(made, tmp_path, capsys):
    """The median passes, and who reads the table or the certificate sees that some do not."""
    x, given, small = samples_of("cnn"), made / "cnn_True.onnx", tmp_path / "q.onnx"
    np.save(tmp_path / "x.npy", x)
    options = ["--to", "int8-static", "--samples", tmp_path / "x.npy", "--limit", 0.18]
    assert status_of("quantise", given, "-o", small, *options) == 0
    before, after = runtime.load(given).run(x), runtime.load(small)
    now = after.run(x)
    kept = np.argmax(now["scores"].array, -1) == np.argmax(before["scores"].array, -1)
    a, b = (np.asarray(r["saliency/image"].array).reshape(len(x), -1) for r in (now, before))
    off = np.where(kept, np.linalg.norm(a - b, axis=1) / np.linalg.norm(b, axis=1), 0.0)
    found = after.manifest.certificate["outputs"]["saliency/image"]
    assert 0 < found["beyond"] == (off > 0.18).sum() < len(x) / 2
    assert found["sample"] == f"sample {off.argmax()}"
    told = " ".join(capsys.readouterr().out.split())  # a narrow table breaks lines
    assert f"but for {found['beyond']} beyond 0.18" in told


def broken():
    """Twenty samples, one of them so large that its neighbours round to nothing in int8."""
    x = samples_of("cnn", 20)
    x[3] *= 1e4
    return x


def test_samples_that_are_far_off_are_refused(made, tmp_path, capsys):
    """Most samples are near, so that the median passes; the neighbours of a huge one are not."""
    x = broken()
    given, small = made / "cnn_True.onnx", tmp_path / "q.onnx"
    with pytest.raises(VerificationError, match=r"'scores' .in sample \d.*worst") as told:
        pg.quantise(given, small, "int8", samples=x)
    assert list(tmp_path.iterdir()) == []
    figures = told.value.report["scores"]
    assert figures.l2_rel < figures.limit
    assert figures.worst > figures.worst_limit == 0.2
    assert not figures.passed
    np.save(tmp_path / "x.npy", x)
    options = ["--to", "int8", "--samples", tmp_path / "x.npy", "--worst", 100]
    assert status_of("quantise", given, "-o", small, *options) == 0
    found = runtime.load(small).manifest.certificate["outputs"]["scores"]
    assert found["worst"] == pytest.approx(figures.worst)
    assert found["worst_limit"] == 20
    assert found["beyond"] > 0
    told = " ".join(capsys.readouterr().out.split())
    assert f"but for {found['beyond']} beyond 0.1" in told


def _pair(right, now):
    return comparison._Pair(right, now, right)


@pytest.mark.parametrize(
    ("change", "passes"),
    [
        (lambda a: a, True),
        (lambda a: 1.9 * a, True),
        (lambda a: -a, False),
        (lambda a: 3.0 * a, False),
        (lambda a: np.where(a == a.flat[0], np.nan, a), False),
    ],
    ids=["same", "near", "turned", "larger", "not a number"],
)
def test_one_sample_of_many(change, passes):
    spec = OutputSpec("saliency/x", "saliency", "float32", (None, 6), ("batch", "feature"))
    rng = np.random.default_rng(0)
    right = [rng.normal(size=6).astype(np.float32) for _ in range(9)]
    pairs = [
        _pair(one, (1.001 * one if i else change(one)).astype(np.float32))
        for i, one in enumerate(right)
    ]
    limits = comparison.Limits(0.5, 1.0)
    for hard in ([False] * 9, [True] + [False] * 8):
        found = comparison._parity(spec, pairs, hard, [True] * 9, limits)
        spoilt = not np.isfinite(pairs[0].now).all()
        assert found.passed == (passes or (hard[0] and not spoilt))


def test_the_gate_comes_out_whole(made):
    model = ir.load(made / "cnn_True.onnx")
    remove_gate(model)
    assert "explain" not in [i.name for i in model.graph.inputs]
    assert not any(node.op_type == "If" for node in model.graph)
    plain, gated = (onnx.load(made / f"cnn_{gate}.onnx").graph for gate in (False, True))
    assert [o.name for o in model.graph.outputs] == [o.name for o in gated.output]
    session = runtime.load(made / "cnn_False.onnx").engine.session
    x = samples_of("cnn", 3)
    ours = onnxruntime.InferenceSession(ir.to_proto(model).SerializeToString()).run(
        None, {"image": x}
    )
    for a, b in zip(ours, session.run(None, {"image": x}), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)
    assert len(model.graph.initializers) <= len(plain.initializer) + 2


def test_loops_of_the_branch_that_predicts_go_with_it(tmp_path):
    """Their bodies read what stands beside them in that branch."""
    text = """<ir_version: 9, opset_import: ["" : 17]>
      net (float[4, n, 3] x) => (float[n, 3] y) {
        most = ReduceMax <axes = [0], keepdims = 0> (x)
        y = Scan <num_scan_inputs = 1, body = step (float[n, 3] s, float[n, 3] t)
          => (float[n, 3] u) { a = Mul (t, most) u = Add (a, s) }> (most, x)
      }"""
    path, axes = tmp_path / "m.onnx", {"x": "time,batch,feature"}
    source = onnx.parser.parse_model(text)
    pg.compile(source, pg.InputGradient(target=1), path, verify=False, inputs=axes)
    model, x = ir.load(path), np.random.default_rng(1).normal(size=(4, 2, 3)).astype(np.float32)
    remove_gate(model)
    ours = onnxruntime.InferenceSession(ir.to_proto(model).SerializeToString()).run(None, {"x": x})
    found = runtime.load(path).run(x)
    for name, array in zip(("y", "input_gradient/x"), ours, strict=True):
        np.testing.assert_allclose(found[name].array, array, rtol=1e-6)


REFUSED = [
    ({"to": "int4"}, "takes one of 'float16', 'int8', 'int8-static', got 'int4'"),
    ({"to": "int8-static"}, "takes the ranges of activations from samples"),
    ({"path": "q.bin"}, "does not end in .onnx"),
    ({"path": "cnn_True.onnx"}, "is the model itself"),
]


@pytest.mark.parametrize(("given", "said"), REFUSED)
def test_refused(made, given, said):
    options = {"artefact": made / "cnn_True.onnx", "path": "q.onnx", **given}
    options["path"] = made / options["path"]
    with pytest.raises(pg.ProbegenError, match=said):
        pg.quantise(**options)
    assert not (made / "q.onnx").exists()


def test_more_that_is_refused(tmp_path, made):
    x = keras.Input((None, 3), name="x")
    model = keras.Model(x, layers.GlobalMaxPooling1D(name="y")(x))
    pg.compile(model, pg.InputGradient(target=0), tmp_path / "m.onnx")
    with pytest.raises(ExportError, match=r"nothing to quantise.*--to float16"):
        pg.quantise(tmp_path / "m.onnx", tmp_path / "q.onnx", "int8")
    pg.compile(model, pg.InputGradient(target=0), tmp_path / "s.onnx", gate="split")
    with pytest.raises(ExportError, match="two graphs over one weights file"):
        pg.quantise(tmp_path / "s.onnx", tmp_path / "q.onnx")
    with pytest.raises(ExportError, match="is a folder"):
        pg.quantise(tmp_path, tmp_path / "q.onnx")
    with pytest.raises(InputError, match="image"):
        pg.quantise(
            made / "cnn_True.onnx", tmp_path / "q.onnx", samples=np.zeros((2, 3), np.float32)
        )
    changed = (made / "cnn_True.onnx").read_bytes() + NOTE
    (tmp_path / "changed.onnx").write_bytes(changed)
    with pytest.raises(ArtefactError, match="not as probegen wrote it"):
        pg.quantise(tmp_path / "changed.onnx", tmp_path / "q.onnx")


def test_from_the_command_line(made, tmp_path, capsys):
    np.save(tmp_path / "x.npy", samples_of("cnn"))
    given, small = made / "cnn_True.onnx", tmp_path / "q.onnx"
    options = ["--to", "int8-static", "--samples", tmp_path / "x.npy"]
    assert status_of("quantise", given, "-o", small, *options) == 0
    said = capsys.readouterr().out
    assert "before it became int8-static" in said
    assert "MB, before" in said
    assert status_of("quantise", given, "-o", small, *options, "--json") == 0
    assert "Infinity" not in capsys.readouterr().out  # which is no JSON
    assert status_of("run", small, tmp_path / "x.npy") == 0
    assert "warning" not in capsys.readouterr().err
    small.write_bytes(small.read_bytes() + NOTE)
    assert status_of("run", small, tmp_path / "x.npy") == 0
    assert "warning: " in capsys.readouterr().err


# -- other people's tools ----------------------------------------------------------------------


class Reader(CalibrationDataReader):
    def __init__(self, feeds):
        self.left = iter(feeds)

    def get_next(self):
        return next(self.left, None)


#: Where onnxruntime's converter to float16 goes wrong: kernels that its CPU lacks, and second
#: outputs of LayerNormalization, which are always float32.
BLOCKED = [*DEFAULT_OP_BLOCK_LIST, "ScatterElements", "LayerNormalization"]


def to_float16(given, made, _):
    proto = onnx.load(given)
    found = convert_float_to_float16(proto, keep_io_types=True, op_block_list=BLOCKED)
    onnx.save(found, made)


def to_static_int8(given, made, x):
    feeds = {onnx.load(given).graph.input[0].name: x}
    quantize_static(given, made, Reader([feeds]))


TOOLS = {
    "dynamic": lambda given, made, _: quantize_dynamic(given, made),
    "static": to_static_int8,
    "float16": to_float16,
}


@pytest.mark.filterwarnings("ignore:the float32 number", "ignore::UserWarning")
@pytest.mark.parametrize("tool", TOOLS)
@pytest.mark.parametrize("name", SUBJECTS)
def test_an_ungated_artefact_survives_and_keeps_no_certificate(made, tmp_path, name, tool):
    without_loops = made / f"{name}_{tool}.onnx"
    given = without_loops if without_loops.exists() else made / f"{name}_False.onnx"
    changed = tmp_path / "changed.onnx"
    TOOLS[tool](given, changed, samples_of(name))
    with pytest.warns(ChangedArtefactWarning, match="not as probegen wrote it"):
        after = runtime.load(changed)
    assert after.manifest.certificate is None
    before, x = runtime.load(given), samples_of(name, 6)
    assert before.manifest.certificate["passed"]
    now, then = after.run(x), before.run(x)
    for output in before.outputs:
        key = output.name
        a, b, whole = (
            np.asarray(r[k].array)
            for r, k in ((now, key), (then, key), (then, output.detail.get("of", key)))
        )
        assert middle_of(a, b, whole) < (0.02 if tool == "float16" else 0.6), key
