"""Quantised models, as onnxruntime.quantization writes them of torch's."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from sweep.onnx_models import language, small, vision
from sweep.onnx_models.case import MODEL, About, Case, load_runs, save_runs

#: Where the floating file lies while the quantised one is made.
_FLOATING = "floating.onnx"
#: In pairs, as the models' own operators are.
_PAIRS, _OPERATORS, _DYNAMIC, _HALF = "QDQ", "QOperator", "dynamic", "float16"
#: How far the gradient of a model in eight bits may be from the floating one's: rounding tips
#: rectifiers, and through the clipped floating values a ResNet18 of random weights is 0.54 away
#: (an LSTM 0.005). It shows gross mistakes alone.
_ROUNDED = 0.7
_MODELS = (
    "torchvision: resnet18 (script, opset 18)",
    "torchvision: mobilenet_v3_small (script, opset 18)",
    "transformers: BERT, eager (script, opset 18)",
    "torch: multi-layer perceptron (script, opset 18)",
    "torch: LSTM (script, opset 18)",
)


def cases() -> Iterator[Case]:
    """Yields quantised models."""
    floating = {c.name: c for m in (vision, language, small) for c in m.cases()}
    for name in _MODELS:
        short = name.partition(": ")[2].partition(" (")[0]
        for way in (_PAIRS, _OPERATORS, _DYNAMIC):
            if "BERT" in name and way == _OPERATORS:
                continue
            write = functools.partial(_write, floating[name], way)
            yield Case(f"quantised: {short}, {way}", write)


def _write(floating: Case, way: str, folder: Path) -> None:
    import onnxruntime
    from onnxruntime.quantization import (
        CalibrationDataReader,
        QuantFormat,
        QuantType,
        quantize_dynamic,
        quantize_static,
    )
    from onnxruntime.quantization.shape_inference import quant_pre_process

    floating.write(folder)
    runs = load_runs(folder)
    given, prepared = str(folder / _FLOATING), str(folder / f"prepared_{_FLOATING}")
    (folder / MODEL).replace(given)
    quant_pre_process(given, prepared, skip_symbolic_shape=True)
    known = {i.name for i in onnxruntime.InferenceSession(prepared).get_inputs()}

    class Samples(CalibrationDataReader):
        def __init__(self) -> None:
            self._rest = iter([{k: v for k, v in r.inputs.items() if k in known} for r in runs])

        def get_next(self) -> Any:
            return next(self._rest, None)

    path = str(folder / MODEL)
    if way == _DYNAMIC:
        quantize_dynamic(prepared, path, weight_type=QuantType.QInt8)
    else:
        quantize_static(
            prepared,
            path,
            Samples(),
            quant_format=QuantFormat[way],
            per_channel=True,
            weight_type=QuantType.QInt8,
        )
    for left in (given, prepared):
        Path(left).unlink()
    about = About.load(folder)
    tool = f"{about.tool}; onnxruntime {onnxruntime.__version__} quantization"
    if way == _PAIRS:
        # torch's gradient is that of the floating model, of which this one is a rounded form.
        dataclasses.replace(about, tool=tool, limit=_ROUNDED).save(folder)
        return
    save_runs(folder, [dataclasses.replace(r, outputs={}, gradients={}) for r in runs])
    dataclasses.replace(about, tool=tool).save(folder)
