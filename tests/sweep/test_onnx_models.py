"""The sweep of strangers' ONNX files: what it lists, how it compares, what it writes."""

import dataclasses
import json
import re
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import onnx
import onnxruntime
import pytest
from click.testing import CliRunner

from probegen.artefact.manifest import OutputSpec
from sweep.onnx_models import check, pool, shipped
from sweep.onnx_models.__main__ import main
from sweep.onnx_models.case import (
    COMPILER,
    MODEL,
    OWN,
    About,
    AbsentError,
    Case,
    Run,
    load_runs,
    save_runs,
)
from sweep.onnx_models.child import WRITE
from sweep.onnx_models.compare import (
    STEPS_DOUBLE,
    directional,
    entry,
    relative_l2,
    relative_largest,
)
from sweep.onnx_models.outcome import AGREES, DIFFERS, NOT_APPLICABLE, REFUSED, Outcome, line
from sweep.onnx_models.precise import Precise
from sweep.onnx_models.sets import cases
from sweep.onnx_models.table import END, START, as_markdown, write_table

#: logits = tanh(x W) * x[:, :2], of which the gradient is written out below.
_MODEL = """
<ir_version: 8, opset_import: ["" : 17]>
small (float[batch, 3] x) => (float[batch, 2] logits)
<float[3, 2] w = {0.5, -1.0, 0.25, 2.0, -0.75, 1.5}, int64[1] zero = {0}, int64[1] two = {2},
 int64[1] one = {1}>
{
  product = MatMul(x, w)
  bent = Tanh(product)
  head = Slice(x, zero, two, one)
  logits = Mul(bent, head)
}
"""
_W = np.array([[0.5, -1.0], [0.25, 2.0], [-0.75, 1.5]])


def _gradient(x, of):
    bent = np.tanh(x @ _W)[:, of]
    found = (1 - bent**2)[:, None] * _W[:, of] * x[:, of : of + 1]
    found[:, of] += bent
    return found


@pytest.fixture
def folder(tmp_path):
    onnx.save(onnx.parser.parse_model(_MODEL), tmp_path / MODEL)
    About("a hand", 1, wrt=("x",)).save(tmp_path)
    rng = np.random.default_rng(0)
    save_runs(tmp_path, [Run({"x": rng.normal(size=(n, 3)).astype(np.float32)}) for n in (2, 3)])
    return tmp_path


# -- what is listed ----------------------------------------------------------------------------


def test_every_family_exporter_and_opset_is_listed():
    names = [c.name for c in cases()]
    families = {c.family for c in cases()}
    wanted = {"torchvision", "timm", "transformers", "torch", "Keras", "scikit-learn"}
    assert wanted | {"packages", "quantised"} <= families
    for exporter in ("dynamo", "script"):
        opsets = {int(o) for n in names for o in re.findall(rf"\({exporter}, opset (\d+)\)", n)}
        assert 18 in opsets
        assert opsets & ({20, 21, 23} if exporter == "dynamo" else {11, 13, 17})
    for what in ("LSTM", "3-D", "If of a script", "fixed batch", "open image size", "with boxes"):
        assert any(what in n for n in names), what
    assert {c.home for c in cases()} == {OWN, COMPILER}


def test_no_two_cases_share_a_folder():
    folders = [c.folder for c in cases()]
    assert len(set(folders)) == len(folders)


def test_the_packages_that_are_installed_are_those_whose_files_are_listed():
    listed = Path(shipped.__file__).with_name("packages.txt").read_text().splitlines()
    installed = {re.split("[><=]", row)[0] for row in listed if row and not row.startswith("#")}
    used = {f.package for f in shipped._FILES}
    # These two are there anyway.
    assert installed == used - {"onnx", "onnxruntime"}


def test_a_package_that_is_not_there_is_no_fault():
    with pytest.raises(AbsentError, match="no-such-package is not installed"):
        shipped.find("no-such-package", "model.onnx")
    with pytest.raises(AbsentError, match=r"ships no nothing\.onnx"):
        shipped.find("onnxruntime", "nothing.onnx")
    assert shipped.find("onnxruntime", "datasets/sigmoid.onnx").exists()


def test_a_model_of_constants_gets_random_weights(tmp_path):
    hollow = tmp_path / "hollow.onnx"
    text = """
    <ir_version: 8, opset_import: ["" : 17]>
    hollow (float[1, 4] x) => (float[1, 3] y) <int64[2] shape = {4, 3}>
    {
      w = ConstantOfShape<value = float[1] {0.5}>(shape)
      y = MatMul(x, w)
    }
    """
    onnx.save(onnx.parser.parse_model(text), hollow)
    shipped._fill(hollow, tmp_path / MODEL)
    session = onnxruntime.InferenceSession(tmp_path / MODEL)
    (y,) = session.run(None, {"x": np.ones((1, 4), np.float32)})
    assert np.unique(y).size == 3


