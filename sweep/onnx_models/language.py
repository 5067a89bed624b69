"""Hugging Face transformers of small configurations."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from sweep.onnx_models.case import Case, Target
from sweep.onnx_models.torch_export import Input, Module, variants

_WORDS = 50
_SIZES = {"batch": (2, 3), "time": (9, 12)}
_TOKENS = Input("input_ids", ("batch", "time"), below=_WORDS)
_MASK = Input("attention_mask", ("batch", "time"), kind="mask")
_SMALL = {
    "vocab_size": _WORDS,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 48,
    "max_position_embeddings": 40,
}
#: Attention written out, or as torch's own fused function.
_EAGER, _FUSED = "eager", "sdpa"


def cases() -> Iterator[Case]:
    """Yields the models of transformers, with attention written out and fused."""
    for attention in (_EAGER, _FUSED):
        for name, (make, target) in _TEXT.items():
            module = Module(
                _built(make, attention),
                (_TOKENS, _MASK),
                target=target,
                sizes=_SIZES,
                pick=lambda out: out[0],
                named=True,
                probes=("Saliency", "Attention"),
                embedding=_tables,
            )
            yield from variants(f"transformers: {name}, {attention}", module)
    for name, (make, inputs, sizes, target, probes) in _OTHERS.items():
        module = Module(
            _built(make, _EAGER),
            inputs,
            target=target,
            sizes=sizes,
            pick=lambda out: out[0],
            named=True,
            probes=probes,
        )
        yield from variants(f"transformers: {name}", module)


def _tables(model: Any) -> list[Any]:
    """Returns the tables of words, of which a model may hold several that share their weights."""
    import torch

    kinds = (m for m in model.modules() if isinstance(m, torch.nn.Embedding))
    return [m for m in kinds if m.num_embeddings == _WORDS]


def _built(make: Callable[[Any, str], Any], attention: str) -> Callable[[], Any]:
    def build() -> Any:
        import transformers

        return make(transformers, attention)

    return build


def _bert(hf: Any, attention: str) -> Any:
    config = hf.BertConfig(**_SMALL, num_labels=5, attn_implementation=attention)
    return hf.BertForSequenceClassification(config)


def _roberta(hf: Any, attention: str) -> Any:
    config = hf.RobertaConfig(**_SMALL, num_labels=5, attn_implementation=attention)
    return hf.RobertaForSequenceClassification(config)


def _distilbert(hf: Any, attention: str) -> Any:
    config = hf.DistilBertConfig(
        vocab_size=_WORDS,
        dim=32,
        n_layers=2,
        n_heads=4,
        hidden_dim=48,
        max_position_embeddings=40,
        num_labels=5,
        attn_implementation=attention,
    )
    return hf.DistilBertForSequenceClassification(config)


def _gpt2(hf: Any, attention: str) -> Any:
    config = hf.GPT2Config(
        vocab_size=_WORDS,
        n_embd=32,
        n_layer=2,
        n_head=4,
        n_positions=40,
        use_cache=False,
        attn_implementation=attention,
    )
    return hf.GPT2LMHeadModel(config)


def _llama(hf: Any, attention: str) -> Any:
    config = hf.LlamaConfig(
        **_SMALL, num_key_value_heads=2, use_cache=False, attn_implementation=attention
    )
    return hf.LlamaForCausalLM(config)


def _t5(hf: Any, attention: str) -> Any:
    del attention  # it has one way alone
    config = hf.T5Config(
        vocab_size=_WORDS, d_model=32, d_kv=8, d_ff=48, num_layers=2, num_heads=4, use_cache=False
    )
    return hf.T5EncoderModel(config)


def _electra(hf: Any, attention: str) -> Any:
    config = hf.ElectraConfig(
        **_SMALL, embedding_size=24, num_labels=5, attn_implementation=attention
    )
    return hf.ElectraForTokenClassification(config)


def _albert(hf: Any, attention: str) -> Any:
    config = hf.AlbertConfig(
        **_SMALL, embedding_size=24, num_labels=5, attn_implementation=attention
    )
    return hf.AlbertForSequenceClassification(config)


#: Text model -> how it is made, and what is explained: a class, or a token's score.
_TEXT: Mapping[str, tuple[Callable[[Any, str], Any], Target]] = {
    "BERT": (_bert, 3),
    "RoBERTa": (_roberta, 3),
    "DistilBERT": (_distilbert, 3),
    "ALBERT": (_albert, 3),
    "ELECTRA tokens": (_electra, (4, 3)),
    "GPT-2": (_gpt2, (4, 3)),
    "Llama": (_llama, (4, 3)),
    "T5 encoder": (_t5, (4, 3)),
}


def _vit(hf: Any, attention: str) -> Any:
    config = hf.ViTConfig(
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=48,
        image_size=64,
        patch_size=16,
        num_labels=5,
        attn_implementation=attention,
    )
    return hf.ViTForImageClassification(config)


def _whisper(hf: Any, attention: str) -> Any:
    config = hf.WhisperConfig(
        d_model=32,
        encoder_layers=2,
        encoder_attention_heads=4,
        encoder_ffn_dim=48,
        num_mel_bins=12,
        max_source_positions=20,
        decoder_layers=1,
        decoder_attention_heads=4,
        attn_implementation=attention,
    )
    return hf.WhisperModel(config).get_encoder()


def _wav2vec(hf: Any, attention: str) -> Any:
    config = hf.Wav2Vec2Config(
        vocab_size=_WORDS,
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=48,
        conv_dim=(16, 16),
        conv_stride=(5, 2),
        conv_kernel=(10, 3),
        num_conv_pos_embeddings=16,
        num_conv_pos_embedding_groups=4,
        attn_implementation=attention,
    )
    return hf.Wav2Vec2ForCTC(config)


def _segformer(hf: Any, attention: str) -> Any:
    del attention
    config = hf.SegformerConfig(
        num_encoder_blocks=2,
        depths=(1, 1),
        sr_ratios=(4, 1),
        hidden_sizes=(16, 32),
        patch_sizes=(7, 3),
        strides=(4, 2),
        num_attention_heads=(1, 2),
        mlp_ratios=(2, 2),
        decoder_hidden_size=24,
        num_labels=5,
    )
    return hf.SegformerForSemanticSegmentation(config)


_BATCH = {"batch": (2, 3)}
_ATTENTION = ("Saliency", "Attention")
#: Other model -> how it is made, inputs, open sizes, target, probes.
_OTHERS: Mapping[str, tuple[Any, tuple[Input, ...], Any, Target, tuple[str, ...]]] = {
    "ViT": (_vit, (Input("pixel_values", ("batch", 3, 64, 64)),), _BATCH, 3, _ATTENTION),
    "Whisper encoder": (
        _whisper,
        (Input("input_features", ("batch", 12, 40)),),
        _BATCH,
        (4, 3),
        _ATTENTION,
    ),
    "wav2vec 2.0": (
        _wav2vec,
        (Input("input_values", ("batch", "time")),),
        {"batch": (2, 3), "time": (400, 480)},
        (4, 3),
        _ATTENTION,
    ),
    "SegFormer": (
        _segformer,
        (Input("pixel_values", ("batch", 3, 64, 64)),),
        _BATCH,
        (3, 5, 6),
        _ATTENTION,
    ),
}
