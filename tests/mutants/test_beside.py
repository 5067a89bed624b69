"""Which tests are run for a module."""

from pathlib import Path

import pytest

from mutants.beside import PACKAGE, find_tests

ROOT = Path(__file__).resolve().parents[2]
FILES = (
    "tests/test_stages.py",
    "tests/graph/test_autodiff.py",
    "tests/graph/test_gate.py",
    "tests/graph/vjp/test_pad.py",
    "tests/graph/vjp/harness.py",
    "tests/plan/test_selectors.py",
    "tests/runtime/test_read.py",
    "tests/runtime/test_run.py",
    "tests/runtime/plot/test_choose.py",
)


@pytest.mark.parametrize(
    ("module", "expected"),
    [
        ("graph/autodiff.py", ["tests/graph/test_autodiff.py"]),
        ("graph/vjp/pad.py", ["tests/graph/vjp/test_pad.py"]),
        ("graph/vjp.py", ["tests/graph/vjp/test_pad.py"]),
        ("graph/forward.py", ["tests/graph/test_autodiff.py", "tests/graph/test_gate.py"]),
        ("plan/axes.py", ["tests/plan/test_selectors.py"]),
        ("stages.py", ["tests/test_stages.py"]),
        ("errors.py", []),
        ("cost/counts.py", []),
        ("runtime/run.py", ["tests/runtime/test_run.py"]),
        ("runtime/read/ranges.py", ["tests/runtime/test_read.py"]),
        ("runtime/plot/plots/bars.py", ["tests/runtime/plot/test_choose.py"]),
        ("runtime/plot/__init__.py", ["tests/runtime/plot/test_choose.py"]),
    ],
)
def test_tests_mirror_the_package(tmp_path, module, expected):
    for file in FILES:
        path = tmp_path / file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    found = find_tests(Path(PACKAGE) / module, tmp_path)
    assert [p.as_posix() for p in found] == expected


#: Modules right below the package without a test of their own name, and why.
WITHOUT = {
    "__init__": "tests/test_layout.py and tests/test_bad_input.py go through the public names",
    "__main__": "tests/cli/test_main.py",
    "_keras_hook": "tests/sources/keras/test_instrumented.py loads models by it",
    "_version": "a number",
    "base": "probegen/sources/base.py: abstract, it runs nothing",
    "changed_scores": "tests/methods/test_occlusion.py; methods by scores are verified by it",
    "class_by_class": "tests/test_targets.py",
    "inspection": "tests/cli/test_inspect.py",
    "text": "tests/cost/test_report.py prints its tables",
    "vertex_messages": "tests/test_vertex.py reads them",
}


def test_every_module_has_tests():
    modules = [p.relative_to(ROOT) for p in sorted((ROOT / PACKAGE).rglob("*.py"))]
    alone = [m for m in modules if m.name != "__init__.py" and not find_tests(m, ROOT)]
    assert {m.stem for m in alone} <= set(WITHOUT), alone