# -- what is written and read ------------------------------------------------------------------


@pytest.mark.parametrize("target", [3, (1, None, 2), ()])
def test_what_is_asked_of_a_file_survives_its_folder(tmp_path, target):
    about = About("a tool", target, "y", ("a", "b"), ("GradCAM",), batched=False)
    about.save(tmp_path)
    assert About.load(tmp_path) == about


def test_runs_survive_their_folder(tmp_path):
    x, y = np.arange(6.0, dtype=np.float32).reshape(2, 3), np.ones((2, 1))
    wide = {"gradient64": {"input:0/x": x.astype(np.float64) + 1}}
    save_runs(tmp_path, [Run({"input:0/x": x}, {"file": y}, wide), Run({"input:0/x": x[:1]})])
    first, second = load_runs(tmp_path)
    np.testing.assert_array_equal(first.inputs["input:0/x"], x)
    np.testing.assert_array_equal(first.outputs["file"], y)
    assert first.gradients["gradient64"]["input:0/x"].dtype == np.float64
    assert not second.gradients
    assert len(second.inputs["input:0/x"]) == 1


# -- how it is compared ------------------------------------------------------------------------


def test_distances():
    assert relative_l2(np.array([3.0, 4.5]), np.array([3.0, 4.0])) == pytest.approx(0.1)
    assert relative_l2(np.array([np.nan, 4.0]), np.array([3.0, 4.0])) == np.inf
    assert relative_largest(np.array([1.0, -3.0]), np.array([1.0, -2.0])) == pytest.approx(0.5)
    assert relative_largest(np.array([2e-6]), np.array([1.8e-6])) == 0.0
    assert relative_largest(np.array([2e-6]), np.array([1e-6])) == pytest.approx(1.0)
    with pytest.raises(ValueError, match="nothing is compared"):
        relative_l2(np.zeros(3), np.zeros(3))
    with pytest.raises(ValueError, match="shape"):
        relative_l2(np.ones(3), np.ones((3, 1)))


def test_a_target_is_an_entry_of_a_sample_or_of_the_whole():
    y = np.arange(24.0).reshape(2, 3, 4)
    assert entry(y, 1, batched=True) == y[..., 1].sum()
    assert entry(y, (2, None), batched=True) == y[:, 2].sum()
    assert entry(y, (1, 2, 3), batched=False) == 23.0


@pytest.mark.parametrize("wrong", [False, True])
def test_differences_tell_a_wrong_gradient_from_a_right_one(folder, wrong):
    session = onnxruntime.InferenceSession(folder / MODEL)
    precise = Precise(folder / MODEL)
    x = load_runs(folder)[1].inputs["x"]
    gradient = _gradient(x.astype(np.float64), of=1)
    if wrong:
        gradient[0, 2] *= 1.5

    def single(inputs):
        return entry(session.run(None, dict(inputs))[0], 1, batched=True)

    def double(inputs):
        return entry(precise.run(inputs)["logits"], 1, batched=True)

    coarse = directional(single, {"x": x}, "x", gradient)
    fine = directional(double, {"x": x}, "x", gradient, STEPS_DOUBLE)
    assert coarse > 2e-2 if wrong else coarse < 2e-3
    assert fine > 2e-2 if wrong else fine < 1e-8


def test_a_gradient_of_zeros_is_no_agreement():
    with pytest.raises(ValueError, match="nothing is compared"):
        directional(lambda _: 0.0, {"x": np.ones(3)}, "x", np.zeros(3))


def test_the_evaluator_computes_in_double(tmp_path):
    text = """
    <ir_version: 8, opset_import: ["" : 17]>
    g (float[n] x, bool c) => (float[m] y)
    {
      third = Constant<value_float = 0.5>()
      y = If(c) <
        then_branch = g1 () => (float[m] a) { z = Cast<to = 1>(x)  a = Div(z, third) },
        else_branch = g2 () => (float[m] b) { b = Neg(x) }
      >
    }
    """
    onnx.save(onnx.parser.parse_model(text), tmp_path / MODEL)
    x = np.array([1 / 3, 1e-9])
    found = Precise(tmp_path / MODEL).run({"x": x, "c": np.array(True)})["y"]
    assert found.dtype == np.float64
    np.testing.assert_allclose(found, 2 * x, rtol=1e-15)


