"""Random Keras models of a fixed seed are right, and the fuzzer finds what is planted."""

import dataclasses
import types

import keras
import numpy as np
import pytest

import probegen as pg
from fuzz import keras_trial, twins, twins_by_scores
from fuzz.case import Case, Line
from fuzz.judging import FoundError
from fuzz.keras_models import draw_case
from fuzz.keras_states import States, stateful
from fuzz.keras_suite import attempted
from fuzz.keras_trial import attempt, build
from fuzz.keras_wider import Wider, precision
from fuzz.keras_witness import Explained, Witness
from fuzz.outcome import CRASHES, DIFFERS, EQUAL, INVALID, REFUSED, Outcome
from fuzz.shrinking import shrunk, smaller
from probegen import runtime
from probegen.methods.gradient_x_input import GradientXInput


@pytest.fixture(autouse=True)
def _as_before():
    """Puts Keras' settings back, which cases change."""
    floatx, policy = keras.config.floatx(), keras.config.dtype_policy()
    yield
    keras.config.set_floatx(floatx)
    keras.config.set_dtype_policy(policy)
    keras.backend.clear_session(free_memory=False)


@pytest.mark.parametrize("number", [1, 3, 4, 8])
def test_random_models_are_right(number):
    _try(f"5:{number}")


@pytest.mark.parametrize("number", [0, 2, 5, 6, 7, 9, 10])
def test_more_random_models_are_right(number):
    _try(f"5:{number}")


def _try(key):
    outcome = attempted(key)
    assert outcome.verdict in (EQUAL, REFUSED, INVALID), f"{outcome.reason}\n{outcome.code}"


def _case(**changes):
    lines = (
        Line("v0", "keras.Input([5, 3], name='in0')", "input"),
        Line("v1", "layers.Conv1D(4, 2, activation='tanh')(v0)"),
        Line("v2", "layers.Dense(3, activation='tanh')(v1)"),
        Line("v3", "layers.Flatten()(v2)"),
        Line("v4", "layers.Dense(3)(v3)"),
        Line("v5", "layers.Activation('softmax')(v4)"),
    )
    probes = ("pg.InputGradient(target=1)", "pg.GradientXInput(target=1)")
    whole = Case("9:1", "float32", lines, ("v5",), {"v5": "v4"}, probes, {})
    return dataclasses.replace(whole, **changes)


def test_a_case_is_the_same_each_time_and_its_code_runs(tmp_path, monkeypatch):
    first, again = draw_case("5:4"), draw_case("5:4")
    assert first.code() == again.code()
    monkeypatch.chdir(tmp_path)
    exec(_case().code(), {})
    assert (tmp_path / "case.onnx").exists()


def test_attributions_are_compared_with_the_tape():
    outcome = attempt(_case())
    assert (outcome.verdict, outcome.witnessed) == (EQUAL, 4)  # two methods, two batches


def test_a_wrong_attribution_is_found(monkeypatch):
    monkeypatch.setattr("fuzz.keras_trial.runtime", types.SimpleNamespace(load=_all_wrong))
    outcome = attempt(_case())
    assert outcome.verdict == DIFFERS, outcome.detail
    assert outcome.reason.startswith("input_gradient of InputGradient")


def test_gradients_are_compared_with_differences_in_float64():
    assert attempt(_case(), verify=False, differences=True).witnessed == 4 + 2

    told = "layers.Lambda(lambda t: 2.0 * tf.raw_ops.StopGradient(input=t) - t)(v0)"
    lines = (_case().lines[0], Line("v1", told), *_case().lines[2:])
    outcome = attempt(_case(lines=lines), verify=False, differences=True)
    assert outcome.verdict == DIFFERS, outcome.detail
    assert outcome.reason.startswith("input_gradient beside differences")


_OF_MAPS = (
    *("GradCAM", "GradCAMPlusPlus", "HiResCAM", "LayerCAM", "XGradCAM", "EigenCAM", "ReciproCAM"),
    "ScoreCAM",
)
_OF_INPUTS = (
    "pg.Saliency(target='top:2', output=0)",
    "pg.InputGradient(target=(None, 1), region='input', output=0)",
    "pg.GradientXInput(target='input', output=1)",
    "pg.IntegratedGradients(target=pg.contrast(0, 2), steps=3, completeness=True, output=0)",
    "pg.Occlusion(3, stride=2, target='all', output=1)",
    "pg.FeatureAblation(of=4, target=1)",
    "pg.SmoothGrad(samples=3, statistic='variance', target=('steps', 1), output=0)",
    "pg.ExpectedGradients(np.linspace(-1, 1, 40).reshape(2, 5, 4), samples=3, output=1)",
    "pg.RISE(masks=5, cells=2, target=lambda y: ops.sum(y[0][..., 0] * y[0][..., 1], axis=1))",
    "pg.LIME(groups='grid:3', samples=8, output=1)",
    "pg.KernelSHAP(groups='input', max_groups=5, samples=12, output=1)",
    "pg.GuidedBackprop(target=1, output=0)",
    "pg.Deconvnet(target=1, output=1)",
)


