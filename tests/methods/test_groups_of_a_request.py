"""`groups="input"`: groups that come with each request, in every form of an artefact."""

import keras
import numpy as np
import pytest
from keras import layers

import probegen as pg
from probegen import runtime
from probegen.errors import InputError, InstrumentError
from tests import models
from tests.command_line import status_of
from tests.methods.games import keeping, values_over_orders
from tests.methods.scoring import best_of, onnx_model, onnx_scores, scores_of

PROBES = [
    pg.FeatureAblation("input", fill=0.5),
    pg.KernelSHAP("input", max_groups=5),
    pg.LIME("input", samples=40, max_groups=5),
]


def close(found, expected, size=None):
    size = np.abs(expected).max() if size is None else size
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=4e-6 * size)


def groups_of(shape, seed=0):
    """Groups of two samples: the first has no 1, the second no 3 and no 4."""
    drawn = np.random.default_rng(seed).integers(0, 5, (2, *shape))
    drawn[0][drawn[0] == 1] = 4
    drawn[1][drawn[1] >= 3] = 0
    return drawn


def held_against(found, name, x, groups, best):
    """Compares values of groups with games of each sample by itself."""
    for row, numbers in enumerate(groups):
        alone, players = x[row : row + 1], sorted(np.unique(numbers))

        def worth(some, background=0.0, alone=alone, numbers=numbers, players=players, row=row):
            kept = keeping(alone, numbers, background)([players[i] for i in some])
            every = x.copy()
            every[row] = kept[0]
            return np.array([best(every)[row]])

        shapley = values_over_orders(worth, len(players))[0]
        everybody = set(range(len(players)))
        ablated = worth(everybody)[0]
        for place, player in enumerate(players):
            at = numbers == player
            values = found[f"kernel_shap/{name}"].array[row][at]
            assert np.ptp(values) == 0
            close(values[0], shapley[place], np.abs(shapley).max())
            taken = ablated - worth(everybody - {place}, 0.5)[0]
            close(found[f"feature_ablation/{name}"].array[row][at], taken, abs(ablated))
    return found[f"lime/{name}"].array


@pytest.mark.parametrize("path", ["m.onnx", "saved"])
def test_superpixels_of_a_picture(tmp_path, path):
    model, x = models.cnn(), models.images((11, 8, 2), count=2)
    exported = pg.compile(model, PROBES, tmp_path / path)
    assert all(p.passed for p in exported.report.values())
    art = runtime.load(tmp_path / path)
    spec = art.manifest.groups_input
    assert (spec.dtype, spec.shape, spec.vocabulary) == ("int32", (None, 11, 8), 5)
    groups = groups_of((11, 8))
    found = art.run(x, groups=groups)
    coefficients = held_against(found, "image", x, groups, best_of(scores_of(model))(x))
    assert coefficients.shape == (2, 11, 8)
    assert np.abs(coefficients).max() > 0
    again = art.run(x[:1], groups=groups[0])
    close(again["lime/image"].array, coefficients[:1])


def test_an_onnx_file(tmp_path):
    pg.compile(onnx_model(), PROBES, tmp_path / "m.onnx")
    x, groups = models.images((5, 3), count=2), groups_of((5,), seed=3)
    found = runtime.load(tmp_path / "m.onnx").run(x, groups=groups)
    held_against(found, "x", x, groups, best_of(onnx_scores)(x))


def test_all_groups_there_give_what_a_stored_array_gives(tmp_path):
    groups = np.array([2, 0, 1, 0, 2])
    x = models.images((5, 3), count=3)
    found = {}
    for name, given in (("input", "input"), ("stored", groups)):
        probes = [
            pg.KernelSHAP(given, max_groups=3),
            pg.LIME(given, samples=30, max_groups=3),
            pg.FeatureAblation(given),
        ]
        pg.compile(onnx_model(), probes, tmp_path / f"{name}.onnx", verify=False)
        art = runtime.load(tmp_path / f"{name}.onnx")
        found[name] = art.run(x, groups=groups if name == "input" else None)
    for kind in ("kernel_shap/x", "lime/x", "feature_ablation/x"):
        close(found["input"][kind].array, found["stored"][kind].array)


