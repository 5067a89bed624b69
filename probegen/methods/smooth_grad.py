"""SmoothGrad and its relatives (Smilkov et al. 2017; Hooker et al. 2019; Adebayo et al. 2018)."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import Any, ClassVar

from probegen.artefact.manifest import NEVER_NEGATIVE, SCORE_PER_INPUT, SQUARE_OF
from probegen.errors import SpecError
from probegen.methods.axes import BATCH, Axes, Sizes
from probegen.methods.base import OfInputs, Selector
from probegen.methods.by_scores import ByScores
from probegen.methods.fields import check_choice, check_chunk, check_whole, option
from probegen.methods.lookup import default_method, has_defaults
from probegen.methods.noisy import MEAN, STATISTICS, VARIANCE, Noisy
from probegen.methods.samples import Place
from probegen.methods.tables import Table
from probegen.methods.targets import Target
from probegen.methods.tokens import DOT, EMBEDDING

#: What is computed, by statistic, and where it was published.
_EQUATIONS = {
    "mean": ("mean over draws of f(x + noise)", "Smilkov et al. 2017, sec. 2"),
    "square": ("mean over draws of f(x + noise)^2", "Hooker et al. 2019, sec. 4"),
    "variance": ("variance over draws of f(x + noise)", "Adebayo et al. 2018, sec. 2"),
}


@dataclasses.dataclass(frozen=True)
class SmoothGrad(OfInputs):
    """A method at noisy copies of the input (Smilkov et al. 2017).

    The noise is normal and made in the graph, from the seed and from where an element stands: the
    same artefact gives the same answer each time, and so does every runtime. It does not depend on
    the row in the batch, nor on other samples.

    Attributes:
        samples: noisy copies.
        noise: standard deviation of the noise, as a share of the range (largest minus smallest
            element) of the sample, of each tensor that is explained.
        seed: of the noise.
        statistic: `"mean"`; `"square"`, the mean of the squares (SmoothGrad-squared, Hooker et al.
            2019); or `"variance"` (VarGrad, Adebayo et al. 2018), over the number of copies.
        of_method: what is computed at each copy: a method that explains inputs by gradients, by
            its name in specs (`"input_gradient"`, `"saliency"`, `"integrated_gradients"`,
            `"guided_backprop"`...; not DeepLIFT and LRP, which pass on no slopes) or as a probe
            (`pg.IntegratedGradients(8)`), whose target, `wrt` and name are left out.
        chunk: how many points go through the model at once; as for `IntegratedGradients`.
        target, wrt, name, output, logits: as for `InputGradient`.
    """

    kind: ClassVar[str] = "smooth_grad"
    title: ClassVar[str] = "SmoothGrad"
    help: ClassVar[str] = "A method at noisy copies of the input."
    unit: ClassVar[str] = SCORE_PER_INPUT
    equation: ClassVar[str] = _EQUATIONS[MEAN][0]
    paper: ClassVar[str] = _EQUATIONS[MEAN][1]

    samples: int = option(25, "Noisy copies", flag="draws", at_least=1)
    noise: float = option(0.1, "Noise, as a share of the range,")
    seed: int = option(0, "Seed of the draws", flag="draw-seed", at_least=0)
    statistic: str = option(MEAN, "Statistic (mean, square or variance)")
    of_method: str | OfInputs = option("input_gradient", "Method at each copy")
    target: Target = "argmax"
    wrt: Selector = "input"
    name: str | None = None
    chunk: int | None = dataclasses.field(default=None, kw_only=True)

    def __post_init__(self) -> None:
        super().__post_init__()
        check_choice("statistic", self.statistic or "", STATISTICS)
        check_whole("samples", self.samples, 2 if self.statistic == VARIANCE else 1)
        check_whole("seed", self.seed, 0)
        check_chunk(self.chunk)
        number = isinstance(self.noise, int | float) and not isinstance(self.noise, bool)
        if not number or not math.isfinite(self.noise) or self.noise < 0:
            raise SpecError(
                "noise= takes a share of the input's range that is not negative, such as 0.1, got "
                f"{self.noise!r}."
            )
        method = self._method()
        self._check_per_token(method)
        object.__setattr__(self, "noise", float(self.noise))
        if isinstance(self.of_method, OfInputs) and has_defaults(method):
            object.__setattr__(self, "of_method", method.text_name)

    def _method(self) -> OfInputs:
        """Returns what is computed at each copy.

        Raises:
            SpecError: it is no method of its kind, or says what the probe itself says.
        """
        asked: Any = self.of_method
        method = default_method(asked, "of_method") if isinstance(asked, str) else asked
        by_gradients = isinstance(method, OfInputs) and not isinstance(method, ByScores)
        table = method.table() if isinstance(method, OfInputs) else None
        if not by_gradients or (table is not None and not table.gives_slopes):
            why = "" if table is None else f", which {table.described()}"
            raise SpecError(
                "of_method= takes a method that explains inputs by gradients, such as "
                f"'saliency', 'guided_backprop' or pg.IntegratedGradients(8); got {asked!r}{why}."
            )
        for field in ("target", "wrt", "name", "output", "logits"):
            default = type(self).__dataclass_fields__[field].default
            if getattr(method, field) != default:
                raise SpecError(
                    f"of_method= has {field}={getattr(method, field)!r}; give {field}= to "
                    "pg.SmoothGrad itself."
                )
        return method

    def _check_per_token(self, method: OfInputs) -> None:
        """Refuses numbers per token of what has no vectors, or no sign.

        Raises:
            SpecError: the method at each copy gives one number a token itself, or the statistic
                is of squares, which have no share in a score.
        """
        if self.per_token is None:
            return
        tokens = (BATCH, "time", EMBEDDING)
        if method.result(tokens, (None, None, 1))[0] != tokens:
            raise SpecError(
                f"pg.SmoothGrad(per_token={self.per_token!r}): of_method= gives one number a token "
                "already; leave per_token out, or give it to of_method=, such as "
                "of_method=pg.InputGradient(per_token='norm')."
            )
        if self.per_token == DOT and self.statistic != MEAN:
            raise SpecError(
                f"pg.SmoothGrad(per_token='dot', statistic={self.statistic!r}): squares have no "
                "sign, and times the embedding they are no shares of the score; use "
                "per_token='norm' or statistic='mean'."
            )

    # -- what comes out --------------------------------------------------------------------

    def gradients_at(self) -> Noisy:
        """Returns the noisy copies, and the points of the method around each."""
        method = self._method()
        inner = method.gradients_at()
        return Noisy(method, inner, self.samples, self.noise, self.seed, self.statistic)

    def table(self) -> Table | None:
        """Returns the rules of the method."""
        return self._method().table()

    @property
    def gives_slopes(self) -> bool:
        """True where the method gives slopes."""
        return self._method().gives_slopes

    def result(self, axes: Axes, sizes: Sizes, layer: str = "the layer") -> tuple[Axes, Sizes]:
        """Returns what the method's result has, or one number a token of that."""
        if self.token_axis(axes) is not None:
            return super().result(axes, sizes, layer)
        return self._method().result(axes, sizes, layer)

    def kept_axes(self, axes: Axes, layer: str = "the layer") -> tuple[int, ...]:
        """Returns the axes that the method keeps."""
        return self._method().kept_axes(axes, layer)

    def check_places(self, places: Sequence[tuple[Place, Sizes]]) -> None:
        """Checks the method's fields against what is explained."""
        self._method().check_places(places)

    def described_as_vectors(self, axes: Axes) -> dict[str, Any]:
        """Returns what the manifest says, with the unit and sign of this statistic and method."""
        method = self._method()
        equation, paper = _EQUATIONS[self.statistic]
        facts = {
            **super().described_as_vectors(axes),
            "paper": paper,
            "method": f"{equation} ({paper})",
        }
        of = method.described(axes)
        if self.statistic != MEAN:
            return {**facts, "sign": NEVER_NEGATIVE, "unit": f"{SQUARE_OF}{of['unit']}"}
        return {**facts, "sign": of["sign"], "unit": of["unit"]}

    def detail(self, axes: Axes) -> dict[str, Any]:
        """Returns the fields, and what the method says of itself."""
        method = self._method()
        return {
            "samples": self.samples,
            "noise": self.noise,
            "seed": self.seed,
            "statistic": self.statistic,
            "of_method": {"title": method.title, **method.detail(axes)},
        }
