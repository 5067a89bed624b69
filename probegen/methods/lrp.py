"""Layer-wise relevance propagation (Bach et al. 2015)."""

from __future__ import annotations

import dataclasses
from typing import Any, ClassVar

from probegen.errors import SpecError
from probegen.methods.axes import Axes
from probegen.methods.base import OfInputs, Selector
from probegen.methods.fields import check_choice, checked_number, option
from probegen.methods.tables import LayerRule, Relevance, Table
from probegen.methods.targets import Target

RULES = ("epsilon", "zplus", "alpha_beta", "gamma", "wsquare", "flat", "zbox")
#: Composite -> the rule of dense layers, that of convolutions, and that of the first layer.
COMPOSITES: dict[str, tuple[str, str, str | None]] = {
    "epsilon_plus": ("epsilon", "zplus", None),
    "epsilon_plus_flat": ("epsilon", "zplus", "flat"),
    "epsilon_alpha2_beta1": ("epsilon", "alpha_beta", None),
    "epsilon_alpha2_beta1_flat": ("epsilon", "alpha_beta", "flat"),
    "epsilon_gamma_box": ("epsilon", "gamma", "zbox"),
    "excitation_backprop": ("zplus", "zplus", None),
    "attn_lrp": ("epsilon", "epsilon", None),
}


@dataclasses.dataclass(frozen=True)
class LRP(OfInputs):
    """Layer-wise relevance propagation (Bach et al. 2015, sec. 2.4; Montavon et al. 2019).

    The score is passed back, layer by layer, in shares: what the inputs of a layer get adds up to
    what its output has, but for the shares of biases and of `epsilon`. It starts as the score
    itself (zennit starts with 1 for the target: its figures times the score are these).

    Layers with stored weights follow `rule`, or the rules of `composite`; a bias and a batch
    normalisation behind one are taken into it. Sums and mean poolings give each term its share,
    functions of one tensor pass relevance on as it is, maxima send it to where the largest element
    was, pictures sampled at places that change to the pixels (places have none); norms share it by
    sizes or squares; a quotient of two tensors that change is a product with
    one over the divisor. In recurrent layers (LSTM, GRU, SimpleRNN) what a gate lets through has
    all of a product's relevance and the gate none (Arras et al. 2017), and sums their shares by the
    epsilon rule (those of a state with an epsilon of 1e-4 at least); layer normalisation (its
    deviation a factor that passes relevance on, the rest linear), softmax and products of two
    tensors follow AttnLRP (Achtibat et al. 2024), whatever the rule; softmax and log softmax do
    not conserve relevance. A normalisation in pieces is one where a norm or a deviation of a
    tensor divides the tensor; any other is a product of two tensors. Loops follow these rules in
    each step, whatever their length; what they carry counts as changing from the first step on.
    (Those of Keras' layers over a fixed length of at most 64 are steps one by one, the first from a
    state that does not change.) What else has no rule is refused by name.

    Attributes:
        rule: of all layers: `"epsilon"`, `"zplus"`, `"alpha_beta"` (alpha 2, beta 1), `"gamma"`,
            `"wsquare"`, `"flat"` or `"zbox"`, with zennit's definitions.
        epsilon: what denominators are moved away from 0 by, of the epsilon rule and of sums. The
            other rules' is 1e-6.
        composite: rules by kind of layer, named as in zennit, in the place of `rule`:
            `"epsilon_plus"`, `"epsilon_alpha2_beta1"` (zplus or alpha_beta for convolutions,
            epsilon for the rest), the same with `"_flat"` behind (flat for the first layer),
            `"epsilon_gamma_box"` (zbox for the first convolution, gamma for the others),
            `"excitation_backprop"` (zplus for all), or `"attn_lrp"`, for transformers: epsilon.
        gamma: of the gamma rule.
        low, high: the bounds of the input, of the zbox rule.
        target, wrt, name, output, logits: as for `InputGradient`.
    """

    kind: ClassVar[str] = "lrp"
    title: ClassVar[str] = "Layer-wise relevance"
    help: ClassVar[str] = "Layer-wise relevance propagation."
    unit: ClassVar[str] = "score"
    has_completeness: ClassVar[bool] = True
    equation: ClassVar[str] = (
        "R_i = sum_j z_ij / (z_j + epsilon sign(z_j)) R_j, z_j = sum_i z_ij, layer by layer"
    )
    paper: ClassVar[str] = "Bach et al. 2015, eq. 58"

    rule: str = option("epsilon", "Rule", flag="lrp-rule")
    epsilon: float = 1e-6
    composite: str | None = option(None, "Composite of rules", flag="lrp-composite")
    gamma: float = dataclasses.field(default=0.25, kw_only=True)
    low: float = dataclasses.field(default=0.0, kw_only=True)
    high: float = dataclasses.field(default=1.0, kw_only=True)
    target: Target = "argmax"
    wrt: Selector = "input"
    name: str | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        check_choice("rule", self.rule or "", RULES)
        check_choice("composite", self.composite, tuple(COMPOSITES))
        if self.composite is not None and self.rule != "epsilon":
            raise SpecError("composite= says the rules of all layers; leave rule= out.")
        for field in ("epsilon", "gamma", "low", "high"):
            checked_number(field, getattr(self, field))
        if self.epsilon <= 0 or self.gamma < 0:
            raise SpecError("epsilon= takes a number above 0, gamma= one of at least 0.")
        if self.low > 0 or self.high < 0 or self.low >= self.high:
            raise SpecError(
                f"low= and high= take bounds of the input with 0 between them, got {self.low!r} "
                f"and {self.high!r}."
            )

    def table(self) -> Table:
        """Returns the rules of layers."""
        dense, convolution, first = COMPOSITES.get(self.composite or "", (self.rule,) * 2 + (None,))
        return Relevance(
            self._rule(dense),
            self._rule(convolution),
            None if first is None else self._rule(first),
            first == "zbox",
            float(self.epsilon),
        )

    def _rule(self, kind: str) -> LayerRule:
        epsilon = float(self.epsilon) if kind == "epsilon" else 1e-6
        bounds = (float(self.low), float(self.high)) if kind == "zbox" else (0.0, 1.0)
        gamma = float(self.gamma) if kind == "gamma" else 0.25
        return LayerRule(kind, epsilon, gamma=gamma, low=bounds[0], high=bounds[1])

    def detail(self, axes: Axes) -> dict[str, Any]:
        """Returns the rules."""
        del axes
        return {"rule": self.composite or self.rule, "epsilon": self.epsilon}
