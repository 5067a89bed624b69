"""What is right: the model called as a user calls it, and what to do where nothing is."""

import keras
import numpy as np
import pytest
from keras import layers

import probegen as pg
from probegen.errors import InputError, ProbegenError, VerificationError
from probegen.parity import measuring
from probegen.parity.trials import check_same
from probegen.sources.keras.reference import KerasReference
from tests import models


def dense(**options):
    x = keras.Input((5,), name="x")
    y = layers.Dense(4, activation="relu", name="hidden")(x)
    return keras.Model(x, layers.Dense(3, name="head", **options)(y))


def spoilt(model, value):
    layer = model.get_layer("hidden")
    kernel, bias = layer.get_weights()
    kernel[1, 2] = value
    layer.set_weights([kernel, bias])
    return model


@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize("form", ["m.onnx", "saved"])
def test_weights_that_are_not_finite_are_named(value, form, tmp_path):
    with pytest.raises(VerificationError, match=r"not finite in 'head'.*weight 'hidden/kernel'"):
        pg.compile(spoilt(dense(), value), pg.InputGradient(target=0), tmp_path / form)
    assert not list(tmp_path.iterdir())


def test_samples_that_are_not_finite_are_named(tmp_path):
    x = models.images((5,))
    x[1, 3] = np.nan
    with pytest.raises(InputError, match=r"samples hold.*1 of input 'x', the first at \[1, 3\]"):
        pg.compile(dense(), pg.InputGradient(), tmp_path / "m.onnx", samples=x)


def test_the_first_layer_that_is_not_finite_is_named(tmp_path):
    x = keras.Input((5,), name="x")
    y = layers.Dense(4, name="hidden")(x)
    y = layers.Lambda(lambda v: keras.ops.log(-keras.ops.abs(v)), name="wrong")(y)
    model = keras.Model(x, layers.Dense(2, name="head")(y))
    with pytest.raises(VerificationError, match=r"made up.* pass .*first arise in layer 'wrong'"):
        pg.compile(model, pg.Activations("hidden"), tmp_path / "m.onnx")


def test_a_model_that_is_not_finite_on_hard_samples_alone_passes(tmp_path):
    """1 / sum is infinite for zeros, in the model as in the artefact."""
    x = keras.Input((5,), name="x")
    y = layers.Dense(3, use_bias=False, name="head")(x)
    y = layers.Lambda(lambda v: 1 / keras.ops.sum(v, axis=1, keepdims=True), name="inverse")(y)
    report = pg.compile(keras.Model(x, y), pg.InputGradient(), tmp_path / "m.onnx").report
    assert report["inverse"].non_finite == 1
    assert report["input_gradient/x"].non_finite == 5


def reference_of(probed):
    return KerasReference(probed.keras_model, probed.plan)


class Random(layers.Layer):
    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.seeds = keras.random.SeedGenerator(3)

    def call(self, x):
        return x + keras.random.normal((4,), seed=self.seeds)


def test_a_model_that_answers_otherwise_when_called_again_is_refused():
    model = dense()
    reference = reference_of(pg.instrument(model, pg.InputGradient()))
    hidden = model.get_layer("hidden")
    original, noise = hidden.call, Random()
    hidden.call = lambda x, **_: noise(original(x))
    feed = {"x": models.images((5,))}
    with pytest.raises(VerificationError, match=r"random numbers at inference.*'head'"):
        check_same("m", *reference.predictions(feed, times=2))
    reference.predictions(feed)


def test_states_and_counters_are_left_as_they_were():
    class Counter(layers.Layer):
        def build(self, _):
            self.count = self.add_weight(shape=(), initializer="zeros", trainable=False)

        def call(self, x):
            self.count.assign_add(1.0)
            return x * 2

    x = keras.Input(batch_shape=(2, 6, 3), name="x")
    counter = Counter(name="counter")
    y = layers.LSTM(4, stateful=True, name="lstm")(counter(x))
    model = keras.Model(x, layers.Dense(3, name="head")(y))
    probed = pg.instrument(model, pg.InputGradient())
    lstm = model.get_layer("lstm")
    for state in lstm.states:
        state.assign(np.full(state.shape, 0.25))
    counted = float(counter.count.numpy())
    reference = reference_of(probed)
    feed = {"x": models.images((6, 3), count=2)}
    once, again = (answer["head"] for answer in reference.predictions(feed, times=2))
    np.testing.assert_array_equal(once, again)
    assert all(np.all(s.numpy() == 0.25) for s in lstm.states)
    assert float(counter.count.numpy()) == counted


