"""Occlusion against loops over `model.predict`: windows, edges, batches, sources, errors."""

import itertools

import keras
import numpy as np
import onnx
import pytest
from keras import layers

import probegen as pg
from probegen import runtime
from probegen.errors import InstrumentError, SpecError
from probegen.methods.by_scores import Subject
from probegen.methods.numpy_operations import NumpyOperations
from tests import models
from tests.methods.scoring import best_of, onnx_model, onnx_scores, scans_in, scores_of


def twin(best, x, window, stride, fill=0.0, channels=True):
    """The mean, over the windows that cover an element, of what hiding one takes."""
    score = best(x)
    sizes = x.shape[1:-1] if channels else x.shape[1:]
    total, count = np.zeros((len(x), *sizes)), np.zeros(sizes)
    starts = []
    for size, w, s in zip(sizes, window, stride, strict=True):
        places = [0]
        while places[-1] + w < size:
            places.append(places[-1] + s)
        starts.append(places)
    for corner in itertools.product(*starts):
        cut = tuple(slice(a, a + w) for a, w in zip(corner, window, strict=True))
        hidden = x.copy()
        hidden[(slice(None), *cut)] = fill
        taken = score(x) - score(hidden)
        total[(slice(None), *cut)] += taken.reshape(-1, *[1] * len(sizes))
        count[cut] += 1
    assert count.min() > 0
    return total / count


def close(found, expected):
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=2e-6 * np.abs(expected).max())


#: Name -> window, stride, and how many points run at once.
WINDOWS = {
    "overlapping": ((3, 2), (2, 2), None),
    "one at a time": ((4, 3), None, 1),
    "as wide as the image": ((5, 8), (3, 1), 5),
    "the whole image": ((11, 8), (1, 1), 3),
}


def test_an_image_of_a_keras_model(tmp_path):
    model = models.cnn()
    probes = [
        pg.Occlusion(window, stride, fill=0.25, chunk=chunk, name=name)
        for name, (window, stride, chunk) in WINDOWS.items()
    ]
    exported = pg.compile(model, probes, tmp_path / "m.onnx")
    art = runtime.load(tmp_path / "m.onnx")
    best = best_of(scores_of(model))
    for count in (2, 5):
        x = models.images((11, 8, 2), seed=count, count=count)
        x[0, :4] = 0.0
        result = art.run(x)
        for name, (window, stride, _) in WINDOWS.items():
            witness = exported.report[name].witness
            assert witness == "the source model's scores at changed inputs"
            found = result[name]
            assert found.axes == ("batch", "height", "width")
            close(found.array, twin(best, x, window, stride or window, 0.25))
        for row in range(count):  # a sample's does not depend on the batch
            alone = art.run(x[row : row + 1])["overlapping"].array
            close(alone, result["overlapping"].array[row : row + 1])


def test_an_onnx_file(tmp_path):
    pg.compile(onnx_model(), pg.Occlusion(2, 1), tmp_path / "m.onnx")
    artefact = runtime.load(tmp_path / "m.onnx")
    for count in (1, 4):
        x = models.images((5, 3), count=count)
        found = artefact.run(x)["occlusion/x"].array
        close(found, twin(best_of(onnx_scores), x, (2,), (1,)))


@pytest.mark.parametrize("path", ["saved", "keras"])
def test_tensorflow_says_the_same(tmp_path, path):
    model, x = models.forecaster(), models.images((17, 2), count=2)
    probe = pg.Occlusion(5, 3)
    if path == "saved":
        pg.compile(model, probe, tmp_path / path)
        found = runtime.load(tmp_path / path).run(x)["occlusion/window"].array
    else:
        found = np.asarray(pg.instrument(model, probe)(x)["occlusion/window"])
    score = lambda v: model.predict_on_batch(v)[:, 0].astype(np.float64)  # noqa: E731
    close(found, twin(lambda _: score, x, (5,), (3,)))


