"""Everything a user may ask of an ONNX model wrongly: one clear sentence of ours each."""

from __future__ import annotations

import numpy as np
import onnx
import pytest

import probegen as pg
from probegen import runtime
from probegen.errors import (
    ExportError,
    InputError,
    InstrumentError,
    NotDifferentiableError,
    OutputExistsError,
    SelectionError,
    SourceError,
)
from tests.sources.onnx.support import add_weights, hard, parse, run

_BODY = """{
  conv = Conv(image, w)
  act = Relu(conv)
  pool = GlobalAveragePool(act)
  flat = Flatten(pool)
  logits = MatMul(flat, m)
}"""


def _weights(*shape):
    return np.random.default_rng(sum(shape)).normal(size=shape).astype(np.float32)


def _model(batch="N", outputs="float[N,5] logits", image="image", body=_BODY):
    text = f"g (float[{batch},3,9,7] {image}) => ({outputs}) {body}".replace(
        "(image,", f"({image},"
    )
    return add_weights(
        parse(text.replace("[N,", f"[{batch},")), w=_weights(6, 3, 3, 2), m=_weights(6, 5)
    )


@pytest.fixture
def source(tmp_path):
    path = tmp_path / "m.onnx"
    onnx.save(_model(), path)
    return path


@pytest.mark.parametrize(
    ("probe", "error", "said"),
    [
        (pg.Saliency(output="nope"), InstrumentError, r"output= takes one of \['logits'\]"),
        (pg.Saliency(output=3), InstrumentError, r"output= takes one of \['logits'\]"),
        (pg.Saliency(target=lambda y: y), InstrumentError, "callable, which an ONNX model cannot"),
        (pg.Saliency(target=5), InstrumentError, "target 5 is out of range.*0 to 4"),
        (
            pg.Saliency(target=(1, 2)),
            InstrumentError,
            "takes one for each axis behind the batch, 1 in all",
        ),
        (pg.InputGradient(wrt="imag"), SelectionError, "Did you mean 'image'"),
        (pg.Activations("konv"), SelectionError, "Did you mean 'conv'"),
        (pg.Activations("type:LSTM"), SelectionError, "type:LSTM"),
        (pg.GradCAM("flat"), SelectionError, "positions and channels, such as 'act'"),
        (pg.Attention(), SelectionError, "no layer that can be probed for attention"),
        (pg.InputGradient(wrt="logits", target=1), None, ""),
    ],
)
def test_probes(source, tmp_path, probe, error, said) -> None:
    if error is None:
        assert pg.compile(source, [probe], tmp_path / "o.onnx").report.passed
        return
    with pytest.raises(error, match=said):
        pg.compile(source, [probe], tmp_path / "o.onnx")
    assert [p.name for p in tmp_path.iterdir()] == ["m.onnx"]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"opset": 21}, "keeps the file's operator set, which is 18"),
        ({"opset": 15}, "keeps the file's operator set, which is 18"),
        ({"inputs": {"x": "batch"}}, r"no input or output 'x'; it has \['image', 'logits'\]"),
        ({"inputs": {"image": "batch,channel"}}, "'image' has 4 axes"),
        ({"inputs": {"image": "batch,batch,height,width"}}, "a name of its own"),
        ({"inputs": {"image": 4}}, "'image' has 4 axes; got 4"),
        ({"inputs": [1]}, "takes a dict of axes"),
        ({"class_names": ["a", "b"]}, r"2 names; the model's outputs have \[5\]"),
        ({"samples": np.zeros((2, 3, 9, 8), np.float32)}, "size 8 on the axis 'width'.*expected 7"),
    ],
)
def test_options(source, tmp_path, options, said) -> None:
    with pytest.raises((SourceError, ExportError, InstrumentError, InputError), match=said):
        pg.compile(source, [pg.Saliency()], tmp_path / "o.onnx", **options)


@pytest.mark.parametrize("name", ["folder", "o.keras"])
def test_other_formats(source, tmp_path, name) -> None:
    with pytest.raises(ExportError, match="can be written as onnx, not as"):
        pg.compile(source, [pg.Saliency()], tmp_path / name)


def test_the_model_itself_is_not_replaced(source, tmp_path) -> None:
    before = source.read_bytes()
    link = tmp_path / "link.onnx"
    link.symlink_to(source)
    for path in (source, link):
        with pytest.raises(OutputExistsError, match="is the model itself"):
            pg.compile(source, [pg.Saliency()], path)
    assert source.read_bytes() == before


def test_an_artefact_is_no_source(source, tmp_path) -> None:
    path = tmp_path / "o.onnx"
    pg.compile(source, [pg.Saliency()], path)
    with pytest.raises(SourceError, match="an artefact that probegen compiled already"):
        pg.compile(path, [pg.Saliency()], tmp_path / "again.onnx")


@pytest.mark.parametrize(
    ("content", "said"),
    [(b"", "is empty"), (b"nonsense", "is no ONNX model"), (None, "there is no model file")],
)
def test_files_that_are_none(tmp_path, content, said) -> None:
    path = tmp_path / "m.onnx"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(SourceError, match=said):
        pg.inspect(path)


def test_several_outputs_have_to_be_told_apart(tmp_path) -> None:
    model = _model(outputs="float[N,5] logits, float[N,6] flat")
    with pytest.raises(
        InstrumentError, match=r"several outputs .*'logits', 'flat'.*output='logits'"
    ):
        pg.compile(model, [pg.Saliency()], tmp_path / "o.onnx")
    pg.compile(model, [pg.Saliency(output="flat", target=4)], tmp_path / "o.onnx")


