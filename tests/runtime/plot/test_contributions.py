"""Features of a vector as bars, as a waterfall and as forces: one engine, three forms."""

import numpy as np
import onnx
import onnx.parser
import pytest
from matplotlib.patches import Polygon, Rectangle

import probegen as pg
from probegen import runtime
from probegen.errors import InputError
from probegen.runtime.plot import record_view
from probegen.runtime.plot.contributions import contributions_of
from tests.runtime.figures import axes_of, image_result, says, texts_of
from tests.runtime.support import result_of
from tests.runtime.test_legible import assert_legible

AXES = ("batch", "feature")
NAMES = ["age of the person that asked for the loan", "in$ome$", "", "town"]


def result(values, x=None, sums=True):
    values = np.atleast_2d(values)
    x = np.ones(values.shape) if x is None else np.atleast_2d(x)
    detail = {"sums_to_score": True} if sums else {}
    return result_of(
        {"row": (x, AXES, {})},
        {
            "risk": (np.full((len(x), 1), 0.8), "prediction", ("batch", "unit"), {}),
            "it": (
                values,
                "integrated_gradients",
                AXES,
                {"input": "row", "detail": detail},
            ),
        },
    )


def rectangles(figure):
    """Left ends and widths of the bars, from top to bottom."""
    (ax,) = axes_of(figure)
    bars = sorted((p for p in ax.patches if isinstance(p, Rectangle)), key=lambda p: p.get_y())
    return np.array([[bar.get_x(), bar.get_width()] for bar in bars]).T


def test_a_single_feature_has_the_name_of_its_input():
    parts = contributions_of(record_view(result([[0.5]], [[31.0]])["it"], 0, {}))
    assert parts.names == ["row = 31"]


def test_the_strongest_come_first_and_the_rest_is_summed_up():
    values = np.random.default_rng(3).normal(size=30)
    record = result(values, np.arange(30))["it"]
    parts = contributions_of(record_view(record, 0, {"top": 4}))
    order = np.argsort(-np.abs(values))
    np.testing.assert_allclose(parts.values[:4], values[order[:4]], rtol=1e-6)
    assert parts.values[4] == pytest.approx(values[order[4:]].sum(), rel=1e-5)
    assert parts.total == pytest.approx(values.sum(), rel=1e-5)
    assert parts.names == [*(f"feature {i} = {i}" for i in order[:4]), "sum of 26 others"]
    assert parts.notes == ()
    slopes = contributions_of(record_view(result(values, sums=False)["it"], 0, {"top": 4}))
    assert len(slopes.values) == 4
    assert slopes.notes == ("showing the 4 largest of 30 features",)


def test_a_long_name_keeps_its_value():
    record = result([[3.0, 2, 1, 0.5]], [[-1234.5, 1, 2, 3]])["it"]
    parts = contributions_of(record_view(record, 0, {"feature_names": NAMES}))
    assert parts.names[0].startswith("age of the person")
    assert parts.names[0].endswith("\u2026 = \u22121.23e+03")
    assert len(parts.names[0]) <= 32


@pytest.mark.parametrize("values", [[3.0, -2.0, 1.0, -0.5], [-3, -2, -1, -4], [0, 0, 0, 0]])
def test_a_waterfall_goes_on_where_the_part_above_ends(values):
    figure = result(values)["it"].plot(form="waterfall", feature_names=NAMES)
    lefts, widths = rectangles(figure)
    ordered = sorted(values, key=lambda v: -abs(v))
    np.testing.assert_allclose(widths, [*ordered, sum(values)], atol=1e-6)
    np.testing.assert_allclose(lefts[1:-1], np.cumsum(ordered)[:-1], atol=1e-6)
    assert lefts[0] == lefts[-1] == 0
    assert says(figure, "to the score of the reference")


