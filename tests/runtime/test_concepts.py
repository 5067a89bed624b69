"""Concept vectors and TCAV scores, against what is planted and against scipy."""

import dataclasses
import sys

import numpy as np
import onnx
import onnx.parser
import pytest
import scipy.special
import scipy.stats

import probegen as pg
from probegen import runtime
from probegen.artefact.manifest import OutputSpec
from probegen.errors import InputError
from probegen.runtime import concept_scores
from probegen.runtime.concept_scores import incomplete_beta

NETWORK = """
<ir_version: 8, opset_import: ["" : 18]>
net (float[batch, 5] row) => (float[batch, 2] y)
{
    hidden = MatMul (row, first)
    y = MatMul (hidden, second)
}
"""
FIRST = np.random.default_rng(1).normal(size=(5, 4)).astype(np.float32)
SECOND = np.random.default_rng(2).normal(size=(4, 2)).astype(np.float32)


@pytest.fixture(scope="module")
def artefact(tmp_path_factory):
    place = tmp_path_factory.mktemp("concepts")
    proto = onnx.parser.parse_model(NETWORK)
    for name, array in (("first", FIRST), ("second", SECOND)):
        proto.graph.initializer.append(onnx.numpy_helper.from_array(array, name))
    probes = [pg.Activations("hidden"), pg.Saliency(target="input")]
    pg.compile(proto, probes, place / "m.onnx", verify=False)
    return runtime.load(place / "m.onnx", threads=1)


def planted(direction, count=40, seed=0):
    """Rows whose hidden activations are noise, moved by a direction."""
    rng = np.random.default_rng(seed)
    noise = rng.normal(0, 0.3, (count, 4))
    return ((noise + direction) @ np.linalg.pinv(FIRST)).astype(np.float32)


@pytest.mark.parametrize("seed", [0, 1])
def test_a_planted_direction_is_found(artefact, seed):
    pytest.importorskip("sklearn")
    direction = np.array([1.0, -2.0, 0.5, 0.0])
    with_it, without = planted(direction, seed=seed), planted(0 * direction, seed=seed + 5)
    (found,) = runtime.concept_vector(artefact, "activation/hidden", with_it, without)
    assert found.dtype == np.float32
    assert np.linalg.norm(found) == pytest.approx(1, abs=1e-6)
    assert found @ direction / np.linalg.norm(direction) > 0.97
    (back,) = runtime.concept_vector(artefact, "activation/hidden", without, with_it)
    np.testing.assert_allclose(back, -found, atol=1e-3)
    chunks = runtime.concept_vector(artefact, "activation/hidden", with_it, without, batch_size=8)
    np.testing.assert_allclose(chunks[0], found, atol=1e-5)


def test_folders_and_several_sets_of_counter_examples(artefact, tmp_path):
    pytest.importorskip("sklearn")
    direction = np.array([0.0, 2.0, 0.0, 1.0])
    sets = {"with": planted(direction, 9), "a": planted(0 * direction, 7, seed=3),
            "b": planted(0 * direction, 8, seed=4)}  # fmt: skip
    for name, rows in sets.items():
        (tmp_path / name).mkdir()
        for i, row in enumerate(rows):
            np.save(tmp_path / name / f"{i}.npy", row[None])
    found = runtime.concept_vector(
        artefact, "activation/hidden", tmp_path / "with", [tmp_path / "a", str(tmp_path / "b")]
    )
    assert found.shape == (2, 4)
    for row, name in zip(found, "ab", strict=True):
        (alone,) = runtime.concept_vector(
            artefact, "activation/hidden", sets["with"], {"row": sets[name]}
        )
        np.testing.assert_allclose(row, alone, atol=1e-5)
    listed = runtime.concept_vector(
        artefact, "activation/hidden", sets["with"], [sets["a"], sets["b"]]
    )
    np.testing.assert_allclose(listed, found, atol=1e-5)


