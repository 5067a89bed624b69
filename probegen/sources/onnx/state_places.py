"""Where recurrent operators and Scans of a file take a state, and where they give it out."""

from __future__ import annotations

import dataclasses

import onnx_ir as ir

from probegen.graph.core.values import constant_of

#: Where a recurrent operator takes its states, and where it gives them out.
TAKEN, GIVEN = (5, 6), (1, 2)
#: Operators that move the numbers of one tensor about, and change none.
MOVES = frozenset(
    {"Identity", "Reshape", "Squeeze", "Unsqueeze", "Transpose", "Slice", "Gather", "Split"}
    | {"Flatten", "Cast", "Expand", "Tile"}
)


@dataclasses.dataclass(frozen=True)
class Place:
    """One state of one recurrent operator, or of a `Scan`.

    Attributes:
        path: of the operator's point.
        node: the operator in the prepared graph.
        which: 0 for the hidden state, 1 for the cell state; of a Scan its number.
    """

    path: str
    node: ir.Node
    which: int

    @property
    def name(self) -> str:
        """What the state is called behind `state/`."""
        return f"{self.path}:{self.which}" if self.which else self.path

    @property
    def initial(self) -> ir.Value | None:
        """What the operator starts from; None where that is left out, which means zeros."""
        value = self.node.inputs[self.taken] if self.taken < len(self.node.inputs) else None
        return value if value is not None and value.name else None

    @property
    def is_of_scan(self) -> bool:
        """True where it is carried by a Scan."""
        return self.node.op_type == "Scan"

    @property
    def taken(self) -> int:
        """Which input of the node it starts from."""
        return self.which if self.is_of_scan else TAKEN[self.which]

    @property
    def given(self) -> int:
        """Which output of the node says where it ends."""
        return self.which if self.is_of_scan else GIVEN[self.which]

    @property
    def last(self) -> ir.Value | None:
        """Where it ends; None where the operator does not give that out."""
        return self.node.outputs[self.given] if self.given < len(self.node.outputs) else None


def starts_from_zero(value: ir.Value | None) -> bool:
    """Tells whether a value holds zeros, whatever is fed."""
    if value is None:
        return True
    known = constant_of(value)
    if known is not None:
        return not known.any()
    node = value.producer()
    if node is None or node.domain:
        return False
    if node.op_type == "ConstantOfShape":
        filled = node.attributes.get("value")
        return filled is None or not filled.as_tensor().numpy().any()
    if node.op_type == "Concat":
        return all(starts_from_zero(v) for v in node.inputs if v is not None)
    return node.op_type in MOVES and starts_from_zero(node.inputs[0])