def _artefact(gradient, logits, kind="input_gradient", axes=("batch", "feature")):
    outputs = [
        OutputSpec("logits", "prediction", "float32", (None, 2), ("batch", "class")),
        OutputSpec(f"{kind}/x", kind, "float32", gradient.shape, axes),
    ]
    arrays = {"logits": logits, f"{kind}/x": gradient}
    results = {name: SimpleNamespace(array=array) for name, array in arrays.items()}
    return SimpleNamespace(manifest=SimpleNamespace(outputs=outputs), run=lambda _: results)


@pytest.mark.parametrize("reference", [True, False])
def test_an_artefact_is_compared_with_its_file_and_with_its_makers_gradient(folder, reference):
    run = load_runs(folder)[0]
    x = run.inputs["x"]
    gradient = _gradient(x.astype(np.float64), of=1)
    if reference:
        both = {"gradient64": {"x": gradient}, "gradient32": {"x": gradient.astype(np.float32)}}
        run = dataclasses.replace(run, gradients=both)
    (logits,) = onnxruntime.InferenceSession(folder / MODEL).run(None, {"x": x})
    about = About.load(folder)
    path = folder / "no artefact.onnx"
    right = check._Figures.of(_artefact(gradient, logits), run, about, folder / MODEL, path)
    assert right.gradient < 2e-3
    assert right.predictions == 0.0
    assert ("torch" in right.against) is reference
    other = _artefact(2 * gradient, logits + 1)
    wrong = check._Figures.of(other, run, about, folder / MODEL, path)
    assert wrong.gradient > 0.3
    assert wrong.predictions > 0.1


def test_an_artefact_that_rounding_tips_is_compared_in_double(tmp_path):
    # Its gradient is 1 where x is over a quarter, which float32 cannot tell of this x.
    text = """
    <ir_version: 8, opset_import: ["" : 17]>
    artefact (float[n] x, bool explain) => (float[n] gradient) <float zero = {0.0}>
    {
      quarter = Constant<value_float = 0.25>()
      moved = Sub(x, quarter)
      positive = Greater(moved, zero)
      gradient = Cast<to = 1>(positive)
    }
    """
    model = onnx.parser.parse_model(text)
    model.graph.output[0].name = model.graph.node[-1].output[0] = "input_gradient/x"
    path = tmp_path / "artefact.onnx"
    onnx.save(model, path)
    x = np.array([0.25 + 1e-12, 1.0])
    single, double = np.array([0.0, 1.0]), np.array([1.0, 1.0])
    assert relative_l2(single, double) > 0.5
    assert check._artefact_in_double(path, {"x": x}, "x", double) == 0.0
    assert check._artefact_in_double(path, {"x": x}, "other", double) == np.inf


def test_what_an_output_means_is_checked():
    def wrong(kind, array, axes=("batch", "key")):
        art = _artefact(array, np.zeros((1, 2)), kind, axes)
        arrays = {"logits": np.zeros((1, 2)), f"{kind}/x": array}
        return list(check._wrong_in(art, arrays))

    assert not wrong("saliency", np.array([[0.0, 2.0]]))
    assert "negative" in wrong("saliency", np.array([[-1.0, 2.0]]))[0]
    assert "no numbers" in wrong("grad_cam", np.array([[np.nan, 2.0]]))[0]
    assert not wrong("attention", np.array([[0.25, 0.75]]))
    assert not wrong("attention", np.array([[0.25, 0.75], [0.0, 0.0]]))  # masked whole
    assert "add up" in wrong("attention", np.zeros((2, 2)))[0]
    assert "add up" in wrong("attention", np.array([[0.25, 0.7]]))[0]


def test_a_file_that_cannot_be_read_becomes_an_outcome(folder):
    (folder / MODEL).write_bytes(b"no model")
    outcome = check.check("broken", folder)
    assert outcome.verdict == NOT_APPLICABLE
    assert outcome.tool == "a hand"
    assert "onnxruntime cannot open the file" in outcome.reason


def test_a_target_that_is_not_there_becomes_an_outcome(folder):
    About("a hand", 7, wrt=("x",)).save(folder)
    outcome = check.check("beyond", folder)
    assert outcome.verdict == REFUSED
    assert "target 7 is out of range" in outcome.reason


def test_a_file_is_compiled_and_agrees(folder):
    outcome = check.check("small", folder)
    assert (outcome.verdict, outcome.against) == (AGREES, "directional differences")
    assert outcome.witnessed == (1, 1)
    assert outcome.gradient < 2e-2