def test_what_cannot_be_told_apart(artefact):
    pytest.importorskip("sklearn")
    one, other = planted(np.zeros(4), seed=1), planted(np.zeros(4), seed=2)
    with pytest.raises(InputError, match="least_accuracy is 90%: this layer does not hold"):
        runtime.concept_vector(artefact, "activation/hidden", one, other, least_accuracy=0.9)
    far = planted(np.full(4, 3.0))
    runtime.concept_vector(artefact, "activation/hidden", far, other, least_accuracy=0.9)
    same = np.ones((3, 5))
    with pytest.raises(InputError, match="are all the same: there is no direction"):
        runtime.concept_vector(artefact, "activation/hidden", same, same)


def test_wrong_examples(artefact, tmp_path, monkeypatch):
    x = planted(np.ones(4))
    for output, says in (
        ("activation/hiden", r"no output of the artefact.*'activation/hidden'"),
        ("saliency/row", r"holds no activations.*'activation/hidden'"),
    ):
        with pytest.raises(InputError, match=says):
            runtime.concept_vector(artefact, output, x, x)
    with pytest.raises(InputError, match="examples: there is no folder"):
        runtime.concept_vector(artefact, "activation/hidden", tmp_path / "none", x)
    with pytest.raises(InputError, match="holds no file that can be read"):
        runtime.concept_vector(artefact, "activation/hidden", tmp_path, x)
    with pytest.raises(InputError, match="is not finite"):
        runtime.concept_vector(artefact, "activation/hidden", x, np.full_like(x, np.nan))
    with pytest.raises(InputError, match="at least 3 are needed"):
        runtime.concept_vector(artefact, "activation/hidden", x[:2], x, least_accuracy=0.5)
    for options in ({"strength": 0}, {"batch_size": 0}, {"least_accuracy": 2}):
        with pytest.raises(InputError, match=f"{next(iter(options))} is"):
            runtime.concept_vector(artefact, "activation/hidden", x, x, **options)
    monkeypatch.setitem(sys.modules, "sklearn.linear_model", None)
    with pytest.raises(InputError, match=r"scikit-learn, which is not installed.*\[concepts\]"):
        runtime.concept_vector(artefact, "activation/hidden", x, x)


# -- TCAV --------------------------------------------------------------------------------------


class Given:
    """An artefact whose derivatives along concepts are given."""

    path = "given.onnx"

    def __init__(self, slopes, axes=("batch", "concept")):
        self.slopes = np.asarray(slopes, np.float32)
        spec = OutputSpec("concept_sensitivity/c", "x", "float32", (None, None), axes)
        self.outputs = (spec,)

    def run(self, _inputs, **_options):
        return {"concept_sensitivity/c": dataclasses.make_dataclass("R", ["array"])(self.slopes)}


SLOPES = np.random.default_rng(7).normal(0.3, 1, (50, 9))


def test_scores_are_shares_of_positive_derivatives():
    slopes = np.array([[1, -1, 0], [2, 3, 0], [0.5, -4, -1], [1, 1, 0]])
    found = runtime.tcav(Given(slopes), None)
    assert np.asarray(found).tolist() == [1.0, 0.5, 0.0]
    assert list(found) == ["concept 0", "concept 1", "concept 2"]
    assert found["concept 1"].p_value is None
    assert found["concept 1"].significant is None
    assert "not tested" in repr(found)
    named = runtime.tcav(Given(slopes), None, concepts=["striped", "dotted"], random=[1])
    assert [(c.name, c.score) for c in named.concepts] == [("striped", 1.0), ("dotted", 0.0)]
    assert named.random_scores.tolist() == [0.5]


def test_significance_is_that_of_scipy():
    concepts = {"striped": [0, 1, 2, 3], "dotted": [5, 4]}
    found = runtime.tcav(Given(SLOPES), None, concepts=concepts, random=[6, 7, 8])
    shares = (SLOPES > 0).mean(0)
    for name, rows in concepts.items():
        expected = scipy.stats.ttest_ind(shares[rows], shares[6:]).pvalue
        assert found[name].p_value == pytest.approx(expected, rel=1e-9)
        assert found[name].significant == (expected < 0.05)
        np.testing.assert_allclose(found[name].scores, shares[rows])


