"""Random ONNX graphs of a fixed seed are right, and the fuzzer finds what is planted."""

import types

import pytest

from fuzz import onnx_graphs
from fuzz.onnx_graphs import attempted, drawn
from fuzz.outcome import DIFFERS, EQUAL, INVALID, REFUSED
from probegen import runtime


@pytest.mark.parametrize("start", [0, 6])
def test_random_graphs_are_right(start):
    outcomes = [attempted(f"1:{number}") for number in range(start, start + 6)]
    assert not [o for o in outcomes if o.verdict not in (EQUAL, REFUSED, INVALID)]
    assert sum(o.witnessed for o in outcomes) > 3


def test_a_softmax_of_sizes_that_are_computed_is_explained_by_its_scores():
    """What the fuzzer found first: the gradient of the probability, and nobody said so."""
    outcome = attempted("1:46")
    assert (outcome.verdict, outcome.witnessed) == (EQUAL, 2)


def test_a_graph_is_the_same_each_time():
    assert drawn("1:3")[0] == drawn("1:3")[0]


def test_a_wrong_gradient_is_found(monkeypatch):
    load = runtime.load

    class Wrong:
        """An artefact that is wrong behind the back of its verification."""

        def __init__(self, path, **given):
            self._right = load(path, **given)

        def run(self, x):
            result = self._right.run(x)
            result["input_gradient/x"].array[:, 0] *= 1.1
            return result

    monkeypatch.setattr(onnx_graphs, "runtime", types.SimpleNamespace(load=Wrong))
    assert DIFFERS in {attempted(f"1:{number}").verdict for number in range(4)}
