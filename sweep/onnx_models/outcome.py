"""How a case went, in words that the table counts."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Sequence

AGREES, DIFFERS, FAILS, REFUSED = "agrees", "differs", "fails", "refused"
NOT_APPLICABLE = "not applicable"

#: Verdicts that mean a fault in probegen.
FAULTS = frozenset({DIFFERS, FAILS})


@dataclasses.dataclass(frozen=True)
class Outcome:
    """One row of the table.

    Attributes:
        name: of the case.
        verdict: one of the words above.
        reason: what explains the verdict, on one line.
        tool: what wrote the file.
        against: what the gradient is compared with.
        gradient: relative distance of the worst gradient, see `sweep.onnx_models.check`.
        own: the distance of the tool's own float32 gradient from its float64 one.
        predictions: largest relative distance of an output from the original file's.
        witnessed: how many gradients differences of the file's own scores confirmed when it was
            compiled, and of how many.
        plain: nodes that predictions alone take.
        explained: nodes that predictions with gradients take.
        seconds: time to compile and compare.
    """

    name: str
    verdict: str
    reason: str = ""
    tool: str = ""
    against: str = ""
    gradient: float | None = None
    own: float | None = None
    predictions: float | None = None
    witnessed: Sequence[int] = ()
    plain: int | None = None
    explained: int | None = None
    seconds: float = 0.0

    @property
    def family(self) -> str:
        """What stands before the colon of its name."""
        return self.name.partition(":")[0]

    def cells(self) -> tuple[str, ...]:
        """Returns the row that the terminal shows."""
        figure = "" if self.gradient is None else f"{self.gradient:.1e}"
        own = "" if self.own is None else f"{self.own:.1e}"
        nodes = "" if self.explained is None else f"{self.plain} / {self.explained}"
        verdict = f"{self.verdict}: {self.reason}" if self.reason else self.verdict
        return self.name, figure, own, nodes, f"{self.seconds:.1f}", verdict


COLUMNS = (
    "file",
    "gradient rel L2",
    "torch float32's own",
    "nodes plain / explained",
    "seconds",
    "verdict",
)


def line(message: object, most: int = 300) -> str:
    """Returns a message on one line, without folders, cut where it is long."""
    plain = re.sub(r"\x1b\[[0-9;]*m", "", str(message))
    text = " ".join(
        re.sub(r"(?<![\w.])/[^'\s:]*/([^/'\s:]+\.(?:onnx|data|npz))", r"\1", plain).split()
    )
    return text if len(text) <= most else text[: most - 1] + "…"
