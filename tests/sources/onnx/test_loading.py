"""ONNX files are opened with their weights left where they lie; what is none is told apart."""

import os
import resource
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest

import probegen as pg
from probegen import runtime
from probegen.artefact.manifest import ONNX_METADATA_KEY
from probegen.errors import SourceError
from probegen.sources.onnx.reading import read_onnx
from tests.sources.onnx.support import add_weights, assert_same, hard, parse, run


def small() -> onnx.ModelProto:
    return add_weights(
        parse("g (float[N,40] x) => (float[N,30] y) { y = MatMul(x, w) }"), w=hard(40, 30, seed=1)
    )


@pytest.fixture
def path(tmp_path: Path) -> Path:
    onnx.save(small(), tmp_path / "m.onnx")
    return tmp_path / "m.onnx"


def test_every_form_of_a_model(path: Path) -> None:
    feed = {"x": hard(3, 40)}
    expected = run(path, feed)["y"]
    kinds = [path, str(path), path.read_bytes(), onnx.load(path), ir.load(path)]
    for source in kinds:
        read = read_onnx(source)
        np.testing.assert_array_equal(run(read.model, feed)["y"], expected)
        np.testing.assert_array_equal(run(read.original, feed)["y"], expected)
    assert read_onnx(path).original == path
    assert isinstance(read_onnx(path.read_bytes()).original, bytes)
    with pytest.raises(SourceError, match="this is of type dict"):
        read_onnx({})  # type: ignore[arg-type]


def test_what_is_given_is_left_as_it_is(path: Path) -> None:
    proto, model = onnx.load(path), ir.load(path)
    before = proto.SerializeToString(deterministic=True)
    read_onnx(proto), read_onnx(model)
    assert proto.SerializeToString(deterministic=True) == before
    assert ir.serde.serialize_model(model).SerializeToString(deterministic=True) == (
        ir.serde.serialize_model(ir.load(path)).SerializeToString(deterministic=True)
    )


@pytest.fixture
def apart(tmp_path: Path) -> Path:
    onnx.save_model(
        small(),
        tmp_path / "m.onnx",
        save_as_external_data=True,
        location="weights.bin",
        size_threshold=0,
    )
    return tmp_path / "m.onnx"


def test_weights_in_another_file_stay_there(apart: Path) -> None:
    read = assert_same(apart, {"x": hard(2, 40)}, {"x": hard(5, 40)})
    (weight,) = read.model.graph.initializers.values()
    assert isinstance(weight.const_value, ir.ExternalTensor)


def test_missing_and_short_weights(apart: Path) -> None:
    content = apart.read_bytes()
    with pytest.raises(SourceError, match=r"'w' of the given bytes lies in another.*weights\.bin"):
        read_onnx(content)
    weights = apart.parent / "weights.bin"
    weights.write_bytes(weights.read_bytes()[:-8])
    with pytest.raises(SourceError, match=r"'w' of .* ends at byte 4800 of 'weights\.bin'"):
        read_onnx(apart)
    weights.unlink()
    with pytest.raises(SourceError, match=r"'w' of .*lies in the file 'weights\.bin'.*not there"):
        read_onnx(apart)


def test_weights_outside_the_folder(apart: Path, tmp_path: Path) -> None:
    proto = onnx.load(apart, load_external_data=False)
    proto.graph.initializer[0].external_data[0].value = "../weights.bin"
    (tmp_path / "inner").mkdir()
    onnx.save(proto, tmp_path / "inner" / "m.onnx")
    with pytest.raises(SourceError, match="outside the model's folder"):
        read_onnx(tmp_path / "inner" / "m.onnx")


def test_weights_above_two_gigabytes_are_not_read(tmp_path: Path) -> None:
    """The file is sparse: it takes no room on the disk, and would take it in memory."""
    rows, columns = 600_000, 1000
    proto = parse(
        f"g (float[N,{rows}] x, int64[M] i) => (float[M,{columns}] y) {{ y = Gather(w, i) }}"
    )
    weight = onnx.TensorProto(name="w", data_type=1, dims=[rows, columns], data_location=1)
    for key, value in {
        "location": "w.bin",
        "offset": "0",
        "length": str(rows * columns * 4),
    }.items():
        weight.external_data.add(key=key, value=value)
    proto.graph.initializer.append(weight)
    with (tmp_path / "w.bin").open("wb") as file:
        file.truncate(rows * columns * 4)
    onnx.save(proto, tmp_path / "m.onnx")
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    read = read_onnx(tmp_path / "m.onnx")
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 500_000  # kB
    assert read.model.graph.initializers["w"].const_value.nbytes == rows * columns * 4


