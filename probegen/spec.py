# ruff: noqa: PLC0414 - what is imported under its own name is given on
"""The probes under their old address; `probegen.methods` is where they live."""

from __future__ import annotations

from probegen.methods.activations import Activations as Activations
from probegen.methods.attention import Attention as Attention
from probegen.methods.base import GradientProbe as GradientProbe
from probegen.methods.base import Probe as Probe
from probegen.methods.base import as_probes as as_probes
from probegen.methods.grad_cam import GradCAM as GradCAM
from probegen.methods.input_gradient import InputGradient as InputGradient
from probegen.methods.integrated_gradients import IntegratedGradients as IntegratedGradients
from probegen.methods.saliency import Saliency as Saliency
from probegen.methods.targets import TARGET_MODES as TARGET_MODES
from probegen.methods.targets import parse_target as parse_target
from probegen.methods.text_forms import from_dict as from_dict
from probegen.methods.text_forms import from_json as from_json
from probegen.methods.text_forms import from_toml as from_toml
from probegen.methods.text_forms import to_dict as to_dict
from probegen.methods.text_forms import to_json as to_json
