"""All cases, in the order of the table."""

from __future__ import annotations

import functools

from sweep.onnx_models import (
    estimators,
    keras_models,
    language,
    quantised,
    shipped,
    small,
    timm_models,
    vision,
)
from sweep.onnx_models.case import Case


@functools.cache
def cases() -> tuple[Case, ...]:
    """Returns every case.

    Raises:
        ValueError: two have one name.
    """
    modules = (
        *(vision, timm_models, language, small),
        *(keras_models, estimators, shipped, quantised),
    )
    found = [case for module in modules for case in module.cases()]
    names = [case.name for case in found]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ValueError(f"two cases are called {', '.join(twice)}")
    return tuple(found)
