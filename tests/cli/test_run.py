"""`probegen run`: what it prints, writes and refuses."""

import json
import subprocess
import sys

import keras
import numpy as np
import pytest

import probegen as pg
from probegen import runtime
from tests import models
from tests.cli.support import compiled


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
    for given, says in (("a" * 5000, "has 1 name;"),
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


@pytest.mark.usefixtures("words")
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


@pytest.mark.usefixtures("words")
def test_run_on_csv_of_ids_and_of_series(probegen_cli, tmp_path):
    np.savetxt(tmp_path / "ids.csv", models.tokens(), delimiter=",", fmt="%d")
    assert probegen_cli("run", "words.onnx", tmp_path / "ids.csv")[0] == 0
    (tmp_path / "ids.csv").write_text("1,2,3,4.5,5,6,7,8,9\n")
    status, _, err = probegen_cli("run", "words.onnx", tmp_path / "ids.csv")
    assert status == 1
    assert "floats are not rounded silently" in err
    window = keras.Input((17, 2), name="window")
    flat = keras.layers.Flatten()(window)
    series = keras.Model(window, keras.layers.Dense(1, name="next")(flat))
    pg.compile(series, [], tmp_path / "f.onnx", verify=False)
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


@pytest.mark.usefixtures("words")
@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("no.onnx", "images.npy"), "there is no artefact at 'no.onnx'"),
        (("cnn.keras", "images.npy"), "compile it first: probegen compile cnn.keras"),
        (("cnn.onnx", "tokens.npy"), "'image' has the shape (3, 9)"),
        (("cnn.onnx", "cnn.keras"), "expected .npy, .npz, .csv, .txt or an image"),
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


def test_a_series_with_dates_and_its_forecast(probegen_cli, tmp_path):
    x = keras.Input((None, 2), name="weather")
    model = keras.Model(x, keras.layers.Dense(3, name="ahead")(keras.layers.SimpleRNN(2)(x)))
    path, table = tmp_path / "m.onnx", tmp_path / "x.csv"
    model.save(tmp_path / "m.keras")
    table.write_text("day,wind,load\n2024-01-31,1,2\n2024-02-01,3,4\n2024-02-02,0,1\n")
    np.save(tmp_path / "truth.npy", np.ones((1, 3)))
    status, _, err = probegen_cli(
        "compile", tmp_path / "m.keras", "-o", path, "--gradient-x-input", "--no-verify",
        "--feature-names", "wind [m/s],load [MW]",
    )  # fmt: skip
    assert status == 0, err
    picture = tmp_path / "p.svg"
    status, out, err = probegen_cli(
        "run", path, table, "--plot", picture, "--json",
        "--forecast", "wind", "--truth", tmp_path / "truth.npy",
    )  # fmt: skip
    assert status == 0, err
    assert json.loads(out)["inputs"][0]["shape"] == [1, 3, 2]
    assert "(day) says what stands at the steps" in err
    # Text is drawn as shapes, and kept as a comment.
    drawn = picture.read_text()
    assert all(
        f"<!-- {text} -->" in drawn for text in ("wind [m/s]", "load [MW]", "forecast", "true")
    )
    status, _, err = probegen_cli("run", path, table, "--time-column", "dai")
    assert (status, "--time-column dai" in err) == (1, True)
