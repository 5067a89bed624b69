"""What a run is asked for beside its inputs, by the names that `Artefact.run` has for it."""

from __future__ import annotations

from typing import TypedDict

import numpy.typing as npt

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