def test_the_witness_tells_each_of_its_methods_from_a_wrong_one(monkeypatch):
    """All in one artefact, each of whose explanations is wrong: each is told by itself."""
    lines = (
        Line("v0", "keras.Input([5, 4], name='in0')", "input"),
        Line("v1", "layers.Conv1D(3, 2, activation='tanh')(v0)"),
        Line("v2", "layers.Dense(3, activation='silu')(v1)"),
        Line("v3", "layers.Flatten()(v2)"),
        Line("v4", "layers.Dense(3)(v3)"),
    )
    probes = ("pg.Activations(1)", *(f"pg.{m}(layer=1, output=0)" for m in _OF_MAPS), *_OF_INPUTS)
    case = _case(lines=lines, outputs=("v2", "v4"), logits={"v2": "v2", "v4": "v4"}, probes=probes)
    outcome = attempt(case, verify=False)
    # Two batches of each, and of what is missing to completeness.
    assert (outcome.verdict, outcome.witnessed) == (EQUAL, 2 * (len(probes) + 1)), outcome.reason

    found = set()
    for check in ("check_attribution", "check_prediction", "_adds_up"):
        monkeypatch.setattr(keras_trial, check, _heard(getattr(keras_trial, check), found))
    monkeypatch.setattr(keras_trial, "runtime", types.SimpleNamespace(load=_all_wrong))
    monkeypatch.setattr(keras_trial, "check_rows_alone", lambda *_: None)
    again = attempt(case, verify=False)
    methods = {code.partition("(")[0].removeprefix("pg.") for code in probes}
    wrong = {"conv1d" if name == "Activations" else name for name in methods}
    assert found == {*wrong, "completeness"}, again


def _heard(check, found):
    """Returns a check that goes on where something is wrong, and notes the last word of what."""

    def noting(what, *args, **more):
        try:
            return check(what, *args, **more)
        except FoundError:
            found.add(what.split()[-1] if isinstance(what, str) else "completeness")
            return True

    return noting


def _all_wrong(path, **options):
    """Returns an artefact all of whose explanations are off by some hundredths."""
    right = runtime.load(path, **options)

    class Wrong:
        def __getattr__(self, name):
            return getattr(right, name)

        def run(self, *args, explain=True, **given):
            result = right.run(*args, explain=explain, **given)
            for spec in right.manifest.explanations if explain else ():
                array = result[spec.name].array
                array[:1] = array[:1] * 1.05 + (spec.kind == "completeness")
            return result

    return Wrong()


def test_a_case_is_cut_down_to_what_shows_the_fault():
    def fails_with_a_convolution(case):
        shown = "Conv1D" in case.code() and "GradientXInput" in case.code()
        return Outcome(case.key, DIFFERS if shown else EQUAL, "0.3" if shown else "")

    options = {"gate": "False", "opset": "17"}
    small = shrunk(_case(options=options, policy="float64"), fails_with_a_convolution, smaller)
    assert small.probes == ("pg.GradientXInput()",)
    assert (small.options, small.policy) == ({}, "float32")
    assert [line.code for line in small.lines] == [
        "keras.Input([5, 3])",
        "layers.Conv1D(4, 2)(v0)",
        "layers.Activation('softmax')(v1)",
    ]


def test_a_foreign_traceback_is_found(monkeypatch):
    def fails(*_):
        raise KeyError("gone")

    monkeypatch.setattr(GradientXInput, "combine", fails)
    outcome = attempt(_case())
    assert outcome.verdict in (CRASHES, REFUSED)
    assert "gone" in outcome.reason


