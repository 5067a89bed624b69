"""torchvision: classifiers, segmentation, detection, video."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Iterator
from typing import Any

from sweep.onnx_models.case import Case
from sweep.onnx_models.torch_export import (
    BATCH,
    DYNAMO,
    OPEN_IMAGE,
    SCRIPT,
    Input,
    Module,
    image,
    open_image,
    steady,
    torch_case,
    variants,
)

_CAM = ("Saliency", "GradCAM")
_ATTENTION = ("Saliency", "Attention")
#: What torchvision reaches in 2026 and what stood in many files before.
_OPSETS = (11, 13, 17, 20)


def cases() -> Iterator[Case]:
    """Yields the models of torchvision."""
    for name in ("resnet18", "mobilenet_v3_small", "efficientnet_b0", "convnext_tiny"):
        yield from variants(f"torchvision: {name}", _classifier(name))
    for name in ("resnet50", "densenet121", "shufflenet_v2_x0_5", "squeezenet1_1", "mnasnet0_5"):
        yield torch_case(f"torchvision: {name}", _classifier(name, size=96))
    for name in ("regnet_y_400mf", "googlenet", "mobilenet_v2"):
        yield torch_case(f"torchvision: {name}", _classifier(name, exporter=SCRIPT, size=96))
    # TorchScript's exporter takes no average over 6 rows of 2.
    yield torch_case("torchvision: alexnet", _classifier("alexnet", size=96))
    yield torch_case("torchvision: alexnet", _classifier("alexnet", SCRIPT, size=224))
    for opset in _OPSETS:
        exporter = SCRIPT if opset < 18 else DYNAMO
        yield torch_case("torchvision: resnet18", _classifier("resnet18", exporter, opset))
        yield torch_case(
            "torchvision: mobilenet_v3_small", _classifier("mobilenet_v3_small", exporter, opset)
        )
    for name in ("resnet18", "mobilenet_v3_small"):
        free = dataclasses.replace(_classifier(name), inputs=open_image(), sizes=OPEN_IMAGE)
        yield from variants(f"torchvision: {name}, open image size", free)
        fixed = dataclasses.replace(_classifier(name), inputs=image(64, batch=1), sizes={})
        yield from variants(f"torchvision: {name}, fixed batch", fixed)
    yield torch_case(
        "torchvision: resnet18, weights in a second file",
        dataclasses.replace(_classifier("resnet18"), options={"external_data": True}),
    )
    for name in ("vit_b_16", "swin_t", "swin_v2_t", "maxvit_t"):
        yield from variants(f"torchvision: {name}", _transformer(name), limit=600)
    yield from _segmentation()
    yield from _detection()
    yield from _video()


def _classifier(
    name: str, exporter: str = DYNAMO, opset: int | None = 18, size: int = 64
) -> Module:
    def make() -> Any:
        import torchvision

        extra = {"init_weights": True, "aux_logits": False} if name == "googlenet" else {}
        return getattr(torchvision.models, name)(weights=None, num_classes=10, **extra)

    return Module(make, image(size), exporter=exporter, opset=opset, sizes=BATCH, probes=_CAM)


def _transformer(name: str) -> Module:
    def make() -> Any:
        import torchvision

        if name == "vit_b_16":  # of fewer layers: each is the same
            return torchvision.models.VisionTransformer(
                image_size=64,
                patch_size=16,
                num_layers=3,
                num_heads=4,
                hidden_dim=64,
                mlp_dim=128,
                num_classes=10,
            )
        if name == "maxvit_t":
            return torchvision.models.MaxVit(
                input_size=(64, 64),
                stem_channels=16,
                partition_size=2,
                block_channels=[16, 32],
                block_layers=[1, 1],
                head_dim=8,
                stochastic_depth_prob=0.0,
                num_classes=10,
            )
        return getattr(torchvision.models, name)(weights=None, num_classes=10)

    return Module(make, image(64), sizes=BATCH, probes=_ATTENTION)


def _segmentation() -> Iterator[Case]:
    def make(name: str) -> Any:
        import torchvision

        found = getattr(torchvision.models.segmentation, name)
        return found(weights=None, weights_backbone=None, num_classes=5)

    for name in ("lraspp_mobilenet_v3_large", "deeplabv3_mobilenet_v3_large", "fcn_resnet50"):
        module = Module(
            functools.partial(make, name),
            image(64),
            target=(3, 20, 30),
            sizes=BATCH,
            pick=lambda out: out["out"],
            outputs=("out",),
            probes=_CAM,
        )
        yield from variants(f"torchvision: {name}", module)
    free = Module(
        functools.partial(make, "lraspp_mobilenet_v3_large"),
        open_image(),
        target=(3, None, None),
        sizes=OPEN_IMAGE,
        pick=lambda out: out["out"],
        outputs=("out",),
        probes=_CAM,
    )
    yield from variants("torchvision: lraspp_mobilenet_v3_large, open image size", free)


def _detection() -> Iterator[Case]:
    for name in ("ssdlite320_mobilenet_v3_large", "retinanet_resnet50_fpn"):
        heads = Module(
            functools.partial(_heads_of, name),
            image(96),
            target=(40, 1),
            sizes=BATCH,
            outputs=("cls_logits", "bbox_regression"),
            pick=lambda out: (out["cls_logits"], out["bbox_regression"]),
            probes=_CAM,
        )
        yield from variants(f"torchvision: {name}, without boxes", heads, limit=600)
    for name in (
        "ssdlite320_mobilenet_v3_large",
        "retinanet_resnet50_fpn",
        "fasterrcnn_mobilenet_v3_large_fpn",
    ):
        whole = Module(
            functools.partial(_detector, name),
            (Input("image", (3, 96, 96)),),
            target=(0,),
            pick=lambda out: (out["scores"], out["boxes"], out["labels"]),
            outputs=("scores", "boxes", "labels"),
            exporter=SCRIPT,
            batched=False,
            probes=("Saliency",),
            # torchvision's roi_align gives boxes no gradient; what a score is moves with them.
            autograd="rcnn" not in name,
        )
        yield from variants(f"torchvision: {name}, with boxes", whole, limit=600)


def _build(name: str) -> Any:
    import torchvision

    extra: dict[str, Any] = {} if "ssd" in name else {"min_size": 96, "max_size": 96}
    kind = "box_" if name.startswith("faster") else ""
    extra |= {f"{kind}score_thresh": 0.0, f"{kind}detections_per_img": 5}
    found = getattr(torchvision.models.detection, name)
    model = found(weights=None, weights_backbone=None, num_classes=4, **extra)
    if "ssd" in name:
        model.transform.min_size, model.transform.max_size = (96,), 96
        model.transform.fixed_size = (96, 96)
    return model


def _heads_of(name: str) -> Any:
    return _heads(_build(name))


def _heads(detector: Any) -> Any:
    import torch

    class Heads(torch.nn.Module):
        def __init__(self, detector: Any) -> None:
            super().__init__()
            self.backbone = detector.backbone
            self.head = detector.rpn.head if hasattr(detector, "rpn") else detector.head

        def forward(self, x: Any) -> Any:
            return self.head(list(self.backbone(x).values()))

    return Heads(detector)


def _detector(name: str) -> Any:
    import torch

    class One(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.detector = _build(name)
            # Statistics need a batch, and the detector takes one image.
            steady(_heads(self.detector), [torch.randn(2, 3, 96, 96)])

        def forward(self, x: Any) -> Any:
            return self.detector([x])[0]

    return One()


def _video() -> Iterator[Case]:
    def make() -> Any:
        import torchvision

        return torchvision.models.video.r3d_18(weights=None, num_classes=10)

    clip = (Input("clip", ("batch", 3, 4, 32, 32)),)
    yield torch_case(
        "torchvision: r3d_18", Module(make, clip, sizes=BATCH, probes=_CAM, exporter=SCRIPT)
    )
