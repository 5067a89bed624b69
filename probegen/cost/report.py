"""What probes will cost, as plain data: told before anything is exported."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, overload

from probegen.errors import Refusal
from probegen.plan.points import Shape
from probegen.text import format_shape, table

COST_COLUMNS = ("probe", "output", "bytes a sample", "extra multiply-adds", "time over plain")

_UNKNOWN = "?"


@dataclasses.dataclass(frozen=True)
class OutputCost:
    """One output that a probe adds.

    Attributes:
        name: its name in the artefact.
        shape: its sizes, the batch first (None); others are None where they cannot be told.
        dtype: numpy name of the element type.
        bytes: bytes a sample, None where a size cannot be told.
    """

    name: str
    shape: Shape
    dtype: str
    bytes: int | None


@dataclasses.dataclass(frozen=True)
class Cost:
    """What one probe, or several together, add to the prediction.

    Attributes:
        name: the probe's output, or what its outputs have in common.
        outputs: what it adds to the artefact's outputs.
        multiply_adds: multiply-adds a sample beyond those of the prediction; None if refused.
        time: estimated time over that of the prediction alone, 1.0 meaning the same; None if
            refused.
        refused: what an export would refuse; empty where it would go through.
        probe: the probe; None for several together.
    """

    name: str
    outputs: tuple[OutputCost, ...]
    multiply_adds: int | None
    time: float | None
    refused: tuple[Refusal, ...] = ()
    probe: Any = dataclasses.field(default=None, repr=False, compare=False)

    @property
    def bytes(self) -> int | None:
        """Bytes a sample of all outputs, None where one cannot be told."""
        sizes = [o.bytes for o in self.outputs]
        return None if None in sizes else sum(s for s in sizes if s is not None)

    def row(self) -> tuple[str, ...]:
        """Returns the cells under `COST_COLUMNS`."""
        if self.refused and not self.outputs:
            return (self.name, "", "", "", "refused")
        shapes = format_shape(self.outputs[0].shape) if len(self.outputs) == 1 else ""
        return (
            self.name,
            shapes or f"{len(self.outputs)} outputs",
            _UNKNOWN if self.bytes is None else _number(self.bytes, "B"),
            _count(self.multiply_adds, bool(self.refused)),
            "refused" if self.refused else _ratio(self.time),
        )

    def to_json(self) -> dict[str, Any]:
        """Returns the figures as plain JSON values."""
        plain = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        del plain["probe"]
        plain["outputs"] = [dataclasses.asdict(o) for o in self.outputs]
        plain["refused"] = [
            {"op": r.op, "layers": list(r.layers), "reason": r.reason, "advice": r.advice}
            for r in self.refused
        ]
        return {**plain, "bytes": self.bytes}


class Costs(Sequence[Cost]):
    """The cost of each probe by itself, in the order asked for; prints as a table.

    Multiply-adds are those of convolutions, matrix products and recurrent operators, counted on
    the graph that an export would write, for one sample. The time is an estimate from these and
    from the bytes that each operator moves, for onnxruntime on a CPU; see
    `probegen.cost.time_model`. Another runtime or machine has another ratio.

    Attributes:
        model_name: name of the model.
        plain: multiply-adds a sample of the prediction alone; None where the model itself is
            refused.
        together: all probes that are not refused, in one artefact: what they share is done once.
        sizes: input name -> its sizes without the batch, of those that have open ones: the
            figures hold for these.
        uncounted: operator -> how many of its nodes are left out, their sizes being unknown.
    """

    def __init__(
        self,
        costs: Sequence[Cost],
        together: Cost,
        *,
        model_name: str,
        plain: int | None,
        sizes: Mapping[str, tuple[int, ...]],
        uncounted: Mapping[str, int],
    ) -> None:
        self._costs = tuple(costs)
        self.together = together
        self.model_name = model_name
        self.plain = plain
        self.sizes = dict(sizes)
        self.uncounted = dict(uncounted)

    @overload
    def __getitem__(self, index: int) -> Cost: ...
    @overload
    def __getitem__(self, index: slice) -> tuple[Cost, ...]: ...
    def __getitem__(self, index: int | slice) -> Cost | tuple[Cost, ...]:
        return self._costs[index]

    def __len__(self) -> int:
        return len(self._costs)

    def __iter__(self) -> Iterator[Cost]:
        return iter(self._costs)

    @property
    def title(self) -> str:
        """What the table is about, in one line."""
        plain = "" if self.plain is None else f", {_number(self.plain)} multiply-adds a sample"
        return f"{self.model_name}: cost of {len(self)} probes over the prediction{plain}"

    def rows(self) -> list[tuple[str, ...]]:
        """Returns the table: a row a probe, the last one for all together."""
        return [*(c.row() for c in self), *([self.together.row()] if len(self) > 1 else [])]

    def notes(self) -> list[str]:
        """Returns what has to be said beside the table, a line each."""
        lines = [f"refused: {c.name}: {o}" for c in self for o in c.refused]
        lines += [
            f"assumed: input {name!r} of shape {format_shape((None, *sizes))}; give sizes= "
            "(--size) for another."
            for name, sizes in self.sizes.items()
        ]
        if self.uncounted:
            which = ", ".join(f"{op} ({count})" for op, count in self.uncounted.items())
            lines.append(f"not counted, their sizes being open: {which}.")
        if any(c.time is not None for c in self):
            lines.append(
                "Times are estimates for onnxruntime on a CPU, from multiply-adds and bytes moved."
            )
        return lines

    def to_json(self) -> dict[str, Any]:
        """Returns all figures as plain JSON values."""
        return {
            "plain_multiply_adds": self.plain,
            "probes": [c.to_json() for c in self],
            "together": self.together.to_json(),
            "sizes": {name: list(sizes) for name, sizes in self.sizes.items()},
            "uncounted": self.uncounted,
        }

    def __str__(self) -> str:
        return "\n".join([self.title, *table(COST_COLUMNS, self.rows()), *self.notes()])

    def __repr__(self) -> str:
        return str(self)


def _count(number: int | None, refused: bool) -> str:
    if number is None:
        return "" if refused else _UNKNOWN
    return _number(number)


def _ratio(time: float | None) -> str:
    return _UNKNOWN if time is None else f"{time:.2f}x"


def _number(number: int, unit: str = "") -> str:
    """Returns a count with three digits and a decimal prefix."""
    prefixes = ("", "k" if unit else "K", "M", "G", "T", "P")
    scaled, position = float(number), 0
    while round(scaled, 1) >= 1000 and position < len(prefixes) - 1:
        scaled, position = scaled / 1000, position + 1
    digits = 0 if position == 0 else 2 if scaled < 10 else 1 if scaled < 100 else 0
    return f"{scaled:.{digits}f} {prefixes[position]}{unit}".rstrip()
