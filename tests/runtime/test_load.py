"""Opening artefacts: what works, and what each wrong file is answered with."""

import dataclasses
import json
import re

import numpy as np
import onnx
import onnxruntime
import pytest

from probegen import runtime
from probegen.errors import ArtefactError, ManifestError, ProbegenError
from tests.runtime.support import NAMES, images, with_manifest


def test_what_an_artefact_tells(artefact):
    assert [spec.name for spec in artefact.inputs] == ["image"]
    assert [spec.kind for spec in artefact.outputs] == ["prediction", "input_gradient", "saliency"]
    assert artefact.manifest.class_names == NAMES
    assert artefact.manifest.gate == "required"
    assert artefact.manifest.target_input
    assert artefact.manifest.target_classes == 4


def test_print_shows_a_table(artefact):
    lines = str(artefact).splitlines()
    assert lines[0] == "zoo.onnx: zoo (onnxruntime, CPUExecutionProvider)"
    assert lines[1].split() == ["name", "kind", "layer", "dtype", "shape"]
    assert re.fullmatch(
        r" +image +input +float32 +\[batch, height=5, width=7, channel=3\]", lines[3]
    )
    assert re.fullmatch(r" +target +argument +int32 +\[batch\], -1 is argmax", lines[4])
    assert re.fullmatch(r" +explain +argument +bool +default True", lines[5])
    assert re.fullmatch(
        r" +saliency/image +saliency +image +float32 +\[batch, height=5, width=7\]", lines[8]
    )


def test_options_of_onnxruntime(image_path):
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    art = runtime.load(image_path, session_options=options, providers=["CPUExecutionProvider"])
    assert art.engine.session.get_session_options().intra_op_num_threads == 1
    art = runtime.load(image_path, threads=2, providers=[("CPUExecutionProvider", {})])
    assert art.engine.session.get_session_options().intra_op_num_threads == 2
    with pytest.raises(ArtefactError, match=r"set session_options\.intra_op_num_threads instead"):
        runtime.load(image_path, session_options=options, threads=2)


def test_unknown_provider_does_not_fall_back_silently(image_path):
    with pytest.raises(ArtefactError, match=r"'CPUExecutionProvder' is not in this onnxruntime\. "
                       "Did you mean 'CPUExecutionProvider'"):  # fmt: skip
        runtime.load(image_path, providers=["CPUExecutionProvder"])


def test_device_of_onnxruntime(image_path):
    art = runtime.load(image_path, device="CPU")
    assert art.engine.session.get_providers() == ["CPUExecutionProvider"]
    says = (
        r"this onnxruntime runs on no device 'cuda:1'; there are .*'cpu', and with a number for "
        r"instance 'cuda:1'\. For GPUs of NVIDIA: pip uninstall onnxruntime, then pip install "
        r"'onnxruntime-gpu\[cuda,cudnn\]' in its place\.$"
    )
    with pytest.raises(ArtefactError, match=says):
        runtime.load(image_path, device="cuda:1")
    with pytest.raises(ArtefactError, match=r"no device 'cpu:one'"):
        runtime.load(image_path, device="cpu:one")
    with pytest.raises(ArtefactError, match="device and providers were both given"):
        runtime.load(image_path, device="cpu", providers=["CPUExecutionProvider"])


@pytest.fixture
def built_for_cuda(monkeypatch):
    """An onnxruntime built for CUDA on a machine without; gives what sessions are asked for."""
    opened, asked = onnxruntime.InferenceSession, []

    def session(path, sess_options, providers, **_):
        asked.extend(providers)
        return opened(path, sess_options, providers=["CPUExecutionProvider"])

    both = ["CUDAExecutionProvider", "CPUExecutionProvider"]
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: both)
    monkeypatch.setattr(onnxruntime, "InferenceSession", session)
    return asked


def test_a_provider_that_does_not_start_does_not_fall_back_silently(image_path, built_for_cuda):
    says = (
        "onnxruntime's CUDAExecutionProvider does not start on this machine, and it would silently "
        "run on CPU: its device, its driver"
    )
    with pytest.raises(ArtefactError, match=says):
        runtime.load(image_path, device="cuda:1")
    assert built_for_cuda == [
        ("CUDAExecutionProvider", {"use_tf32": "0", "device_id": "1"}),
        ("CPUExecutionProvider", {}),
    ]


