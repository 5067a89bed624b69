"""The command line: what each command prints, writes and refuses."""

import json
import os
import re
import subprocess
import sys

import keras
import numpy as np
import pytest

import probegen
import probegen as pg
from probegen import cli, runtime
from probegen.artefact.manifest import Manifest
from tests import models


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with models, artefacts and inputs that no test changes."""
    folder = tmp_path_factory.mktemp("cli")
    model = models.cnn()
    model.save(folder / "cnn.keras")
    models.transformer().save(folder / "words.keras")
    x = keras.Input((3,), name="row")
    keras.Model(x, keras.layers.Dense(2, activation="softmax", name="kind")(x)).save(
        folder / "rows.keras"
    )
    pg.compile(
        model,
        [pg.Saliency(target="input"), pg.GradCAM()],
        folder / "cnn.onnx",
        class_names=["ant", "bee", "cow", "dog"],
        verify=False,
    )
    pg.compile(
        folder / "words.keras",
        [pg.Saliency(), pg.Attention("block_1/*")],
        folder / "words.onnx",
        verify=False,
    )
    pg.compile(folder / "rows.keras", pg.InputGradient(), folder / "rows.onnx", verify=False)
    np.save(folder / "images.npy", models.images((11, 8, 2)))
    np.savez(folder / "images.npz", image=models.images((11, 8, 2)))
    np.savez(folder / "unnamed.npz", models.images((11, 8, 2)))
    np.save(folder / "tokens.npy", models.tokens())
    return folder


@pytest.fixture
def probegen_cli(capsys, monkeypatch, place):
    """Runs a command in the folder of inputs; returns status, standard output and error."""
    monkeypatch.chdir(place)

    def run(*arguments):
        try:
            cli.main([str(a) for a in arguments])
            status = 0
        except SystemExit as left:
            status = left.code or 0
        done = capsys.readouterr()
        return status, done.out, done.err

    return run


# -- all commands --------------------------------------------------------------------------


def test_version(probegen_cli):
    assert probegen_cli("--version") == (0, f"probegen, version {probegen.__version__}\n", "")


@pytest.mark.parametrize(
    ("command", "says"),
    [
        ((), ["inspect", "compile", "verify", "run", "--traceback", "--html report.html"]),
        (("inspect",), ["--select SEL", "--json", "--import MODULE", "role:attention"]),
        (("compile",), ["--grad-cam [LAYER]", "--attention [SEL]", "[[probes]]", "default: 18"]),
        (("verify",), ["--against MODEL", "--samples", "status 1"]),
        (("run",), ["--tokens", "--target T", "--npz", "Needs no TensorFlow"]),
    ],
)
def test_help(probegen_cli, command, says):
    status, out, err = probegen_cli(*command, "--help")
    assert (status, err) == (0, "")
    for text in says:
        assert text in out


def test_errors_are_one_message_and_status_1(probegen_cli):
    status, out, err = probegen_cli("inspect", "no.keras")
    assert (status, out) == (1, "")
    assert err.splitlines()[-1] == "probegen: there is no model file 'no.keras'."
    assert "Traceback" not in err


@pytest.mark.parametrize("where", [0, 1, 2])
def test_traceback_on_request_wherever_it_stands(probegen_cli, where):
    arguments = ["inspect", "no.keras"]
    arguments.insert(where, "--traceback")
    with pytest.raises(pg.ProbegenError, match="there is no model file"):
        probegen_cli(*arguments)


def test_errors_nobody_foresaw_are_no_traceback_either(probegen_cli, monkeypatch):
    def broken(_):
        raise RuntimeError("out of luck")

    monkeypatch.setattr(runtime, "load", broken)
    status, _, err = probegen_cli("run", "cnn.onnx", "images.npy")
    assert status == 1
    assert "RuntimeError: out of luck" in err
    assert "--traceback shows where" in err


def test_wrong_use_is_status_2(probegen_cli):
    assert probegen_cli("compile", "cnn.keras", "--saliency")[0] == 2
    assert probegen_cli("run", "cnn.onnx", "no.npy")[0] == 2
    assert probegen_cli("nonsense")[0] == 2


def test_a_missing_module_is_named(probegen_cli, monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorflow", None)
    status, _, err = probegen_cli("inspect", "cnn.keras")
    assert status == 1
    assert "tensorflow is not installed" in err
    assert "pip install 'probegen[compiler]'" in err


# -- inspect -------------------------------------------------------------------------------


def test_inspect_prints_a_table(probegen_cli):
    status, out, err = probegen_cli("inspect", "cnn.keras")
    assert status == 0
    assert out.splitlines()[0] == "cnn: 8 probe points"
    row = next(line for line in out.splitlines() if " conv1 " in line)
    assert "[?, 11, 8, 5]" in row
    assert "activation, gradient, grad_cam" in row
    assert err == "reading the model ...\n"


def test_inspect_as_json_with_a_selector(probegen_cli):
    status, out, _ = probegen_cli("inspect", "cnn.keras", "--select", "type:Conv2D", "--json")
    found = json.loads(out)
    assert status == 0
    assert (found["model"], [p["name"] for p in found["points"]]) == ("cnn", ["conv1", "conv2"])
    assert found["points"][0]["shapes"] == [[None, 11, 8, 5]]
    status, _, err = probegen_cli("inspect", "cnn.keras", "--select", "conv3")
    assert status == 1
    assert "Did you mean 'conv2'" in err


def test_tables_fit_narrow_terminals(probegen_cli, monkeypatch):
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "60")
    status, out, _ = probegen_cli("inspect", "words.keras")
    assert status == 0
    lines = re.sub(r"\x1b\[[0-9;]*m", "", out).splitlines()
    assert max(map(len, lines)) <= 60
    assert any("block_1" in line for line in lines)


# -- compile -------------------------------------------------------------------------------


def compiled(path):
    return runtime.load(path).manifest


def test_compile_and_verify(probegen_cli, tmp_path):
    out = tmp_path / "m.onnx"
    status, said, err = probegen_cli(
        "compile", "cnn.keras", "-o", out, "--saliency", "--input-gradient", "--grad-cam",
        "--integrated-gradients", "--steps", "3", "--activations", "conv1",
        "--activations", "re:2$", "--class-names", "ant, bee,cow,dog",
    )  # fmt: skip
    assert status == 0
    described = compiled(out)
    assert [o.name for o in described.explanations] == [
        "activation/conv1", "activation/conv2", "input_gradient/image", "saliency/image",
        "grad_cam/conv2", "integrated_gradients/image",
    ]  # fmt: skip
    assert described.output("integrated_gradients/image").detail["steps"] == 3
    assert described.class_names == ("ant", "bee", "cow", "dog")
    assert described.gate == "required"
    assert "agrees" in said
    assert said.splitlines()[-1].startswith(f"{out}  onnx  0.0")
    assert err.splitlines() == [
        "reading the model ...",
        "tracing and planning ...",
        "writing onnx ...",
        "verifying against the source model ...",
    ]
    status, said, _ = probegen_cli("verify", out, "--against", "cnn.keras")
    assert status == 0
    assert re.search(r"on \d+ generated samples", said)
    status, said, _ = probegen_cli(
        "verify", out, "--against", "cnn.keras", "--samples", "images.npy", "--json"
    )
    report = json.loads(said)
    assert (status, report["passed"], report["generated"], report["samples"]) == (0, True, False, 3)


def test_a_failed_verification_shows_the_figures_and_ends_with_1(probegen_cli, tmp_path):
    models.cnn(seed=8).save(tmp_path / "other.keras")
    status, out, err = probegen_cli("verify", "cnn.onnx", "--against", tmp_path / "other.keras")
    assert status == 1
    assert "DIFFERS" in out
    assert "does not agree with 'cnn': 'scores'" in err
    status, out, _ = probegen_cli(
        "verify", "cnn.onnx", "--against", tmp_path / "other.keras", "--json"
    )
    assert status == 1
    assert json.loads(out)["passed"] is False


def test_verify_without_a_model_checks_the_contents(probegen_cli, place, tmp_path):
    status, out, err = probegen_cli("verify", "cnn.onnx")
    assert (status, err) == (0, "")
    assert re.fullmatch(r"cnn\.onnx is as probegen wrote it: SHA-256 [0-9a-f]{64}\n", out)
    data = bytearray((place / "cnn.onnx").read_bytes())
    data[len(data) // 2] ^= 4
    (tmp_path / "cnn.onnx").write_bytes(data)
    for command in (("verify", tmp_path / "cnn.onnx"),
                    ("run", tmp_path / "cnn.onnx", "images.npy", "--check")):  # fmt: skip
        status, out, err = probegen_cli(*command)
        assert (status, out) == (1, "")
        assert "is not as probegen wrote it" in err
    status, _, err = probegen_cli("verify", "cnn.onnx", "--samples", "images.npy")
    assert status == 1
    assert "go with --against MODEL" in err


def test_optional_values(probegen_cli, tmp_path):
    out = tmp_path / "m.onnx"
    common = ("-o", out, "--no-verify")
    status, _, _ = probegen_cli("compile", "words.keras", *common, "--attention", "--saliency")
    assert status == 0
    named = [o.name for o in compiled(out).explanations]
    assert named == ["attention/block_1/mha", "attention/block_2/mha", "saliency/tokens"]
    status, _, _ = probegen_cli(
        "compile", "words.keras", *common, "--attention", "block_2/*", "--grad-cam", "block_1"
    )
    assert status == 0
    named = [o.name for o in compiled(out).explanations]
    assert named == ["attention/block_2/mha", "grad_cam/block_1"]
    status, _, err = probegen_cli("compile", *common, "--grad-cam", "cnn.keras")
    assert status == 2
    assert "Put MODEL first" in err


@pytest.mark.parametrize(
    ("text", "mode", "index"),
    [
        ("argmax", "argmax", None),
        ("input", "input", None),
        ("2", "index", (2,)),
        ("(-1,)", "index", (-1,)),
        ("(None,)", "index", (None,)),
    ],
)
def test_targets(probegen_cli, tmp_path, text, mode, index):
    out = tmp_path / "m.keras"
    status, _, err = probegen_cli(
        "compile", "rows.keras", "-o", out, "--saliency", "--target", text
    )
    if text == "2":
        assert status == 1
        assert "has 2 entries (0 to 1)" in err
        return
    assert status == 0
    target = keras.saving.load_model(out).manifest.output("saliency/row").target
    assert (target.mode, target.index) == (mode, index)


SPEC = {
    "probes.toml": '[[probes]]\nprobe = "input_gradient"\ntarget = ["all"]\nname = "mine"\n',
    "probes.json": '{"probes": [{"probe": "input_gradient", "target": [null], "name": "mine"}]}',
}


@pytest.mark.parametrize("name", SPEC)
def test_spec_files(probegen_cli, tmp_path, name):
    (tmp_path / name).write_text(SPEC[name])
    out = tmp_path / "m.onnx"
    status, said, _ = probegen_cli(
        "compile", "rows.keras", "-o", out, "--spec", tmp_path / name, "--saliency", "--json",
        "--no-gate", "--static-batch", "--opset", "17",
    )  # fmt: skip
    assert status == 0
    told = json.loads(said)
    assert told["outputs"] == ["kind", "mine", "saliency/row"]
    assert told["verification"]["passed"]
    assert told["bytes"] == out.stat().st_size
    described = compiled(out)
    assert described.output("mine").target.index == (None,)
    assert not described.gate
    assert described.inputs[0].shape == (1, 3)


@pytest.mark.parametrize(
    ("options", "gate"),
    [
        (["--gate"], "required"),
        (["--gate=required"], "required"),
        (["--gate", "optional"], "optional"),
        (["--gate=none"], False),
    ],
)
def test_gates(probegen_cli, tmp_path, options, gate):
    # Before MODEL, which a gate without a value must not take for one.
    out = tmp_path / "m.onnx"
    status, _, err = probegen_cli(
        "compile", *options, "rows.keras", "-o", out, "--saliency", "--no-verify"
    )
    assert status == 0, err
    assert compiled(out).gate == gate


def test_gates_that_are_none(probegen_cli, tmp_path):
    common = ("compile", "rows.keras", "-o", tmp_path / "m.onnx", "--saliency")
    status, _, err = probegen_cli(*common, "--gate=maybe")
    assert status == 2
    assert "'maybe' is not one of 'required', 'optional', 'none'" in err
    status, _, err = probegen_cli(*common, "--gate=optional", "--no-gate")
    assert status == 1
    assert "--gate and --no-gate were both given" in err


def test_formats_folders_and_overwriting(probegen_cli, tmp_path):
    folder = tmp_path / "saved.v1"
    names = tmp_path / "names.txt"
    names.write_text("off\non\n")
    command = ("compile", "rows.keras", "-o", folder, "--saliency", "--class-names", names)
    status, out, _ = probegen_cli(*command, "--format", "savedmodel")
    assert status == 0
    assert "savedmodel" in out
    manifest = Manifest.from_json((folder / "assets.extra" / "probegen.json").read_text())
    assert manifest.class_names == ("off", "on")
    status, _, err = probegen_cli(*command)
    assert status == 1
    assert "--overwrite" in err
    assert probegen_cli(*command, "--overwrite", "--no-verify")[0] == 0


def test_samples_to_verify_on(probegen_cli, tmp_path):
    for name in ("images.npy", "images.npz", "unnamed.npz"):
        status, out, _ = probegen_cli(
            "compile", "cnn.keras", "-o", tmp_path / "m.onnx", "--grad-cam", "--samples", name,
            "--json",
        )  # fmt: skip
        assert status == 0
        assert json.loads(out)["verification"]["generated"] is False
    status, _, err = probegen_cli(
        "compile", "cnn.keras", "-o", tmp_path / "n.onnx", "--grad-cam", "--samples", "tokens.npy"
    )
    assert status == 1
    assert "'image' has the shape (3, 9)" in err
    assert not (tmp_path / "n.onnx").exists()


def test_custom_classes_are_imported(probegen_cli, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "my_layers.py").write_text(
        "import keras\n"
        "@keras.saving.register_keras_serializable(package='mine')\n"
        "class Twice(keras.layers.Layer):\n"
        "    def call(self, x):\n"
        "        return 2 * x\n"
    )
    make = (
        "import keras, my_layers\nx = keras.Input((3,), name='x')\n"
        "keras.Model(x, keras.layers.Dense(2)(my_layers.Twice(name='twice')(x))).save('m.keras')\n"
    )
    # In a process of its own, so that the class is unknown here until it is imported.
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    subprocess.run([sys.executable, "-c", make], check=True, env=environment, capture_output=True)
    status, _, err = probegen_cli("inspect", "m.keras")
    assert status == 1
    assert "--import MODULE" in err
    status, out, _ = probegen_cli("inspect", "m.keras", "--import", "my_layers")
    assert status == 0
    assert "twice" in out
    status, _, err = probegen_cli("inspect", "m.keras", "--import", "no_such_module")
    assert status == 1
    assert "--import no_such_module: ModuleNotFoundError" in err


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (("--saliency", "--target", "cow"), "target= takes 'argmax', 'input', a class index"),
        (("--activations", "conv1", "--target", "1"), "--target goes with an option such as"),
        (("--saliency", "--steps", "3"), "--steps goes with an option such as --integrated"),
        (("--saliency", "--opset", "9"), "opset=9 is out of range"),
        (("--saliency", "--class-names", "a,b"), "class_names has 2 names"),
        (("--saliency", "--spec", "images.npy"), "images.npy is no UTF-8 text"),
        (("--saliency", "--samples", "cnn.onnx"), "cnn.onnx is no .npy or .npz file"),
        (("--saliency", "--model-output", "label"), r"output= takes one of ['scores']"),
    ],
)
def test_what_compile_refuses(probegen_cli, tmp_path, options, says):
    status, out, err = probegen_cli("compile", "cnn.keras", "-o", tmp_path / "m.onnx", *options)
    assert (status, out) == (1, "")
    assert says in err
    assert not list(tmp_path.iterdir())


def test_broken_specs_name_the_file(probegen_cli, tmp_path):
    (tmp_path / "bad.toml").write_text("[[probes]]\nprobe = 'salency'\n")
    status, _, err = probegen_cli(
        "compile", "cnn.keras", "-o", tmp_path / "m.onnx", "--spec", tmp_path / "bad.toml"
    )
    assert status == 1
    assert "bad.toml: unknown probe 'salency'. Did you mean 'saliency'" in err


# -- run -----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["images.npy", "images.npz", "unnamed.npz"])
def test_run_on_arrays(probegen_cli, name):
    status, out, err = probegen_cli("run", "cnn.onnx", name)
    assert (status, err) == (0, "")
    rows = [line.split() for line in out.splitlines()]
    assert rows[0] == ["cnn.onnx", "on", name]
    assert ["grad_cam/conv2", "grad_cam", "3x3x3"] in [row[:3] for row in rows]


def test_run_prints_the_range_fed_and_the_class(probegen_cli, place):
    status, out, _ = probegen_cli("run", "cnn.onnx", "images.npy")
    assert status == 0
    rows = [line.split() for line in out.splitlines()]
    x = models.images((11, 8, 2))
    assert ["image", "input", "3x11x8x2", f"{x.min():.4g}", f"{x.max():.4g}"] in rows
    scores = runtime.load(place / "cnn.onnx").run(x)["scores"].array
    names = ["ant", "bee", "cow", "dog"]
    for row, best in enumerate(scores.argmax(1)):
        said = f"scores, row {row}: {names[best]} (class {best}), probability "
        assert f"{said}{scores[row, best]:.4g}" in out.splitlines()
    status, out, _ = probegen_cli(
        "run", "cnn.onnx", "images.npy", "--json", "--class-names", "w,x,y,z"
    )
    told = json.loads(out)
    assert told["inputs"][0]["min"] == pytest.approx(x.min())
    assert [c["index"] for c in told["classes"]["scores"]] == scores.argmax(1).tolist()
    assert told["classes"]["scores"][0]["name"] == "wxyz"[scores[0].argmax()]
    for given, says in (("a" * 5000, "has 1 names"),
                        ("a,b", "has 2 names; the model's outputs have [4] classes"),
                        ("a,b,c,a", "class_names has 'a' twice")):  # fmt: skip
        status, out, err = probegen_cli("run", "cnn.onnx", "images.npy", "--class-names", given)
        assert (status, out) == (1, "")
        assert says in err


def test_run_prints_predictions_of_one_number(probegen_cli, tmp_path):
    x = np.array([[1.0, -2.0], [0.5, 3.0]], np.float32)
    np.save(tmp_path / "x.npy", x)
    inputs = keras.Input((2,))
    risk = keras.layers.Dense(1, activation="sigmoid", name="risk")(inputs)
    model = keras.Model(inputs, [risk, keras.layers.Dense(1, name="cost")(inputs)])
    pg.compile(model, [], tmp_path / "m.onnx", verify=False)
    status, out, _ = probegen_cli("run", tmp_path / "m.onnx", tmp_path / "x.npy")
    assert status == 0
    risks, costs = (np.asarray(y).ravel() for y in model(x))
    for row in range(2):
        assert f"risk, row {row}: probability {risks[row]:.4g}" in out.splitlines()
        assert f"cost, row {row}: {costs[row]:.4g}" in out.splitlines()


def test_run_as_json(probegen_cli, place):
    status, out, _ = probegen_cli("run", "cnn.onnx", "images.npy", "--target", "cow", "--json")
    told = json.loads(out)
    assert status == 0
    result = runtime.load(place / "cnn.onnx").run(models.images((11, 8, 2)), target=2)
    np.testing.assert_allclose(told["predictions"]["scores"], result["scores"].array, rtol=1e-6)
    saliency = next(o for o in told["outputs"] if o["name"] == "saliency/image")
    assert saliency["shape"] == [3, 11, 8]
    assert saliency["axes"] == ["batch", "height", "width"]
    assert saliency["max"] == pytest.approx(result["saliency/image"].array.max())
    status, out, _ = probegen_cli("run", "cnn.onnx", "images.npy", "--no-explain", "--json")
    assert [o["name"] for o in json.loads(out)["outputs"]] == ["scores"]


def test_run_warns_of_values_far_from_the_verified(probegen_cli, tmp_path):
    np.save(tmp_path / "unit.npy", np.random.default_rng(0).random((3, 11, 8, 2), np.float32))
    np.save(tmp_path / "bytes.npy", np.full((1, 11, 8, 2), 200, np.uint8))
    out = tmp_path / "m.onnx"
    status, _, _ = probegen_cli(
        "compile", "cnn.keras", "-o", out, "--saliency", "--samples", tmp_path / "unit.npy"
    )
    assert status == 0
    low, high = compiled(out).certificate["range"]["image"]
    assert 0 <= low < 0.1
    assert 0.9 < high <= 1
    assert probegen_cli("run", out, tmp_path / "unit.npy")[2] == ""
    assert (
        "warning: the input 'image' is fed values of 200 to 200"
        in probegen_cli("run", out, tmp_path / "bytes.npy")[2]
    )
    assert "warning" not in probegen_cli("run", out, tmp_path / "bytes.npy", "--scale", "0.0039")[2]


def test_run_with_a_target_for_each_row(probegen_cli, tmp_path):
    targets = "bee, argmax,0"
    status, _, _ = probegen_cli(
        "run", "cnn.onnx", "images.npy", "--target", targets, "--npz", tmp_path / "r.npz"
    )
    assert status == 0
    from probegen.runtime.result import read_npz

    np.testing.assert_array_equal(read_npz(tmp_path / "r.npz").run.target, [1, -1, 0])


def test_run_writes_pictures_and_reports(probegen_cli, tmp_path):
    status, out, _ = probegen_cli(
        "run", "cnn.onnx", "images.npy", "--plot", tmp_path / "p.png", "--sample", "2",
        "--html", tmp_path / "r.html", "--class-names", "w,x,y,z",
    )  # fmt: skip
    assert status == 0
    assert f"wrote {tmp_path / 'p.png'}" in out
    assert (tmp_path / "p.png").read_bytes().startswith(b"\x89PNG")
    assert "saliency/image" in (tmp_path / "r.html").read_text()


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("t.txt", "the cat sat\non a mat yes\nnine tokens are shorter than that list is\n"),
        ("t.json", json.dumps({i: f"word{i}" for i in range(13)})),
    ],
)
def test_run_with_tokens(probegen_cli, tmp_path, name, text):
    (tmp_path / name).write_text(text)
    status, _, err = probegen_cli(
        "run", "words.onnx", "tokens.npy", "--html", tmp_path / "r.html", "--tokens",
        tmp_path / name,
    )  # fmt: skip
    assert (status, err) == (0, "")
    assert ("cat" if name == "t.txt" else "word") in (tmp_path / "r.html").read_text()
    (tmp_path / name).write_text("[" if name == "t.json" else " ".join("abcdefghijk"))
    status, _, err = probegen_cli(
        "run", "words.onnx", "tokens.npy", "--html", tmp_path / "n.html", "--tokens",
        tmp_path / name,
    )  # fmt: skip
    assert status == 1
    assert "tokens" in err
    assert not (tmp_path / "n.html").exists()


@pytest.mark.parametrize("head", ["", "length,width,height\n"])
def test_run_on_csv(probegen_cli, tmp_path, head):
    (tmp_path / "x.csv").write_text(f"{head}1,2,3.5\n-1,0,2\n")
    status, out, err = probegen_cli(
        "run", "rows.onnx", tmp_path / "x.csv", "--plot", tmp_path / "p.png", "--json"
    )
    assert (status, err) == (0, "")
    x = np.array([[1, 2, 3.5], [-1, 0, 2]], np.float32)
    model = keras.saving.load_model("rows.keras")
    np.testing.assert_allclose(json.loads(out)["predictions"]["kind"], model(x), rtol=1e-5)


def test_run_on_csv_of_ids_and_of_series(probegen_cli, tmp_path):
    np.savetxt(tmp_path / "ids.csv", models.tokens(), delimiter=",", fmt="%d")
    assert probegen_cli("run", "words.onnx", tmp_path / "ids.csv")[0] == 0
    (tmp_path / "ids.csv").write_text("1,2,3,4.5,5,6,7,8,9\n")
    status, _, err = probegen_cli("run", "words.onnx", tmp_path / "ids.csv")
    assert status == 1
    assert "floats are not rounded silently" in err
    pg.compile(models.forecaster(), pg.Activations("conv"), tmp_path / "f.onnx", verify=False)
    np.savetxt(tmp_path / "window.csv", models.images((17, 2))[0], delimiter=",")
    status, out, _ = probegen_cli("run", tmp_path / "f.onnx", tmp_path / "window.csv", "--json")
    assert status == 0
    assert np.shape(json.loads(out)["predictions"]["next"]) == (1, 1)


def test_run_on_an_image(probegen_cli, tmp_path):
    from PIL import Image

    x = keras.Input((6, 9, 3), name="photo")
    y = keras.layers.GlobalAveragePooling2D(name="mean")(x)
    pg.compile(keras.Model(x, y), pg.Activations("mean"), tmp_path / "m.onnx", verify=False)
    pixels = np.random.default_rng(0).integers(0, 256, (6, 9, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "same.png")
    Image.fromarray(pixels).resize((20, 14)).save(tmp_path / "large.png")
    status, out, err = probegen_cli(
        "run", tmp_path / "m.onnx", tmp_path / "same.png", "--scale", "0.5", "--json"
    )
    assert (status, err) == (0, "")
    got = json.loads(out)["predictions"]["mean"]
    np.testing.assert_allclose(got, pixels.mean((0, 1))[None] / 2, rtol=1e-5)
    status, _, err = probegen_cli("run", tmp_path / "m.onnx", tmp_path / "large.png")
    assert (status, err) == (0, "resized 14x20 to 6x9\n")
    (tmp_path / "no.png").write_text("nothing")
    status, _, err = probegen_cli("run", tmp_path / "m.onnx", tmp_path / "no.png")
    assert status == 1
    assert "no.png is no image that can be read" in err


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("no.onnx", "images.npy"), "there is no artefact at 'no.onnx'"),
        (("cnn.keras", "images.npy"), "compile it first: probegen compile cnn.keras"),
        (("cnn.onnx", "tokens.npy"), "'image' has the shape (3, 9)"),
        (("cnn.onnx", "cnn.keras"), "expected .npy, .npz, .csv or an image"),
        (("cnn.onnx", "images.npy", "--target", "9"), "the target 9 is out of range"),
        (("cnn.onnx", "images.npy", "--target", "cat"), "there is no class 'cat'"),
        (("words.onnx", "tokens.npy", "--target", "1"), "it was fixed when the artefact was"),
        (
            ("cnn.onnx", "images.npy", "--plot", "nowhere/p.png"),
            "the folder 'nowhere' does not exist",
        ),
        (("cnn.onnx", "images.npy", "--plot", "p.doc"), "no picture format"),
        (("cnn.onnx", "images.npy", "--plot", "p.png", "--sample", "3"), "sample"),
    ],
)
def test_what_run_refuses(probegen_cli, arguments, says):
    status, out, err = probegen_cli("run", *arguments)
    assert (status, out) == (1, "")
    assert says in err


def test_run_refuses_nan_on_request(probegen_cli, tmp_path):
    x = models.images((11, 8, 2))
    x[1, 2, 3, 0] = np.nan
    np.save(tmp_path / "x.npy", x)
    assert probegen_cli("run", "cnn.onnx", tmp_path / "x.npy")[0] == 0
    status, _, err = probegen_cli("run", "cnn.onnx", tmp_path / "x.npy", "--check-finite")
    assert status == 1
    assert "the value nan at [1, 2, 3, 0] is not finite" in err


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04broken", b"\x93NUMPY broken"])
@pytest.mark.parametrize("suffix", [".npy", ".npz"])
def test_damaged_arrays(probegen_cli, tmp_path, content, suffix):
    (tmp_path / f"x{suffix}").write_bytes(content)
    status, _, err = probegen_cli("run", "cnn.onnx", tmp_path / f"x{suffix}")
    assert status == 1
    assert "is no .npy or .npz file of plain numbers" in err


# -- processes -----------------------------------------------------------------------------

BLOCKED = """
import sys
for name in ("tensorflow", "keras", "onnx", "onnx_ir", "tf2onnx"):
    sys.modules[name] = None
from probegen.cli import main
main()
"""


def test_run_needs_no_tensorflow(place, tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", BLOCKED, "run", "cnn.onnx", "images.npy", "--html",
         str(tmp_path / "r.html"), "--npz", str(tmp_path / "r.npz")],
        cwd=place, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "saliency/image" in done.stdout
    assert (tmp_path / "r.npz").stat().st_size > 0


def test_a_process_keeps_its_streams_apart(place, tmp_path):
    command = [sys.executable, "-m", "probegen.cli", "compile", "rows.keras"]
    done = subprocess.run(
        [*command, "-o", str(tmp_path / "m.onnx"), "--saliency", "--json"],
        cwd=place, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["verification"]["passed"]
    assert [line for line in done.stderr.splitlines() if not line.endswith(" ...")] == []


def test_a_failing_process_ends_with_1(place):
    done = subprocess.run(
        [sys.executable, "-m", "probegen.cli", "run", "no.onnx", "images.npy"],
        cwd=place, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("probegen: there is no artefact at 'no.onnx'")