@pytest.mark.parametrize("path", ["m.onnx", "saved"])
def test_groups_and_several_classes(tmp_path, path):
    probes = [
        pg.FeatureAblation("input", target="all"),
        pg.KernelSHAP("input", max_groups=5, target=[2, 0]),
    ]
    model, x = models.cnn(), models.images((11, 8, 2), count=2)
    pg.compile(model, probes, tmp_path / path)
    single = [
        pg.FeatureAblation("input", target=2),
        pg.KernelSHAP("input", max_groups=5, target=2),
    ]
    pg.compile(model, single, tmp_path / "one.onnx", verify=False)
    art, groups = runtime.load(tmp_path / path), groups_of((11, 8))
    assert art.manifest.groups_input.shape == (None, 11, 8)
    found = art.run(x, groups=groups)
    alone = runtime.load(tmp_path / "one.onnx").run(x, groups=groups)
    name = "feature_ablation/image"
    close(found[name].array[:, 2], alone[name].array)
    close(found["kernel_shap/image"].array[:, 0], alone["kernel_shap/image"].array)


def test_drawn_coalitions_add_up_where_groups_are_absent(tmp_path):
    probe = pg.KernelSHAP("input", max_groups=9, samples=60)
    pg.compile(onnx_model(), probe, tmp_path / "m.onnx")
    x, groups = models.images((5, 3), count=2), np.array([[0, 8, 3, 3, 0], [1, 1, 1, 1, 2]])
    found = runtime.load(tmp_path / "m.onnx").run(x, groups=groups)["kernel_shap/x"].array
    best = best_of(onnx_scores)(x)
    difference = best(x) - best(np.zeros_like(x))
    for row in range(2):
        firsts = np.unique(groups[row], return_index=True)[1]
        close(found[row][firsts].sum(), difference[row])


