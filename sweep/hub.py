"""KerasHub's backbones from tiny configurations, without weights."""

from __future__ import annotations

import functools
import importlib.util
import inspect
from collections.abc import Callable, Mapping
from typing import Any

import keras
import numpy as np

from sweep.subject import Subject, absent, stir

_MISSING = "keras-hub is not installed: pip install 'probegen[sweep]'"
_VOCABULARY, _TIME, _IMAGE = 17, 9, (32, 48, 3)

#: What a backbone's argument of this name is given, where its class has no table of its own.
_ARGUMENTS: Mapping[str, Any] = {
    **dict.fromkeys(("vocabulary_size", "vocab_size"), _VOCABULARY),
    **dict.fromkeys(("num_layers", "num_layers_enc", "num_layers_dec"), 2),
    **dict.fromkeys(("hidden_dim", "embedding_dim", "hidden_size"), 16),
    **dict.fromkeys(("num_heads", "num_key_value_heads"), 2),
    **dict.fromkeys(("num_query_heads", "num_attention_heads"), 4),
    **dict.fromkeys(("intermediate_dim", "mlp_dim"), 12),
    **dict.fromkeys(("moe_intermediate_dim", "shared_expert_intermediate_dim"), 6),
    **dict.fromkeys(("shared_expert_intermediate_size",), 6),
    **dict.fromkeys(("head_dim", "head_size"), 4),
    **dict.fromkeys(("num_experts", "top_k"), 2),
    **dict.fromkeys(("dropout", "dropout_rate", "attention_dropout"), 0.0),
    "max_sequence_length": 16,
    "bucket_size": 4,
    "image_shape": _IMAGE,
    "image_size": 16,
    "patch_size": 8,
    "sliding_window": 4,
    "sliding_window_size": 4,
}

_NO_PARTS = "is put together from other models, and needs them given"
_GENERATES = "generates images in steps: no prediction to explain"

#: Backbones that are not built, and why.
REASONS: Mapping[str, str] = {
    "Backbone": "the base class of backbones",
    "FeaturePyramidBackbone": "the base class of backbones with several scales",
    "FluxBackbone": _GENERATES,
    "StableDiffusion3Backbone": _GENERATES,
    **dict.fromkeys(
        (
            *("BLIP2Backbone", "CLIPBackbone", "MetaCLIP2Backbone", "SigLIPBackbone"),
            *("SAMBackbone", "SAM3PromptableConceptBackbone", "DFineBackbone"),
            *("DepthAnythingBackbone", "PARSeqBackbone"),
        ),
        _NO_PARTS,
    ),
}


def subjects() -> list[Subject]:
    """Returns a row for each backbone in `keras_hub.models`."""
    if importlib.util.find_spec("keras_hub") is None:
        return [absent("keras_hub", _MISSING)]
    import keras_hub

    rows = []
    for name in sorted(n for n in dir(keras_hub.models) if n.endswith("Backbone")):
        cls = getattr(keras_hub.models, name)
        if name in REASONS:
            rows.append(absent(name, REASONS[name]))
            continue
        given = CONFIGURATIONS.get(name) or _by_signature(cls)
        missing = [] if callable(given) else _required(cls, given)
        if missing:
            rows.append(absent(name, f"no tiny configuration: needs {', '.join(missing)}"))
        else:
            build = functools.partial(_build, cls, given)
            rows.append(Subject(name, build, samples=samples))
    return rows


def _by_signature(cls: Any) -> dict[str, Any]:
    parameters = inspect.signature(cls.__init__).parameters
    return {n: value for n, value in _ARGUMENTS.items() if n in parameters}


def _required(cls: Any, given: Mapping[str, Any]) -> list[str]:
    parameters = inspect.signature(cls.__init__).parameters.values()
    named = (p for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY))
    return [p.name for p in named if p.default is p.empty and p.name not in ("self", *given)]


