"""What the README and docs/USE.md show is run as it stands there, on small stand-ins of the files.

MobileNetV2 is one convolution here, under its own names and sizes; everything else is the text of
the pages. `make ...` and `pip ...` lines are left out.
"""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path

import matplotlib as mpl
import matplotlib.image
import numpy as np
import onnx
import pytest

from probegen import runtime
from probegen.cli import main

ROOT = Path(__file__).parent.parent
PAGES = {name: (ROOT / name).read_text(encoding="utf-8") for name in ("README.md", "docs/USE.md")}

CLASSIFIER = """
<ir_version: 8, opset_import: ["" : 13]>
classifier (float[batch, 3, 12, 10] image) => (float[batch, 4] probabilities)
{
    maps = Conv (image, kernel)
    kept = Relu (maps)
    means = ReduceMean <axes = [2, 3], keepdims = 0> (kept)
    logits = MatMul (means, matrix)
    probabilities = Softmax <axis = 1> (logits)
}
"""
RECURRENT = """
<ir_version: 8, opset_import: ["" : 18]>
recurrent (float[time, batch, 5] series) => (float[time, batch, 4] logits)
{
    states, last = GRU <hidden_size = 6> (series, w, r)
    one = Constant <value_ints = [1]> ()
    hidden = Squeeze (states, one)
    logits = MatMul (hidden, matrix)
}
"""


def section(title: str) -> tuple[str, list[list[str]]]:
    """Returns a section's Python, and the arguments of each line that calls `probegen`."""
    text = PAGES["README.md"].partition(f"## {title}\n")[2].partition("\n## ")[0]
    return code_of(text), commands_of(text)


def code_of(text: str) -> str:
    return "\n".join(re.findall(r"```python\n(.*?)```", text, re.DOTALL))


def commands_of(text: str) -> list[list[str]]:
    return [
        shlex.split(line)[1:] for line in re.findall(r"^    (probegen .*)$", text, re.MULTILINE)
    ]


def run_command(arguments: list[str]) -> None:
    with pytest.raises(SystemExit) as left:
        main(arguments)
    assert not left.value.code, arguments


def save(text: str, path: str, **shapes: tuple[int, ...]) -> None:
    """Writes a model in ONNX text, with random weights."""
    rng = np.random.default_rng(0)
    model = onnx.parser.parse_model(text)
    for name, shape in shapes.items():
        array = rng.normal(size=shape).astype(np.float32)
        model.graph.initializer.append(onnx.numpy_helper.from_array(array, name))
    for node in model.graph.node:  # as torch's exporter calls them
        node.name = f"/model/{node.output[0]}/{node.op_type}"
    onnx.save(model, path)


def save_photo(height: int, width: int) -> None:
    image = np.random.default_rng(0).integers(0, 256, (height, width, 3)).astype(np.uint8)
    matplotlib.image.imsave("photo.png", image)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A folder with the files that the pages name; it is the current one."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(mpl, "use", lambda _: None)
    save(CLASSIFIER, "any.onnx", kernel=(5, 3, 3, 2), matrix=(5, 4))
    save(RECURRENT, "gru.onnx", w=(1, 18, 5), r=(1, 18, 6), matrix=(6, 4))
    return tmp_path


def test_a_keras_model(folder, monkeypatch, capsys) -> None:
    import keras

    def mobilenet(weights: None) -> keras.Model:
        assert weights is None
        layers = keras.layers
        x = inputs = keras.Input((224, 224, 3), name="image")
        for layer in (
            layers.Conv2D(4, 32, strides=32),
            layers.ReLU(name="out_relu"),
            layers.GlobalAveragePooling2D(),
            layers.Dense(3, activation="softmax"),
        ):
            x = layer(x)
        return keras.Model(inputs, x)

    monkeypatch.setattr(keras.applications, "MobileNetV2", mobilenet)
    code, commands = section("A Keras model")
    assert code.count("\n") > 8
    assert [c[0] for c in commands] == ["inspect", "compile", "verify", "run"]
    exec(compile(code, "README.md", "exec"), {})
    assert list(runtime.load("mobilenet.onnx").run(np.zeros((2, 224, 224, 3))))[1:] == [
        "saliency/image",
        "grad_cam/out_relu",
    ]
    report = (folder / "report.html").read_text(encoding="utf-8")
    assert "data:image/png;base64," in report
    mobilenet(None).save("model.keras")
    save_photo(224, 224)
    for command in commands:
        run_command(command)
    assert (folder / "report.html").read_text(encoding="utf-8") != report
    names = [o.name for o in runtime.load("model.onnx").outputs]
    assert [n.partition("/")[0] for n in names[1:]] == ["activation", "saliency", "grad_cam"]
    assert "agrees" in capsys.readouterr().out


