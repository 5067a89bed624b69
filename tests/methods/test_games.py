"""KernelSHAP, LIME and ablation of groups against plain loops over the model, and their axioms."""

import keras
import numpy as np
import onnx
import pytest
from keras import layers

import probegen as pg
from probegen import runtime
from probegen.errors import InstrumentError, SpecError
from probegen.methods import coalitions, text_forms
from tests import models
from tests.command_line import status_of
from tests.methods.games import keeping, values_over_orders
from tests.methods.scoring import best_of, onnx_model, onnx_scores, scans_in, scores_of


def close(found, expected, size=None):
    size = np.abs(expected).max() if size is None else size
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=4e-6 * size)


def compiled(tmp_path, model, probes, feed, name="m.onnx", **options):
    pg.compile(model, probes, tmp_path / name, **options)
    found = runtime.load(tmp_path / name).run(feed)
    return {key: found[key].array for key in found}


#: Groups of the positions of `models.cnn`, neither in order nor without gaps.
GROUPS = np.where(np.arange(88).reshape(11, 8) % 8 > 4, 7, np.arange(88).reshape(11, 8) // 33)


@pytest.mark.parametrize("count", [1, 4])
def test_exact_shapley_values_of_an_onnx_file(tmp_path, count):
    x = models.images((5, 3), count=count)
    found = compiled(tmp_path, onnx_model(), pg.KernelSHAP(background=0.2), x)["kernel_shap/x"]
    best, kept = best_of(onnx_scores)(x), keeping(x, np.arange(5), 0.2)
    close(found, values_over_orders(lambda some: best(kept(some)), 5))
    close(found.sum(1), best(x) - best(kept(())))


def test_a_background_for_each_input_by_its_name(tmp_path):
    """A map and a row of a table; each is hidden by itself, with what its own background says."""
    text = """<ir_version: 9, opset_import: ["" : 17]>
      g (float[n, 2, 3] steps, float[n, 4] row) => (float[n, 2] y)
      { flat = Flatten(steps)  a = MatMul(flat, wa)  b = MatMul(row, wb)
        s = Mul(a, b)  y = Tanh(s) }"""
    model = onnx.parser.parse_model(text)
    rng = np.random.default_rng(1)
    wa, wb = rng.normal(size=(6, 2)).astype("f") / 2, rng.normal(size=(4, 2)).astype("f") / 2
    for name, array in (("wa", wa), ("wb", wb)):
        model.graph.initializer.append(onnx.numpy_helper.from_array(array, name))
    feed = {"steps": models.images((2, 3), count=3), "row": models.images((4,), count=3)}
    rows = models.images((4,), seed=5, count=2)
    probes = [
        pg.KernelSHAP(background={"row": rows, "steps": 0.3}, target=1, completeness=True),
        pg.LIME(background={"steps": 0.3, "row": rows[0]}, target=1, samples=9),
    ]
    found = compiled(tmp_path, model, probes, feed)

    def scores(steps, row):
        return np.tanh((steps.reshape(len(steps), 6) @ wa[:, 1]) * (row @ wb[:, 1]))

    def of_row(some):
        kept = [keeping(feed["row"], np.arange(4), b)(some) for b in rows]
        return np.mean([scores(feed["steps"], row) for row in kept], axis=0)

    def of_steps(some):
        return scores(keeping(feed["steps"], np.arange(2), 0.3)(some), feed["row"])

    close(found["kernel_shap/row"], values_over_orders(of_row, 4))
    close(found["kernel_shap/steps"], values_over_orders(of_steps, 2))
    assert found["lime/row"].shape == (3, 4)
    assert all(np.abs(v).max() < 1e-5 for k, v in found.items() if k.startswith("completeness/"))


@pytest.mark.parametrize(("name", "height"), [("m.onnx", 11), ("saved", 1)])
def test_exact_shapley_values_of_groups_of_a_keras_model(tmp_path, name, height):
    model = models.cnn()
    x = models.images((11, 8, 2), count=2)
    background = models.images((height, 8, 2), seed=7, count=3)
    probe = pg.KernelSHAP(GROUPS, background)
    found = compiled(tmp_path, model, probe, x, name)["kernel_shap/image"]
    best = best_of(scores_of(model))(x)

    def score(some):
        named = [(0, 1, 2, 7)[player] for player in some]
        return np.mean([best(keeping(x, GROUPS, b)(named)) for b in background], axis=0)

    expected = values_over_orders(score, 4)
    for player, number in enumerate((0, 1, 2, 7)):
        for row in range(2):
            values = found[row][number == GROUPS]
            assert np.ptp(values) == 0
            close(values[0], expected[row, player], np.abs(expected).max())


def test_drawn_coalitions_of_an_image(tmp_path):
    model, x = models.cnn(), models.images((11, 8, 2), count=3)
    probe = pg.KernelSHAP("grid:3", samples=40, seed=2, chunk=7)
    found = compiled(tmp_path, model, probe, x)["kernel_shap/image"]
    rows, columns = (np.arange(n) * 3 // n for n in (11, 8))
    groups = rows[:, None] * 3 + columns
    best, kept = best_of(scores_of(model))(x), keeping(x, groups)
    drawn = coalitions.kernel_coalitions(9, 40, 2)
    scores = np.stack([best(kept(np.flatnonzero(row))) for row in drawn.kept])
    close(found, ((scores - best(x)).T @ drawn.weights)[:, groups])
    firsts = [np.argwhere(groups == g)[0] for g in range(9)]
    total = sum(found[:, i, j] for i, j in firsts)
    close(total, best(x) - best(kept(())))


def test_lime_of_an_onnx_file(tmp_path):
    x = models.images((5, 3), count=3)
    probe = pg.LIME(background=-0.1, samples=70, kernel_width=0.5, ridge=0.3, seed=4)
    found = compiled(tmp_path, onnx_model(), probe, x)["lime/x"]
    best, kept = best_of(onnx_scores)(x), keeping(x, np.arange(5), -0.1)
    drawn = coalitions.lime(5, 70, 0.5, 0.3, 4)
    scores = np.stack([best(kept(np.flatnonzero(row))) for row in drawn.kept])
    close(found, (scores - best(x)).T @ drawn.weights)


@pytest.mark.parametrize("groups", [None, "grid:3", GROUPS])
def test_ablation_of_groups(tmp_path, groups):
    model, x = models.cnn(), models.images((11, 8, 2), count=2)
    probe = pg.FeatureAblation(groups, fill=0.5)
    found = compiled(tmp_path, model, probe, x, verify=groups is not None)
    best = best_of(scores_of(model))(x)
    if groups is None:
        groups = np.arange(88).reshape(11, 8)
    elif isinstance(groups, str):
        groups = (np.arange(11) * 3 // 11)[:, None] * 3 + np.arange(8) * 3 // 8
    everybody = set(np.unique(groups).tolist())
    expected = np.zeros((2, 11, 8))
    for number in everybody:
        taken = best(x) - best(keeping(x, groups, 0.5)(everybody - {number}))
        expected[:, groups == number] = taken[:, None]
    close(found["feature_ablation/image"], expected)


def test_tokens_and_open_sizes(tmp_path):
    keras.utils.set_random_seed(3)
    given = keras.Input((None,), dtype="int32", name="tokens")
    y = layers.Embedding(13, 4, name="embedding")(given)
    y = layers.LSTM(5, name="lstm")(y)
    model = keras.Model(given, layers.Dense(3, activation="softmax")(y))
    stored = models.images((1, 4), seed=8, count=2)  # the same vector at every position
    shap = pg.KernelSHAP("grid:3", stored)
    pg.compile(
        model, [pg.FeatureAblation(), shap, pg.LIME("grid:3", samples=40)], tmp_path / "m.onnx"
    )
    art = runtime.load(tmp_path / "m.onnx")
    best_at = best_of(lambda v: _tail(model, v))
    for length in (7, 2):
        tokens = models.tokens(length, padded=False)
        vectors = model.get_layer("embedding")(tokens).numpy()
        best, found = best_at(vectors), art.run(tokens)
        kept = keeping(vectors, np.arange(length))
        whole = set(range(length))
        taken = [best(vectors) - best(kept(whole - {i})) for i in range(length)]
        close(found["feature_ablation/tokens"].array, np.stack(taken, 1))
        groups = np.arange(length) * 3 // length
        score = lambda some, g=groups, v=vectors, b=best: b(keeping(v, g)(some))  # noqa: E731
        mean = lambda some, g=groups, v=vectors, b=best: np.mean(  # noqa: E731
            [b(keeping(v, g, np.tile(one, (v.shape[1], 1)))(some)) for one in stored], axis=0
        )
        close(found["kernel_shap/tokens"].array, values_over_orders(mean, 3)[:, groups])
        drawn = coalitions.lime(3, 40, 0.25, 1.0, 0)
        scores = np.stack([score(np.flatnonzero(row)) for row in drawn.kept])
        close(found["lime/tokens"].array, ((scores - best(vectors)).T @ drawn.weights)[:, groups])


def _tail(model, vectors):
    states = model.get_layer("lstm")(vectors).numpy().astype(np.float64)
    kernel, bias = model.layers[-1].get_weights()
    return states @ kernel + bias


# -- axioms ------------------------------------------------------------------------------------


def small(weights, seed=0):
    """A model of 6 features that only the first 4 matter to; the first two are alike."""
    keras.utils.set_random_seed(seed)
    x = keras.Input((6,), name="row")
    first = layers.Dense(7, activation="tanh", name="first")
    y = first(x)
    model = keras.Model(x, layers.Dense(2, name="scores")(y))
    kernel = first.get_weights()[0]
    kernel[1], kernel[4:] = kernel[0], 0.0
    first.set_weights([kernel, first.get_weights()[1]])
    model.layers[-1].set_weights([w * weights for w in model.layers[-1].get_weights()])
    return model


def test_symmetry_dummies_and_linearity(tmp_path):
    x = models.images((6,), count=3)
    x[:, 1] = x[:, 0]
    probe = pg.KernelSHAP(target=1)
    one, two = (
        compiled(tmp_path, small(w), probe, x, f"{w}.onnx", verify=False)["kernel_shap/row"]
        for w in (1.0, -2.5)
    )
    assert np.abs(one).max() > 0.1
    close(one[:, 0], one[:, 1])
    close(one[:, 4:], np.zeros((3, 2)), np.abs(one).max())
    close(two, -2.5 * one)


def test_the_batch_the_chunk_and_what_is_compiled_beside_do_not_matter(tmp_path):
    x = models.images((5, 3), count=5)
    probes = [pg.KernelSHAP(), pg.LIME(samples=30), pg.FeatureAblation(), pg.Saliency()]
    one = compiled(tmp_path, onnx_model(), probes, x, verify=False)
    for i in range(5):
        alone = runtime.load(tmp_path / "m.onnx").run(x[i : i + 1])
        for probe in probes[:3]:
            name = f"{probe.kind}/x"
            close(alone[name].array, one[name][i : i + 1], np.abs(one[name]).max())
    for chunk in (1, 4, 64):
        probe = pg.KernelSHAP(chunk=chunk)
        again = compiled(tmp_path, onnx_model(), probe, x, f"{chunk}.onnx", verify=False)
        close(again["kernel_shap/x"], one["kernel_shap/x"])


def test_the_file_grows_by_the_matrix_alone(tmp_path):
    sizes = []
    for samples in (60, 200):
        path = tmp_path / f"{samples}.onnx"
        probe = pg.KernelSHAP("grid:3", samples=samples)
        pg.compile(models.cnn(), probe, path, verify=False, gate=False)
        assert scans_in(path).count("Conv") == 2
        sizes.append(path.stat().st_size)
    assert sizes[1] - sizes[0] < 140 * 9 * 5 + 140 * 4 + 2000


# -- what is refused ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: pg.FeatureAblation("cells"), r"groups= takes None .* got 'cells'"),
        (lambda: pg.FeatureAblation("grid:0"), r"got 'grid:0'"),
        (lambda: pg.FeatureAblation([[0, -1]]), "groups= holds negative numbers"),
        (lambda: pg.FeatureAblation([0.5, 1.0]), "groups= takes whole numbers"),
        (lambda: pg.KernelSHAP(background="blur"), "background= takes a finite number"),
        (lambda: pg.KernelSHAP(background=[[np.nan]]), "background= holds numbers that are NaN"),
        (lambda: pg.KernelSHAP(samples=1), "samples= takes a whole number of at least 2"),
        (lambda: pg.KernelSHAP(seed=-1), "seed= takes a whole number of at least 0"),
        (lambda: pg.LIME(samples=1), "samples= takes a whole number of at least 2"),
        (lambda: pg.LIME(kernel_width=0), "kernel_width= takes a number above 0"),
        (lambda: pg.LIME(ridge=-1.0), "ridge= takes a number above 0"),
    ],
)
def test_fields_that_mean_nothing(make, says):
    with pytest.raises(SpecError, match=says):
        make()


@pytest.mark.parametrize(
    ("probe", "says"),
    [
        (
            pg.FeatureAblation(np.zeros((8, 11), int)),
            r"shape \(8, 11\); 'image' .* height 11 x wid",
        ),
        (pg.KernelSHAP(GROUPS[0]), r"shape \(8,\)"),
        (pg.KernelSHAP("grid:4", samples=6), "samples=6 are too few for the values of 16 groups"),
        (pg.KernelSHAP("grid:2", np.zeros((4, 11, 8))), r"background= has the shape \(4, 11, 8\)"),
        (pg.KernelSHAP("grid:2", {"imag": 0.2}), r"background= names 'imag'.*'image'"),
    ],
)
def test_what_does_not_fit_the_model(tmp_path, probe, says):
    with pytest.raises(InstrumentError, match=says):
        pg.compile(models.cnn(), probe, tmp_path / "m.onnx")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("method", [pg.LIME, pg.KernelSHAP])
def test_pixels_of_a_photograph_are_too_many_groups(tmp_path, method):
    model = keras.Sequential([keras.Input((224, 200, 3), name="image"), layers.Flatten()])
    with pytest.raises(InstrumentError, match=r"44800 groups are too many.*groups='grid:7'"):
        pg.compile(model, method(target=0), tmp_path / "m.onnx")
    assert not list(tmp_path.iterdir())


def test_open_sizes_have_no_number_of_features(tmp_path):
    given = keras.Input((None, 2), name="steps")
    model = keras.Model(given, layers.Dense(2)(layers.GlobalAveragePooling1D()(given)))
    for probe in (pg.KernelSHAP(), pg.LIME()):
        with pytest.raises(InstrumentError, match=r"'steps' has open sizes.*grid:8"):
            pg.compile(model, probe, tmp_path / "m.onnx")
    with pytest.raises(InstrumentError, match=r"shape \(4,\).*time \(open\).*groups='input'"):
        pg.compile(model, pg.FeatureAblation([0, 0, 1, 1]), tmp_path / "m.onnx")
    assert not list(tmp_path.iterdir())


def test_values_of_features_may_be_stacked_and_those_of_groups_not(tmp_path):
    probes = [pg.KernelSHAP(), pg.KernelSHAP("grid:2", name="grid"), pg.FeatureAblation()]
    pg.compile(onnx_model(), probes, tmp_path / "m.onnx", verify=False)
    described = runtime.load(tmp_path / "m.onnx").manifest.explanations
    assert [o.sums_to_score for o in described] == [True, False, False]


def test_arrays_have_a_text_form():
    probe = pg.KernelSHAP(GROUPS, models.images((11, 8, 2), count=2))
    assert text_forms.from_json(text_forms.to_json([probe])) == (probe,)


def test_the_command_line_takes_groups_and_backgrounds(tmp_path):
    models.cnn().save(tmp_path / "m.keras")
    np.save(tmp_path / "g.npy", GROUPS)
    np.save(tmp_path / "b.npy", models.images((11, 8, 2), count=2))
    out = tmp_path / "m.onnx"
    common = ("compile", tmp_path / "m.keras", "-o", out, "--no-verify", "--kernel-shap")
    assert status_of(*common, "--lime", "--groups", "grid:2", "--draws", 9, "--fill", 1) == 1
    assert status_of(*common, "--lime", "--groups", "grid:2", "--draws", 9) == 0
    lime = runtime.load(out).manifest.output("lime/image")
    assert (lime.detail["groups"], lime.detail["samples"]) == ("grid:2", 9)
    more = ("--groups", tmp_path / "g.npy", "--background", tmp_path / "b.npy")
    assert status_of(*common, *more) == 0
    x = models.images((11, 8, 2))
    found = runtime.load(out).run(x)["kernel_shap/image"].array
    probe = pg.KernelSHAP(GROUPS, models.images((11, 8, 2), count=2))
    own = compiled(tmp_path, models.cnn(), probe, x, "own.onnx", verify=False)
    close(found, own["kernel_shap/image"])
