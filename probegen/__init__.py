"""probegen: a compiler for explainable models.

It rewrites a copy of the computation of a Keras 3 model or an ONNX file so that chosen
activations, attention weights and attributions are real outputs beside the prediction, and writes
it as ONNX or SavedModel. Importing this package loads neither TensorFlow nor Keras nor onnx; the
compiler's names load what they need, when they are first used.

No module is called like a public function: importing it would hide the function.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from probegen import errors, methods, text
from probegen._keras_hook import register_with_keras
from probegen._version import __version__ as __version__

if TYPE_CHECKING:  # for those who check types; at run time the table of methods says which exist
    from probegen.artefact.preprocessing import ImageInput as ImageInput
    from probegen.compiler import Exported as Exported
    from probegen.compiler import compile as compile
    from probegen.compiler import export as export
    from probegen.differentiation import Differentiated as Differentiated
    from probegen.differentiation import differentiate as differentiate
    from probegen.errors import ProbegenError as ProbegenError
    from probegen.inspection import inspect as inspect
    from probegen.litert import to_litert as to_litert
    from probegen.methods.activations import Activations as Activations
    from probegen.methods.attention import Attention as Attention
    from probegen.methods.attention_relevance import AttentionRelevance as AttentionRelevance
    from probegen.methods.attention_rollout import AttentionRollout as AttentionRollout
    from probegen.methods.concept_sensitivity import ConceptSensitivity as ConceptSensitivity
    from probegen.methods.deconvnet import Deconvnet as Deconvnet
    from probegen.methods.deep_lift import DeepLIFT as DeepLIFT
    from probegen.methods.deep_shap import DeepSHAP as DeepSHAP
    from probegen.methods.eigen_cam import EigenCAM as EigenCAM
    from probegen.methods.expected_gradients import ExpectedGradients as ExpectedGradients
    from probegen.methods.feature_ablation import FeatureAblation as FeatureAblation
    from probegen.methods.grad_cam import GradCAM as GradCAM
    from probegen.methods.grad_cam_plus_plus import GradCAMPlusPlus as GradCAMPlusPlus
    from probegen.methods.gradient_x_input import GradientXInput as GradientXInput
    from probegen.methods.guided_backprop import GuidedBackprop as GuidedBackprop
    from probegen.methods.hires_cam import HiResCAM as HiResCAM
    from probegen.methods.input_gradient import InputGradient as InputGradient
    from probegen.methods.integrated_gradients import IntegratedGradients as IntegratedGradients
    from probegen.methods.kernel_shap import KernelSHAP as KernelSHAP
    from probegen.methods.layer_cam import LayerCAM as LayerCAM
    from probegen.methods.lime import LIME as LIME
    from probegen.methods.lrp import LRP as LRP
    from probegen.methods.occlusion import Occlusion as Occlusion
    from probegen.methods.recipro_cam import ReciproCAM as ReciproCAM
    from probegen.methods.rise import RISE as RISE
    from probegen.methods.saliency import Saliency as Saliency
    from probegen.methods.score_cam import ScoreCAM as ScoreCAM
    from probegen.methods.smooth_grad import SmoothGrad as SmoothGrad
    from probegen.methods.states import States as States
    from probegen.methods.targets import contrast as contrast
    from probegen.methods.x_grad_cam import XGradCAM as XGradCAM
    from probegen.parity import verify as verify
    from probegen.quantisation import Quantised as Quantised
    from probegen.quantisation import quantise as quantise
    from probegen.sources.keras.attention import register_attention as register_attention
    from probegen.sources.keras.instrumented import instrument as instrument
    from probegen.vertex import from_vertex as from_vertex

#: Where the functions and classes live that are no methods.
_HOMES = {
    "Differentiated": "probegen.differentiation",
    "Exported": "probegen.compiler",
    "ImageInput": "probegen.artefact.preprocessing",
    "ProbegenError": "probegen.errors",
    "Quantised": "probegen.quantisation",
    "compile": "probegen.compiler",
    "contrast": "probegen.methods.targets",
    "differentiate": "probegen.differentiation",
    "export": "probegen.compiler",
    "from_vertex": "probegen.vertex",
    "inspect": "probegen.inspection",
    "instrument": "probegen.sources.keras.instrumented",
    "quantise": "probegen.quantisation",
    "register_attention": "probegen.sources.keras.attention",
    "to_litert": "probegen.litert",
    "verify": "probegen.parity",
}

#: What those import that run artefacts do not need.
_COMPILER = frozenset({"keras", "onnx", "onnx_ir", "tensorflow", "tf2onnx"})

__all__ = [*_HOMES, *(m.__name__ for m in methods.METHODS)]  # noqa: PLE0604 - strings, of a table


def __getattr__(name: str) -> Any:
    for method in methods.METHODS:
        if method.__name__ == name:
            return method
    if name not in _HOMES:
        raise AttributeError(f"module 'probegen' has no attribute {name!r}")
    try:
        found = getattr(importlib.import_module(_HOMES[name]), name)
    except ModuleNotFoundError as error:
        missing = error.name or ""
        if missing.partition(".")[0] not in _COMPILER:
            raise
        needed = text.extra_for(missing)
        raise errors.SourceError(
            f"pg.{name} needs {missing}, which is not installed: pip install {needed}."
        ) from error
    globals()[name] = found
    return found


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])


register_with_keras()