def test_names_that_the_artefact_needs(tmp_path) -> None:
    model = _model(image="explain")
    with pytest.raises(ExportError, match=r"an input called 'explain'.*gate=False"):
        pg.compile(model, [pg.Saliency()], tmp_path / "o.onnx")
    assert pg.compile(model, [pg.Saliency()], tmp_path / "o.onnx", gate=False).report.passed
    with pytest.raises(InstrumentError, match="an input called 'target'"):
        pg.compile(_model(image="target"), [pg.Saliency(target="input")], tmp_path / "p.onnx")


def test_a_fixed_batch_stays(tmp_path) -> None:
    path = tmp_path / "o.onnx"
    for options in ({}, {"dynamic_batch": False}):
        pg.compile(_model("2"), [pg.Saliency(target=1), pg.GradCAM(target=1)], path, **options)
        art = runtime.load(path)
        assert [o.shape[0] for o in art.manifest.outputs] == [2, 2, 2]
    with pytest.raises(InputError, match=r"size 3 on the axis 'batch'.*expected 2"):
        art.run(np.zeros((3, 3, 9, 7), np.float32))


def test_a_newer_operator_set_is_kept(tmp_path) -> None:
    model = _model()
    model.opset_import[0].version = 21
    model.ir_version = 10
    for options in ({}, {"opset": 21}):
        pg.compile(model, [pg.Saliency(target=1)], tmp_path / "o.onnx", **options)
        assert onnx.load(tmp_path / "o.onnx").opset_import[0].version == 21


def test_an_open_batch_can_be_fixed_to_one(source, tmp_path) -> None:
    path = tmp_path / "o.onnx"
    pg.compile(source, [pg.Saliency(target=1)], path, dynamic_batch=False)
    art = runtime.load(path)
    assert art.manifest.inputs[0].shape == (1, 3, 9, 7)
    x = hard(1, 3, 9, 7)
    np.testing.assert_allclose(
        art.run(x)["logits"].array, run(source, {"image": x})["logits"], atol=1e-5
    )


def test_classes_that_are_chosen_already_have_no_slope(tmp_path) -> None:
    body = _BODY.replace("}", "  label = ArgMax<axis=1, keepdims=0>(logits)\n}")
    model = _model(outputs="int64[N] label", body=body)
    with pytest.raises(NotDifferentiableError, match=r"'label' is int64.*made by ArgMax"):
        pg.compile(model, [pg.Saliency()], tmp_path / "o.onnx")


def test_an_output_of_any_number_of_axes_is_told(tmp_path) -> None:
    model = parse("g (float[N,M] x) => (float y) { s = Sin(x) y = Squeeze(s) }")
    says = "how many axes output 'y' has.*Squeeze .*by the open sizes"
    for probes, kind in (([pg.Saliency()], NotDifferentiableError), ([], ExportError)):
        with pytest.raises(kind, match=says):
            pg.compile(model, probes, tmp_path / "o.onnx")


def test_an_output_whose_sizes_contradict_each_other_is_told(tmp_path) -> None:
    """onnx counts three windows, where onnxruntime has two and runs the file."""
    model = parse("""g (float[N,2,3,4,3] x) => (float[N,1] y) {
        a = AveragePool <auto_pad = "SAME_LOWER", ceil_mode = 1, count_include_pad = 1,
                         kernel_shape = [2, 1, 2], strides = [2, 2, 1]> (x)
        f = Flatten (a)
        y = MatMul (f, w)
      }""")
    with pytest.raises(ExportError, match=r"MatMul .*of the sizes \[N, 36\], \[24, 1\]"):
        pg.compile(add_weights(model, w=hard(24, 1)), [], tmp_path / "o.onnx")


def test_whole_numbers_that_nothing_looks_up(tmp_path) -> None:
    text = """
        g (int64[N,5] ids, float[N,5] x) => (float[N,5] y, int64[N,5] more) {
          y = Sin(x)
          more = Add(ids, ids)
        }"""
    probe = pg.InputGradient(wrt="ids", output="y")
    with pytest.raises(NotDifferentiableError, match="input 'ids' is int64"):
        pg.compile(parse(text), [probe], tmp_path / "o.onnx")


def test_instrument_names_the_way_for_onnx_files(source) -> None:
    with pytest.raises(SourceError, match=r"An ONNX file is compiled as it is: pg\.compile"):
        pg.instrument(str(source), [pg.Saliency()])


def test_an_input_of_which_the_file_says_no_sizes(tmp_path):
    """Old exporters left them out; names of axes say how many there are."""
    text = "g (float[N,5] x) => (float[N,3] y) { y = MatMul(x, w) }"
    model = add_weights(parse(text), w=_weights(5, 3))
    model.graph.input[0].type.tensor_type.ClearField("shape")
    probe, path = pg.InputGradient(target=1), tmp_path / "m.onnx"
    with pytest.raises(SourceError, match=r"input 'x' has is not known.*inputs=\{'x': 'batch,"):
        pg.compile(model, probe, path)
    samples = np.eye(3, 5, dtype=np.float32)
    pg.compile(model, probe, path, inputs={"x": "batch,feature"}, samples=samples)
    found = runtime.load(path).run(np.ones((2, 5), np.float32))["input_gradient/x"].array
    np.testing.assert_allclose(found, np.stack([_weights(5, 3)[:, 1]] * 2))