def test_what_is_no_model(tmp_path: Path, path: Path) -> None:
    def refused(name: str, content: bytes, told: str) -> None:
        place = tmp_path / name
        place.write_bytes(content)
        with pytest.raises(SourceError, match=told):
            read_onnx(place)

    refused("empty.onnx", b"", "is empty")
    refused("text.onnx", b"This is no model, but a letter.\n" * 9, "no ONNX model")
    refused("short.onnx", path.read_bytes()[:-200], "no ONNX model, or the file is cut short")
    refused("model.h5", b"\x89HDF\r\n\x1a\n" + bytes(99), r"HDF5.*A Keras model is given as")
    refused("m.ort", bytes(4) + b"ORTM" + bytes(99), r"\.ort")
    with zipfile.ZipFile(tmp_path / "m.keras", "w") as archive:
        archive.writestr("config.json", "{}")
    with pytest.raises(SourceError, match=r"zip archive.*A Keras model is given as the object"):
        read_onnx(tmp_path / "m.keras")
    with pytest.raises(SourceError, match="is a folder"):
        read_onnx(tmp_path)
    with pytest.raises(SourceError, match="no model file"):
        read_onnx(tmp_path / "absent.onnx")
    proto = onnx.load(path)
    del proto.graph.output[:]
    refused("nothing.onnx", proto.SerializeToString(), "has no outputs")
    proto = onnx.load(path)
    del proto.graph.initializer[:]
    refused("torn.onnx", proto.SerializeToString(), "'MatMul' reads 'w', which is no input, no")


def test_an_artefact_is_no_source(path: Path) -> None:
    proto = onnx.load(path)
    proto.metadata_props.add(key=ONNX_METADATA_KEY, value="{}")
    with pytest.raises(SourceError, match="artefact that probegen compiled already"):
        read_onnx(proto)


@pytest.mark.parametrize("flat", [True, False])
def test_sparse_weights(flat: bool) -> None:
    whole = np.zeros((4, 3), np.float32)
    whole[1, 2], whole[3, 0] = 2.5, -1.0
    values = onnx.numpy_helper.from_array(np.array([2.5, -1.0], np.float32), "w")
    places = np.array([5, 9]) if flat else np.array([[1, 2], [3, 0]])
    model = parse("g (float[N,4] x) => (float[N,3] y) { y = MatMul(x, w) }")
    sparse = onnx.helper.make_sparse_tensor(values, onnx.numpy_helper.from_array(places), [4, 3])
    model.graph.sparse_initializer.append(sparse)
    x = hard(3, 4)
    np.testing.assert_allclose(run(read_onnx(model).model, {"x": x})["y"], x @ whole, rtol=1e-6)
    constant = parse("g (float[N,4] x) => (float[N,3] y) { y = MatMul(x, w) }")
    node = constant.graph.node.add(op_type="Constant", output=["w"])
    node.attribute.append(onnx.helper.make_attribute("sparse_value", sparse))
    constant.graph.node.reverse()
    np.testing.assert_allclose(run(read_onnx(constant).model, {"x": x})["y"], x @ whole, rtol=1e-6)


def test_no_tensorflow_and_the_same_bytes_in_every_process(tmp_path: Path) -> None:
    model = parse(
        """
        g (float[N,4] x, float[N,4] m) => (float[N,4] y, float[N,4] z) {
          s = Shape(x)
          h = Softmax<axis = 0>(x)
          k = com.microsoft.BiasGelu(h, b)
          w = com.microsoft.FastGelu(k)
          y = Reshape(w, s)
          z = Resize<mode = "linear">(m, , q)
        }""",
        opset=12,
        more=', "com.microsoft" : 1',
    )
    model.graph.node[-1].input[1] = "empty"
    add_weights(
        model,
        b=hard(4),
        q=np.array([1, 1], np.float32),
        empty=np.zeros(0, np.float32),
    )
    onnx.save(model, tmp_path / "m.onnx")
    code = """
import sys
for name in ("tensorflow", "keras", "tf2onnx"):
    sys.modules[name] = None
from probegen.sources.onnx.reading import read_onnx
import onnx_ir as ir
proto = ir.serde.serialize_model(read_onnx(sys.argv[1]).model)
sys.stdout.buffer.write(proto.SerializeToString(deterministic=True))
"""
    found = [
        subprocess.run(
            [sys.executable, "-c", code, str(tmp_path / "m.onnx")],
            env={**os.environ, "PYTHONHASHSEED": seed},
            capture_output=True,
            check=True,
        ).stdout
        for seed in ("1", "2")
    ]
    assert found[0] == found[1]
    assert len(found[0]) > 1000


def test_sizes_of_minus_one_are_open(tmp_path) -> None:
    """As Paddle's exporter of old writes the batch."""
    model = parse("g (float[N,3] x) => (float[N,3] y) { y = Sin(x) }")
    for value in (model.graph.input[0], model.graph.output[0]):
        value.type.tensor_type.shape.dim[0].dim_value = -1
    read = read_onnx(model)
    assert [list(v.shape)[1:] for v in (*read.model.graph.inputs, *read.model.graph.outputs)] == [
        [3],
        [3],
    ]
    assert not any(isinstance(v.shape[0], int) for v in read.model.graph.inputs)
    path = tmp_path / "m.onnx"
    pg.compile(model, [pg.Saliency(target=1)], path)
    described = runtime.load(path).manifest.inputs[0]
    assert (described.shape, described.axes[0]) == ((None, 3), "batch")