def test_tokens_are_filled_where_they_are_looked_up(tmp_path):
    model = models.transformer()
    pg.compile(model, pg.Occlusion(2, 1, target=1), tmp_path / "m.onnx")
    tokens = models.tokens()
    found = runtime.load(tmp_path / "m.onnx").run(tokens)["occlusion/tokens"]
    assert found.axes == ("batch", "time")
    embedding = model.get_layer("embedding")
    vectors, mask = embedding(tokens).numpy(), embedding.compute_mask(tokens)

    def score(v):
        y = v
        for name in ("block_1", "block_2"):
            y = keras.tree.map_structure(lambda t: t, model.get_layer(name)(_masked(y, mask)))
        pooled = model.get_layer("mean")(y, mask=mask)
        kernel, bias = model.get_layer("scores").get_weights()
        return (np.asarray(pooled) @ kernel + bias)[:, 1].astype(np.float64)

    close(found.array, twin(lambda _: score, vectors, (2,), (1,)))


def _masked(value, mask):
    tensor = keras.ops.convert_to_tensor(value)
    keras.src.backend.set_keras_mask(tensor, mask)
    return tensor


def test_sizes_that_are_open(tmp_path):
    keras.utils.set_random_seed(3)
    x = keras.Input((None, None, 2), name="image")
    y = layers.Conv2D(4, 3, padding="same", activation="relu")(x)
    y = layers.GlobalAveragePooling2D()(y)
    model = keras.Model(x, layers.Dense(3, activation="softmax")(y))
    pg.compile(model, pg.Occlusion((4, 2), (3, 2), chunk=4), tmp_path / "m.onnx")
    art, best = runtime.load(tmp_path / "m.onnx"), best_of(scores_of(model))
    for sizes in ((9, 5), (4, 8), (2, 3)):
        image = models.images((*sizes, 2), count=2)
        close(art.run(image)["occlusion/image"].array, twin(best, image, (4, 2), (3, 2)))


def test_vectors_and_several_inputs(tmp_path):
    model = models.siamese()
    pg.compile(model, pg.Occlusion(3, 2, logits=False), tmp_path / "m.onnx")
    left, right = models.images((7,), count=4), models.images((7,), seed=1, count=4)
    found = runtime.load(tmp_path / "m.onnx").run({"left": left, "right": right})
    predict = lambda a, b: model.predict_on_batch([a, b])[:, 0].astype(np.float64)  # noqa: E731
    expected = twin(lambda _: lambda v: predict(v, right), left, (3,), (2,), channels=False)
    close(found["occlusion/left"].array, expected)
    expected = twin(lambda _: lambda v: predict(left, v), right, (3,), (2,), channels=False)
    close(found["occlusion/right"].array, expected)
    assert found["occlusion/left"].axes == ("batch", "feature")


def test_a_fixed_batch_and_states_run_one_point_at_a_time(tmp_path):
    probe = pg.Occlusion((3, 4), 2, chunk=7)
    model, x = models.cnn(), models.images((11, 8, 2), count=1)
    pg.compile(model, probe, tmp_path / "m.onnx", dynamic_batch=False)
    found = runtime.load(tmp_path / "m.onnx").run(x)["occlusion/image"].array
    close(found, twin(best_of(scores_of(model)), x, (3, 4), (2, 2)))
    keras.utils.set_random_seed(2)
    given = keras.Input(batch_shape=(3, 6, 2), name="steps")
    y = layers.LSTM(4, stateful=True)(given)
    stateful = keras.Model(given, layers.Dense(2)(y))
    pg.compile(stateful, pg.Occlusion(2, chunk=3), tmp_path / "s.onnx")
    x = models.images((6, 2), count=3)
    found = runtime.load(tmp_path / "s.onnx").run(x)["occlusion/steps"].array

    def scores(v):
        stateful.reset_states() if hasattr(stateful, "reset_states") else None
        stateful.layers[1].reset_state()
        return stateful.predict(v, verbose=0, batch_size=3).astype(np.float64)

    close(found, twin(best_of(scores), x, (2,), (2,)))


def test_the_forward_pass_is_copied_once_whatever_the_number_of_windows(tmp_path):
    sizes = []
    for stride in (1, 4):
        path = tmp_path / f"{stride}.onnx"
        pg.compile(models.cnn(), pg.Occlusion(4, stride), path, verify=False, gate=False)
        assert scans_in(path).count("Conv") == 2
        sizes.append(path.stat().st_size)
    assert abs(sizes[0] - sizes[1]) < 1500  # nodes for a last step that is not full


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"window": 0}, "window= takes a whole number of at least 1, got 0"),
        ({"window": (2, 1.5)}, "window= takes a whole number of at least 1, got 1.5"),
        ({"window": 2, "stride": 3}, "stride=3 is larger than window=2"),
        ({"window": (4, 2), "stride": 3}, "elements between the windows"),
        ({"fill": float("nan")}, "fill= takes a finite number, got nan"),
        ({"chunk": 0}, "chunk= takes a whole number of at least 1"),
    ],
)
def test_fields_that_mean_nothing(fields, says):
    with pytest.raises(SpecError, match=says):
        pg.Occlusion(**fields)


