"""Attention of KerasHub's families: each layer's weights, which the prediction follows from."""

import numpy as np
import pytest

import probegen as pg
from sweep import hub

#: Family -> how many weights a small one applies, and of which axes.
FAMILIES = {
    "BertBackbone": (2, ("head", "query", "key")),
    "DebertaV3Backbone": (2, ("head", "query", "key")),  # disentangled
    "GPTNeoXBackbone": (2, ("head", "query", "key")),  # rotary
    "LlamaBackbone": (2, ("head", "query", "key")),  # keys that several heads share
    "T5Backbone": (6, ("head", "query", "key")),  # relative, and from decoder to encoder
    "ViTBackbone": (2, ("head", "query", "key")),
    "SwinTransformerBackbone": (4, ("window_0", "window_1", "head", "query", "key")),
}


@pytest.mark.parametrize("family", FAMILIES)
def test_the_prediction_follows_from_the_weights(family, tmp_path):
    pytest.importorskip("keras_hub")
    count, axes = FAMILIES[family]
    (subject,) = [s for s in hub.subjects() if s.name == family]
    model = subject.build()
    report = pg.compile(model, pg.Attention(), tmp_path / "m.onnx").report
    assert report.passed
    art = pg.runtime.load(tmp_path / "m.onnx")
    result = art.run(hub.samples(model, 3))
    assert len(result.explanations) == count
    assert result[next(iter(result.explanations))].axes == ("batch", *axes)
    for name, record in result.explanations.items():
        # Where one window is left it has no axis.
        assert record.axes in (("batch", *axes), ("batch", *axes[-3:]))
        assert "these weights in place" in report[name].witness
        np.testing.assert_allclose(record.array.sum(-1), 1, rtol=1e-4)
