"""Reverse-mode differentiation of an ONNX graph: the walk, and nothing else.

The rules, one small function an operator, stand in `probegen.graph.vjp`; this file decides
which nodes a gradient passes through, in which order, and how contributions are added.

Three things are kept apart: an operator whose gradient is zero almost everywhere or that
breaks the dependence on purpose (a comparison, `StopGradient`) is simply not passed; a value
that is no floating number carries no gradient; an operator that a gradient must pass and that
has no rule is refused, with all others of its kind, in one error. Where no gradient arrives,
`obstacles` says what stopped it.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Container, Iterable, Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Any, TypeVar

import onnx_ir as ir

from probegen.errors import Refusal, UnsupportedOpsError
from probegen.graph.core.builder import Builder
from probegen.graph.core.queries import depending_on, inputs_of, is_float, key_of
from probegen.graph.core.values import UnknownShapeError, shape_of

#: Operators behind which an infinite gradient is past help: each of theirs is a sum over many.
_SPREADING = frozenset({"Conv", "ConvTranspose", "MatMul", "Gemm", "Einsum"})


_W = TypeVar("_W", bound="Walk")


class Refused(Exception):  # noqa: N818 - a rule's answer, not a failure of the program
    """Raised by a rule that knows the operator but not this use of it; says why."""


@dataclasses.dataclass(frozen=True, eq=False)
class Walk:
    """One reverse walk over a graph, as its rules see it.

    Attributes:
        builder: where the backward nodes go; its graph holds the forward nodes.
        rules: operator -> rule.
        blocking: operators that no gradient passes.
        wanted: the values whose gradient something on the way back needs: a rule yields
            gradients of these and may leave out all others.
        asked_for: the values at which the caller wants the gradient itself. A rule that takes
            several nodes in one step leaves none of these out.
        unbounded: the gradients that may be infinite though all values are finite, since they
            came through a slope that may be. A rule whose slope may be 0 sees to it that 0 times
            infinity is 0 there.
        simpler: operator -> rule, for the operators that a rule writes in the place of a node;
            None where these have the rules of the graph.
    """

    builder: Builder
    rules: Mapping[str, Rule]
    blocking: Container[str]
    wanted: Container[ir.Value]
    asked_for: Container[ir.Value]
    unbounded: set[ir.Value] = dataclasses.field(default_factory=set)
    simpler: Mapping[str, Rule] | None = None

    def is_unbounded(self, gradient: ir.Value) -> bool:
        """Tells whether a gradient may be infinite."""
        return gradient in self.unbounded

    def mark_unbounded(self, gradient: ir.Value) -> None:
        """Notes that a gradient may be infinite, for the rules on its further way."""
        self.unbounded.add(gradient)

    def into(self, kind: type[_W], **more: Any) -> _W:
        """Returns this walk as one of another kind, which has more fields."""
        own = {f.name: getattr(self, f.name) for f in dataclasses.fields(Walk)}
        return kind(**own, **more)

    def inside(
        self,
        builder: Builder,
        seeds: Mapping[ir.Value, ir.Value],
        sources: Sequence[ir.Value],
        beside: Mapping[ir.Value, ir.Value] = MappingProxyType({}),
    ) -> list[ir.Value | None]:
        """Writes the gradients of a subgraph by the tables of this walk; see `gradients`.

        Args:
            builder, seeds, sources: as for `gradients`.
            beside: what values of a step are in the same step of the loop that `beside` names.
        """
        del beside
        rules = self.rules if self.simpler is None else self.simpler
        return gradients(builder, seeds, sources, rules, self.blocking)

    def beside(self, loop: ir.Node) -> tuple[ir.Node, Mapping[ir.Value, ir.Value]] | None:
        """Returns the loop whose steps are read beside those of another one; None for gradients.

        Returns:
            The loop, and for the values of a body that may differ there what they are there.
        """
        del loop
        return None


#: A rule: (walk, node, gradients of the node's outputs) -> pairs of an input value (an outer
#: value for operators with subgraphs) and its gradient. A gradient of None stands for zero. A
#: rule may yield several pairs for one value.
Rule = Callable[
    [Walk, ir.Node, Sequence[ir.Value | None]],
    Iterable[tuple[ir.Value, ir.Value]],
]


def gradients(
    builder: Builder,
    seeds: Mapping[ir.Value, ir.Value],
    sources: Sequence[ir.Value],
    rules: Mapping[str, Rule],
    blocking: Container[str],
) -> list[ir.Value | None]:
    """Writes the vector-Jacobian product of `seeds` with respect to each source.

    Args:
        builder: where the backward nodes go; its `forward` graph holds the forward nodes.
        seeds: value -> the gradient of the differentiated scalar with respect to it.
        sources: the values at which gradients are wanted; they may lie on each other's way.
        rules: operator (`"Conv"`, other domains as `"domain::Op"`) -> rule.
        blocking: operators that no gradient passes: it is zero there by definition.

    Returns:
        One gradient a source; None where no gradient flows.

    Raises:
        UnsupportedOpsError: operators on the way have no rule, or their rule refuses this use
            of them; lists each. What the builder collected is of no use then.
    """
    path = nodes_between(builder.forward, sources, seeds, blocking)
    wanted = {v for node in path for v in inputs_of(node) if is_float(v)}
    wanted &= influenced_by(builder.forward, sources, blocking)
    walk = Walk(builder, rules, blocking, wanted, frozenset(sources))
    refusals: list[Refusal] = []
    unknown: list[Refusal] = []
    total: dict[ir.Value, ir.Value] = dict(seeds)
    for node in reversed(path):
        outputs = [total.get(v) for v in node.outputs]
        if all(gradient is None for gradient in outputs):
            continue
        try:
            rule = _from_nothing if _is_empty(node, outputs) else rules.get(key_of(node), _no_rule)
            infinite = any(g is not None and walk.is_unbounded(g) for g in outputs)
            for value, gradient in rule(walk, node, outputs):
                if infinite and key_of(node) not in _SPREADING:
                    walk.mark_unbounded(gradient)
                known = total.get(value)
                total[value] = gradient if known is None else add(builder, known, gradient)
                if walk.is_unbounded(gradient) or (known and walk.is_unbounded(known)):
                    walk.mark_unbounded(total[value])
        except (Refused, UnknownShapeError, UnsupportedOpsError) as refusal:
            found = unknown if isinstance(refusal, UnknownShapeError) else refusals
            found.extend(_refusals(node, refusal))
            # The walk goes on, to name everything that stands in the way: a value has the
            # shape and the type of its own gradient, and stands in for it.
            total.update({v: v for v in inputs_of(node) if v in wanted and v not in total})
    # Below an operator that nobody knows no shapes are known either: those are no news.
    if refusals or unknown:
        raise unsupported(reversed(refusals or unknown))
    return [total.get(source) for source in sources]


def nodes_between(
    graph: ir.Graph,
    sources: Iterable[ir.Value],
    targets: Iterable[ir.Value],
    blocking: Container[str],
) -> list[ir.Node]:
    """Returns, in topological order, the nodes that a gradient passes from targets to sources."""
    influenced = influenced_by(graph, sources, blocking)
    needed: set[ir.Value] = set(targets)
    path: list[ir.Node] = []
    for node in reversed(list(graph)):
        if key_of(node) in blocking or not any(v in needed for v in node.outputs):
            continue
        active = [v for v in inputs_of(node) if v in influenced]
        if active:
            path.append(node)
            needed.update(active)
    return path[::-1]


def obstacles(
    graph: ir.Graph,
    sources: Iterable[ir.Value],
    targets: Iterable[ir.Value],
    blocking: Mapping[str, str],
) -> list[Refusal]:
    """Returns what no gradient passes on the ways from sources to targets, in graph order.

    This is for the message where `gradients` gave None: operators of `blocking` with their
    reason, and operators that turn floating values into others (a Cast to integers, an
    ArgMax). It is empty where the targets do not depend on the sources at all.
    """
    depends = depending_on(graph, sources)
    needed = set(targets)
    found = []
    for node in reversed(list(graph)):
        if not any(v in needed for v in node.outputs):
            continue
        ways = [v for v in inputs_of(node) if v in depends]
        needed.update(ways)
        reason = blocking.get(key_of(node))
        if reason is None and any(map(is_float, ways)) and not any(map(is_float, node.outputs)):
            reason = "its output holds no floating numbers"
        if ways and reason is not None:
            found.append(Refusal(key_of(node), reason, (_name_of(node),)))
    return found[::-1]


def add(builder: Builder, a: ir.Value, b: ir.Value) -> ir.Value:
    """Writes a sum of two gradients of one value.

    A chain of `Add` and not one `Sum`: a runtime can let a convolution accumulate into it.
    """
    return builder.op("Add", a, b, shape=a if a.shape is not None else b)


def unsupported(refusals: Iterable[Refusal]) -> UnsupportedOpsError:
    """Returns the error that lists operators without a gradient."""
    return UnsupportedOpsError(
        "these ONNX operators stand between the target and what its gradient was asked for, "
        "and have no gradient:",
        refusals,
    )


def _refusals(node: ir.Node, error: Exception) -> tuple[Refusal, ...]:
    """Returns what stands in the way at a node: itself, or nodes of its subgraphs."""
    if isinstance(error, UnsupportedOpsError):
        return error.refusals
    return (Refusal(key_of(node), str(error), (_name_of(node),)),)


def _name_of(node: ir.Node) -> str:
    """Returns a node's name, or that of its first output where it has none."""
    return node.name or next((v.name for v in node.outputs if v.name), "")