def test_forces_meet_at_the_sum():
    values = [3.0, -2.0, 1.0, -0.5]
    figure = result(values)["it"].plot(form="force", feature_names=list("abcd"))
    (ax,) = axes_of(figure)
    arrows = [p.get_xy()[:, 0] for p in ax.patches if isinstance(p, Polygon)]
    reds, blues = arrows[:2], arrows[2:]
    assert max(reds[0]) == pytest.approx(1.5)
    assert min(x.min() for x in blues) == pytest.approx(1.5)
    tails = [max(reds[0]) - max(reds[1]), max(reds[1]) - reds[1][4]]
    np.testing.assert_allclose(tails, [3, 1], atol=1e-6)
    assert {"together 1.5", " a = 1  +3 ", " b = 1  \u22122 "} <= set(texts_of(figure))


@pytest.mark.parametrize("form", ["bars", "waterfall", "force"])
@pytest.mark.parametrize("count", [1, 4, 70])
def test_forms_are_legible(form, count, monkeypatch):
    values = np.random.default_rng(count).normal(size=count)
    names = [f"a name of some length {i}" for i in range(count)]
    record = result(values, 1e4 * values)["it"]
    assert_legible(record.plot(form=form, feature_names=names), monkeypatch)


def test_a_form_that_does_not_fit_is_refused(tmp_path):
    record = result([1.0, 2.0], sums=False)["it"]
    with pytest.raises(InputError, match="Integrated gradients has no parts that add up"):
        record.plot(form="waterfall")
    with pytest.raises(InputError, match="no finite number a feature"):
        result([1.0, np.nan])["it"].plot(form="force")
    image = image_result(np.ones((2, 6, 9)), detail={"sums_to_score": True})["it"]
    with pytest.raises(InputError, match=r"has the axes \['height', 'width'\]"):
        image.plot(form="force")
    with pytest.raises(InputError, match="form is 'pie'; it takes one of 'bars'"):
        record.plot(form="pie")
    # Of a whole result, those are drawn so that can be.
    both = result([1.0, 2.0])
    assert says(both.plot(tmp_path / "r.png", form="waterfall"), "together")
    page = both.to_html(tmp_path / "r.html", form="force").read_text()
    assert "together 3" in page


def test_methods_say_whether_their_numbers_add_up(tmp_path):
    """The parts of a waterfall add up to the score less that of the reference."""
    text = """
    <ir_version: 8, opset_import: ["" : 18]>
    net (float[batch, 4] row) => (float[batch, 2] y)
    {
        a = MatMul (row, weights)
        y = Tanh (a)
    }
    """
    proto = onnx.parser.parse_model(text)
    weights = np.random.default_rng(2).normal(size=(4, 2)).astype(np.float32)
    proto.graph.initializer.append(onnx.numpy_helper.from_array(weights, "weights"))
    probes = [
        pg.IntegratedGradients(64, target=1),
        pg.KernelSHAP(target=1),
        pg.KernelSHAP(groups=np.array([0, 0, 1, 1]), target=1, name="grouped"),
        pg.InputGradient(target=1),
        pg.FeatureAblation(target=1),
    ]
    pg.compile(proto, probes, tmp_path / "m.onnx", verify=False)
    x = np.random.default_rng(3).normal(size=(2, 4)).astype(np.float32)
    result = runtime.load(tmp_path / "m.onnx", threads=1).run(x)
    sums = {name: r.spec.sums_to_score for name, r in result.explanations.items()}
    assert sums == {
        "integrated_gradients/row": True, "kernel_shap/row": True, "grouped": False,
        "input_gradient/row": False, "feature_ablation/row": False,
    }  # fmt: skip
    assert [n for n, r in result.items() if r.spec.is_gradient] == ["input_gradient/row"]
    for name in ("integrated_gradients/row", "kernel_shap/row"):
        record = result[name]
        for sample in (0, 1):
            total = contributions_of(record_view(record, sample, {})).total
            assert total == pytest.approx(float(result["y"].array[sample, 1]), abs=2e-3)
        assert says(record.plot(form="waterfall"), "together")
