"""How an attention layer changes what is relevant (Chefer et al. 2021, eqs. 5 to 11)."""

from __future__ import annotations

from typing import Any

from probegen.methods.chains import Attending
from probegen.methods.operations import Operations


class RelevanceRules:
    """The rules by which a layer changes relevance.

    A state holds the matrix of its stream to each stream that it was made of; that to its own
    stream without the identity, which it has besides.
    """

    def __init__(self, ops: Operations[Any], rank: int) -> None:
        self._ops = ops
        self._rank = rank

    def after(
        self, layer: Attending, step: Any, queries: dict[int, Any], read: dict[int, Any]
    ) -> dict[int, Any]:
        """Returns the state that a layer writes.

        Args:
            layer: the layer.
            step: its weights times their gradients, positive, the mean over the heads.
            queries: the state of its queries.
            read: the state of its keys.
        """
        ops, own, other = self._ops, layer.queries, layer.keys
        state = dict(queries)
        for stream, matrix in read.items():
            if stream != other or layer.is_self:
                self._add(state, stream, ops.matmul(step, matrix))  # eqs. 6, 7, 11
        if layer.is_self:
            self._add(state, own, step)  # of the identity
            return state
        scaled = step  # eq. 10
        if other in read:
            scaled = ops.matmul(scaled, self.with_identity(self._scaled(read[other])))
        if own in queries:
            turned = ops.transpose(
                self.with_identity(self._scaled(queries[own])),
                [*range(self._rank - 2), self._rank - 1, self._rank - 2],
            )
            scaled = ops.matmul(turned, scaled)
        self._add(state, other, scaled)
        return state

    def with_identity(self, matrix: Any) -> Any:
        """Returns a matrix with the identity added."""
        return self._ops.add(matrix, self._ops.identity(matrix))

    def _add(self, state: dict[int, Any], stream: int, matrix: Any) -> None:
        known = state.get(stream)
        state[stream] = matrix if known is None else self._ops.add(known, matrix)

    def _scaled(self, matrix: Any) -> Any:
        """Returns a matrix with rows that add up to 1 (eqs. 8 and 9), rows of zeros as they are."""
        ops = self._ops
        total = ops.sum(matrix, (self._rank - 1,), keepdims=True)
        return ops.div(matrix, ops.where(ops.greater(total, 0.0), total, 1.0))
