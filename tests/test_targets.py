"""Targets of several classes, from a Keras model and from an ONNX file, in every form."""

import dataclasses

import keras
import numpy as np
import onnx
import pytest
from keras import layers

import probegen as pg
from probegen import runtime
from probegen.errors import InstrumentError, NotDifferentiableError, SelectionError, SpecError
from probegen.runtime.plot import verdict
from tests import models

CLASSES = 6
METHODS = (pg.Saliency, pg.GradCAM, pg.IntegratedGradients)


def probes(target, **more):
    path = {"steps": 3}
    return [
        method(
            target=target, name=method.kind, **(path if method.kind[:3] == "int" else {}), **more
        )
        for method in METHODS
    ]


@pytest.fixture(scope="module")
def model():
    return models.cnn(CLASSES)


@pytest.fixture(scope="module")
def source(model, tmp_path_factory):
    return as_source(model, tmp_path_factory.mktemp("source") / "source.onnx")


def as_source(model, path):
    """Writes a model as an ONNX file that says nothing of probegen."""
    pg.compile(model, [], path, gate=False, verify=False)
    proto = onnx.load(path)
    del proto.metadata_props[:]
    onnx.save(proto, path)
    return path


def x(count=3, seed=0):
    return np.random.default_rng(seed).normal(size=(count, 11, 8, 2)).astype("f")


@pytest.fixture(scope="module")
def by_request(model):
    """What the class of a request has alone: TensorFlow's own gradients."""
    probed = pg.instrument(model, probes("input"))
    return lambda batch, classes: {
        name: np.asarray(value) for name, value in probed(batch, target=classes).items()
    }


TARGETS = {"top:3": 3, "all": CLASSES, (4, 1): 2}


@pytest.fixture(scope="module", params=["keras", "onnx"])
def artefact(request, model, source, tmp_path_factory):
    """A verified artefact of all targets, loaded."""
    asked = [
        dataclasses.replace(probe, name=f"{probe.name} {target}")
        for target in TARGETS
        for probe in probes(list(target) if isinstance(target, tuple) else target)
    ]
    path = tmp_path_factory.mktemp("targets") / "m.onnx"
    exported = pg.compile(model if request.param == "keras" else source, asked, path)
    assert exported.report.passed
    return runtime.load(path)


@pytest.mark.parametrize("target", TARGETS)
def test_each_class_has_what_it_has_alone(target, artefact, by_request):
    for count in (1, 4):
        batch = x(count, seed=count)
        result = artefact.run(batch)
        order = np.argsort(-np.asarray(result["scores"]), axis=1, kind="stable")
        rows = {"top:3": order[:, :3], "all": np.arange(CLASSES)[None], (4, 1): np.array([[4, 1]])}
        classes = np.broadcast_to(rows[target], (count, TARGETS[target]))
        for place in range(TARGETS[target]):
            alone = by_request(batch, classes[:, place])
            for method in METHODS:
                found = result[f"{method.kind} {target}"]
                assert found.axes[:2] == ("batch", "class")
                expected = alone[method.kind]
                atol = 1e-5 * np.abs(expected).max()
                np.testing.assert_allclose(found.array[:, place], expected, atol=atol)
        if target == "top:3":
            np.testing.assert_array_equal(result["saliency top:3/classes"].array, classes)
            assert result["saliency top:3/classes"].dtype == np.int32
        else:
            assert not [n for n in result if n.endswith(f"{target}/classes")]


def test_a_savedmodel_and_the_instrumented_model_say_the_same(model, tmp_path):
    probed = pg.instrument(model, probes("top:2"))
    pg.export(probed, tmp_path / "m")
    expected, result = probed(x()), runtime.load(tmp_path / "m").run(x())
    assert list(result) == [
        "scores",
        *(f"{m.kind}{end}" for m in METHODS for end in ("", "/classes")),
    ]
    for name, value in expected.items():
        np.testing.assert_allclose(result[name].array, value, rtol=1e-5, atol=1e-6)


def test_a_contrast_is_the_difference_of_gradients(model, source, tmp_path):
    several = pg.instrument(model, pg.InputGradient(target="all", name="all"))(x())
    each, scores = np.asarray(several["all"]), np.asarray(several["scores"])
    order = np.argsort(-scores, axis=1)
    rows = np.arange(3)
    contrasts = (
        (pg.contrast(3, "argmax"), 3, order[:, 0]),
        (pg.contrast("argmax", "runner_up"), order[:, 0], order[:, 1]),
        (pg.contrast(0, 5), 0, 5),
    )
    asked = [pg.InputGradient(target=t, name=str(i)) for i, (t, _, _) in enumerate(contrasts)]
    for number, opened in enumerate((model, source)):
        path = tmp_path / f"{number}.onnx"
        assert pg.compile(opened, asked, path).report.passed
        result = runtime.load(path).run(x())
        for i, (_, ahead, behind) in enumerate(contrasts):
            expected = each[rows, ahead] - each[rows, behind]
            found = result[str(i)].array
            np.testing.assert_allclose(found, expected, atol=1e-6 * np.abs(each).max())


