"""A small causal language model of KerasHub, its tokenizer and preprocessor."""

import keras
import keras_hub
import numpy as np
from keras_hub.src.tokenizers.byte_pair_tokenizer import bytes_to_unicode

MERGES = ["t h", "th e", "\u0120 a", "c a", "ca t", "\u0120 the", "i n", "\u00c3 \u00a9"]
LONGEST = 24


def byte_pairs():
    """A vocabulary of all bytes and some pairs, and the merges."""
    signs = sorted(bytes_to_unicode()[1])
    tokens = [*signs, *(m.replace(" ", "") for m in MERGES), "<|endoftext|>", "<s>"]
    return {token: place for place, token in enumerate(dict.fromkeys(tokens))}, MERGES


def spread(model, scale=0.4):
    """Gives a model weights at which its next tokens differ."""
    rng = np.random.default_rng(5)
    for weight in model.weights:
        weight.assign(weight + rng.normal(size=weight.shape, scale=scale).astype("float32"))
    return model


def written_by(model, text, length):
    """The ids that KerasHub's own `generate` writes, `length` of them with those of the prompt."""
    fed = model.preprocessor.generate_preprocess([text], sequence_length=length)
    preprocessor, model.preprocessor = model.preprocessor, None
    try:
        made = model.generate({k: np.asarray(v) for k, v in fed.items()}, stop_token_ids=None)
    finally:
        model.preprocessor = preprocessor
    return np.asarray(made["token_ids"])[0].tolist()


def gpt2():
    """GPT-2 of two layers, with a spare row in its table of tokens."""
    keras.utils.set_random_seed(1)
    vocabulary, merges = byte_pairs()
    tokenizer = keras_hub.models.GPT2Tokenizer(vocabulary, merges)
    preprocessor = keras_hub.models.GPT2CausalLMPreprocessor(tokenizer, sequence_length=16)
    backbone = keras_hub.models.GPT2Backbone(
        vocabulary_size=len(vocabulary) + 1,
        num_layers=2,
        num_heads=2,
        hidden_dim=8,
        intermediate_dim=12,
        max_sequence_length=LONGEST,
    )
    model = keras_hub.models.GPT2CausalLM(backbone, preprocessor=preprocessor)
    model.compile(sampler="greedy")
    spread(model)
    table = backbone.token_embedding.embeddings
    rows = np.asarray(keras.ops.convert_to_numpy(table)).copy()
    rows[-1] = 0.0  # no token that is written
    table.assign(rows)
    return model