def test_a_file_that_does_not_run_on_its_own_samples_is_not_applicable(folder):
    save_runs(folder, [Run({"x": np.ones((2, 4), np.float32)})])
    assert check.check("small", folder).verdict == NOT_APPLICABLE


def test_the_sample_of_an_index_of_the_whole_output(tmp_path):
    """Time before the batch: probes get an index without the sample."""
    text = """
    <ir_version: 8, opset_import: ["" : 17]>
    g (float[time, batch, 3] x) => (float[time, batch, 2] y)
    <float[3, 2] w = {0.5, -1.0, 0.25, 2.0, -0.75, 1.5}>
    {
      product = MatMul(x, w)
      y = Tanh(product)
    }
    """
    onnx.save(onnx.parser.parse_model(text), tmp_path / MODEL)
    about = About("a hand", (4, 1, 0), wrt=("x",), batched=False)
    about.save(tmp_path)
    assert check.asked_target(tmp_path / MODEL, about) == ((4, 0), 1)
    save_runs(tmp_path, [Run({"x": np.random.default_rng(0).normal(size=(6, 3, 3)).astype("f")})])
    outcome = check.check("time first", tmp_path)
    assert outcome.verdict == AGREES, outcome.reason
    assert check.asked_target(tmp_path / MODEL, dataclasses.replace(about, batched=True))[1] is None


def test_the_gradient_of_one_sample():
    array = np.arange(24.0).reshape(2, 3, 4)
    found = check._of_sample(array, ("time", "batch", "feature"), 1)
    assert (found[:, 1] == array[:, 1]).all()
    assert not found[:, [0, 2]].any()
    assert check._of_sample(array, ("a", "b", "c"), 1) is array


def test_a_process_that_dies_becomes_an_outcome(tmp_path):
    case = Case("torch: listed nowhere", lambda _: None)
    outcome = pool._child(WRITE, case, tmp_path)
    assert outcome == Outcome(case.name, NOT_APPLICABLE, "write: its process died")


def test_a_process_that_takes_too_long_is_given_up(tmp_path):
    outcome = pool._child(WRITE, Case("slow", lambda _: None, limit=0), tmp_path)
    assert "given up after 0 seconds" in outcome.reason


# -- the table ---------------------------------------------------------------------------------

_ROWS = [
    Outcome(
        "torch: a", AGREES, "", "torch 2", "torch's autograd", 1e-6, 2e-6, 0.0, (2, 3), 10, 30, 1.0
    ),
    Outcome("torch: b", REFUSED, "GridSample: no | rule", "torch 2"),
    Outcome("torch: c", NOT_APPLICABLE, "not written: torch says no"),
    Outcome("packages: d", DIFFERS, "far away", "shipped with d 1", "directional differences", 0.5),
]


def test_the_table_leaves_nothing_out():
    text = as_markdown(_ROWS, {"torch": "2.9", "onnx": ""})
    assert "| torch | 2 | 1 | 1e-06 (1e-06) |  | 2 of 3 | 1 | 0 | 1 |" in text
    assert "| packages | 1 | 0 |  |  |  | 0 | 1 | 0 |" in text
    assert "with torch 2.9." in text
    assert r"| torch: b | torch 2 | refused | GridSample: no \| rule |" in text
    for row in _ROWS:
        assert row.name.partition(": ")[2] in text


def test_the_table_goes_between_its_markers(tmp_path):
    page = tmp_path / "COVERAGE.md"
    page.write_text(f"before\n{START}\nold\n{END}\nafter\n")
    write_table(page, _ROWS, {})
    text = page.read_text()
    assert "old" not in text
    assert text.startswith("before\n")
    assert text.endswith("\nafter\n")
    page.write_text("nothing")
    with pytest.raises(ValueError, match="lacks the lines"):
        write_table(page, _ROWS, {})


def test_rows_of_several_files_are_put_into_one(tmp_path):
    halves = [[dataclasses.asdict(row) for row in part] for part in (_ROWS[:1], _ROWS[1:])]
    asked = []
    for number, rows in enumerate(halves):
        (tmp_path / f"{number}.json").write_text(json.dumps(rows))
        asked += ["--from", str(tmp_path / f"{number}.json")]
    result = CliRunner().invoke(main, [*asked, "--json", str(tmp_path / "all.json")])
    assert result.exit_code == 1  # one of them differs
    found = json.loads((tmp_path / "all.json").read_text())
    assert found == json.loads(json.dumps(halves[0] + halves[1]))


def test_messages_name_no_folders():
    assert line("cannot read '/somewhere/deep/model.onnx':\n no") == "cannot read 'model.onnx': no"
    scope = "Conv: at /model/layers.1/self_attn/Conv"
    assert line(scope) == scope
