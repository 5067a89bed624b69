"""What a table of rules does: one backward pass from a seed to some tensors."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Protocol

import onnx_ir as ir

from probegen.graph.autodiff import Rule, gradients
from probegen.graph.core.builder import Builder
from probegen.graph.vjp import BLOCKING
from probegen.methods.samples import Place


class BackwardPass(Protocol):
    """Writes a backward pass; see `Rules` for the plain form."""

    def __call__(
        self,
        builder: Builder,
        seeds: Mapping[ir.Value, ir.Value],
        places: Sequence[ir.Value],
        about: Mapping[ir.Value, Place] | None = None,
    ) -> list[ir.Value | None]:
        """Returns what arrives at each place, None where nothing does.

        Args:
            builder: where the nodes go; its `forward` graph holds the forward pass.
            seeds: the scores, and ones where an entry of them is summed up.
            places: the tensors that are explained; of a table `from_baseline`, those that belong
                together.
            about: what is known of the places.

        Raises:
            UnsupportedOpsError: an operator on the way has no rule; lists each.
        """


@dataclasses.dataclass(frozen=True)
class Rules:
    """The walk with other rules than those of gradients.

    Attributes:
        rules: operator -> rule.
    """

    rules: Mapping[str, Rule]

    def __call__(
        self,
        builder: Builder,
        seeds: Mapping[ir.Value, ir.Value],
        places: Sequence[ir.Value],
        about: Mapping[ir.Value, Place] | None = None,
    ) -> list[ir.Value | None]:
        """Returns what arrives at each place, None where nothing does."""
        del about
        return gradients(builder, seeds, places, self.rules, BLOCKING)
