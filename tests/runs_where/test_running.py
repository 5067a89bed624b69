"""The same numbers in what the development environment has; the rest runs by `make runs-where`.

OpenVINO and onnx's evaluator run more models than these in tests/runtime/engines/test_agreement.py.
"""

import importlib
import re
from pathlib import Path

import click
import numpy as np
import pytest

from runs_where.__main__ import asked_for, check_programs
from runs_where.case import Request, keep, kept
from runs_where.cases import write_cases
from runs_where.exchange import answer, array, tensor
from runs_where.page import page
from runs_where.places import PLACES, Place, Step
from runs_where.running import Outcome, compare, job_of, judge, run
from runs_where.subjects import SUBJECTS, requests

ROOT = Path(__file__).resolve().parent.parent.parent
CNN, LSTM = "CNN: saliency, Grad-CAM", "LSTM: gradient"
HERE = {place.name: place for place in PLACES if place.here}
#: These start TensorFlow or onnxruntime's command in a process of their own.
APART = [name for name in HERE if "format" in name or "TensorFlow" in name]


@pytest.fixture(scope="module")
def cases(tmp_path_factory):
    """Those of the convolutional model, by form."""
    made = write_cases(tmp_path_factory.mktemp("cases"), [CNN])
    return {case.form: case for case in made}


@pytest.fixture(scope="module")
def recurrent(tmp_path_factory):
    made = write_cases(tmp_path_factory.mktemp("recurrent"), [LSTM])
    return {case.form: case for case in made}


def in_this_process(case, place):
    (step,) = place.steps
    worker = importlib.import_module(step.command[-1])
    return judge(case, answer(job_of(step, case), "", worker.opener), "")


@pytest.mark.parametrize("form", ["required", "none", "split", "optional"])
@pytest.mark.parametrize("name", [n for n in HERE if n not in APART])
def test_a_cnn(cases, name, form):
    outcome = in_this_process(cases[form], HERE[name])
    if (name, form) == ("OpenVINO", "optional"):
        assert outcome.words == "the compiled model has no input 'explain'"
    else:
        assert outcome.equal, outcome


@pytest.mark.parametrize("name", [n for n in HERE if n not in APART])
def test_a_recurrent_model(recurrent, name):
    outcome = in_this_process(recurrent["required"], HERE[name])
    if "evaluator" in name:
        assert "input_direction" in outcome.words
    else:
        assert outcome.equal, outcome


@pytest.mark.parametrize(
    ("name", "form"),
    [
        ("onnxruntime, ORT format with run-time optimisation", "required"),
        ("TensorFlow without Keras, explain", "explain"),
    ],
)
def test_in_a_process_of_its_own(cases, name, form):
    outcome = run(cases[form], HERE[name])
    assert outcome.equal, outcome
    assert re.fullmatch(r"(onnxruntime|TensorFlow) \d+\.\d+\.\d+", outcome.versions)


def test_a_place_whose_program_is_missing_is_refused_before_anything_runs():
    """The table would say that the runtime refuses the artefact."""
    place = Place("a browser", [], programs=("sh", "/no/such/browser"))
    with pytest.raises(click.ClickException, match=r"'a browser' needs /no/such/browser.*CHROMIUM"):
        check_programs([place])
    check_programs([Place("a shell", [], programs=("sh",))])


def test_cases_are_kept_for_another_machine(cases, tmp_path):
    given = [cases["split"], cases["explain"], cases["none"]]
    keep(given, tmp_path / "kept")
    found = kept(tmp_path / "kept")
    assert [(c.subject, c.form) for c in found] == [(c.subject, c.form) for c in given]
    for case, back in zip(given, found, strict=True):
        for one, other in zip(case.requests, back.requests, strict=True):
            assert other.model.parent == tmp_path / "kept"
            np.testing.assert_equal(dict(other.feeds), dict(one.feeds))
            np.testing.assert_equal(dict(other.expected), dict(one.expected))
    assert in_this_process(found[0], HERE["onnxruntime, as it comes"]).equal
    assert in_this_process(found[2], HERE["onnxruntime, as it comes"]).equal


def test_a_place_of_another_kind_of_machine_isasked_for_by_name(cases):
    named = [place for place in PLACES if place.elsewhere]
    assert {place.name for place in named if asked_for(place, ["cuda"])} == {
        place.name for place in named
    }
    assert not any(asked_for(place, []) for place in named)
    assert "CUDAExecutionProvider" in in_this_process(cases["none"], named[0]).words


