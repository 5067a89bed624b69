"""Attention of KerasHub's families: each layer's weights, which the prediction follows from."""

import keras
import keras_hub
import numpy as np
import pytest

import probegen as pg
from probegen import runtime
from sweep import hub
from tests.causal import spread

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


def test_heads_in_groups_that_share_keys(tmp_path):
    """Gemma: the groups have an axis; all heads are heads, for reductions and for a rollout."""
    keras.utils.set_random_seed(0)
    backbone = keras_hub.models.GemmaBackbone(
        vocabulary_size=40, num_layers=2, num_query_heads=6, num_key_value_heads=2, hidden_dim=12,
        intermediate_dim=10, head_dim=4,
    )  # fmt: skip
    model = spread(keras_hub.models.GemmaCausalLM(backbone, preprocessor=None), 0.2)
    probes = [pg.Attention(), pg.Attention(reduce="heads", name="mean"), pg.AttentionRollout()]
    pg.compile(model, probes, tmp_path / "m.onnx", verify=False)
    ids = np.random.default_rng(0).integers(0, 40, (2, 5))
    found = runtime.load(tmp_path / "m.onnx").run({"token_ids": ids, "padding_mask": ids >= 0})
    rolled = np.eye(5)
    for layer in range(2):
        name = f"gemma_backbone/decoder_block_{layer}/attention"
        whole = found[f"attention/{name}"]
        assert whole.axes == ("batch", "head_0", "head_1", "query", "key")
        assert whole.shape == (2, 2, 3, 5, 5)
        mean = whole.array.mean((1, 2))
        np.testing.assert_allclose(found[f"mean/{name}"].array, mean, rtol=1e-5, atol=1e-7)
        rolled = (0.5 * np.eye(5) + 0.5 * mean) @ rolled
    rollout = next(r for n, r in found.items() if n.startswith("attention_rollout/"))
    assert rollout.axes == ("batch", "query", "key")
    np.testing.assert_allclose(rollout.array, rolled, rtol=1e-4, atol=1e-6)


def test_a_rollout_over_patches_of_open_batch(tmp_path):
    """ViT reshapes patches to the batch's size as it is told, and to as many as there are."""
    keras.utils.set_random_seed(0)
    backbone = keras_hub.models.ViTBackbone(
        image_shape=(8, 12, 3), patch_size=4, num_layers=2, num_heads=2, hidden_dim=10, mlp_dim=6
    )
    spread(backbone, 0.3)
    probes = [pg.Attention(reduce="heads"), pg.AttentionRollout(), pg.AttentionRelevance(target=3)]
    pg.compile(backbone, probes, tmp_path / "m.onnx")  # relevance against the tape
    found = runtime.load(tmp_path / "m.onnx").run(
        np.random.default_rng(1).standard_normal((3, 8, 12, 3))
    )
    rolled = np.eye(7)
    for layer in (1, 2):
        mean = found[f"attention/vit_encoder/transformer_block_{layer}/mha"].array
        rolled = (0.5 * np.eye(7) + 0.5 * mean) @ rolled
    rollout = next(r for n, r in found.items() if n.startswith("attention_rollout/"))
    np.testing.assert_allclose(rollout.array, rolled, rtol=1e-4, atol=1e-6)