@pytest.mark.parametrize(
    ("window", "says"),
    [
        (9, r"window=9 is larger than 'image', whose axis 'width' has 8 entries; give .* wrt="),
        ((3, 3, 3), r"window=\(3, 3, 3\) has 3 entries; 'image' is hidden along 2 axes"),
    ],
)
def test_windows_that_do_not_fit(tmp_path, window, says):
    with pytest.raises(InstrumentError, match=says):
        pg.compile(models.cnn(), pg.Occlusion(window), tmp_path / "m.onnx")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("path", ["m.onnx", "saved"])
def test_several_classes_at_once(tmp_path, path):
    model, x = models.cnn(), models.images((11, 8, 2), count=2)
    probes = [pg.Occlusion(4, target="top:2"), pg.Occlusion(4, target="all", name="all")]
    pg.compile(model, probes, tmp_path / path)
    found, scores = runtime.load(tmp_path / path).run(x), scores_of(model)
    for place in range(4):
        score = lambda v, at=place: scores(v)[:, at]  # noqa: E731
        expected = twin(lambda _, s=score: s, x, (4, 4), (4, 4))
        close(found["all"].array[:, place], expected)
    best = np.argsort(-scores(x))[:, :2]
    assert np.array_equal(found["occlusion/image/classes"].array, best)
    close(found["occlusion/image"].array, found["all"].array[np.arange(2)[:, None], best])


def test_the_model_runs_once_for_all_classes(tmp_path):
    """Its convolutions stand in one loop over the points, and in no loop over the classes."""
    sizes = []
    for target in ([2, 0], [2, 0, 1, 3]):
        pg.compile(
            models.cnn(),
            pg.Occlusion(4, stride=2, target=target),
            tmp_path / "m.onnx",
            verify=False,
        )
        assert max(depths_of(onnx.load(tmp_path / "m.onnx").graph, "Conv")) == 1
        sizes.append((tmp_path / "m.onnx").stat().st_size)
    assert abs(sizes[1] - sizes[0]) < 200


def depths_of(graph, operator, depth=0):
    """In how many loops each node of an operator stands."""
    found = [depth] * sum(node.op_type == operator for node in graph.node)
    for node in graph.node:
        inner = depth + (node.op_type in ("Scan", "Loop"))
        for attribute in node.attribute:
            if attribute.type == onnx.AttributeProto.GRAPH:
                found += depths_of(attribute.g, operator, inner)
    return found


@pytest.mark.parametrize("size", [(1, 9, 11, 3), (1, 6, 7, 3)])
@pytest.mark.parametrize(
    "probe",
    [
        pg.Occlusion(4),
        pg.Occlusion((5, 2), (3, 1)),
        pg.FeatureAblation(),
        pg.FeatureAblation("grid:4"),
        pg.FeatureAblation("grid:20"),
    ],
)
def test_windows_are_where_points_change_the_tensor(probe, size):
    axes, ops = ("batch", "height", "width", "channel"), NumpyOperations()
    value = np.ones(size)
    subject = Subject(value, axes, ((value, axes),))
    numbers = np.arange(probe.count(axes, size), dtype=np.float64)
    changed = probe.changed(ops, probe.prepared(ops, subject), numbers, value, axes)
    told = list(itertools.product(*probe.windows(axes, size)))
    assert len(told) == len(numbers)
    for version, spans in zip(changed, told, strict=True):
        expected = value.copy()
        expected[(slice(None), *(slice(*span) for span in spans))] = 0
        np.testing.assert_array_equal(version, expected)


def test_windows_that_are_not_known():
    axes = ("batch", "height", "width", "channel")
    assert pg.Occlusion(4).windows(axes, (None, 9, None, 3)) is None
    assert pg.FeatureAblation("grid:3").windows(axes, (None, None, 9, 3)) is None
    assert pg.FeatureAblation("input").windows(axes, (None, 9, 9, 3)) is None
    assert pg.FeatureAblation(np.arange(81).reshape(9, 9)).windows(axes, (None, 9, 9, 3)) is None
