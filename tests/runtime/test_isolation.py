"""The runtime stays light: no TensorFlow, no matplotlib until a picture, a quick import."""

import subprocess
import sys

RUN_IT_ALL = """
import sys

class Block:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {"tensorflow", "keras", "tf2onnx", "onnx", "onnx_ir"}:
            raise ModuleNotFoundError(name + " is blocked", name=name)

sys.meta_path.insert(0, Block())
import numpy as np
from probegen import runtime
from probegen.errors import ArtefactError, SourceError
path, folder = sys.argv[1:]
art = runtime.load(path, threads=1)
print(art)
result = art.run(np.ones((2, 5, 7, 3)), target=[1, -1])
assert "matplotlib" not in sys.modules
result.to_npz(folder + "/r.npz")
runtime.read_npz(folder + "/r.npz").plot(folder + "/r.png")
result["saliency/image"].plot(sample=1)
result.to_html(folder + "/r.html")
art.run(np.ones((1, 5, 7, 3)), explain=False)
assert "matplotlib.pyplot" not in sys.modules
try:
    runtime.load(folder)
except ArtefactError as error:
    print(error)
import probegen as pg
try:
    pg.compile
except SourceError as error:
    print(error)
"""

IMPORT = """
import sys
before = set(sys.modules)
import probegen.runtime
heavy = {"tensorflow", "keras", "matplotlib", "onnxruntime", "onnx", "PIL"} & set(sys.modules)
assert not heavy, heavy
loaded = set(sys.modules) - before
print(len([name for name in loaded if not name.startswith("probegen.methods")]))
"""


def python(code, *arguments):
    command = [sys.executable, "-c", code, *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_whole_runtime_without_tensorflow(image_path, tmp_path):
    printed = python(RUN_IT_ALL, image_path, tmp_path)
    assert "holds no SavedModel" in printed
    assert (
        "pg.compile needs onnx_ir, which is not installed: pip install 'probegen[onnx]'" in printed
    )
    assert (tmp_path / "r.png").read_bytes().startswith(b"\x89PNG")
    assert "data:image/png;base64," in (tmp_path / "r.html").read_text(encoding="utf-8")


def test_import_is_light():
    """Besides the table of methods, which comes with the package: one small module a method."""
    assert int(python(IMPORT)) < 250  # 240 today, 86 of them numpy's


def test_savedmodel_without_tensorflow_says_so(artefact, tmp_path):
    (tmp_path / "saved_model.pb").write_bytes(b"")
    (tmp_path / "assets.extra").mkdir()
    (tmp_path / "assets.extra" / "probegen.json").write_text(artefact.manifest.to_json())
    code = """
import sys
sys.modules["tensorflow"] = None
from probegen import runtime
from probegen.errors import ArtefactError
try:
    runtime.load(sys.argv[1])
except ArtefactError as error:
    print(error)
"""
    said = python(code, tmp_path)
    assert "runs with TensorFlow, and TensorFlow is not installed" in said
    assert "export to ONNX" in said