def test_requests_are_of_two_batch_sizes_and_two_of_each_open_size():
    for subject in SUBJECTS.values():
        one, other = (feeds[subject.input].shape for feeds in requests(subject))
        sizes = zip(subject.shape, one[1:], other[1:], strict=True)
        assert one[0] != other[0]
        assert all((a != b) == (size is None) for size, a, b in sizes)


def test_what_is_wrong_is_found():
    right = np.array([[1.0, -4.0]], np.float32)
    asked = Request(Path("m.onnx"), {}, {"y": (right, right + 1e-6), "e": None})
    nothing = np.zeros((0, 3), np.float32)
    assert compare(asked, {"y": right, "e": nothing}) == (pytest.approx(2.4e-7, rel=0.1), "")
    off, words = compare(asked, {"y": right + np.float32(4e-4), "e": nothing})
    assert off == pytest.approx(1e-4, rel=0.01)
    assert words == "y is off by 1.0e-04 of its largest number"
    for found, said in (
        ({"e": nothing}, "y does not come out"),
        ({"y": right.T, "e": nothing}, r"y has the shape \(2, 1\)"),
        ({"y": right * np.nan, "e": nothing}, "y is off by inf"),
        ({"y": right, "e": right}, "e comes out with the gate off"),
    ):
        off, words = compare(asked, found)
        assert off == np.inf
        assert re.match(said, words)


def test_what_ends_without_an_answer_has_refused(cases, tmp_path):
    dies = tmp_path / "dies.sh"
    dies.write_text("kill -SEGV $$")
    place = Place("a runtime that crashes", [Step(("bash", str(dies)))])
    assert run(cases["none"], place) == Outcome(None, "crashes: SIGSEGV", "")
    place = Place("a runtime that is not there", [Step(("/no/such/program",))])
    assert "did not run" in run(cases["none"], place).words


def test_the_page_says_what_runs_and_what_does_not():
    place = Place("a runtime", [])
    outcomes = {
        ("a runtime", "one", "required"): Outcome(3e-7, "", "v1"),
        ("a runtime", "one", "none"): Outcome(2e-7, "", "v1"),
        ("a runtime", "two", "required"): Outcome(0.5, "y is off by 5e-01", "v1"),
        ("a runtime", "two", "optional"): Outcome(None, "Invalid input name: explain", "v1"),
        ("a runtime", "two", "none"): Outcome(1e-7, "", "v1"),
    }
    text = page([place], ["one", "two"], outcomes, "make runs-where")
    cell = "required: **differs** by 5e-01 (1); optional: refused (2); none: 1e-07"
    assert f"| a runtime | 3e-07 | {cell} |" in text
    assert "1. `y is off by 5e-01`" in text
    assert "2. `Invalid input name: explain` The optional gate was folded in" in text


def test_the_page_says_once_why_a_place_differs():
    place = Place("a runtime", [], advice="It rounds.")
    outcomes = {
        ("a runtime", "one", "none"): Outcome(0.5, "y is off by 5e-01", "v1"),
        ("a runtime", "two", "none"): Outcome(np.inf, "z has the shape (2, 1)", "v1"),
        ("a runtime", "three", "none"): Outcome(None, "does not start", "v1"),
    }
    text = page([place], ["one", "two", "three"], outcomes, "make runs-where")
    assert "| a runtime | **differs** by 5e-01 (1) | **differs** (1) | refused (2) |" in text
    assert "\n1. It rounds.\n2. `does not start`\n" in text


@pytest.mark.parametrize("dtype", ["float32", "int32", "bool"])
def test_tensors_survive_the_exchange(dtype):
    for given in (np.array([[0, 1, 3]]).astype(dtype), np.array(1, dtype), np.zeros((0, 2), dtype)):
        back = array(tensor(given))
        assert back.dtype == given.dtype
        assert back.shape == given.shape
        assert np.array_equal(back, given)
        assert back.flags.writeable


def test_the_oldest_onnxruntime_is_the_one_that_the_package_allows():
    allowed = re.search(r'"onnxruntime>=([\d.]+),', (ROOT / "pyproject.toml").read_text())
    installed = re.search(r"'onnxruntime==([\d.]+)\.0'", (ROOT / "Makefile").read_text())
    assert allowed[1] == installed[1]
