"""The table of methods: what each line says, and what derives from it."""

import ast
import dataclasses
import functools
import re
from pathlib import Path

import pytest

import probegen as pg
from probegen import methods
from probegen.artefact.manifest import (
    DRAWN_AS,
    DRAWN_AS_ATTENTION,
    DRAWN_AS_MAP,
    KINDS_OF_SCHEMA_1,
    SIGNS,
)
from probegen.methods.base import (
    GradientProbe,
    OfAttention,
    OfInputs,
    OfLayer,
    OfLayerOutput,
    OfLayers,
    Probe,
)
from probegen.methods.documentation import markdown_page, markdown_table

ROOT = Path(methods.__file__).parent.parent
NAMES = {method.__name__ for method in methods.METHODS}


@pytest.mark.parametrize("method", methods.METHODS)
def test_a_method_says_all_of_itself(method):
    assert issubclass(method, OfLayers | OfInputs | OfLayer | OfLayerOutput)
    assert dataclasses.is_dataclass(method)
    assert re.fullmatch("[a-z_]+", method.kind)
    assert re.fullmatch("[a-z_]+", method.text_name)
    assert method.title
    assert method.help.endswith(".")
    assert method.equation
    assert method.sign in SIGNS
    assert method.draw in DRAWN_AS
    assert method.selects in {field.name for field in dataclasses.fields(method)}
    of_weights = issubclass(method, OfAttention)
    if issubclass(method, GradientProbe):
        assert method.draw == (DRAWN_AS_ATTENTION if of_weights else DRAWN_AS_MAP)
        assert method.unit
        assert method.paper
        assert {"target", "name"} <= {field.name for field in dataclasses.fields(method)}


def test_no_two_methods_share_a_name():
    for word in ("kind", "text_name", "title", "__name__"):
        found = [getattr(method, word) for method in methods.METHODS]
        assert len(set(found)) == len(found), word


@pytest.mark.parametrize("method", methods.METHODS)
def test_each_method_has_a_file_of_its_own(method):
    path = Path(methods.__file__).parent / f"{method.__module__.rpartition('.')[2]}.py"
    made = [n.name for n in ast.parse(path.read_text()).body if isinstance(n, ast.ClassDef)]
    assert made == [method.__name__]


def test_public_names_are_those_of_the_table():
    for method in methods.METHODS:
        assert getattr(pg, method.__name__) is method
        assert method.__name__ in pg.__all__


def test_the_readme_shows_the_table():
    text = (ROOT.parent / "README.md").read_text()
    assert f"\n{markdown_table()}\n" in text, "run make docs"


def test_the_page_of_methods_describes_each():
    text = (ROOT.parent / "docs" / "METHODS.md").read_text()
    assert f"\n{markdown_page()}\n" in text, "run make docs"
    for method in methods.METHODS:
        section = text.partition(f"## {method.title}\n")[2].partition("\n## ")[0]
        for field in dataclasses.fields(method):
            assert re.search(rf"[( ]{field.name}[=,)]", section), field.name


def test_manifests_of_schema_1_are_filled_in_with_what_the_methods_say():
    by_kind = {method.kind: method for method in methods.METHODS}
    for kind, usual in KINDS_OF_SCHEMA_1.items():
        if kind != "prediction":
            for name, value in dataclasses.asdict(usual).items():
                assert getattr(by_kind[kind], name) == value, (kind, name)


# -- nothing else knows a method ---------------------------------------------------------------


@functools.cache
def nodes():
    """Returns what modules outside the table are written of, each node with its module's name."""
    outside = [p for p in sorted(ROOT.rglob("*.py")) if ROOT / "methods" not in p.parents]
    named = ((p.relative_to(ROOT).as_posix(), ast.parse(p.read_text())) for p in outside)
    return [(name, node) for name, tree in named for node in ast.walk(tree)]


def words_in(tree):
    return {n.id for n in ast.walk(tree) if isinstance(n, ast.Name)} | {
        n.attr for n in ast.walk(tree) if isinstance(n, ast.Attribute)
    }


def test_nobody_asks_which_method_a_probe_is():
    asked = []
    for name, node in nodes():
        if isinstance(node, ast.Call) and getattr(node.func, "id", "") in (
            "isinstance",
            "issubclass",
        ):
            asked += [(name, w) for w in words_in(node.args[1]) & NAMES]
    # A layer of Keras is called like a method of ours.
    assert [a for a in asked if a != ("sources/keras/attention.py", "Attention")] == []


def test_nobody_compares_with_the_kind_of_an_attribution():
    kinds = {m.kind for m in methods.METHODS if issubclass(m, GradientProbe)}
    found = [
        (name, c.value)
        for name, node in nodes()
        if isinstance(node, ast.Compare)
        for c in ast.walk(node)
        if isinstance(c, ast.Constant) and c.value in kinds
    ]
    # What can be probed at a point is a word of its own.
    assert [f for f in found if f[1] != OfLayer.point] == []


def test_who_imports_a_method():
    imports = {
        (name, alias.name)
        for name, node in nodes()
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("probegen.methods")
        for alias in node.names
        if alias.name in NAMES
    }
    # The gradient as such: what attributions are made of, and what `pg.differentiate` gives.
    allowed = {
        (f"{name}.py", "InputGradient") for name in ("plan/raw_gradients", "differentiation")
    }
    # What the methods of Vertex AI are here.
    allowed |= {("vertex.py", name) for name in ("IntegratedGradients", "KernelSHAP")}
    assert {i for i in imports if i[0] != "__init__.py"} <= allowed


def test_the_text_name_is_the_kind_unless_it_is_said():
    class Bare(Probe):
        kind = "bare"

    class Named(Bare):
        text_name = "bares"

    assert (Bare.text_name, Named.text_name) == ("bare", "bares")
