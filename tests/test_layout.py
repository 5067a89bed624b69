"""The house rules: imports go one way, and loading the package loads nothing heavy."""

import ast
import functools
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent / "probegen"

#: From the ground up; a module imports from its own floor and from those before it. Each module of
#: the package stands on the floor with the longest name that fits, below its own package's.
FLOORS = (
    "probegen._version",
    "probegen.errors",
    "probegen.text",
    "probegen.stages",
    "probegen.artefact",
    "probegen.methods",
    "probegen.runtime",
    "probegen.serve",
    "probegen.web",
    "probegen.bulk",
    "probegen.plan",
    "probegen.graph.core",
    "probegen.graph.loops",
    "probegen.graph.batch_axis_rules",
    "probegen.graph.batch_axes",
    "probegen.graph.autodiff",
    "probegen.graph.vjp",
    "probegen.graph.passes",
    "probegen.graph.shape_inference",
    "probegen.graph.array_operations",
    "probegen.graph.tables",
    "probegen.graph.attribution",
    "probegen.graph.forward",
    "probegen.graph.external_data",
    "probegen.graph.running",
    "probegen.graph.gate",
    "probegen.graph",
    "probegen.sources.base",
    "probegen.sources.changed_scores",
    "probegen.sources.class_by_class",
    "probegen.sources.mixed_samples",
    "probegen.sources",
    "probegen.cost",
    "probegen.parity",
    "probegen.inspection",
    "probegen.compiler",
    "probegen.quantisation",
    "probegen.litert",
    "probegen.differentiation",
    "probegen.vertex_messages",
    "probegen.vertex",
    "probegen._keras_hook",
    "probegen.cli",
    "probegen.__main__",
    "probegen",
)
#: Floors whose modules import a few of those below and nothing else of probegen.
NARROW = {
    "probegen.runtime": ("_version", "errors", "text", "stages", "artefact", "runtime"),
    "probegen.serve": ("_version", "errors", "text", "stages", "artefact", "runtime", "serve"),
    "probegen.web": ("_version", "errors", "text", "stages", "artefact", "runtime", "web"),
    "probegen.bulk": ("_version", "errors", "text", "stages", "artefact", "runtime", "bulk"),
    "probegen.methods": ("_version", "errors", "text", "stages", "artefact", "methods"),
    "probegen.artefact": ("_version", "errors", "text", "stages", "artefact"),
}
#: Modules that import none of these, wherever in them.
WITHOUT = {
    "probegen.graph": ("tensorflow", "keras", "tf2onnx", "onnx.version_converter"),
    "probegen.plan": ("tensorflow", "keras", "tf2onnx", "onnx", "onnx_ir"),
    "probegen.methods": ("tensorflow", "keras", "tf2onnx", "onnx", "onnx_ir"),
    "probegen.artefact": ("tensorflow", "keras", "tf2onnx", "onnx", "onnx_ir"),
    "probegen.cost": ("tensorflow", "keras", "tf2onnx"),
    "probegen.sources.onnx": ("tensorflow", "keras", "tf2onnx", "probegen.sources.keras"),
    "probegen.sources.keras": ("probegen.sources.onnx",),
}


def module_of(path: Path) -> str:
    name = ".".join(path.relative_to(ROOT.parent).with_suffix("").parts)
    return name.removesuffix(".__init__")


MODULES = {module_of(path): path for path in sorted(ROOT.rglob("*.py"))}


@functools.cache
def imported(path: Path) -> tuple[str, ...]:
    """Names of the modules that a file imports, wherever in it."""
    names = []
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            for alias in node.names:
                full = f"{node.module}.{alias.name}"
                names.append(full if full in MODULES else node.module)
    return tuple(names)


def within(name: str, package: str) -> bool:
    return name == package or name.startswith(package + ".")


def floor_of(module: str) -> int:
    fitting = [f for f in FLOORS if within(module, f)]
    return FLOORS.index(max(fitting, key=len))


@pytest.mark.parametrize("module", MODULES)
def test_imports_go_one_way(module: str) -> None:
    for name in imported(MODULES[module]):
        if within(name, "probegen"):
            assert floor_of(name) <= floor_of(module), f"{module} imports {name}, a floor above"


def test_every_module_stands_on_a_floor_of_its_own_name() -> None:
    assert [m for m in MODULES if floor_of(m) == len(FLOORS) - 1] == ["probegen"]


def test_no_floor_is_empty() -> None:
    used = {floor_of(module) for module in MODULES}
    assert [f for i, f in enumerate(FLOORS) if i not in used] == []


@pytest.mark.parametrize("place", NARROW)
def test_narrow_floors(place: str) -> None:
    allowed = [f"probegen.{name}" for name in NARROW[place]]
    for module, path in MODULES.items():
        if within(module, place):
            for name in imported(path):
                known = not within(name, "probegen") or any(within(name, a) for a in allowed)
                assert known, f"{module} imports {name}"


@pytest.mark.parametrize("place", WITHOUT)
def test_what_some_modules_know_nothing_of(place: str) -> None:
    for module, path in MODULES.items():
        if within(module, place):
            names = [n for n in imported(path) if any(within(n, w) for w in WITHOUT[place])]
            assert not names, f"{module} imports {names}"


def test_no_module_imports_one_that_imports_it() -> None:
    reads = {m: {n for n in imported(p) if n in MODULES and n != m} for m, p in MODULES.items()}
    while leaves := [m for m, names in reads.items() if not names & set(reads)]:
        for module in leaves:
            del reads[module]
    # What is left lies on a circle, or imports something that does.
    inner = {m: {n for n in names if n in reads} for m, names in reads.items()}
    while tops := set(inner) - set().union(*inner.values(), set()):
        inner = {m: names for m, names in inner.items() if m not in tops}
    assert not inner, f"these import each other: {sorted(inner)}"


def test_importing_probegen_is_light():
    code = """
import sys
import probegen, probegen.methods
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
