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
from collections.abc import Callable, Container, Iterable, Mapping, Sequence
from contextvars import ContextVar

import onnx_ir as ir

from probegen.errors import UnsupportedOpsError
from probegen.graph.core.builder import Builder
from probegen.graph.core.queries import inputs_of, is_float, key_of
from probegen.graph.core.values import UnknownShapeError

#: A rule: (builder, node, gradients of the node's outputs, values whose gradient is wanted)
#: -> pairs of an input value (an outer value for operators with subgraphs) and its gradient.
#: A gradient of None stands for zero. A rule may yield several pairs for one value.
Rule = Callable[
    [Builder, ir.Node, Sequence[ir.Value | None], Container[ir.Value]],
    Iterable[tuple[ir.Value, ir.Value]],
]


#: The tables of the walk in progress, for rules that differentiate a subgraph.
_tables: ContextVar[tuple[Mapping[str, Rule], Container[str]]] = ContextVar("tables")
#: The values at which the walk in progress was asked for gradients.
_sources: ContextVar[frozenset[ir.Value]] = ContextVar("sources")
#: The gradients of the walk in progress that may be infinite though all values are finite.
_unbounded: ContextVar[set[ir.Value]] = ContextVar("unbounded")

#: Operators behind which an infinite gradient is past help: each of theirs is a sum over many.
_SPREADING = frozenset({"Conv", "ConvTranspose", "MatMul", "Gemm", "Einsum"})


class Refused(Exception):  # noqa: N818 - a rule's answer, not a failure of the program
    """Raised by a rule that knows the operator but not this use of it; says why."""


@dataclasses.dataclass(frozen=True)
class Refusal:
    """One operator that stands in a gradient's way.

    Attributes:
        op_type: the ONNX operator.
        reason: why there is no gradient.
        nodes: names of the nodes concerned.
        layers: paths of the layers that they came from, where that is known.
    """

    op_type: str
    reason: str
    nodes: tuple[str, ...]
    layers: tuple[str, ...] = ()


def gradients(
    builder: Builder,
    seeds: Mapping[ir.Value, ir.Value],
    sources: Sequence[ir.Value],
    rules: Mapping[str, Rule],
    blocking: Container[str],
) -> list[ir.Value | None]:
    """Writes the vector-Jacobian product of `seeds` with respect to each source.

    Args:
        builder: where the backward nodes go; its graph holds the forward nodes.
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
    in_progress = _tables.set((rules, blocking))
    asked_for = _sources.set(frozenset(sources))
    infinite = _unbounded.set(set())
    try:
        return _walk(builder, seeds, sources, rules, blocking)
    finally:
        _tables.reset(in_progress)
        _sources.reset(asked_for)
        _unbounded.reset(infinite)


def tables() -> tuple[Mapping[str, Rule], Container[str]]:
    """Returns the rules and the blocking operators of the walk in progress.

    A rule of an operator with subgraphs differentiates these by the same tables as the graph
    around is differentiated by, whichever they are.

    Raises:
        LookupError: no walk is in progress.
    """
    return _tables.get()


def is_asked_for(value: ir.Value) -> bool:
    """Tells whether the walk in progress has to find the gradient at `value` itself.

    A rule that takes several nodes in one step leaves none out at which a gradient is wanted.

    Raises:
        LookupError: no walk is in progress.
    """
    return value in _sources.get()


def is_unbounded(gradient: ir.Value) -> bool:
    """Tells whether a gradient may be infinite: it came through a slope that may be.

    A rule whose slope may be 0 sees to it that 0 times infinity is 0 there.

    Raises:
        LookupError: no walk is in progress.
    """
    return gradient in _unbounded.get()


def mark_unbounded(gradient: ir.Value) -> None:
    """Notes that a gradient may be infinite, for the rules on its further way.

    Raises:
        LookupError: no walk is in progress.
    """
    _unbounded.get().add(gradient)


def _walk(
    builder: Builder,
    seeds: Mapping[ir.Value, ir.Value],
    sources: Sequence[ir.Value],
    rules: Mapping[str, Rule],
    blocking: Container[str],
) -> list[ir.Value | None]:
    path = nodes_between(builder.graph, sources, seeds, blocking)
    wanted = {v for node in path for v in inputs_of(node) if is_float(v)}
    wanted &= influenced_by(builder.graph, sources, blocking)
    refusals: list[Refusal] = []
    unknown: list[Refusal] = []
    total: dict[ir.Value, ir.Value] = dict(seeds)
    unbounded = _unbounded.get()
    for node in reversed(path):
        outputs = [total.get(v) for v in node.outputs]
        if all(gradient is None for gradient in outputs):
            continue
        try:
            rule = rules.get(key_of(node), _no_rule)
            infinite = any(gradient in unbounded for gradient in outputs)
            for value, gradient in rule(builder, node, outputs, wanted):
                if infinite and key_of(node) not in _SPREADING:
                    unbounded.add(gradient)
                known = total.get(value)
                total[value] = gradient if known is None else add(builder, known, gradient)
                if known in unbounded or gradient in unbounded:
                    unbounded.add(total[value])
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
    depends = set(sources)
    for node in graph:
        if any(v in depends for v in inputs_of(node)):
            depends.update(node.outputs)
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
            found.append(Refusal(key_of(node), reason, (node.name or "",)))
    return found[::-1]


def add(builder: Builder, a: ir.Value, b: ir.Value) -> ir.Value:
    """Writes a sum of two gradients of one value.

    A chain of `Add` and not one `Sum`: a runtime can let a convolution accumulate into it.
    """
    return builder.op("Add", a, b, shape=a if a.shape is not None else b)


def unsupported(refusals: Iterable[Refusal]) -> UnsupportedOpsError:
    """Folds refusals of one kind together and words the error."""
    merged: dict[tuple[str, str], list[str]] = {}
    for refusal in refusals:
        merged.setdefault((refusal.op_type, refusal.reason), []).extend(refusal.nodes)
    folded = [Refusal(op, why, tuple(nodes)) for (op, why), nodes in merged.items()]
    lines = [
        f"  {r.op_type}: {r.reason} (at {', '.join(r.nodes[:3])}"
        + (f" and {len(r.nodes) - 3} more)" if len(r.nodes) > 3 else ")")
        for r in folded
    ]
    return UnsupportedOpsError(
        "these ONNX operators stand between the target and what its gradient was asked for, "
        "and have no gradient:\n" + "\n".join(lines),
        folded,
    )


def _refusals(node: ir.Node, error: Exception) -> list[Refusal]:
    """Returns what stands in the way at a node: itself, or nodes of its subgraphs."""
    if isinstance(error, UnsupportedOpsError):
        return [r for r in error.refusals if isinstance(r, Refusal)]
    return [Refusal(key_of(node), str(error), (node.name or "",))]


def _no_rule(*_: object) -> Iterable[tuple[ir.Value, ir.Value]]:
    raise Refused("no gradient rule")


def influenced_by(
    graph: ir.Graph, sources: Iterable[ir.Value], blocking: Container[str]
) -> set[ir.Value]:
    """Returns the floating values that depend on `sources` along ways a gradient can pass."""
    reached = set(sources)
    for node in graph:
        if key_of(node) not in blocking and any(v in reached for v in inputs_of(node)):
            reached.update(v for v in node.outputs if is_float(v))
    return reached