def _build(cls: Any, given: Any) -> Any:
    """Returns a backbone with three scores on the mean over its positions."""
    keras.utils.set_random_seed(3)
    backbone = cls(**(given() if callable(given) else given))
    features = [
        o for o in keras.tree.flatten(backbone.output) if keras.backend.is_float_dtype(o.dtype)
    ]
    y = keras.layers.Activation("softsign")(features[0])
    if len(y.shape) > 2:
        y = keras.ops.mean(y, axis=tuple(range(1, len(y.shape) - 1)))
    scores = keras.layers.Dense(3, name="scores")(y)
    model = keras.Model(backbone.inputs, scores, name=cls.__name__.lower())
    stir(model)
    return model


# -- configurations ------------------------------------------------------------------------------


def _mit() -> dict[str, Any]:
    return {
        "layerwise_depths": [1, 1],
        "num_layers": 2,
        "layerwise_num_heads": [1, 2],
        "layerwise_sr_ratios": [2, 1],
        "max_drop_path_rate": 0.0,
        "layerwise_patch_sizes": [7, 3],
        "layerwise_strides": [4, 2],
        "hidden_dims": [8, 12],
        "image_shape": (64, 64, 3),  # it takes squares only
    }


def _segformer() -> dict[str, Any]:
    import keras_hub

    four = {
        **_mit(),
        "layerwise_depths": [1, 1, 1, 1],
        "num_layers": 4,
        "layerwise_num_heads": [1, 1, 2, 2],
        "layerwise_sr_ratios": [4, 2, 1, 1],
        "layerwise_patch_sizes": [7, 3, 3, 3],
        "layerwise_strides": [4, 2, 2, 2],
        "hidden_dims": [8, 12, 16, 20],
    }
    encoder = keras_hub.models.MiTBackbone(**four, name="encoder")
    return {"image_encoder": encoder, "projection_filters": 8}


def _resnet(**changes: Any) -> dict[str, Any]:
    return {
        "input_conv_filters": [64],
        "input_conv_kernel_sizes": [7],
        "stackwise_num_filters": [64, 12],
        "stackwise_num_blocks": [1, 2],
        "stackwise_num_strides": [1, 2],
        "block_type": "basic_block",
        "image_shape": _IMAGE,
        **changes,
    }


def _resnet_of_four() -> Any:
    import keras_hub

    return keras_hub.models.ResNetBackbone(
        **_resnet(
            stackwise_num_filters=[64, 8, 12, 12],
            stackwise_num_blocks=[1, 1, 1, 1],
            stackwise_num_strides=[1, 2, 2, 2],
            block_type="bottleneck_block",
            image_shape=(64, 96, 3),
        )
    )


def _deeplab() -> dict[str, Any]:
    return {
        "image_encoder": _resnet_of_four(),
        "spatial_pyramid_pooling_key": "P5",
        "upsampling_size": (4, 4),
        "dilation_rates": [2, 3],
        "low_level_feature_key": "P3",
        "projection_filters": 8,
        "image_shape": (64, 96, 3),
    }


def _retinanet() -> dict[str, Any]:
    return {
        "image_encoder": _resnet_of_four(),
        "min_level": 3,
        "max_level": 5,
        "use_p5": False,
        "image_shape": (64, 96, 3),
    }


_EFFICIENTNET = {
    "stackwise_width_coefficients": [1.0] * 2,
    "stackwise_depth_coefficients": [1.0] * 2,
    "stackwise_kernel_sizes": [3, 5],
    "stackwise_num_repeats": [1, 2],
    "stackwise_input_filters": [8, 8],
    "stackwise_output_filters": [8, 16],
    "stackwise_expansion_ratios": [1, 4],
    "stackwise_strides": [1, 2],
    "stackwise_squeeze_and_excite_ratios": [0.25, 0.25],
    "stackwise_block_types": ["v1", "v1"],
    "stackwise_force_input_filters": [0, 0],
    "stackwise_nores_option": [False, False],
    "input_shape": _IMAGE,
    "num_features": 20,
}