def _recurrent():
    lines = (
        Line("v0", "keras.Input([None, 3], name='in0')", "input"),
        Line("v1", "layers.LSTM(4, return_sequences=True)(v0)"),
        Line("v2", "layers.GRU(3)(v1, initial_state=layers.Dense(3)(v1[:, 0]))"),
        Line("v3", "layers.SimpleRNN(3)(layers.Concatenate()([v1, v1]))"),
        Line("v4", "layers.Dense(3)(layers.Add()([v2, v3]))"),
    )
    probes = ("pg.InputGradient(target=1)", "pg.SmoothGrad(target=1, samples=2)")
    return _case(lines=lines, outputs=("v4",), logits={"v4": "v4"}, probes=probes)


@pytest.mark.parametrize("form", ["stateful", "fed"])
def test_states_are_compared_with_those_of_the_stateful_model(form, monkeypatch):
    case, options = _recurrent(), {"states": "'io'"} if form == "fed" else {}
    case = dataclasses.replace(stateful(case) if form == "stateful" else case, options=options)
    outcome = attempt(case, verify=False)
    assert (outcome.verdict, outcome.witnessed) == (EQUAL, 4), outcome.reason

    def to_half(states):
        for variable, value in zip(states.variables, states.start, strict=True):
            variable.assign(0.5 * value)

    def moving(program, *given):
        keras_trial.pg.export(program, given[1], verify=False)
        to_half(States.of(given[0][0]))

    if form == "fed":
        monkeypatch.setattr("fuzz.keras_states.States.reset", to_half)
    else:
        monkeypatch.setattr("fuzz.keras_trial._written", moving)
    outcome = attempt(dataclasses.replace(case, probes=()), verify=False)
    told = {"fed": "dense", "stateful": "the states of the model were moved"}[form]
    assert outcome.verdict == DIFFERS, outcome.detail
    assert outcome.reason.startswith(told)


@pytest.mark.parametrize("form", ["stateful", "fed"])
def test_a_wider_type_starts_from_the_same_states(form):
    lines = (
        Line("v0", "keras.Input([2, 3], name='in0')", "input"),
        Line("v1", "layers.SimpleRNN(2, unroll=True)(v0)"),
    )
    options = {"states": "'io'"} if form == "fed" else {}
    case = _case(lines=lines, outputs=("v1",), logits={"v1": "v1"}, options=options)
    case = stateful(case) if form == "stateful" else case
    built = build(case)
    (witness, *_), (feed, *_), _ = keras_trial._witnesses(case, built)
    witness.states.start = [np.full(x.shape, 0.4, x.dtype) for x in witness.states.start]
    wide = Wider(case, build, built).says(lambda w, f: w.predictions(f)[0], feed, witness)
    (right,) = witness.predictions(feed)
    assert wide.dtype == np.float64
    np.testing.assert_allclose(wide, right, rtol=1e-4, atol=1e-5)


def test_what_whole_numbers_become_inside_of_a_model_is_not_its_input():
    """Where buckets are looked up, a cast of rounded numbers is explained beside the input."""
    spec = types.SimpleNamespace(name="x", axes=("batch", "feature"), next_state=None)
    run = types.SimpleNamespace(art=types.SimpleNamespace(inputs=(spec,)))
    known = []
    for name in ("saliency/x", "saliency/x/cast", "own/x/cast"):
        one = types.SimpleNamespace(
            target=object(), layer=None, input="x", name=name, axes=spec.axes
        )
        known.append(keras_trial._place_of(run, pg.Saliency(), one) is not None)
    assert known == [True, False, False]


@pytest.mark.parametrize("of", ["input", "layer"])
def test_masks_stay_along_a_path(of):
    """From a baseline of zeros, where a layer that masks zeros would leave nothing."""
    given, code = "keras.Input([4, 2])", "layers.Masking(0.0)(v0)"
    if of == "layer":
        given, code = "keras.Input([4], dtype='int32')", "layers.Masking(0.0)(v1)"
    lines = [Line("v0", given, "input"), Line("v1", "layers.Embedding(5, 2)(v0)")]
    lines = lines if of == "layer" else lines[:1]
    lines += [Line("v2", code), Line("v3", "layers.GlobalAveragePooling1D()(v2)")]
    built = build(_case(policy="float32", lines=tuple(lines), outputs=("v3",), logits={"v3": "v3"}))
    model = built["core"]
    witness, layer = Witness(model, built["logits"]), model.layers[1]
    if of == "layer":
        layer.set_weights([np.array([[0, 0], [1, 2], [3, -1], [0, 0], [0.5, 2]], np.float32)])
        feed = [np.array([[1, 0, 2, 4], [2, 2, 3, 1]], np.int32)]
        x, explained = layer.get_weights()[0][feed[0]], Explained(None, layer)
    else:
        x = np.array([[[1, 2], [0, 0], [3, -1], [1, 1]], [[2, 2], [1, 0], [0, 0], [1, 1]]])
        feed, explained = [x.astype(np.float32)], Explained(0)
    probe = pg.IntegratedGradients(target=0, steps=3, rule="trapezoid")
    found = witness.attribution(probe, feed, explained, {})
    np.testing.assert_allclose(found[..., 0], x[..., 0] / 3, rtol=1e-6)
    np.testing.assert_array_equal(found[..., 1], 0)