def test_cuda_computes_in_float32_unless_it_is_told_otherwise(image_path, built_for_cuda):
    for given in ("CUDAExecutionProvider", ("CUDAExecutionProvider", {"use_tf32": "1"})):
        with pytest.raises(ArtefactError, match="does not start"):
            runtime.load(image_path, providers=[given])
    assert [options for _, options in built_for_cuda] == [{"use_tf32": "0"}, {"use_tf32": "1"}]


def test_an_optional_gate_is_on_by_default_here_and_no_warning_at_load(optional_path, capfd):
    art = runtime.load(optional_path, threads=1)
    assert capfd.readouterr().err == ""
    assert [i.name for i in art.engine.session.get_overridable_initializers()] == ["explain"]
    assert len(art.run(images(2))["saliency/image"].array) == 2
    assert list(art.run(images(2), explain=False)) == ["animal"]


def test_a_gate_of_earlier_versions(optional_path, tmp_path):
    # Theirs was an initializer, which the manifest called `true`.
    text = runtime.load(optional_path).manifest.to_json()
    assert '"gate": "optional"' in text
    earlier = text.replace('"gate": "optional"', '"gate": true')
    path = with_manifest(optional_path, tmp_path / "m.onnx", earlier)
    art = runtime.load(path, threads=1)
    assert art.manifest.gate == "optional"
    assert len(art.run(images(2))["saliency/image"].array) == 2
    assert list(art.run(images(2), explain=False)) == ["animal"]


@pytest.mark.parametrize("gate", ["yes", 1, None, ["required"], {}])
def test_a_gate_that_is_none(artefact, tmp_path, gate):
    text = artefact.manifest.replace(gate=gate).to_json()
    path = with_manifest(artefact.path, tmp_path / "m.onnx", text)
    with pytest.raises(
        ManifestError, match=r'gate is .*, expected false or "required" or "optional"'
    ):
        runtime.load(path)


def test_nothing_there(tmp_path):
    (tmp_path / "digits.onnx").touch()
    with pytest.raises(ArtefactError, match=r"there is no artefact at .*digit\.onnx.* Did you mean "
                       r"'digits\.onnx'\?"):  # fmt: skip
        runtime.load(tmp_path / "digit.onnx")
    with pytest.raises(ArtefactError, match="nowhere' does not exist either"):
        runtime.load(tmp_path / "nowhere" / "m.onnx")


def test_directory_that_is_no_savedmodel(tmp_path):
    with pytest.raises(ArtefactError, match=r"holds no SavedModel \(no saved_model\.pb in it\)"):
        runtime.load(tmp_path)


def test_onnx_options_on_a_directory(tmp_path):
    with pytest.raises(ArtefactError, match="threads is an option of onnxruntime and openvino"):
        runtime.load(tmp_path, threads=2)


@pytest.mark.parametrize("share", [0.0, 0.3, 0.98])
def test_truncated(image_path, tmp_path, share):
    with open(image_path, "rb") as file:
        data = file.read()
    path = tmp_path / "cut.onnx"
    path.write_bytes(data[: int(len(data) * share)])
    with pytest.raises(ArtefactError, match=r"cannot load .*cut\.onnx.* damaged, cut short or no "
                       r"ONNX model\. onnxruntime says"):  # fmt: skip
        runtime.load(path)


@pytest.mark.parametrize(("magic", "kind"), [(b"PK\x03\x04", "archive"), (b"\x89HDF", "HDF5")])
def test_keras_file_not_compiled_yet(tmp_path, magic, kind):
    path = tmp_path / "m.keras"
    path.write_bytes(magic + b"and so on")
    with pytest.raises(ArtefactError, match=f"{kind}.*probegen compile m.keras -o m.onnx"):
        runtime.load(path)


def test_foreign_onnx(image_path, tmp_path):
    path = with_manifest(image_path, tmp_path / "foreign.onnx", None)
    with pytest.raises(ArtefactError, match=r"was not made by probegen.*Compile the model with "
                       r"`probegen compile"):  # fmt: skip
        runtime.load(path)