_SMOLLM = {
    **{k: _ARGUMENTS[k] for k in ("vocabulary_size", "hidden_dim", "intermediate_dim")},
    "num_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "attention_bias": False,
    "attention_dropout": 0.0,
    "rope_layer_enabled_list": [True, False],
    "layer_types": ["full_attention", "full_attention"],
    "mlp_bias": False,
    "layer_norm_epsilon": 1e-5,
    "max_position_embeddings": 16,
    "rope_theta": 10000.0,
    "partial_rotary_factor": 1.0,
}

#: Arguments of classes whose signature alone does not say what fits, or what makes them.
CONFIGURATIONS: Mapping[str, Mapping[str, Any] | Callable[[], Mapping[str, Any]]] = {
    "MiTBackbone": _mit,
    "SegFormerBackbone": _segformer,
    "ResNetBackbone": _resnet,
    "DeepLabV3Backbone": _deeplab,
    "RetinaNetBackbone": _retinanet,
    "EfficientNetBackbone": _EFFICIENTNET,
    "SmolLMBackbone": _SMOLLM,
    "SmolLM3Backbone": _SMOLLM,
    "DenseNetBackbone": {"stackwise_num_repeats": [2, 3], "growth_rate": 4, "image_shape": _IMAGE},
    "VGGBackbone": {
        "stackwise_num_repeats": [1, 2],
        "stackwise_num_filters": [6, 8],
        "image_shape": _IMAGE,
    },
    "XceptionBackbone": {
        "stackwise_conv_filters": [[8, 8], [12, 12], [16, 16]],
        "stackwise_pooling": [True, True, False],
        "image_shape": _IMAGE,
    },
    "SwinTransformerBackbone": {
        "image_shape": (32, 32, 3),
        "embed_dim": 8,
        "depths": [2, 2],
        "num_heads": [2, 2],
        "window_size": 4,
        "drop_path": 0.0,
    },
    "ViTDetBackbone": {
        "hidden_size": 16,
        "num_layers": 2,
        "intermediate_dim": 12,
        "num_heads": 2,
        "global_attention_layer_indices": [1],
        "image_shape": (32, 32, 3),
        "patch_size": 4,
        "num_output_channels": 6,
        "window_size": 3,
    },
    "WhisperBackbone": {
        **{k: _ARGUMENTS[k] for k in ("vocabulary_size", "num_layers", "num_heads", "hidden_dim")},
        "intermediate_dim": 12,
        "num_mels": 5,
        "max_encoder_sequence_length": 16,
        "max_decoder_sequence_length": 12,
    },
    "DINOV2Backbone": {
        **{k: _ARGUMENTS[k] for k in ("patch_size", "num_layers", "hidden_dim", "num_heads")},
        "intermediate_dim": 12,
        "use_mask_token": False,
        "image_shape": (32, 32, 3),
        "position_embedding_shape": (40, 40, 3),
    },
    "DINOV3Backbone": {
        **{k: _ARGUMENTS[k] for k in ("patch_size", "num_layers", "hidden_dim", "num_heads")},
        "intermediate_dim": 12,
        "use_mask_token": False,
        "image_shape": _IMAGE,
    },
    "XLNetBackbone": {
        **{k: _ARGUMENTS[k] for k in ("vocabulary_size", "num_layers", "num_heads", "hidden_dim")},
        "intermediate_dim": 12,
    },
}


def samples(model: Any, count: int = 8) -> dict[str, Any]:
    """Returns inputs as the tokenisers give them: padding at the end, one segment."""
    rng = np.random.default_rng(0)
    feed = {}
    for tensor in model.inputs:
        name = tensor._keras_history.operation.name
        sizes = [count, *(_TIME if s is None else s for s in tensor.shape[1:])]
        if "mask" in name:
            feed[name] = np.ones(sizes, tensor.dtype)
            feed[name][0, -2:] = 0
        elif keras.backend.is_float_dtype(tensor.dtype):
            feed[name] = rng.normal(size=sizes).astype("float32")
        elif "segment" in name:
            feed[name] = rng.integers(0, 2, sizes).astype("int32")
        else:
            feed[name] = rng.integers(1, _VOCABULARY, sizes).astype("int32")
    return feed
