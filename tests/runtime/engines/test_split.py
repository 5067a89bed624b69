"""Two graphs as one model: which of them runs, when the second is opened, by which engine."""

import shutil
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from probegen import runtime
from probegen.errors import ArtefactError
from tests.runtime.support import images, save_zoo


@pytest.fixture(scope="module")
def split_path(tmp_path_factory):
    return save_zoo(tmp_path_factory.mktemp("split") / "zoo.onnx", gate="split")


@pytest.mark.parametrize("engine", ["onnxruntime", "openvino"])
def test_the_numbers_of_a_gate(split_path, artefact, engine):
    art = runtime.load(split_path, engine=engine)
    for batch in (1, 3):
        x = images(batch)
        ours, theirs = art.run(x, target=2), artefact.run(x, target=2)
        assert list(ours) == list(theirs) == ["animal", "input_gradient/image", "saliency/image"]
        for name in ours:
            np.testing.assert_allclose(ours[name].array, theirs[name].array, rtol=1e-5, atol=1e-6)
        off = art.run(x, explain=False)
        assert list(off) == ["animal"]
        np.testing.assert_allclose(off["animal"].array, theirs["animal"].array, rtol=1e-5)
    assert engine in art.engine.name.lower()


def test_the_second_graph_is_opened_once_by_the_first_request_that_explains(
    split_path, tmp_path, monkeypatch
):
    for file in ("zoo.onnx", "zoo.onnx.data", "zoo.explain.onnx"):
        shutil.copy(split_path.replace("zoo.onnx", file), tmp_path)
    opened = []
    real = runtime.load.__globals__["open_with"]
    monkeypatch.setitem(
        runtime.load.__globals__,
        "open_with",
        lambda name, path, *more: opened.append(path.name) or real(name, path, *more),
    )
    art = runtime.load(tmp_path / "zoo.onnx")
    art.run(images(2), explain=False)
    art.run_batched(images(5), 2, explain=False)
    assert opened == ["zoo.onnx"]
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda _: art.run(images(2), target=1), range(8)))
    assert opened == ["zoo.onnx", "zoo.explain.onnx"]
    for one in found:
        np.testing.assert_array_equal(one["saliency/image"].array, found[0]["saliency/image"].array)


def test_a_second_graph_that_goes_after_loading(split_path, tmp_path):
    for file in ("zoo.onnx", "zoo.onnx.data", "zoo.explain.onnx"):
        shutil.copy(split_path.replace("zoo.onnx", file), tmp_path)
    art = runtime.load(tmp_path / "zoo.onnx")
    (tmp_path / "zoo.explain.onnx").unlink()
    with pytest.raises(ArtefactError, match="there is no such file beside it"):
        art.run(images(1))


def test_a_symbolic_link_to_it(split_path, tmp_path):
    (tmp_path / "link.onnx").symlink_to(split_path)
    art = runtime.load(tmp_path / "link.onnx")
    assert art.run(images(1), target=0)["saliency/image"].shape == (1, 5, 7)
