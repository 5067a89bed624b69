"""Artefacts that are run for long, from several threads, keep their numbers and their memory."""

import time

import pytest

from fuzz import endurance
from fuzz.endurance import attempted
from fuzz.outcome import CRASHES, DIFFERS, EQUAL
from probegen.runtime.engines.onnxruntime import OnnxruntimeEngine
from probegen.runtime.loaded import Artefact

#: Cases of seed 0: each form and each gate, one caller and four.
CASES = (1, 2, 5, 9)


@pytest.mark.parametrize("number", CASES)
def test_fewer_runs(monkeypatch, number):
    monkeypatch.setattr(endurance, "RUNS", 400)
    outcome = attempted(f"0:{number}")
    assert outcome.verdict == EQUAL, outcome


@pytest.mark.parametrize("number", CASES)
def test_ten_thousand_runs(number):
    assert endurance.RUNS == 10_000
    outcome = attempted(f"0:{number}")
    assert outcome.verdict == EQUAL, outcome


def test_the_cases_are_of_each_kind(monkeypatch):
    monkeypatch.setattr(endurance, "RUNS", 8)
    monkeypatch.setattr(endurance, "_REQUESTS", 1)
    told = " ".join(attempted(f"0:{number}").reason for number in CASES)
    forms = [f"{form}," for form in ("image", "series", "tokens")]
    gates = [f"gate {gate}," for gate in ("optional", True, False, "split")]
    for part in (*forms, *gates, "1 callers", "4 callers", "1 threads", "2 threads"):
        assert part in told


@pytest.mark.parametrize(
    ("kept", "found"), [(bytearray(), "the process grew by"), ([], "more objects are held")]
)
def test_growth_is_found(monkeypatch, kept, found):
    """Of native memory, where Python holds no object more, and of Python's objects."""
    run = OnnxruntimeEngine.run

    def keeps(self, feeds, outputs):
        kept.extend(b"\1" * 32768 if isinstance(kept, bytearray) else [object(), object()])
        return run(self, feeds, outputs)

    monkeypatch.setattr(OnnxruntimeEngine, "run", keeps)
    monkeypatch.setattr(endurance, "RUNS", 1200)
    outcome = attempted("0:2")
    assert outcome.verdict == DIFFERS
    assert found in outcome.reason


def test_numbers_of_another_thread_are_found(monkeypatch):
    """An engine that hands out one buffer again and again, as some do."""
    run, buffers = OnnxruntimeEngine.run, {}

    def shares(self, feeds, outputs):
        found = run(self, feeds, outputs)
        for name, array in found.items():
            buffer = buffers.setdefault((id(self), name, array.shape), array)
            buffer[...] = array
            found[name] = buffer
        time.sleep(1e-4)  # for another caller to come in between, whatever the load
        return found

    monkeypatch.setattr(OnnxruntimeEngine, "run", shares)
    monkeypatch.setattr(endurance, "RUNS", 2000)
    outcome = attempted("0:5")
    assert "4 callers" in outcome.reason
    assert "has other numbers than alone" in outcome.reason


def test_crashes_are_found(monkeypatch):
    def fails(*_, **__):
        raise KeyError("gone")

    monkeypatch.setattr(Artefact, "compute", fails)
    assert attempted("0:2").verdict == CRASHES
