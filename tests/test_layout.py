"""The house rules: imports go one way, and loading the package loads nothing heavy."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent / "probegen"

#: package -> what of probegen and of the heavy libraries its files may import.
RULES = {
    "runtime": {
        "probegen.errors",
        "probegen.external",
        "probegen.integrity",
        "probegen.manifest",
        "probegen.runtime",
        "probegen.stages",
        "probegen.workplace",
        "probegen",
    },
    "graph/vjp": {"probegen.graph", "probegen.errors"},
    "graph/passes": {"probegen.graph", "probegen.errors"},
    "graph/attribution": {"probegen.graph", "probegen.errors", "probegen.manifest"},
    "graph/autodiff.py": {"probegen.graph", "probegen.errors"},
    "graph/builder.py": set(),
    "graph/gate.py": {"probegen.graph", "probegen.manifest"},
    "errors.py": set(),
    "onnx_file.py": set(),
    "external.py": {"probegen.errors", "probegen.onnx_file"},
    "integrity.py": {"probegen.errors", "probegen.external", "probegen.onnx_file"},
    "stages.py": {"probegen.errors"},
    "workplace.py": set(),
    "placing.py": {"probegen.errors", "probegen.external", "probegen.stages", "probegen.workplace"},
    "schema.py": {"probegen.errors"},
    "manifest.py": {"probegen.errors", "probegen.schema"},
    "points.py": {"probegen.cost"},  # as a type alone
    "cost.py": {"probegen.points"},
    "graph/work.py": {"probegen.graph"},
    "graph/timing.py": {"probegen.graph"},
    "graph/hollow.py": {"probegen.graph"},
    "spec.py": {"probegen.errors", "probegen.manifest"},
    "select.py": {"probegen.errors", "probegen.points"},
}
NO_TENSORFLOW = ("graph/vjp", "graph/passes", "graph/attribution", "graph/autodiff.py")
NO_TENSORFLOW += ("graph/builder.py", "graph/gate.py", "select.py", "spec.py", "manifest.py")
NO_TENSORFLOW += ("cost.py", "points.py", "graph/work.py", "graph/timing.py", "graph/hollow.py")
#: The one place below `graph` that knows TensorFlow, and what puts it together with the rest.
TENSORFLOW_SIDE = {"graph/forward.py", "graph/artefact.py", "graph/outline.py"}


def files(place):
    path = ROOT / place
    return [path] if path.suffix == ".py" else sorted(path.rglob("*.py"))


def imported(path):
    """Module names that a file imports, wherever in it."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            if node.module == "probegen":
                yield from (f"probegen.{alias.name}" for alias in node.names)
            else:
                yield node.module


def within(name, allowed):
    return any(name == a or name.startswith(a + ".") for a in allowed)


@pytest.mark.parametrize("place", RULES)
def test_imports_go_one_way(place):
    allowed = RULES[place] - {"probegen"}
    for path in files(place):
        for name in imported(path):
            if name.startswith("probegen") and name != "probegen.__version__":
                assert within(name, allowed), f"{path.relative_to(ROOT)} imports {name}"


@pytest.mark.parametrize("place", NO_TENSORFLOW)
def test_no_tensorflow(place):
    for path in files(place):
        for name in imported(path):
            assert name.split(".")[0] not in {"tensorflow", "keras", "tf2onnx"}, path


def test_only_forward_and_artefact_know_the_tensorflow_side():
    for path in files("graph"):
        place = path.relative_to(ROOT).as_posix()
        if place not in TENSORFLOW_SIDE:
            names = [n for n in imported(path) if within(n, {"probegen.instrumentation"})]
            assert not names, f"{place} imports {names}"


def test_importing_probegen_is_light():
    code = """
import sys
import probegen, probegen.spec
import probegen.runtime
heavy = {"tensorflow", "keras", "matplotlib", "onnx", "onnx_ir", "tf2onnx"} & set(sys.modules)
assert not heavy, heavy
"""
    subprocess.run([sys.executable, "-c", code], check=True)


def test_public_names_resolve():
    import probegen

    for name in probegen.__all__:
        assert callable(getattr(probegen, name)), name
    assert not hasattr(probegen, "no_such_name")


def test_no_module_hides_a_public_function():
    modules = {p.stem for p in ROOT.iterdir() if p.suffix == ".py" or p.is_dir()}
    import probegen

    assert not modules & set(probegen.__all__)


@pytest.mark.parametrize("name", ["inspect", "instrument", "export", "verify"])
def test_each_function_may_be_the_first_thing_used(name: str) -> None:
    """Of a model given by its path: nothing has imported Keras before."""
    code = f"import probegen; print(probegen.{name}.__name__)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stdout.strip() == name, done.stderr