def test_predictions_do_not_come_from_the_trace(tmp_path, monkeypatch):
    """What the artefact and the traced model share is not what predictions are compared with."""
    model = dense()
    probed = pg.instrument(model, pg.InputGradient(target=0))
    pg.export(probed, tmp_path / "m.onnx", verify=False)
    traced = KerasReference.explanations

    def wrong(self, feed, target, noise):
        found = traced(self, feed, target, noise)
        return {**found, "head": found["head"] + 1}

    monkeypatch.setattr(KerasReference, "explanations", wrong)
    assert pg.verify(tmp_path / "m.onnx", probed)["head"].passed


def test_longer_samples_are_found_where_a_model_needs_them(tmp_path):
    x = keras.Input((None, 4), name="x")
    y = x
    for _ in range(3):
        y = layers.Conv1D(5, 3, strides=2, activation="relu")(y)
    y = layers.GlobalAveragePooling1D()(y)
    model = keras.Model(x, layers.Dense(2, name="head")(y))
    report = pg.compile(model, pg.InputGradient(), tmp_path / "m.onnx").report
    batches, lengths = zip(*((r["batch"], r["sizes"]["x[time]"]) for r in report.runs), strict=True)
    assert len({*batches, *lengths}) == 4
    assert min(lengths) >= 15
    assert report.to_json()["runs"][0]["sizes"] == {"x[time]": lengths[0]}


def test_where_none_will_do_the_error_says_to_pass_samples(tmp_path):
    x = keras.Input((None, 4), name="x")
    y = layers.Lambda(lambda v: keras.ops.reshape(v, (-1, 7 * 4)), output_shape=(28,))(x)
    model = keras.Model(x, layers.Dense(2, name="head")(y))
    probed = pg.instrument(model, pg.InputGradient())
    with pytest.raises(ProbegenError, match="samples="):
        pg.export(probed, tmp_path / "m.onnx")
    pg.export(probed, tmp_path / "m.onnx", samples=models.images((7, 4)))


def test_given_samples_are_run_at_another_batch_and_length_too(tmp_path):
    x = keras.Input((None, 4), name="x")
    y = layers.LSTM(3)(x)
    model = keras.Model(x, layers.Dense(2, name="head")(y))
    report = pg.compile(
        model, pg.InputGradient(), tmp_path / "m.onnx", samples=models.images((6, 4), count=5)
    ).report
    assert (report.samples, report.generated) == (5, False)
    assert report.runs[0]["batch"] == 5
    assert len({r["batch"] for r in report.runs}) == 2
    assert len({r["sizes"]["x[time]"] for r in report.runs}) == 2


def test_rare_events_are_held_to_one_rounding_of_a_sigmoid(tmp_path):
    x = keras.Input((6,), name="x")
    rare = keras.initializers.Constant(-11.5)
    model = keras.Model(x, layers.Dense(1, "sigmoid", bias_initializer=rare, name="risk")(x))
    figures = pg.compile(model, pg.InputGradient(logits=False), tmp_path / "m.onnx").report
    assert 1e-7 < figures["risk"].floor < 2e-7
    linear = dense()
    reference = reference_of(pg.instrument(linear, pg.InputGradient()))
    assert reference.computed_near("head") == 0


def test_differences_of_scores_are_rounded_as_scores_are(tmp_path):
    """An attribution of what hardly matters is the rounding of the score, in each element."""
    x = keras.Input((100,), name="x")
    head = layers.Dense(1, kernel_initializer="zeros", bias_initializer="ones", name="head")
    model = keras.Model(x, 50.0 * head(x))
    figures = pg.compile(model, pg.Occlusion(window=10), tmp_path / "m.onnx").report
    each, whole = 4 * 1.2e-7 * 50.0 * 10, 64 * 1.2e-7 * 50.0 / 10
    assert figures["occlusion/x"].floor == pytest.approx(each + whole)


@pytest.mark.parametrize(("function", "far"), [("tanh", 6.5), ("erf", 3.6)])
def test_rare_events_by_way_of_a_function_that_runs_to_minus_1(tmp_path, function, far):
    """Runtimes are exact to four roundings of the 1, of which 1e-6 is left."""
    keras.utils.set_random_seed(3)
    x = keras.Input((6,), name="x")
    score = 0.3 * layers.Dense(1)(x) - far
    risk = (getattr(keras.ops, function)(score) + 1) / 2
    model = keras.Model(x, layers.Activation("linear", name="risk")(risk))
    figures = pg.compile(model, pg.InputGradient(), tmp_path / "m.onnx").report
    assert figures["risk"].floor == pytest.approx(2 * 1.2e-7)