def test_manifest_of_a_newer_schema(artefact, tmp_path):
    newer = json.dumps({**json.loads(artefact.manifest.to_json()), "schema": 99})
    with pytest.raises(ManifestError, match=r"schema 99.*Install a newer probegen"):
        runtime.load(with_manifest(artefact.path, tmp_path / "newer.onnx", newer))


def test_damaged_manifest(image_path, tmp_path):
    with pytest.raises(ManifestError, match="not valid JSON"):
        runtime.load(with_manifest(image_path, tmp_path / "m.onnx", '{"schema": 1, "inp'))


def test_manifest_may_leave_outputs_out(artefact, tmp_path):
    only = artefact.manifest.replace(outputs=artefact.outputs[:1]).to_json()
    result = runtime.load(with_manifest(artefact.path, tmp_path / "m.onnx", only)).run(images(2))
    assert list(result) == ["animal"]


def test_manifest_of_another_graph(artefact, tmp_path):
    inputs = (dataclasses.replace(artefact.inputs[0], name="picture"),)
    text = artefact.manifest.replace(inputs=inputs).to_json()
    path = with_manifest(artefact.path, tmp_path / "m.onnx", text)
    with pytest.raises(ArtefactError, match=r"names the input 'picture', which its graph does "
                       r"not have \(it has 'image', 'target', 'explain'\).*again"):  # fmt: skip
        runtime.load(path)


@pytest.mark.parametrize(
    ("role", "position", "changes", "says"),
    [
        ("outputs", 2, {"axes": ("batch", "unit"), "shape": (None, 5)},
         r"'saliency/image' has the shape \[\?, 5\]; in its graph it has \[\?, 5, 7\]"),
        ("outputs", 1, {"shape": (None, 5, 8, 3)}, r"'input_gradient/image' has the shape"),
        ("outputs", 0, {"dtype": "float16"},
         "'animal' is of type float16; in its graph it is of float32"),
        ("inputs", 0, {"dtype": "int32"}, "input 'image' is of type int32"),
        ("inputs", 0, {"shape": (None, 7, 5, 3)}, r"input 'image' has the shape \[\?, 7, 5, 3\]"),
    ],
)  # fmt: skip
def test_manifest_that_describes_another_graph(artefact, tmp_path, role, position, changes, says):
    specs = list(getattr(artefact.manifest, role))
    specs[position] = dataclasses.replace(specs[position], **changes)
    text = artefact.manifest.replace(**{role: tuple(specs)}).to_json()
    path = with_manifest(artefact.path, tmp_path / "m.onnx", text)
    with pytest.raises(ArtefactError, match=says):
        runtime.load(path)


def test_the_first_size_of_an_output_need_not_be_the_batch(artefact, tmp_path):
    first = artefact.outputs[0]
    outputs = (dataclasses.replace(first, shape=(7, 4)), *artefact.outputs[1:])
    text = artefact.manifest.replace(outputs=outputs).to_json()
    path = with_manifest(artefact.path, tmp_path / "m.onnx", text)
    made = onnx.load(path)
    made.graph.output[0].type.tensor_type.shape.dim[0].dim_value = 14
    onnx.save(made, path)
    assert runtime.load(path).outputs[0].shape == (7, 4)


def test_inputs_that_the_manifest_does_not_name(artefact, tmp_path):
    text = artefact.manifest.replace(target_input=False).to_json()
    path = with_manifest(artefact.path, tmp_path / "m.onnx", text)
    with pytest.raises(ArtefactError, match=r"needs the input 'target', which its manifest does"):
        runtime.load(path)


def test_flips_in_the_metadata_are_answered_by_us(image_path, tmp_path):
    """Flips of one bit anywhere in the metadata: an error of ours, or an artefact that runs."""
    with open(image_path, "rb") as file:
        data = file.read()
    start, end = data.index(b"probegen.manifest") - 8, len(data)
    rng = np.random.default_rng(1)
    path, x, refused = tmp_path / "flipped.onnx", images(2), 0
    for _ in range(150):
        flipped = bytearray(data)
        flipped[rng.integers(start, end)] ^= 1 << rng.integers(8)
        path.write_bytes(flipped)
        try:
            runtime.load(path, threads=1).run(x)
        except ProbegenError:
            refused += 1
    assert refused > 50