def test_a_manifest_holds_the_target(model):
    for target in ("top:2", "all", [5, 0], pg.contrast("argmax", 2)):
        probed = pg.instrument(model, pg.Saliency(target=target))
        again = pg.instrument(model, [_read(p) for p in probed.manifest.probes])
        assert again.manifest == probed.manifest
        described = type(probed.manifest).from_json(probed.manifest.to_json())
        assert described.outputs == probed.manifest.outputs


def _read(entry):
    from probegen.methods.text_forms import from_dict

    return from_dict(entry)


@pytest.mark.parametrize("target", ["top:7", [0, 6], pg.contrast(6, "argmax")])
def test_classes_that_the_model_has_not(target, model, source, tmp_path):
    for opened in (model, source):
        with pytest.raises(InstrumentError, match=r"has 6|0 to 5"):
            pg.compile(opened, pg.Saliency(target=target), tmp_path / "m.onnx")
    assert not list(tmp_path.iterdir())


def test_a_head_of_one_unit_has_one_class():
    keras.utils.set_random_seed(0)
    given = keras.Input((5,), name="x")
    y = layers.Dense(1, activation="sigmoid")(layers.Dense(4, activation="tanh")(given))
    head = keras.Model(given, y)
    with pytest.raises(InstrumentError, match="has 1; 'top:1' or 'all'"):
        pg.instrument(head, pg.Saliency(target="top:2"))
    with pytest.raises(InstrumentError, match="compares two classes"):
        pg.instrument(head, pg.Saliency(target=pg.contrast("argmax", "runner_up")))
    found = pg.instrument(head, [pg.Saliency(target="all", name="all"), pg.Saliency(name="one")])
    answer = found(np.ones((2, 5), np.float32))
    assert answer["all"].shape == (2, 1, 5)
    np.testing.assert_array_equal(answer["all"][:, 0], answer["one"])
    flat = keras.Model(given, layers.Reshape(())(y))
    with pytest.raises(InstrumentError, match="it is one number a sample"):
        pg.instrument(flat, pg.Saliency(target="all"))


def test_sequences_have_their_best_classes_at_each_step(tmp_path):
    keras.utils.set_random_seed(1)
    given = keras.Input((None, 3), name="x")
    y = layers.LSTM(4, return_sequences=True)(given)
    model = keras.Model(given, layers.Dense(5, activation="softmax", name="y")(y))
    several = [pg.InputGradient(target=t, name=n) for t, n in (("top:2", "best"), ("all", "all"))]
    single = [pg.InputGradient(target=t, name=n) for t, n in (("argmax", "best"), (3, "three"))]
    source = as_source(model, tmp_path / "source.onnx")
    values = np.random.default_rng(0).normal(size=(2, 7, 3)).astype("f")
    alone = pg.instrument(model, single)(values)
    for opened in (model, source):
        assert pg.compile(opened, several, tmp_path / "m.onnx").report.passed
        result = runtime.load(tmp_path / "m.onnx").run(values)
        np.testing.assert_allclose(result["best"].array[:, 0], alone["best"], atol=1e-6)
        np.testing.assert_allclose(result["all"].array[:, 3], alone["three"], atol=1e-6)
        assert result["best/classes"].axes == ("batch", "class", "step")
        order = np.argsort(-np.asarray(alone["y"]), axis=-1)
        np.testing.assert_array_equal(
            result["best/classes"].array, np.moveaxis(order[..., :2], -1, 1)
        )


def test_the_cost_is_a_backward_pass_a_class(model):
    def gradient_work(target):
        costs = pg.inspect(model, probes=[pg.InputGradient(target=target)]).cost
        return costs[0].multiply_adds

    one, three = gradient_work("argmax"), gradient_work("top:3")
    assert 2.9 * one < three < 3.1 * one


def test_a_file_does_not_grow_with_the_classes(model, tmp_path):
    sizes = []
    for count in (2, 6):
        pg.compile(model, pg.Saliency(target=f"top:{count}"), tmp_path / "m.onnx", verify=False)
        sizes.append((tmp_path / "m.onnx").stat().st_size)
    assert abs(sizes[1] - sizes[0]) < 100


def test_double_precision(tmp_path):
    keras.utils.set_random_seed(2)
    given = keras.Input((6,), name="x", dtype="float64")
    y = layers.Dense(5, activation="tanh", dtype="float64")(given)
    y = layers.Dense(4, activation="softmax", dtype="float64", name="y")(y)
    model = keras.Model(given, y)
    targets = ("top:2", "all", "argmax", pg.contrast("argmax", 0))
    asked = [pg.InputGradient(target=t, name=str(i)) for i, t in enumerate(targets)]
    report = pg.compile(model, asked, tmp_path / "m.onnx").report
    assert report.passed
    assert max(report[str(i)].worst for i in range(4)) < 1e-13


