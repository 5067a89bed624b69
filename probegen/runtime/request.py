"""What a run is asked for beside its inputs, by the names that `Artefact.run` has for it."""

from __future__ import annotations

from typing import Any, TypedDict

import numpy as np
import numpy.typing as npt

from probegen.errors import InputError
from probegen.runtime.target import Target


class Request(TypedDict, total=False):
    """Keyword arguments of `Artefact.run`.

    Keys:
        target: what to explain, where the artefact takes a target.
        region: what positions count, where the artefact takes a region.
        groups: which group each position belongs to, where the artefact takes groups.
    """

    target: Target | None
    region: npt.ArrayLike | None
    groups: npt.ArrayLike | None


def checked_explain(explain: Any) -> bool:
    """Returns whether explanations are asked for.

    Raises:
        InputError: it is neither true nor false: a text such as "no" would count as true.
    """
    if isinstance(explain, bool | np.bool_) or (isinstance(explain, int) and explain in (0, 1)):
        return bool(explain)
    raise InputError(f"explain= takes True or False, got {explain!r}.")
