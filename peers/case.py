"""One comparison: a method in an artefact, and the same of another library."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]


@dataclasses.dataclass(frozen=True)
class Case:
    """A method beside a peer's.

    Attributes:
        method: how it is written with probegen.
        peer: how it is written with the other library.
        ours: computes it with probegen.
        theirs: computes it with the peer, in our shape and order of axes.
        limit: the largest difference that is still agreement; see `difference`.
        note: where the definitions differ, and what was done about it.
    """

    method: str
    peer: str
    ours: Callable[[], Array]
    theirs: Callable[[], Array]
    limit: float = 1e-4
    note: str = ""


@dataclasses.dataclass(frozen=True)
class Row:
    """What came of a case.

    Attributes:
        library: the peer's name and version.
        method, peer, limit, note: those of the case.
        difference: see `difference`; None where one of the two failed.
        fault: what failed; empty where nothing did.
    """

    library: str
    method: str
    peer: str
    limit: float
    note: str
    difference: float | None = None
    fault: str = ""

    @property
    def agrees(self) -> bool:
        """True where the difference is below its limit."""
        return self.difference is not None and self.difference <= self.limit


def difference(ours: Array, theirs: Array) -> float:
    """Returns the length of the difference over the length of the peer's answer (relative L2).

    Raises:
        ValueError: the shapes differ, or one holds nothing but zeros or a number that is none.
    """
    a, b = np.asarray(ours, np.float64), np.asarray(theirs, np.float64)
    if a.shape != b.shape:
        raise ValueError(f"ours has the shape {a.shape}, theirs {b.shape}")
    if not (np.isfinite(a).all() and np.isfinite(b).all()):
        raise ValueError("a number is not finite")
    size = float(np.linalg.norm(b))
    if size == 0 or not a.any():
        raise ValueError("one of the two is zero everywhere, which proves nothing")
    return float(np.linalg.norm(a - b)) / size


def run(library: str, case: Case) -> Row:
    """Runs a case; a failure becomes its fault."""
    told = Row(library, case.method, case.peer, case.limit, case.note)
    try:
        found = difference(case.ours(), case.theirs())
    except Exception as error:
        return dataclasses.replace(told, fault=f"{type(error).__name__}: {str(error)[:300]}")
    return dataclasses.replace(told, difference=found)