def test_what_keras_does_not_want_is_no_fault():
    lines = (Line("v0", "keras.Input([5, 3], name='in0')", "input"), Line("v1", "ops.nope(v0)"))
    assert attempt(_case(lines=lines)).verdict == INVALID


def test_rounding_is_told_by_a_wider_type_and_by_noise_on_what_is_looked_up():
    """Ids cannot be moved by noise: equal ones make ties that only rounding decides."""
    lines = (
        Line("v0", "keras.Input([5], dtype='int32')", "input"),
        Line("v1", "layers.Embedding(7, 3)(v0)"),
        Line("v2", "layers.GlobalMaxPooling1D()(v1)"),
    )
    case = _case(lines=lines, outputs=("v2",), logits={"v2": "v2"})
    built = build(case)
    witness = Witness(built["core"], built["logits"])
    feed = [np.full((2, 5), 3, np.int32)]
    (right,) = witness.predictions(feed)
    (wide,) = (Wider(case, build, built).says(lambda w, f: w.predictions(f)[0], feed, witness),)
    assert (right.dtype, wide.dtype) == (np.float32, np.float64)
    np.testing.assert_allclose(wide, right, rtol=1e-6)
    assert keras.config.floatx() == "float32"

    table = witness.model.layers[1]
    told = []
    for draw in (0, 1):
        with witness.shaken(draw, 1e-3):
            told.append(witness.activation(table, feed))
    still = witness.activation(table, feed)
    assert (still == still[:, :1]).all()  # all five are one and the same
    for moved in told:
        assert 0 < np.abs(moved - still).max() < 1e-2
        assert len(np.unique(moved[0, :, 0])) == 5
    assert (told[0] != told[1]).any()

    alike = []
    for draw in (4, 5):
        with witness.shaken(draw, 1e-3):
            alike.append(witness.activation(table, feed) - still)
        assert (alike[-1] == alike[-1][:, :1]).all()  # as one step of rounding moves them
    np.testing.assert_allclose(alike[0], -alike[1], rtol=1e-2)
    assert (np.abs(alike[0]) > 1e-5).all()


def _witness_of(given, code):
    lines = (Line("v0", given, "input"), Line("v1", code))
    built = build(_case(policy="float32", lines=lines, outputs=("v1",), logits={"v1": "v1"}))
    return Witness(built["core"], built["logits"])


@pytest.mark.parametrize(
    ("dtype", "code"),
    [
        ("int32", "ops.one_hot(v0, 7)"),
        ("uint8", "layers.Rescaling(1 / 255)(v0)"),
        ("uint8", "ops.cast(v0, 'float32')"),
        ("float32", "layers.Activation('gelu')(v0)"),
    ],
)
def test_noise_moves_what_is_made_of_ids_and_bytes_and_the_tail_of_gelu(dtype, code):
    """Equal ones make ties; of GELU(-8) others have 0 where TensorFlow has -5e-15."""
    witness = _witness_of(f"keras.Input([5], dtype='{dtype}')", code)
    feed = [np.full((2, 5), 3 if dtype != "float32" else -8, dtype)]
    (still,) = witness.predictions(feed)
    with witness.shaken(0, 1e-3):
        (moved,) = witness.predictions(feed)
    assert 0 < np.abs(moved - still).max() < 2e-2
    assert len(np.unique(moved[0].reshape(5, -1), axis=0)) == 5
    assert (moved > 0).any()


def test_channels_whose_sums_are_equal_are_undecided():
    """A runtime adds up in another order for one row."""
    witness = _witness_of("keras.Input([2], dtype='int32')", "layers.Embedding(4, 3)(v0)")
    layer = witness.model.layers[1]
    found = []
    for mode, last in (("argmax", 3.0), ("argmax", 3.1), ("index", 3.0)):
        layer.set_weights([np.array([[1, 3, last]] * 4, np.float32)])
        feed = [np.array([[1, 2], [0, 0]])]
        run = keras_trial._Run(None, witness, feed, {}, None, "float32", None, {})
        target = types.SimpleNamespace(mode=mode, layer=layer.name, call=0)
        found.append(run.is_undecided(types.SimpleNamespace(target=target)))
    assert found == [True, False, False]