@pytest.mark.usefixtures("folder")
def test_an_onnx_file_without_tensorflow() -> None:
    """In a process of its own, in which TensorFlow and Keras cannot be imported."""
    code, commands = section("An ONNX file")
    assert code.count("pg.") == 5
    assert [c[0] for c in commands] == ["inspect", "compile", "verify", "run", "differentiate"]
    save_photo(12, 10)
    program = f"""
import sys
for name in ("tensorflow", "keras", "tf2onnx"):
    sys.modules[name] = None
{code}
from probegen.cli import main
for arguments in {commands!r}:
    try:
        main(arguments)
    except SystemExit as left:
        assert not left.code, arguments
"""
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "model/maps/Conv" in done.stdout
    assert "confirmed" in done.stdout  # the gradient, by differences
    names = [o.name for o in runtime.load("out.onnx").outputs]
    assert names == [
        "probabilities",
        "activation/model/maps/Conv",
        "saliency/image",
        "grad_cam/model/kept/Relu",
    ]
    made = onnx.load("gradient.onnx").graph
    assert [i.name for i in made.input] == ["image", "cotangent/logits"]
    assert [o.name for o in made.output] == ["probabilities", "gradient/image"]


@pytest.mark.usefixtures("folder")
def test_use(capsys) -> None:
    import probegen as pg

    text = PAGES["docs/USE.md"]
    code, commands = code_of(text), commands_of(text)
    # A server runs until it is stopped: tests/cli/test_serve.py. Samples for a quantiser:
    # tests/quantisation/test_quantise.py. A bulk run and its folder of images: tests/bulk. A
    # SavedModel: tests/test_litert.py. Artefacts without their source: tests/cli/test_verify.py.
    elsewhere = ("serve", "quantise", "litert", "verify")
    commands = [c for c in commands if c[0] not in elsewhere and "--out" not in c]
    assert [c[:3] for c in commands] == [["inspect", "any.onnx", "--cost"]]
    exec(compile(code, "USE.md", "exec"), {"pg": pg})
    for command in commands:
        run_command(command)
    assert capsys.readouterr().out.count("together") == 2
    art = runtime.load("gru_out.onnx")
    found = art.run(np.random.default_rng(0).normal(size=(9, 2, 5)).astype(np.float32))
    assert found["saliency/series"].array.shape == (9, 2)
    for selector, count in {
        "/model/k*": 1,
        "model/kept/Relu": 1,
        r"re:maps/Con\w$": 1,
        "type:Conv": 1,
        "role:convolution": 1,
        "*": 5,
    }.items():
        pg.compile("any.onnx", [pg.Activations(selector)], "s.onnx", verify=False)
        assert len(runtime.load("s.onnx").manifest.explanations) == count, selector


def test_every_page_that_is_linked_exists() -> None:
    for page in [*PAGES, *(p.relative_to(ROOT).as_posix() for p in (ROOT / "docs").glob("*.md"))]:
        text = (ROOT / page).read_text(encoding="utf-8")
        for link in re.findall(r"\]\(([^)#:]+)\)", text):
            assert (ROOT / page).parent.joinpath(link).exists(), f"{page}: {link}"
        for path in re.findall(r"`((?:probegen|tests|bench|sweep)/[\w/.]+)`", text):
            if page != "docs/ARCHITECTURE.md":
                assert (ROOT / path).exists(), f"{page}: {path}"


def test_make_targets_exist() -> None:
    made = set(re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    named = set(re.findall(r"^    make ([\w-]+)", "\n".join(PAGES.values()), re.MULTILINE))
    assert named
    assert named <= made


def test_extras_exist() -> None:
    project = (ROOT / "pyproject.toml").read_text()
    extras = project.partition("[project.optional-dependencies]")[2].partition("\n[project.")[0]
    named = set(re.findall(r"probegen\[(\w+)\]", PAGES["README.md"]))
    assert named == {"onnx", "compiler", "openvino", "serve"}
    assert named <= set(re.findall(r"^([\w-]+) = \[", extras, re.MULTILINE))
