"""One reader for a file, a folder and arrays, which knows nothing of who asks."""

import ast
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from probegen.artefact.manifest import InputSpec
from probegen.errors import InputError
from probegen.runtime import read
from probegen.runtime.read import read_input
from tests.runtime.test_read import artefact_of, photo_of, rows_of

RNG = np.random.default_rng(8)


def flag(name, value):
    return f"[{name} is {value}]"


def test_a_folder_of_images(tmp_path):
    pixels = RNG.integers(0, 256, (3, 6, 9, 3)).astype(np.uint8)
    for name, picture in zip(("b.png", "a.PNG", "c.bmp"), pixels, strict=True):
        Image.fromarray(picture).save(tmp_path / name)
    (tmp_path / "notes.txt").write_text("of a walk")
    (tmp_path / ".hidden.png").write_bytes(b"")
    (tmp_path / "more").mkdir()
    said = []
    found = read_input(tmp_path, photo_of(6, 9, 3), say=said.append)
    np.testing.assert_array_equal(found.feed, pixels[[1, 0, 2]])
    assert found.files == ("a.PNG", "b.png", "c.bmp")
    assert said == [f"left out of {tmp_path}: .hidden.png, more, notes.txt"]


def test_a_folder_of_tables_and_arrays(tmp_path):
    (tmp_path / "a.csv").write_text("u,v,w\n1,2,3\n4,5,6\n")
    (tmp_path / "b.csv").write_text("u,v,w\n7,8,9\n")
    found = read_input(tmp_path, rows_of(3), scale=2.0)
    np.testing.assert_array_equal(found.feed, [[2, 4, 6], [8, 10, 12], [14, 16, 18]])
    assert found.feature_names == ["u", "v", "w"]
    assert found.files == ("a.csv", "a.csv", "b.csv")
    named = read_input(tmp_path, rows_of(3), header=True)
    np.testing.assert_array_equal(named.feed, [[1, 2, 3], [4, 5, 6], [7, 8, 9]])
    (tmp_path / "b.csv").write_text("u,w,v\n7,9,8\n")
    with pytest.raises(InputError, match=r"b\.csv and .*a\.csv cannot be joined: they hold other"):
        read_input(tmp_path, rows_of(3))


def test_a_folder_of_several_inputs(tmp_path):
    two = artefact_of(
        InputSpec("a", "float32", (None, 2), ("batch", "feature")),
        InputSpec("b", "float32", (None, 5), ("batch", "feature")),
    )
    a, b = RNG.random((3, 2)), RNG.random((3, 5))
    np.savez(tmp_path / "1.npz", a=a[:1], b=b[:1])
    np.savez(tmp_path / "2.npz", b=b[1:], a=a[1:])
    found = read_input(tmp_path, two)
    np.testing.assert_array_equal(found.feed["a"], a)
    np.testing.assert_array_equal(found.feed["b"], b)
    assert found.files == ("1.npz", "2.npz", "2.npz")


def test_folders_that_cannot_be_read(tmp_path):
    with pytest.raises(InputError, match="holds no file that can be read"):
        read_input(tmp_path, rows_of(3))
    np.save(tmp_path / "a.npy", np.ones((2, 3)))
    np.save(tmp_path / "b.npy", np.ones((1, 4)))
    with pytest.raises(InputError, match=r"cannot be joined: .* shapes \(4,\) and \(3,\)"):
        read_input(tmp_path, rows_of(3))
    (tmp_path / "b.npy").write_bytes(b"")
    with pytest.raises(InputError, match=r"b\.npy is no \.npy"):
        read_input(tmp_path, rows_of(3))


def test_arrays(artefact):
    x = RNG.random((2, 5, 7, 3)).astype(np.float32)
    for given in (x, [x], {"image": x}, x.tolist()):
        found = read_input(given, artefact.manifest, scale=2.0)
        np.testing.assert_allclose(found.feed["image"], 2 * x, rtol=1e-6)
        assert artefact.run(found.feed)["animal"].shape == (2, 4)
    assert found.files is None
    assert found.feature_names is None
    said = []
    read_input((255 * x).astype(np.uint8), artefact.manifest, say=said.append, spell=flag)
    assert "[scale is 0.00392156862745098] (1/255) makes values of 0 to 1" in said[0]
    with pytest.raises(InputError, match=r"no input 'picture'"):
        read_input({"picture": x}, artefact.manifest)
    with pytest.raises(InputError, match=r"^header=False is for tables .* arrays were given"):
        read_input(x, artefact.manifest, header=False)


@pytest.mark.parametrize(
    ("text", "options", "says"),
    [
        ("1,x,3\n", {}, r"pass \[header is True\] to take"),
        ("0,1,2\n4,5,6\n", {}, r"Pass \[header is True\] if .* \[header is False\] if it is data"),
        ("1,2,3\n", {"scale": np.inf}, r"^\[scale is inf\]: it must be a finite number"),
        ("1,2,3\n", {"scale": 2.0}, r"^\[scale is 2\.0\] multiplies floating inputs"),
    ],
)
def test_options_are_named_as_the_caller_does(tmp_path, text, options, says):
    (tmp_path / "x.csv").write_text(text)
    with pytest.raises(InputError, match=says):
        read_input(tmp_path / "x.csv", rows_of(3, "int32"), spell=flag, **options)


def test_nothing_in_it_knows_of_the_command_line():
    for path in Path(read.__file__).parent.glob("*.py"):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        texts = [n.value for n in ast.walk(tree) if isinstance(n, ast.Constant)]
        assert not [t for t in texts if isinstance(t, str) and "--" in t], path.name
        assert "click" not in path.read_text(encoding="utf-8")
