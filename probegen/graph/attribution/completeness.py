"""What is missing to completeness, as ONNX nodes: sums of attributions beside their scores."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

import onnx_ir as ir

from probegen.graph.attribution.by_scores import Tensor, attribution_by_scores, summed_score
from probegen.graph.core.builder import Builder
from probegen.graph.core.held_masks import held_masks
from probegen.graph.core.values import rank_of
from probegen.methods.axes import BATCH, Axes
from probegen.methods.score_gained import ScoreGained


@dataclasses.dataclass(frozen=True)
class Missing:
    """Attributions whose sum is held against a difference of scores.

    Attributes:
        names: the outputs that say what is missing, all the same.
        of: name of each attribution that is summed up -> its axes.
        probe: what the difference is.
        explained: the first of the tensors that are explained.
        moved: the tensors that are at the reference there.
        double: whether it is given out in 64 bits, 32 otherwise.
    """

    names: tuple[str, ...]
    of: Mapping[str, Axes]
    probe: ScoreGained
    explained: Tensor
    moved: tuple[Tensor, ...]
    double: bool = False


def write_missing(
    builder: Builder,
    missing: Missing,
    attributions: Mapping[str, ir.Value],
    scores: ir.Value,
    chosen: ir.Value,
    holding: Mapping[ir.Value, int],
) -> dict[str, ir.Value]:
    """Writes the sum of attributions less what the score is more than that of the reference.

    Args:
        builder: where the nodes go; its graph holds the forward pass.
        missing: which attributions, and what the reference is.
        attributions: of one class, by name.
        scores: what the target is taken from, the batch first.
        chosen: what the scores are multiplied by before they are summed up.
        holding: see `write_attributions`.

    Returns:
        Name -> value, `[batch]`.
    """
    dtype = ir.DataType.DOUBLE if missing.double else ir.DataType.FLOAT
    if missing.probe.baseline is None:
        gained = summed_score(builder, scores, chosen, 1)
        if BATCH not in missing.explained.axes:
            gained = builder.squeeze(gained, [0])
    else:
        held = held_masks(builder.forward, [m.at for m in missing.moved])
        gained = attribution_by_scores(
            builder,
            missing.probe,
            missing.explained,
            missing.moved,
            scores,
            chosen,
            holding,
            held=held if missing.probe.holds_masks else (),
        )
    sums: Sequence[ir.Value] = [
        builder.reduce_sum(
            builder.cast(attributions[name], dtype),
            [i for i in range(rank_of(attributions[name])) if axes[i] != BATCH],
            keepdims=False,
        )
        for name, axes in missing.of.items()
    ]
    total = sums[0]
    for part in sums[1:]:
        total = builder.add(total, part)
    found = builder.sub(total, builder.cast(gained, dtype))
    return dict.fromkeys(missing.names, found)