# -- of a layer ----------------------------------------------------------------------------------


def of_layer(of):
    """Probes of every family, whose score is that of channels of a layer."""
    return [
        pg.InputGradient(of=of, name="best"),
        pg.InputGradient(of=of, target=2, name="two"),
        pg.Saliency(of=of, target="top:2", name="top"),
        pg.IntegratedGradients(of=of, steps=3, target=[4, 0], name="path"),
        pg.Occlusion(of=of, window=4, target=pg.contrast("argmax", 1), name="hidden"),
    ]


def test_the_score_of_a_layer(model, source, tmp_path):
    """Against TensorFlow's gradients of a model that ends in that layer."""
    inner = model.get_layer("conv2").output
    ending = keras.Model(model.input, inner)
    summed = keras.Model(model.input, layers.Lambda(lambda y: keras.ops.sum(y, (1, 2)))(inner))
    plain = pg.instrument(summed, [_without(p) for p in of_layer("conv2")])(x())
    assert ending.output.shape[1:] == (3, 3, 7)
    shaped = [p for p in pg.inspect(source) if len(p.shapes) == 1]
    node = [p.name for p in shaped if sorted(p.shapes[0][1:]) == [3, 3, 7]][-1]
    for opened, of in ((model, "conv2"), (source, node)):
        exported = pg.compile(opened, of_layer(of), tmp_path / "m.onnx")
        assert exported.report.passed
        result = runtime.load(tmp_path / "m.onnx").run(x())
        for name in ("best", "two", "top", "top/classes", "path", "hidden"):
            expected = np.asarray(plain[name])
            got = result[name].array
            np.testing.assert_allclose(got, expected, atol=2e-5 * max(1, np.abs(expected).max()))
        assert exported.manifest.output("best").target.layer == of
        assert exported.manifest.probes[0]["of"] == of


def _without(probe):
    return dataclasses.replace(probe, of=None)


def test_layers_tell_probes_apart_as_outputs_do(model):
    probed = pg.instrument(model, [pg.Saliency(of="conv1"), pg.Saliency(of="conv2")])
    names = [o.name for o in probed.manifest.explanations]
    assert names == ["saliency/conv1/image", "saliency/conv2/image"]
    assert pg.instrument(model, pg.Saliency(of="conv1")).manifest.explanations[0].name == (
        "saliency/image"
    )


@pytest.mark.parametrize(
    ("fields", "error", "says"),
    [
        ({"of": "conv*"}, SelectionError, "takes one layer, .* matches 'conv1', 'conv2'"),
        ({"of": "image"}, SelectionError, "takes a layer's output; 'image' has none"),
        ({"of": "conv9"}, SelectionError, "no layer matches 'conv9'"),
        ({"of": "conv1", "target": 5}, InstrumentError, "layer 'conv1' .* has 5 entries"),
        (
            {"of": "conv1", "target": (1, 2)},
            InstrumentError,
            "one for each axis behind the batch, 3 in all",
        ),
        ({"of": "conv1", "wrt": "conv2"}, NotDifferentiableError, "does not depend on"),
        ({"of": "conv1", "output": 0}, SpecError, "leave one of them out"),
        ({"of": "conv1", "target": len}, SpecError, "goes without of="),
    ],
)
def test_layers_that_give_no_score(fields, error, says, model):
    with pytest.raises(error, match=says):
        pg.instrument(model, pg.Saliency(**fields))


def test_a_layer_of_whole_numbers_and_one_called_twice():
    keras.utils.set_random_seed(3)
    given = keras.Input((4,), dtype="int32", name="ids")
    kept = layers.Identity(name="kept")(given)
    shared = layers.Dense(5, name="shared")
    y = layers.Embedding(7, 5, name="table")(kept)
    y = layers.Flatten()(shared(shared(y)))
    model = keras.Model(given, layers.Dense(3, name="y")(y))
    with pytest.raises(NotDifferentiableError, match="layer 'kept' is int32"):
        pg.instrument(model, pg.Saliency(of="kept"))
    with pytest.raises(SelectionError, match="'shared#0', 'shared#1'"):
        pg.instrument(model, pg.Saliency(of="shared"))
    found = pg.instrument(model, pg.InputGradient(of="shared#1", target=2))
    assert found.manifest.explanations[0].target.call == 1
    assert found.manifest.explanations[0].target.layer_call == "shared#1"
    first = pg.instrument(model, pg.InputGradient(of="shared#0", target=2))
    assert verdict.of_layer(first.manifest.explanations[0].target) == "channel 2 of shared#0"
    assert found.manifest.probes[0]["of"] == "shared#1"


def test_a_callable_that_fails_is_refused_with_what_it_was_given(tmp_path):
    probe = pg.InputGradient(target=lambda y: y["risk"])
    with pytest.raises(
        InstrumentError, match=r"fails on the model's outputs, of shape \(None, 4\)"
    ):
        pg.compile(models.cnn(), [probe], tmp_path / "m.onnx")
