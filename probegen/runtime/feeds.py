"""What is fed to an artefact in one run, checked."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

from probegen.runtime.inputs import Array


@dataclasses.dataclass(frozen=True)
class Feeds:
    """One batch, checked by `Artefact.prepare`, ready for `Artefact.compute`.

    Attributes:
        inputs: the model's own inputs by name.
        asked: what the artefact takes beside them (`target`, `region`, `groups`), rows first.
        explain: whether explanations are to be computed.
    """

    inputs: Mapping[str, Array]
    asked: Mapping[str, Array]
    explain: bool