def test_groups_and_a_target_of_the_request_and_the_gate(tmp_path):
    probes = [pg.FeatureAblation("input", target="input"), pg.Saliency(target="input")]
    pg.compile(models.cnn(), probes, tmp_path / "m.onnx")
    art, x = runtime.load(tmp_path / "m.onnx"), models.images((11, 8, 2))
    groups = np.broadcast_to(np.arange(8) // 3, (3, 11, 8))
    found = art.run(x, target=[0, 2, -1], groups=groups)
    assert found["feature_ablation/image"].array.shape == (3, 11, 8)
    plain = art.run(x, explain=False)
    close(plain["scores"].array, found["scores"].array)
    parts = art.run_batched(x, 2, target=[0, 2, -1], groups=groups)
    close(parts["feature_ablation/image"].array, found["feature_ablation/image"].array)
    assert "groups" in repr(art)
    probed = pg.instrument(models.cnn(), probes)
    own = probed(x, target=np.array([0, 2, -1]), groups=groups)
    close(np.asarray(own["feature_ablation/image"]), found["feature_ablation/image"].array)
    for groups_given, says in ((None, "takes groups= with each call"), (groups[:, :3], "shape")):
        with pytest.raises(InstrumentError, match=says):
            probed(x, groups=groups_given)


@pytest.mark.parametrize(
    ("groups", "says"),
    [
        (None, r"takes groups: whole numbers \[batch=2, time=5\].*superpixels"),
        (np.zeros((2, 4), int), "has the size 4 on the axis 'time'"),
        (np.zeros((3, 5), int), "has the size 3 on the axis 'batch'"),
        (np.full((2, 5), -1), r"holds the number -1; the artefact takes groups 0 to 4"),
        (np.full((2, 5), 5), r"holds the number 5; .* 0 to 4: it was compiled for 5"),
        (np.zeros((2, 5)) + 0.5, "float64, expected int32"),
    ],
)
def test_groups_that_do_not_fit(tmp_path, groups, says):
    pg.compile(onnx_model(), PROBES, tmp_path / "m.onnx", verify=False)
    with pytest.raises(InputError, match=says):
        runtime.load(tmp_path / "m.onnx").run(models.images((5, 3), count=2), groups=groups)


def test_an_artefact_without_takes_none(tmp_path):
    pg.compile(onnx_model(), pg.Saliency(), tmp_path / "m.onnx", verify=False)
    with pytest.raises(InputError, match="takes none: compile with groups='input'"):
        runtime.load(tmp_path / "m.onnx").run(models.images((5, 3)), groups=np.zeros((3, 5), int))


def test_the_command_line_reads_them_from_a_file(tmp_path, capsys):
    pg.compile(onnx_model(), PROBES[:1], tmp_path / "m.onnx", verify=False)
    np.save(tmp_path / "x.npy", models.images((5, 3)))
    np.save(tmp_path / "g.npy", np.arange(5) // 2)
    given = ("run", tmp_path / "m.onnx", tmp_path / "x.npy", "--json")
    assert status_of(*given, "--groups", tmp_path / "g.npy") == 0
    assert '"feature_ablation/x"' in capsys.readouterr().out
    assert status_of(*given) == 1
    assert "takes groups" in capsys.readouterr().err
    np.savez(tmp_path / "g.npz", np.arange(5) // 2)
    assert status_of(*given, "--groups", tmp_path / "g.npz") == 1
    assert "g.npz holds no single array; expected an .npy file" in capsys.readouterr().err
    (tmp_path / "cut.npy").write_bytes((tmp_path / "g.npy").read_bytes()[:-1])
    assert status_of(*given, "--groups", tmp_path / "cut.npy") == 1
    assert "cut.npy is no .npy or .npz file of plain numbers" in capsys.readouterr().err


def test_one_input_of_groups_for_positions_of_one_shape(tmp_path):
    left, right = keras.Input((6, 2), name="left"), keras.Input((4, 2), name="right")
    flat = [layers.Flatten()(x) for x in (left, right)]
    model = keras.Model([left, right], layers.Dense(2)(layers.Concatenate()(flat)))
    with pytest.raises(InstrumentError, match=r"one input for all probes.*Say which.*wrt="):
        pg.compile(model, pg.FeatureAblation("input"), tmp_path / "m.onnx")
    named = keras.Input((6, 2), name="groups")
    taken = keras.Model(named, layers.Dense(2)(layers.Flatten()(named)))
    with pytest.raises(InstrumentError, match="an input called 'groups'"):
        pg.compile(taken, pg.FeatureAblation("input"), tmp_path / "m.onnx")
    assert not list(tmp_path.iterdir())
    pg.compile(model, pg.FeatureAblation("input", wrt="right"), tmp_path / "m.onnx")


def test_groups_of_what_has_an_axis_more_than_the_input(tmp_path):
    """Ids that are looked up one by one, as rows of one id each: groups have the rows' axes."""
    keras.utils.set_random_seed(8)
    ids = keras.Input((None,), dtype="int32", name="ids")
    rows = layers.CategoryEncoding(5, output_mode="one_hot")(keras.ops.expand_dims(ids, -1))
    pooled = layers.GlobalAveragePooling1D()(layers.Dense(4, activation="tanh")(rows))
    model = keras.Model(ids, layers.Dense(2, name="scores")(pooled))
    pg.compile(model, pg.FeatureAblation(groups="input", target=1), tmp_path / "m.onnx")
    art = runtime.load(tmp_path / "m.onnx")
    given = np.array([[1, 4, 2, 3], [2, 2, 1, 0]], np.int32)
    axes = art.manifest.groups_input.axes
    groups = np.array([[0, 0, 1, 1], [1, 0, 1, 0]], np.int32).reshape(2, 4, *[1] * (len(axes) - 2))
    found = art.run(given, groups=groups)["feature_ablation/ids"].array.reshape(2, 4)
    assert np.array_equal(found[0, :2], found[0, [1, 0]])
    assert np.array_equal(found[1, ::2], found[1, [2, 0]])
    assert (np.abs(found[:, 0] - found[:, 1:].T) > 1e-4).any()


def test_groups_are_of_the_input_that_is_explained_by_them(tmp_path):
    """Another input with the same axis may have other sizes: it came first, and was asked."""
    first, second = (keras.Input([n], name=f"in{n}", dtype="int32") for n in (5, None))
    tables = [layers.Embedding(7, 3)(ids) for ids in (first, second)]
    joined = layers.Concatenate()([layers.GlobalAveragePooling1D()(x) for x in tables])
    model = keras.Model([first, second], layers.Dense(2)(joined))
    probe = pg.FeatureAblation(target=1, groups="input", wrt="inNone")
    pg.compile(model, [probe], tmp_path / "m.onnx")
    ids = {"in5": np.ones((2, 5), np.int32), "inNone": np.arange(12).reshape(2, 6) % 7}
    groups = np.array([0, 0, 1, 1, 2, 2], np.int32)
    found = runtime.load(tmp_path / "m.onnx").run(ids, groups=groups)["feature_ablation/inNone"]
    assert found.shape == (2, 6)
    with pytest.raises(InputError, match="expected 6"):
        runtime.load(tmp_path / "m.onnx").run(ids, groups=groups[:5])
