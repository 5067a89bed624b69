"""Masks of the unmoved sample, which a copy of a file is fed where its tensors are moved.

A path from a baseline leaves the value that padding has, and the file itself would compute its
masks anew at each point; see `graph.core.held_masks`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir
from onnx_ir.passes import common

from probegen.graph.core.held_masks import held_masks
from probegen.sources.onnx.running import Runner

Array = npt.NDArray[Any]

_MASK = "probegen_mask_"


def feed_masks(graph: ir.Graph, moved: Sequence[ir.Value]) -> list[str]:
    """Puts inputs in the place of the masks that moved tensors would change.

    Args:
        graph: a copy of a file's graph; changed in place.
        moved: the tensors.

    Returns:
        What the masks are called in the file: mask i is fed as `probegen_mask_i`.
    """
    held = held_masks(graph, moved)
    masks = [v for node in graph if node in held for v in node.outputs]
    for i, mask in enumerate(masks):
        fed = ir.Value(name=f"{_MASK}{i}", type=mask.type, shape=mask.shape)
        graph.inputs.append(fed)
        mask.replace_all_uses_with(fed, replace_graph_outputs=True)
    return [str(mask.name) for mask in masks]


class UnmovedMasks:
    """Computes the masks of samples that nothing moves."""

    def __init__(self, model: ir.Model, names: Sequence[str], *, lean: bool) -> None:
        """Opens a model that gives out masks.

        Args:
            model: a copy of the file; changed in place.
            names: what the masks are called, as `feed_masks` returns them.
            lean: as of `Runner`.
        """
        made = {v.name: v for node in model.graph for v in node.outputs}
        model.graph.outputs[:] = [made[name] for name in names]
        common.RemoveUnusedNodesPass()(model)
        self._runner = Runner(model, lean=lean)

    def at(self, feed: Mapping[str, Array]) -> dict[str, Array]:
        """Returns the masks by the names of the inputs that take them."""
        found = self._runner.run({name: np.asarray(value) for name, value in feed.items()})
        return {f"{_MASK}{i}": mask for i, mask in enumerate(found)}