@pytest.mark.parametrize("name", ["silu", "sigmoid"])
def test_noise_takes_the_tail_of_sigmoids_away(name):
    """onnxruntime has 0 there: a count of what is positive is another behind a sum with it."""
    witness = _witness_of("keras.Input([2])", f"layers.Activation('{name}')(v0)")
    feed = [np.array([[-30.0, -2.0]], np.float32)]
    (still,) = witness.predictions(feed)
    with witness.shaken(0, 1e-6):
        (moved,) = witness.predictions(feed)
    assert still[0, 0] != 0 == moved[0, 0]
    np.testing.assert_allclose(moved[0, 1], still[0, 1], rtol=1e-5)


def test_a_score_of_float16_is_infinite_where_float16_is():
    keras.config.set_dtype_policy("mixed_float16")
    lines = (Line("v0", "keras.Input([3])", "input"), Line("v1", "layers.Rescaling(300.0)(v0)"))
    made = build(_case(policy="mixed_float16", lines=lines, outputs=("v1",), logits={"v1": "v1"}))
    witness = Witness(made["core"], made["logits"])
    probe = pg.Occlusion(window=1, target=lambda y: keras.ops.sum(y * y, axis=-1))
    feed = [np.array([[0.1, 0.2, 0.3], [0.1, 2.0, 0.3]], np.float32)]
    found = witness.attribution(probe, feed, Explained(0), {})
    np.testing.assert_array_equal(np.isfinite(found), [[True] * 3, [False] * 3])


def test_one_number_a_sample_is_one_window():
    right = twins_by_scores.by_scores(
        pg.Occlusion(window=3), np.array([2.0, 5.0]), lambda points: [3 * x for x in points], None
    )
    np.testing.assert_array_equal(right, [6, 15])


def test_noise_moves_what_gates_have_shut_and_no_masked_step():
    code = "layers.SimpleRNN(3, return_sequences=True, zero_output_for_mask=True)"
    witness = _witness_of("keras.Input([4, 2])", f"{code}(layers.Masking(0.0)(v0))")
    feed = [np.full((1, 4, 2), 1e-12, np.float32)]
    feed[0][:, 2:] = 0
    (still,) = witness.predictions(feed)
    with witness.shaken(0, 1e-3):
        (moved,) = witness.predictions(feed)
    off = np.abs(moved - still)
    assert (off[:, :2] > 1e-6).all()
    assert off.max() < 1e-2
    assert (off[:, 2:] == 0).all()


def test_the_best_of_scores_beyond_all_numbers_is_not_known():
    scores = np.array([[np.inf, np.nan, 1.0], [0.0, np.inf, np.inf], [np.inf, 2.0, 1.0]])
    (best,) = twins.picks("argmax", scores)
    assert np.isnan(best[:2]).all()
    assert best[2].tolist() == [1, 0, 0]
    (second,) = twins.picks(1, scores)
    assert second[0].tolist() == [0, 1, 0]


def test_slopes_on_stairs_of_rounding_are_not_known():
    """Attention takes 1e9 from every score where all keys are masked: what is left has steps."""
    found = []
    for code in ("ops.sin(v0)", "ops.sin((v0 - 1e9) + 1e9)"):
        with precision("float64"):
            witness = _witness_of(
                "keras.Input([3], dtype='float64')", f"ops.cast({code}, 'float64')"
            )
        feed, ways = [np.full((2, 3), 0.3)], np.eye(3)[:1]
        found.append(witness.slopes(pg.InputGradient(target=0), feed, {}, 0, ways))
    np.testing.assert_allclose(found[0], np.cos(0.3), rtol=1e-6)
    assert np.isnan(found[1]).all()


def test_what_a_score_is_summed_of_tells_how_its_differences_are_rounded():
    witness = _witness_of("keras.Input([2, 3])", "ops.concatenate([v0, -v0], axis=-1)")
    feed = [np.array([[[1.0, 2, 0]] * 2, [[30, 1, 0]] * 2], np.float32)]
    asked = {"region": np.array([[2.0, 1], [1, -1]])}
    probe = pg.FeatureAblation(target=(None, 0), region="input")
    witness.class_axes[0] = 2
    np.testing.assert_allclose(witness.sizes_of_scores(probe, feed, asked), [3, 60])