#: Operator of `ai.onnx.ml` -> as what else a file has slopes.
_SLOPES_INSTEAD: Mapping[str, str] = {
    "SVMClassifier": ". Its probabilities jump where the iteration that couples them ends; written "
    "without (scikit-learn's SVC without probability=True) its decisions have slopes"
}


def _no_rule(_: object, node: ir.Node, *__: object) -> Iterable[tuple[ir.Value, ir.Value]]:
    if node.domain == "ai.onnx.ml":  # trees, support vectors
        raise Refused(
            "it has no slope that is known here; methods that hide parts of the input need none, "
            "such as pg.KernelSHAP" + _SLOPES_INSTEAD.get(node.op_type, "")
        )
    raise Refused("no gradient rule")


def _is_empty(node: ir.Node, dys: Sequence[ir.Value | None]) -> bool:
    """Tells whether no element arrives at a node: what has a gradient has a size of 0."""
    arrived = zip(node.outputs, dys, strict=True)
    return all(0 in (shape_of(v) or ()) for v, dy in arrived if dy is not None)


def _from_nothing(
    walk: Walk, node: ir.Node, dys: Sequence[ir.Value | None]
) -> Iterator[tuple[ir.Value, ir.Value]]:
    """Yields zeros: runtimes pad what has no elements with whatever lies in memory."""
    del dys
    for value in dict.fromkeys(v for v in inputs_of(node) if v in walk.wanted):
        yield value, walk.builder.zeros_like(value)


def influenced_by(
    graph: ir.Graph, sources: Iterable[ir.Value], blocking: Container[str]
) -> set[ir.Value]:
    """Returns the floating values that depend on `sources` along ways a gradient can pass."""
    reached = set(sources)
    for node in graph:
        if key_of(node) not in blocking and any(v in reached for v in inputs_of(node)):
            reached.update(v for v in node.outputs if is_float(v))
    return reached
