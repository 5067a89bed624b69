"""`completeness=True`: what is missing to the difference of scores, against plain models."""

import json

import keras
import numpy as np
import pytest
from keras import layers

import probegen as pg
from probegen import runtime
from probegen.errors import SpecError, VerificationError
from probegen.graph import attribution
from probegen.methods import text_forms
from tests import models
from tests.command_line import status_of
from tests.methods.scoring import onnx_model, onnx_scores, scores_of

_RNG = np.random.default_rng(4)
BACKGROUND = _RNG.normal(size=(3, 11, 8, 2)).astype(np.float32)


def close(found, expected, size):
    np.testing.assert_allclose(found, expected, rtol=0, atol=2e-5 * size)


def axes_behind(values, count):
    return tuple(range(count, values.ndim))


def missing(result, name, score, reference):
    """The sum of what an artefact gave out, less a difference of scores of the plain model."""
    return result[name].array.astype(np.float64).sum(axes_behind(result[name].array, 1)) - (
        score - reference
    )


def test_every_method_that_has_it(tmp_path):
    probes = [
        pg.IntegratedGradients(3, 0.25, completeness=True),
        pg.ExpectedGradients(BACKGROUND, 5, completeness=True),
        pg.DeepLIFT(0.25, completeness=True),
        pg.DeepSHAP(BACKGROUND, completeness=True),
        pg.LRP(completeness=True),
    ]
    model = models.cnn()
    exported = pg.compile(model, probes, tmp_path / "m.onnx")
    art = runtime.load(tmp_path / "m.onnx")
    scores = scores_of(model)
    for count in (1, 3):
        x = models.images((11, 8, 2), count=count, seed=count)
        result, best = art.run(x), scores(x).argmax(1)

        def score(y, best=best):
            return np.take_along_axis(scores(y), best[:, None], 1)[:, 0]

        background = np.mean(
            [score(np.broadcast_to(b, x.shape).astype(np.float32)) for b in BACKGROUND], axis=0
        )
        of = {"integrated_gradients": score(np.full_like(x, 0.25)), "lrp": 0.0}
        of |= {"deep_lift": of["integrated_gradients"]}
        of |= dict.fromkeys(("expected_gradients", "deep_shap"), background)
        for kind, reference in of.items():
            figure = result[f"completeness/{kind}/image"].array
            assert figure.shape == (count,)
            size = np.abs(scores(x)).max()
            close(figure, missing(result, f"{kind}/image", score(x), reference), size)
            if kind.startswith("deep"):
                close(figure, np.zeros(count), size)
            else:
                assert np.abs(figure).max() > 1e-4 * size
    spec = art.manifest.output("completeness/deep_shap/image")
    assert (spec.axes, spec.unit, spec.kind) == (("batch",), "score", "completeness")
    assert spec.detail["of"] == "deep_shap/image"
    assert all(p.passed for p in exported.report.values())


@pytest.mark.parametrize("path", ["m.onnx", "saved"])
def test_several_classes_and_contrasts(tmp_path, path):
    probes = [
        pg.IntegratedGradients(2, 0.5, target="top:2", name="best", completeness=True),
        pg.IntegratedGradients(
            2, 0.5, target=pg.contrast(3, "argmax"), name="contrast", completeness=True
        ),
        pg.IntegratedGradients(2, target=[2, 0], name="listed", completeness=True),
    ]
    model, x = models.cnn(), models.images((11, 8, 2))
    pg.compile(model, probes, tmp_path / path)
    result = runtime.load(tmp_path / path).run(x)
    scores, there = scores_of(model)(x), scores_of(model)(np.full_like(x, 0.5))
    size = np.abs(scores).max()
    classes = result["best/classes"].array
    gained = np.take_along_axis(scores - there, classes, 1)
    whole = result["best"].array.astype(np.float64)
    close(result["completeness/best"].array, whole.sum((2, 3, 4)) - gained, size)
    best = scores.argmax(1)[:, None]
    gained = (scores - there)[:, 3] - np.take_along_axis(scores - there, best, 1)[:, 0]
    whole = result["contrast"].array.astype(np.float64)
    close(result["completeness/contrast"].array, whole.sum((1, 2, 3)) - gained, size)
    gained = (scores - scores_of(model)(np.zeros_like(x)))[:, [2, 0]]
    whole = result["listed"].array.astype(np.float64)
    close(result["completeness/listed"].array, whole.sum((2, 3, 4)) - gained, size)


def two_inputs():
    keras.utils.set_random_seed(3)
    left, right = keras.Input((5, 2), name="left"), keras.Input((4,), name="right", dtype="float64")
    joined = layers.Concatenate()([layers.Flatten()(left), keras.ops.cast(right, "float32")])
    hidden = layers.Dense(6, activation="tanh")(joined)
    return keras.Model([left, right], layers.Dense(3)(hidden))