def test_an_error_at_other_sizes_alone_is_found(tmp_path, monkeypatch):
    """As when a loop over time runs over the batch: right wherever both have one size."""
    x = keras.Input((None, 4), name="x")
    y = layers.GlobalAveragePooling1D()(layers.Dense(3, activation="tanh")(x))
    model = keras.Model(x, layers.Dense(2, name="head")(y))
    probed = pg.instrument(model, pg.InputGradient())
    pg.export(probed, tmp_path / "m.onnx", verify=False)
    load = measuring.runtime.load

    class Wrong:
        def __init__(self, path, **more):
            self._art = load(path, **more)
            self.manifest, self.engine = self._art.manifest, self._art.engine
            self.texts = self._art.texts

        def run(self, feed, target=None, **more):
            batch, length = feed["x"].shape[:2]
            changed = feed["x"] if batch == length else feed["x"][:, :batch]
            return self._art.run({"x": changed}, target, **more)

    monkeypatch.setattr(measuring.runtime, "load", Wrong)
    with pytest.raises(VerificationError, match=r"'head' \(in sample \d of call"):
        pg.verify(tmp_path / "m.onnx", probed, models.images((5, 4), count=5))


# -- the third witness -------------------------------------------------------------------------


def tripled(original):
    def attribution(output, forward, gradient):
        return original(output, forward, 3 * gradient)

    return attribution


def test_differences_refute_gradients_that_a_savedmodel_shares_with_tensorflow(
    tmp_path, monkeypatch
):
    from probegen.sources.keras import tape

    monkeypatch.setattr(tape, "_attribution", tripled(tape._attribution))
    probes = [pg.Saliency(), pg.InputGradient(wrt="conv1")]
    with pytest.raises(VerificationError, match=r"'saliency/image'.*refute TensorFlow's") as caught:
        pg.compile(models.cnn(), probes, tmp_path / "saved")
    assert not caught.value.report["input_gradient/conv1"].passed
    assert caught.value.report["scores"].passed


def test_differences_confirm_a_savedmodel(tmp_path):
    report = pg.compile(models.cnn(), [pg.Saliency(), pg.GradCAM()], tmp_path / "saved").report
    assert all("differences" in report[n].witness for n in ("saliency/image", "grad_cam/conv2"))


def test_differences_decide_where_tensorflow_is_wrong(tmp_path, monkeypatch):
    from probegen.sources.keras import tape

    monkeypatch.setattr(tape, "_attribution", tripled(tape._attribution))
    probes = [pg.InputGradient(), pg.Saliency(), pg.GradCAM()]
    report = pg.compile(models.cnn(), probes, tmp_path / "m.onnx").report
    for name in ("input_gradient/image", "saliency/image", "grad_cam/conv2"):
        assert report[name].witness.startswith("differences")


def test_differences_do_not_excuse_an_artefact_that_is_wrong(tmp_path, monkeypatch):
    names = ("input_gradient/image", "saliency/image")
    probed = pg.instrument(models.cnn(), [pg.InputGradient(), pg.Saliency()])
    pg.export(probed, tmp_path / "m.onnx", verify=False)
    traced = KerasReference.explanations

    def doubled(self, feed, target, noise):
        found = traced(self, feed, target, noise)
        return {n: v if n == "scores" else 2 * v for n, v in found.items()}

    # Wrong by as much as the reference would be, were it the artefact that is doubled.
    with monkeypatch.context() as patch:
        patch.setattr(KerasReference, "explanations", doubled)
        report = pg.verify(tmp_path / "m.onnx", probed)
        assert all(report[name].passed for name in names)
    load = measuring.runtime.load
    for wrong in names:

        class Doubled:
            def __init__(self, path, wrong=wrong, **more):
                self._art, self._wrong = load(path, **more), wrong
                self.manifest, self.engine = self._art.manifest, self._art.engine

            def run(self, feed, target=None, **more):
                found = dict(self._art.run(feed, target, **more))
                return {n: _Array((1 + (n == self._wrong)) * r.array) for n, r in found.items()}

        monkeypatch.setattr(measuring.runtime, "load", Doubled)
        with pytest.raises(VerificationError, match=wrong):
            pg.verify(tmp_path / "m.onnx", probed)


class _Array:
    def __init__(self, array):
        self.array = array


def test_differences_say_nothing_of_gradients_that_the_model_stops(tmp_path):
    """A straight-through estimate is not the slope, and meant not to be."""
    x = keras.Input((5,), name="x")
    h = layers.Dense(4)(x)
    rounded = h + keras.ops.stop_gradient(keras.ops.round(h) - h)
    model = keras.Model(x, layers.Dense(2)(keras.ops.tanh(rounded)))
    exported = pg.compile(model, pg.InputGradient(target=0), tmp_path / "folder")
    assert exported.report["input_gradient/x"].witness == "TensorFlow's gradients"
