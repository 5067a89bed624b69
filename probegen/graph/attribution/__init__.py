"""Attribution methods as ONNX graphs over `autodiff`: one family a file.

Each works on any forward graph: a scores value, a target, and the tensors to explain.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import onnx_ir as ir

from probegen.artefact import manifest
from probegen.artefact.manifest import OutputSpec, TargetSpec
from probegen.errors import NotDifferentiableError
from probegen.graph.attribution.grad_cam import grad_cam
from probegen.graph.attribution.gradient import input_gradient, saliency
from probegen.graph.attribution.integrated import integrated_gradients
from probegen.graph.attribution.target import seed
from probegen.graph.autodiff import gradients
from probegen.graph.core.builder import Builder
from probegen.graph.vjp import BLOCKING, RULES

_LOCAL = {
    manifest.INPUT_GRADIENT: input_gradient,
    manifest.SALIENCY: saliency,
    manifest.GRAD_CAM: grad_cam,
}


@dataclasses.dataclass(frozen=True)
class Wanted:
    """An output that is to be written: its description and the tensor it explains."""

    spec: OutputSpec
    at: ir.Value
    #: The axis of the tensor that channels lie along.
    channel: int | None = None
    #: Outputs of one path integral share a number: they move along one line.
    line: int = 0


def write_attributions(
    builder: Builder,
    target: TargetSpec,
    scores: ir.Value,
    wanted: Sequence[Wanted],
    request: ir.Value | None,
) -> dict[str, ir.Value]:
    """Writes all outputs that share one target, with one backward pass.

    Args:
        builder: where the nodes go.
        target: what is differentiated.
        scores: the value it is taken from: the model's scores, or a callable's `[batch]`.
        wanted: the outputs.
        request: the int32 `[batch]` targets chosen at request time, where the target is.

    Returns:
        Output name -> value.

    Raises:
        UnsupportedOpsError: an operator on the way has no gradient.
        NotDifferentiableError: no gradient flows from the target to a tensor.
    """
    seeds = {scores: seed(builder, target, scores, request)}
    local = [w for w in wanted if w.spec.kind in _LOCAL]
    places = list(dict.fromkeys(w.at for w in local))
    found = gradients(builder, seeds, places, RULES, BLOCKING) if places else []
    results: dict[str, ir.Value] = {}
    by_place = dict(zip(places, found, strict=True))
    for one in local:
        gradient = by_place[one.at]
        if gradient is None:
            raise NotDifferentiableError(
                f"no gradient flows from the target to what {one.spec.name!r} explains."
            )
        results[one.spec.name] = _LOCAL[one.spec.kind](builder, gradient, one.at, one.channel)
    lines: dict[int, list[Wanted]] = {}
    for one in wanted:
        if one.spec.kind == manifest.INTEGRATED_GRADIENTS:
            lines.setdefault(one.line, []).append(one)
    for line in lines.values():
        detail = line[0].spec.detail
        values = integrated_gradients(
            builder, seeds, [w.at for w in line], int(detail["steps"]), float(detail["baseline"])
        )
        results.update((w.spec.name, v) for w, v in zip(line, values, strict=True))
    return results
