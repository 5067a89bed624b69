"""The figures of a verification: one `Parity` an output, and the report that holds them."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from probegen.artefact.comparison import Comparison
from probegen.artefact.manifest import finite

REPORT_COLUMNS = (
    "output", "max abs", "max rel", "L2 rel", "worst", "min cosine", "not finite", "verdict",
)  # fmt: skip

#: What an output was compared with.
SOURCE_MODEL = "source model"
GRADIENTS = "the reference's gradients"
DIFFERENCES = "differences of the source model's scores"
#: What whole attention weights are compared with beside that.
IN_PLACE = "its prediction with these weights in place"
SCORES = "the source model's scores at changed inputs"


@dataclasses.dataclass(frozen=True)
class Parity:
    """How one output of an artefact agrees with the source model.

    Attributes:
        kind: the output's kind.
        max_abs: largest absolute difference over all samples.
        max_rel: largest difference of a sample, relative to the largest value of that sample or
            of the ordinary samples, whichever is larger.
        l2_rel: `|a-b| / |b|` in the Euclidean norm, median over the ordinary samples.
        cosine: smallest cosine of a sample's output with the reference, where there is more in
            it than rounding.
        limit: what `max_rel` (for gradients `l2_rel`) was allowed.
        passed: whether every sample holds its limit and, for gradients, its direction.
        worst: for gradients the largest `|a-b| / |b|` of a sample, otherwise `max_rel`.
        worst_limit: what that sample was allowed.
        floor: absolute difference that counts as rounding, whatever the value (for gradients,
            of the Euclidean norm).
        non_finite: elements where the reference is NaN or infinite.
        below_floor: samples whose reference is not larger than `floor`: they say little.
        undetermined: samples where the reference itself moves so much under rounding noise
            that no artefact can be held to it.
        beyond: samples further off than `limit`, where only the median is held to it (of a
            quantised artefact).
        sample: where the worst sample stands.
        witness: what the output was compared with.
    """

    kind: str
    max_abs: float
    max_rel: float
    l2_rel: float
    cosine: float
    limit: float
    passed: bool
    worst: float = 0.0
    worst_limit: float = 0.0
    floor: float = 0.0
    non_finite: int = 0
    below_floor: int = 0
    undetermined: int = 0
    beyond: int = 0
    sample: str = ""
    witness: str = SOURCE_MODEL

    def verdict(self) -> str:
        """Says in a few words whether it agrees, and whether that is so of the median alone."""
        if not self.passed:
            return f"DIFFERS (limit {self.limit:.0e})"
        return f"agrees but for {self.beyond} beyond {self.limit:.2g}" if self.beyond else "agrees"

    def fault(self) -> str:
        """Says what is wrong with an output that did not pass."""
        where = f"in {self.sample}, " if self.sample else ""
        return (
            f"{where}max abs {self.max_abs:.1e}, max rel {self.max_rel:.1e}, median L2 "
            f"{self.l2_rel:.1e} (limit {self.limit:.0e}), worst {self.worst:.1e} (limit "
            f"{self.worst_limit:.0e}), cosine {self.cosine:.4f}, against {self.witness}"
        )


@dataclasses.dataclass(frozen=True)
class Report(Comparison[Parity]):
    """What `verify` measured: output name -> `Parity`; prints as a table.

    Attributes:
        artefact: the path that was verified.
        against: name of the source model.
        samples: how many samples were given, or generated.
        generated: whether they were generated.
        outputs: the figures.
        runs: for each call that was compared its `batch`, its open `sizes` by input and axis,
            and what its rows are.
        notes: what holds of the artefact under conditions alone: samples of one kind, say.
    """

    columns: ClassVar[tuple[str, ...]] = REPORT_COLUMNS

    artefact: str
    against: str
    samples: int
    generated: bool
    outputs: Mapping[str, Parity]
    runs: Sequence[Mapping[str, Any]] = ()
    notes: Sequence[str] = ()

    def to_json(self) -> dict[str, Any]:
        """Returns the report as plain JSON values: the certificate of a manifest.

        JSON has no NaN and no infinity; a figure that is none becomes null.
        """
        values: dict[str, Any] = {
            "against": self.against,
            "samples": self.samples,
            "generated": self.generated,
            "passed": self.passed,
            "runs": [dict(run) for run in self.runs],
            "notes": list(self.notes),
            "outputs": {name: dataclasses.asdict(p) for name, p in self.outputs.items()},
        }
        return {name: finite(value) for name, value in values.items()}

    def title(self) -> str:
        """Says what was compared, in a line."""
        made = "generated " if self.generated else ""
        return f"{self.artefact} against {self.against!r} on {self.samples} {made}samples"

    def row(self, name: str, figures: Parity) -> tuple[str, ...]:
        """Returns what the table says of an output; see `REPORT_COLUMNS`."""
        return (
            name,
            f"{figures.max_abs:.1e}",
            f"{figures.max_rel:.1e}",
            f"{figures.l2_rel:.1e}",
            f"{figures.worst:.1e}",
            f"{figures.cosine:.6f}",
            str(figures.non_finite),
            figures.verdict(),
        )
