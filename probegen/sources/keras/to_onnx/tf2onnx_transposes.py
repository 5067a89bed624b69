"""tf2onnx' optimiser of transposes, less what it gets wrong.

It moves transposes down until they meet their inverse. On the way it has rules that look at
sizes and counts where they would have to look at axes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import tf2onnx.optimizer


class TransposeOptimizer(tf2onnx.optimizer.TransposeOptimizer):
    """tf2onnx' own, with these differences.

    - Outputs of the graph count as readers. Where a Transpose makes an output, one node reads it
      as well, and that is a product with another Transpose, it would otherwise remove the output.
    - A factor or a summand is merged into a convolution only where it runs along the channels. It
      would otherwise take any that has as many elements as there are channels, and make several
      channels of one.
    - A square passes on the shape of what is squared.
    - No Transpose becomes a Reshape: the shapes that it would take are not true by then. Ours
      does so once shapes are inferred (`tf2onnx_fixes.fix_transposes`).
    - Equal ones stay. It would keep the one that it meets first, in an order of chance;
      `canonical` joins them in an order that is the same each time.
    """

    def _nodes_has_single_consumer_node(self, nodes: Sequence[Any]) -> bool:
        outputs = set(self._g.outputs)
        if any(not outputs.isdisjoint(node.output) for node in nodes):
            return False
        return bool(super()._nodes_has_single_consumer_node(nodes))

    def _add_handler(self, trans: Any, node: Any) -> bool:
        if _fits_channels(trans.inputs[0], node):
            return bool(super()._add_handler(trans, node))
        return bool(self._handle_node_having_branches(trans, node))

    def _mul_handler(self, trans: Any, node: Any) -> bool:
        if not _fits_channels(trans.inputs[0], node):
            return bool(self._handle_node_having_branches(trans, node))
        shape = self._g.get_shape(node.output[0])
        squares = len(set(node.input)) == 1
        moved = bool(super()._mul_handler(trans, node))
        if moved and squares and shape is not None:
            perm = trans.get_attr_value("perm")
            self._g.set_shape(node.output[0], [shape[perm.index(i)] for i in range(len(perm))])
            self._g.set_shape(trans.output[0], shape)
        return moved

    def merge_duplicated_transposes(self) -> None:
        """Removes only what nothing reads any more."""
        self._g.delete_unused_nodes(self._g.outputs)

    def post_optimize_action(self) -> None:
        """Leaves all transposes what they are."""


def _fits_channels(convolution: Any, node: Any) -> bool:
    """Tells whether a constant operand of `node` may be merged into a convolution before it."""
    if convolution.type not in ("Conv", "ConvTranspose"):
        return True
    kernel = convolution.inputs[1].output_shapes[0]
    channels = None if kernel is None else kernel[0 if convolution.type == "Conv" else 1]
    for operand in node.inputs:
        if not operand.is_const():
            continue
        shape = operand.get_tensor_value(as_list=False).shape
        along = shape[-1] if shape else 1
        if any(size != 1 for size in shape[:-1]) or along not in (1, channels):
            return False
    return True
