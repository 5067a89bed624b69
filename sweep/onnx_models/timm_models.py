"""timm: small models of different kinds."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping
from typing import Any

from sweep.onnx_models.case import Case
from sweep.onnx_models.torch_export import BATCH, DYNAMO, SCRIPT, Module, image, torch_case

#: Model -> height and width, and arguments that make it accept them.
_CONVOLUTIONS: Mapping[str, tuple[int, Mapping[str, Any]]] = {
    "convnextv2_atto": (64, {}),
    "convnext_atto": (64, {}),
    "efficientnet_lite0": (64, {}),
    "efficientvit_b0": (64, {}),
    "ghostnet_100": (64, {}),
    "hrnet_w18_small": (64, {}),
    "inception_next_atto": (64, {}),
    "lcnet_050": (64, {}),
    "mobileone_s0": (64, {}),
    "mobilenetv4_conv_small": (64, {}),
    "nf_resnet26": (64, {}),
    "regnetx_002": (64, {}),
    "repvgg_a0": (64, {}),
    "resnest14d": (64, {}),
    "resnetv2_50x1_bit": (64, {}),
    "res2net50_14w_8s": (64, {}),
    "seresnet18": (64, {}),
    "skresnet18": (64, {}),
    "dla34": (64, {}),
    "dpn48b": (64, {}),
    "vovnet39a": (64, {}),
    "tf_efficientnetv2_b0": (64, {}),
    "starnet_s1": (64, {}),
    "fastvit_t8": (64, {}),
    "repvit_m0_9": (64, {}),
}
_ATTENTIVE: Mapping[str, tuple[int, Mapping[str, Any]]] = {
    "deit_tiny_patch16_224": (64, {"img_size": 64}),
    "vit_tiny_patch16_224": (64, {"img_size": 64, "depth": 4}),
    "vit_tiny_r_s16_p8_224": (64, {"img_size": 64, "depth": 2}),
    "beit_base_patch16_224": (
        64,
        {"img_size": 64, "depth": 2, "embed_dim": 64, "num_heads": 4},
    ),
    "eva02_tiny_patch14_224": (56, {"img_size": 56, "depth": 2}),
    "swin_tiny_patch4_window7_224": (
        64,
        {"img_size": 64, "window_size": 4, "embed_dim": 48, "depths": (2, 2)},
    ),
    "maxvit_rmlp_pico_rw_256": (64, {"img_size": 64}),
    "coatnet_pico_rw_224": (64, {"img_size": 64}),
    "mobilevit_xxs": (64, {}),
    "mobilevitv2_050": (64, {}),
    "efficientformerv2_s0": (64, {"img_size": 64}),
    "efficientvit_m0": (64, {"img_size": 64}),
    "levit_128s": (64, {"img_size": 64}),
    "pit_ti_224": (64, {"img_size": 64}),
    "poolformer_s12": (64, {}),
    "pvt_v2_b0": (64, {}),
    "tiny_vit_5m_224": (64, {}),
    "mixer_s16_224": (64, {"img_size": 64, "num_blocks": 2}),
    "gmlp_ti16_224": (64, {"img_size": 64, "num_blocks": 2}),
    "xcit_nano_12_p16_224": (64, {"img_size": 64}),
    "coat_lite_tiny": (64, {"img_size": 64}),
    "crossvit_tiny_240": (96, {"img_size": 96}),
    "edgenext_xx_small": (64, {}),
    "focalnet_tiny_srf": (64, {}),
    "cait_xxs24_224": (64, {"img_size": 64, "depth": 2}),
    "visformer_tiny": (64, {"img_size": 64}),
    "davit_tiny": (64, {"embed_dims": (32, 64), "depths": (1, 1), "num_heads": (2, 4)}),
    "mvitv2_tiny": (64, {"img_size": 64}),
}
#: Those that are written by both exporters; of the others each takes turns.
_BOTH = frozenset({"deit_tiny_patch16_224", "convnextv2_atto", "mobilevit_xxs", "levit_128s"})


def cases() -> Iterator[Case]:
    """Yields the models of timm."""
    groups = ((_CONVOLUTIONS, ("Saliency", "GradCAM")), (_ATTENTIVE, ("Saliency", "Attention")))
    number = 0
    for models, probes in groups:
        for name, (size, options) in models.items():
            turn = (DYNAMO, SCRIPT)[number % 2]
            number += 1
            for exporter in (DYNAMO, SCRIPT) if name in _BOTH else (turn,):
                module = Module(
                    functools.partial(_make, name, options),
                    image(size),
                    exporter=exporter,
                    sizes=BATCH,
                    probes=probes,
                )
                yield torch_case(f"timm: {name}", module)


def _make(name: str, options: Mapping[str, Any]) -> Any:
    import timm

    return timm.create_model(name, pretrained=False, num_classes=10, **options)
