"""What holds for every method: from both kinds of source, in one artefact, row by row."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

import probegen as pg
from probegen import methods, runtime
from probegen.methods import text_forms
from tests.methods import axioms, every

BATCHES = (4, 2)
#: How much an answer must move where all weights change, relative to its length.
MOVES = 0.2


class Network:
    """A network with every method in one artefact, from Keras and from its ONNX file."""

    def __init__(
        self,
        build: Callable[[int], Any],
        sample: Callable[[int], Any],
        attention: bool,
        place: Path,
    ) -> None:
        self.probes = every.probes(attention)
        self.sample, self.place = sample, place
        model = build(1)
        model(sample(1))  # Keras exports no model that was never called
        model.export(place / "exported.onnx", format="onnx", verbose=False)
        # With its weights in a file beside it, as torch's exporter writes them.
        onnx.save_model(
            onnx.load(place / "exported.onnx"),
            place / "plain.onnx",
            save_as_external_data=True,
            location="plain.weights",
            size_threshold=128,
        )
        self.exported = pg.compile(model, self.probes, place / "keras.onnx")
        pg.compile(place / "plain.onnx", self._for_nodes(), place / "onnx.onnx")
        pg.compile(build(2), self.probes, place / "other.onnx", verify=False)

    def _for_nodes(self) -> list[Any]:
        """Returns the probes with the layer's node in the place of its name in Keras."""
        convolutions = [p.name for p in pg.inspect(self.place / "plain.onnx")]
        last = [name for name in convolutions if "last" in name]
        return [
            p.with_selector(last[-1]) if last and p.selector == "last" else p for p in self.probes
        ]

    def run(self, file: str, x: Any, **more: Any) -> Mapping[str, Any]:
        """Returns method -> array of an artefact, by the order of its outputs."""
        artefact = runtime.load(self.place / f"{file}.onnx")
        result = artefact.run(x, **more)
        outputs = artefact.manifest.explanations
        return {o.name: np.asarray(result[o.name].array) for o in outputs}


@pytest.fixture(scope="module", params=[False, True], ids=["images", "tokens"])
def network(request: Any, tmp_path_factory: Any) -> Network:
    if request.param:
        build, sample = every.token_network, every.tokens
    else:
        build, sample = every.image_network, every.images
    return Network(build, sample, request.param, tmp_path_factory.mktemp("every"))


def test_all_of_them_are_verified_in_one_artefact(network: Network) -> None:
    report = network.exported.report
    assert report is not None
    assert report.passed
    kinds = {o.kind for o in network.exported.manifest.explanations}
    assert {type(p).kind for p in network.probes} <= kinds


@pytest.mark.parametrize("batch", BATCHES)
def test_both_sources_say_the_same(network: Network, batch: int) -> None:
    x = network.sample(batch)
    one, two = network.run("keras", x), network.run("onnx", x)
    assert len(one) == len(two)
    for (name, a), (_, b) in zip(one.items(), two.items(), strict=True):
        if name.startswith("activation/"):  # the file has channels first
            continue
        assert a.shape == b.shape, name
        assert np.isfinite(a).all(), name
        assert _distance(a, b) < 2e-3, name


def test_a_row_does_not_depend_on_its_neighbours(network: Network) -> None:
    x = network.sample(4)
    together, alone = network.run("keras", x), network.run("keras", x[2:3])
    again = network.run("keras", x)
    for name, found in together.items():
        np.testing.assert_allclose(found[2:3], alone[name], rtol=1e-3, atol=1e-5, err_msg=name)
        np.testing.assert_array_equal(found, again[name], err_msg=name)


def test_other_weights_give_another_answer(network: Network) -> None:
    """The sanity check of Adebayo et al. 2018: what does not change explains no model."""
    x = network.sample(4)[[0, 2, 3]]
    one, two = network.run("keras", x), network.run("other", x)
    for name, found in one.items():
        assert found.any(), name
        # A stream of attention that passes everything on is the identity: what counts is beside it.
        square = found.shape[-2:] == (every.LENGTH, every.LENGTH)
        own = np.eye(every.LENGTH) if square else 0.0
        assert _distance(found - own, two[name] - own) > MOVES, name


def test_the_manifest_says_what_comes_out(network: Network) -> None:
    artefact = runtime.load(network.place / "keras.onnx")
    result = artefact.run(network.sample(2))
    for output in artefact.manifest.explanations:
        found = np.asarray(result[output.name].array)
        assert len(output.axes) == found.ndim
        for size, known in zip(found.shape[1:], output.shape[1:], strict=True):
            assert known in (None, size), output.name
        if output.sign == "never negative":
            assert found.min() >= 0, output.name
        assert output.title
        assert output.method
        figure = result[output.name].plot()
        assert figure.axes


def test_the_gate_leaves_them_all_out(network: Network) -> None:
    artefact = runtime.load(network.place / "keras.onnx")
    result = artefact.run(network.sample(2), explain=False)
    for output in artefact.manifest.explanations:
        with pytest.raises(KeyError):
            result[output.name]


@pytest.mark.parametrize("attention", [False, True])
def test_text_forms_read_back(attention: bool) -> None:
    probes = every.probes(attention)
    assert text_forms.from_json(text_forms.to_json(probes)) == tuple(probes)


@pytest.fixture(scope="module")
def families(tmp_path_factory: Any) -> Callable[[str], Mapping[str, Any]]:
    """Returns what the artefacts of a family of methods say; each is compiled once."""
    made: dict[str, Mapping[str, Any]] = {}

    def of(name: str) -> Mapping[str, Any]:
        if name not in made:
            made[name] = axioms.FAMILIES[name].artefacts(tmp_path_factory.mktemp(name))
        return made[name]

    return of


@pytest.mark.parametrize(
    "method", [m.__name__ for m in methods.METHODS if not getattr(m, "of_states", False)]
)
def test_the_axioms_that_a_method_says_it_holds_are_those_that_hold(
    families: Callable[[str], Mapping[str, Any]], method: str
) -> None:
    assert method in axioms.HOLDS, f"say in tests/methods/axioms.py which axioms {method} holds"
    name = next(n for n, family in axioms.FAMILIES.items() if method in family.probes)
    missing = axioms.FAMILIES[name].check(method, families(name))
    allowed = {a: axioms.MISSING.get(a, axioms.MISSING_ELSEWHERE) for a in missing}
    assert {a for a, m in missing.items() if m <= allowed[a]} == axioms.HOLDS[method], missing


def test_every_method_is_tried() -> None:
    tried = {type(p) for flag in (False, True) for p in every.probes(flag)}
    assert tried == set(methods.METHODS)


def _distance(a: Any, b: Any) -> float:
    """Returns the relative L2 difference."""
    a, b = a.astype(np.float64), b.astype(np.float64)
    return float(np.linalg.norm(a - b) / max(np.linalg.norm(a), np.linalg.norm(b), 1e-12))