def test_significance_of_scores_that_do_not_vary():
    slopes = np.ones((4, 4)) * [1, 1, -1, -1]
    found = runtime.tcav(Given(slopes), None, concepts={"c": [0, 1]}, random=[2, 3])
    assert (found["c"].score, found["c"].p_value, found["c"].significant) == (1.0, 0.0, True)
    alike = runtime.tcav(Given(np.ones((4, 4))), None, concepts={"c": [0, 1]}, random=[2, 3])
    assert (alike["c"].p_value, alike["c"].significant) == (1.0, False)


@pytest.mark.parametrize("a", [0.5, 1.0, 4.5, 60.0])
def test_incomplete_beta_is_that_of_scipy(a):
    for b in (0.5, 2.0):
        for x in (0.0, 1e-8, 0.1, 0.5, 0.9, 1 - 1e-8, 1.0):
            expected = scipy.special.betainc(a, b, x)
            assert incomplete_beta(a, b, x) == pytest.approx(expected, rel=1e-8, abs=1e-300)


def test_what_tcav_refuses(artefact):
    given = Given(SLOPES)
    for options, says in (
        ({"random": [9]}, "the vectors 0 to 8"),
        ({"random": [-1]}, "random is -1"),
        ({"random": [1, 1]}, "the vectors 0 to 8"),
        ({"random": 3}, "takes a list of indices"),
        ({"concepts": {"a": [0], "b": [0]}}, "the vector 0 is named twice"),
        ({"concepts": {"a": [0]}, "random": [0]}, "the vector 0 is named twice"),
        ({"concepts": {"a": []}}, "concept 'a' has no vectors"),
        ({"concepts": ["a"]}, "there are 9 vectors that are not random"),
        ({"output": "concept_sensitivity/d"}, "holds no derivatives along concepts"),
    ):
        with pytest.raises(InputError, match=says):
            runtime.tcav(given, None, **options)
    with pytest.raises(InputError, match="not all finite"):
        runtime.tcav(Given(SLOPES * np.nan), None)
    with pytest.raises(KeyError, match="no concept 'spots'"):
        runtime.tcav(given, None)["spots"]
    with pytest.raises(InputError, match=r"Compile it with pg\.ConceptSensitivity"):
        runtime.tcav(artefact, np.ones((2, 5)))
    assert concept_scores.CONCEPT == "concept"


def test_from_examples_to_scores(artefact, tmp_path):
    """Vectors of a concept and of chance go into an artefact, whose slopes become scores."""
    pytest.importorskip("sklearn")
    direction = np.array([1.0, -2.0, 0.5, 0.0])
    random = [planted(0 * direction, seed=seed) for seed in range(5)]
    output = "activation/hidden"
    concept = runtime.concept_vector(artefact, output, planted(direction, seed=9), random[:2])
    chance = runtime.concept_vector(artefact, output, random[4], random[2:4])
    vectors = np.concatenate([concept, chance])
    proto = onnx.parser.parse_model(NETWORK)
    for name, array in (("first", FIRST), ("second", SECOND)):
        proto.graph.initializer.append(onnx.numpy_helper.from_array(array, name))
    probe = pg.ConceptSensitivity("hidden", vectors, target="input")
    pg.compile(proto, [probe], tmp_path / "m.onnx", verify=False)
    compiled = runtime.load(tmp_path / "m.onnx", threads=1)
    x = planted(direction, seed=11)
    for target in (0, 1):
        found = runtime.tcav(
            compiled, x, concepts={"planted": [0, 1]}, random=[2, 3], target=target
        )
        slopes = vectors @ SECOND[:, target]  # the same for every sample of a linear model
        np.testing.assert_array_equal(found["planted"].scores, slopes[:2] > 0)
        np.testing.assert_array_equal(found.random_scores, slopes[2:] > 0)
        assert found["planted"].p_value is not None
