"""Triton's own schema reads what is written, where it is installed: `make test-serving`."""

import pytest

schema = pytest.importorskip("tritonclient.grpc.model_config_pb2")

import onnx  # noqa: E402
import onnx.parser  # noqa: E402
from google.protobuf import text_format  # noqa: E402

import probegen as pg  # noqa: E402
from probegen.serve.config import Options, write  # noqa: E402
from tests.serve.linear import linear_artefact  # noqa: E402


def parsed(folder):
    return {
        path.parent.name: text_format.Parse(path.read_text(), schema.ModelConfig())
        for path in folder.glob("*/config.pbtxt")
    }


@pytest.mark.parametrize("gate", [True, "split", False])
def test_the_schema(tmp_path, gate):
    path = linear_artefact(tmp_path / "m.onnx", gate=gate)
    write("triton", path, tmp_path / "r")
    found = parsed(tmp_path / "r")
    assert set(found) == ({"m", "m_explain"} if gate == "split" else {"m"})
    for name, config in found.items():
        assert (config.name, config.backend) == (name, "onnxruntime")
        assert (tmp_path / "r" / name / "1" / config.default_model_filename).is_file()
        assert config.max_batch_size == (0 if gate is True else 16)
        assert config.HasField("dynamic_batching") == (gate is not True)
        dims = {t.name: list(t.dims) for t in (*config.input, *config.output)}
        assert dims["x"] == ([-1, 4, 3] if gate is True else [4, 3])
        assert "explain" not in dims or dims["explain"] == [1]
        assert all(tensor.data_type != schema.TYPE_INVALID for tensor in config.input)


def test_names_and_types_of_all_kinds(tmp_path):
    text = """
    <ir_version: 8, opset_import: ["" : 18]>
    g (float16[n, 2] a, int64[n, time] b, bool[n, 3] c, double[n, time] d)
        => (float16[n, 2] u, int64[n, time] v, bool[n, 3] w, double[n, time] z)
    {
        u = Neg (a)
        v = Neg (b)
        w = Not (c)
        z = Neg (d)
    }
    """
    model = onnx.parser.parse_model(text)
    pg.compile(model, [], tmp_path / "a 'b'.onnx", verify=False)
    write("triton", tmp_path / "a 'b'.onnx", tmp_path / "r", Options(name="types"))
    config = parsed(tmp_path / "r")["types"]
    kinds = [schema.DataType.Name(tensor.data_type) for tensor in config.input]
    assert kinds == ["TYPE_FP16", "TYPE_INT64", "TYPE_BOOL", "TYPE_FP64"]
    assert [list(tensor.dims) for tensor in config.input] == [[2], [-1], [3], [-1]]
    assert config.default_model_filename == "a 'b'.onnx"
    assert [tensor.name for tensor in config.output] == ["u", "v", "w", "z"]