def test_inputs_that_move_together_have_one_sum(tmp_path):
    baseline = {"left": 0.5, "right": _RNG.normal(size=(4,)).astype(np.float32)}
    probes = [
        pg.IntegratedGradients(2, baseline, completeness=True),
        pg.IntegratedGradients(2, wrt="right", name="alone", completeness=True),
        pg.KernelSHAP(wrt="right", background=0.3, completeness=True),
    ]
    model = two_inputs()
    pg.compile(model, probes, tmp_path / "m.onnx")
    for count in (1, 4):
        left, right = models.images((5, 2), count=count), models.images((4,), count=count, seed=1)
        result = runtime.load(tmp_path / "m.onnx").run({"left": left, "right": right})

        def score(a, b, best=None):
            found = np.asarray(model([a, b]), np.float64)
            best = found.argmax(1) if best is None else best
            return np.take_along_axis(found, best[:, None], 1)[:, 0], best

        top, best = score(left, right)
        reference = score(
            np.full_like(left, 0.5), np.broadcast_to(baseline["right"], right.shape), best
        )[0]
        whole = result["integrated_gradients/left"].array.astype(np.float64).sum((1, 2))
        whole += result["integrated_gradients/right"].array.astype(np.float64).sum(1)
        for name in ("left", "right"):
            figure = result[f"completeness/integrated_gradients/{name}"].array
            close(figure, whole - (top - reference), 1.0)
        reference = score(left, np.zeros_like(right), best)[0]
        close(result["completeness/alone"].array, missing(result, "alone", top, reference), 1.0)
        figure = result["completeness/kernel_shap/right"].array
        reference = score(left, np.full_like(right, 0.3), best)[0]
        close(figure, missing(result, "kernel_shap/right", top, reference), 1.0)
        close(figure, np.zeros(count), 1.0)


def test_tokens(tmp_path):
    model, x = models.transformer(), models.tokens()
    probes = [
        pg.IntegratedGradients(4, completeness=True),
        pg.KernelSHAP(samples=30, completeness=True),
    ]
    exported = pg.compile(model, probes, tmp_path / "m.onnx")
    assert all(p.passed for p in exported.report.values())
    result = runtime.load(tmp_path / "m.onnx").run(x)
    names = [n for n in result if n.startswith("completeness/kernel_shap")]
    close(result[names[0]].array, np.zeros(len(x)), 1.0)


def test_an_onnx_file(tmp_path):
    probes = [
        pg.IntegratedGradients(2, 0.2, completeness=True),
        pg.DeepLIFT(0.2, completeness=True),
        pg.KernelSHAP(None, 0.2, samples=40, completeness=True),
    ]
    pg.compile(onnx_model(), probes, tmp_path / "m.onnx")
    for count in (1, 3):
        x = models.images((5, 3), count=count, seed=count)
        result = runtime.load(tmp_path / "m.onnx").run(x)
        best = onnx_scores(x).argmax(1)[:, None]
        top, there = (
            np.take_along_axis(np.asarray(onnx_scores(y), np.float64), best, 1)[:, 0]
            for y in (x, np.full_like(x, 0.2))
        )
        for kind in ("integrated_gradients", "deep_lift", "kernel_shap"):
            figure = result[f"completeness/{kind}/x"].array
            close(figure, missing(result, f"{kind}/x", top, there), np.abs(top).max())


def test_a_wrong_figure_is_found(tmp_path, monkeypatch):
    right = attribution.write_missing

    def wrong(builder, *rest):
        return {n: builder.mul(v, 1.1) for n, v in right(builder, *rest).items()}

    monkeypatch.setattr(attribution, "write_missing", wrong)
    with pytest.raises(VerificationError, match="completeness/integrated_gradients/image"):
        pg.compile(
            models.cnn(), pg.IntegratedGradients(1, 2.0, completeness=True), tmp_path / "m.onnx"
        )


def test_methods_without_such_an_axiom_are_refused():
    with pytest.raises(
        SpecError, match=r"pg.Saliency\(completeness=True\).*pg.DeepLIFT.*pg.LRP"
    ) as e:
        pg.Saliency(completeness=True)
    assert str(e.value).count("pg.KernelSHAP") == 1
    with pytest.raises(SpecError, match="goes without groups="):
        pg.KernelSHAP("grid:2", completeness=True)
    with pytest.raises(SpecError, match="takes True or False"):
        pg.IntegratedGradients(completeness="yes")


def test_the_command_line(tmp_path, capsys):
    model = models.cnn()
    model.save(tmp_path / "m.keras")
    given = ("compile", tmp_path / "m.keras", "-o", tmp_path / "m.onnx", "--no-verify")
    assert status_of(*given, "--integrated-gradients", "--saliency", "--completeness") == 0
    outputs = runtime.load(tmp_path / "m.onnx").manifest.outputs
    kept = [o.name for o in outputs if o.kind == "completeness"]
    assert kept == ["completeness/integrated_gradients/image"]
    capsys.readouterr()
    assert status_of(*given, "--saliency", "--completeness") == 1
    assert "--completeness goes with" in capsys.readouterr().err


def test_specs_and_manifests_hold_it():
    probe = pg.DeepLIFT(completeness=True)
    text = text_forms.to_json([probe])
    assert json.loads(text)["probes"][0]["completeness"] is True
    assert text_forms.from_json(text) == (probe,)


def test_attributions_in_float16_are_summed_before_they_are_rounded(tmp_path):
    """What is given out adds up to the score as far as its own type lets it."""
    keras.utils.set_random_seed(3)
    given = keras.Input((3,), name="row", dtype="float16")
    hidden = layers.Dense(5, "tanh")(keras.ops.cast(given, "float32"))
    model = keras.Model(given, layers.Dense(2, name="scores")(hidden))
    probe = pg.IntegratedGradients(4, target=1, completeness=True)
    exported = pg.compile(model, probe, tmp_path / "m.onnx")
    x = models.images((3,), count=5).astype(np.float16)
    result = runtime.load(tmp_path / "m.onnx").run(x)
    assert result["integrated_gradients/row"].array.dtype == np.float16
    scores = np.asarray(model(x))[:, 1] - np.asarray(model(0 * x))[:, 1]
    figure = result["completeness/integrated_gradients/row"].array
    wanted = missing(result, "integrated_gradients/row", scores, 0.0)
    np.testing.assert_allclose(figure, wanted, atol=2e-3 * np.abs(scores).max())
    assert exported.report["completeness/integrated_gradients/row"].floor > 1e-3
