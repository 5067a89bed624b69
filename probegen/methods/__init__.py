"""What can be asked for: one method a file, and the table of them.

Public names, text forms, command-line flags, manifests, plots and the README's table all derive
from the table.
"""

from __future__ import annotations

from probegen.methods.activations import Activations
from probegen.methods.attention import Attention
from probegen.methods.attention_relevance import AttentionRelevance
from probegen.methods.attention_rollout import AttentionRollout
from probegen.methods.base import Probe
from probegen.methods.concept_sensitivity import ConceptSensitivity
from probegen.methods.deconvnet import Deconvnet
from probegen.methods.deep_lift import DeepLIFT
from probegen.methods.deep_shap import DeepSHAP
from probegen.methods.eigen_cam import EigenCAM
from probegen.methods.expected_gradients import ExpectedGradients
from probegen.methods.feature_ablation import FeatureAblation
from probegen.methods.grad_cam import GradCAM
from probegen.methods.grad_cam_plus_plus import GradCAMPlusPlus
from probegen.methods.gradient_x_input import GradientXInput
from probegen.methods.guided_backprop import GuidedBackprop
from probegen.methods.hires_cam import HiResCAM
from probegen.methods.input_gradient import InputGradient
from probegen.methods.integrated_gradients import IntegratedGradients
from probegen.methods.kernel_shap import KernelSHAP
from probegen.methods.layer_cam import LayerCAM
from probegen.methods.lime import LIME
from probegen.methods.lrp import LRP
from probegen.methods.occlusion import Occlusion
from probegen.methods.recipro_cam import ReciproCAM
from probegen.methods.rise import RISE
from probegen.methods.saliency import Saliency
from probegen.methods.score_cam import ScoreCAM
from probegen.methods.smooth_grad import SmoothGrad
from probegen.methods.states import States
from probegen.methods.x_grad_cam import XGradCAM

#: Every method, in the order of the README.
METHODS: tuple[type[Probe], ...] = (
    Activations,
    Attention,
    AttentionRollout,
    AttentionRelevance,
    States,
    InputGradient,
    Saliency,
    GradientXInput,
    GradCAM,
    GradCAMPlusPlus,
    HiResCAM,
    LayerCAM,
    XGradCAM,
    EigenCAM,
    ScoreCAM,
    ReciproCAM,
    ConceptSensitivity,
    IntegratedGradients,
    SmoothGrad,
    ExpectedGradients,
    Occlusion,
    RISE,
    FeatureAblation,
    KernelSHAP,
    LIME,
    GuidedBackprop,
    Deconvnet,
    DeepLIFT,
    DeepSHAP,
    LRP,
)
