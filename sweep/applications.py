"""Every model in `keras.applications`, with random weights on a small legal input."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Mapping, Sequence
from typing import Any

import keras

import probegen as pg
from sweep.subject import Subject, absent

#: The smallest of each family, and what is quick beside them.
SMALL = frozenset(
    {
        *("ConvNeXtTiny", "DenseNet121", "EfficientNetB0", "EfficientNetV2B0", "InceptionV3"),
        *("InceptionResNetV2", "MobileNet", "MobileNetV2", "MobileNetV3Large"),
        *("MobileNetV3Small", "NASNetMobile", "ResNet50", "ResNet50V2", "VGG16", "Xception"),
    }
)

#: Height and width, where the family takes no smaller, or where odd sizes say more.
_SIZES: Mapping[str, tuple[int, int]] = {
    "InceptionV3": (107, 93),
    "InceptionResNetV2": (107, 93),
    "Xception": (83, 97),
    "NASNetMobile": (75, 64),
    "NASNetLarge": (75, 64),
}
_DEFAULT_SIZE = (75, 64)

#: With the weights Keras starts them from, these move by half of their output where an input
#: moves by a millionth, and nothing can be compared. Their residual branches are made small, as
#: training makes them.
_UNSTEADY = frozenset({"EfficientNetV2M", "EfficientNetV2L"})
_BRANCH_END, _BRANCH_SCALE = "project_bn", 0.7


def subjects(large: bool) -> list[Subject]:
    """Returns a row for each constructor; all but the small ones only with `large`."""
    rows = []
    for name in constructors():
        if name in SMALL or large:
            rows.append(Subject(name, functools.partial(_build, name), probes=_probes))
        else:
            rows.append(absent(name, "a larger size of a family above: python -m sweep --large"))
    return rows


def constructors() -> list[str]:
    """Returns the names of the constructors in `keras.applications`."""
    names = [n for n in dir(keras.applications) if not n.startswith("_")]
    return [n for n in names if inspect.isfunction(getattr(keras.applications, n))]


def _build(name: str) -> Any:
    keras.utils.set_random_seed(3)
    size = _SIZES.get(name, _DEFAULT_SIZE)
    make = getattr(keras.applications, name)
    model = make(weights=None, input_shape=(*size, 3), include_top=False, pooling="avg")
    if name in _UNSTEADY:
        for layer in model.layers:
            if layer.name.endswith(_BRANCH_END):
                layer.gamma.assign(keras.ops.full_like(layer.gamma, _BRANCH_SCALE))
    scores = keras.layers.Dense(10, activation="softmax", name="scores")(model.outputs[0])
    return keras.Model(model.inputs, scores, name=name.lower())


def _probes() -> Sequence[Any]:
    """An early activation, saliency, and Grad-CAM at the last layer with positions."""
    return [pg.Activations(5), pg.Saliency(), pg.GradCAM()]
