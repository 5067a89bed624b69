"""Probe points: one call of one layer in one model, as plain data."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from typing import Any, overload

from probegen.text import format_shape, table

#: What a tensor looks like: sizes with the batch axis first, None where open.
Shape = tuple[int | None, ...]


@dataclasses.dataclass(frozen=True)
class ProbePoint:
    """One call of one layer.

    Attributes:
        path: names from the model down to the layer, joined by `/`.
        class_name: the layer's class.
        roles: what the layer is for; the first is `role`. A layer whose result is a model
            output has `"output"` first and what it is otherwise behind it.
        shapes: shape of each output tensor, batch first.
        dtypes: numpy name of each output's element type.
        call_index: which call of the layer this is, from 0.
        calls: how often the layer is called.
        probes: kinds of probe that work here (`"activation"`, `"attention"`, `"gradient"`,
            `"grad_cam"`).
        reason: where something a user may expect does not work, why.
        loop: the loop in whose body it stands, at whose steps it is run; empty where none is.
        layer: the layer itself.
    """

    path: str
    class_name: str
    roles: tuple[str, ...]
    shapes: tuple[Shape, ...]
    dtypes: tuple[str, ...]
    call_index: int = 0
    calls: int = 1
    probes: tuple[str, ...] = ()
    reason: str = ""
    loop: str = ""
    layer: Any = dataclasses.field(default=None, repr=False, compare=False)

    @property
    def role(self) -> str:
        """The layer's foremost role."""
        return self.roles[0]

    @property
    def shape(self) -> Shape | tuple[Shape, ...]:
        """Shape of the output, or a tuple of shapes where there are several."""
        return self.shapes[0] if len(self.shapes) == 1 else self.shapes

    @property
    def dtype(self) -> str:
        """Element type of the (first) output."""
        return self.dtypes[0] if self.dtypes else ""

    @property
    def name(self) -> str:
        """The path, with `#k` for call `k` of a layer that is called more than once."""
        return f"{self.path}#{self.call_index}" if self.calls > 1 else self.path


class ProbePoints(Sequence[ProbePoint]):
    """The probe points of a model in the order of their calls; prints as a table.

    Attributes:
        model_name: name of the model.
    """

    def __init__(self, points: Sequence[ProbePoint], model_name: str) -> None:
        self._points = tuple(points)
        self.model_name = model_name

    @overload
    def __getitem__(self, index: int) -> ProbePoint: ...
    @overload
    def __getitem__(self, index: slice) -> ProbePoints: ...
    def __getitem__(self, index: int | slice) -> ProbePoint | ProbePoints:
        if isinstance(index, slice):
            return ProbePoints(self._points[index], self.model_name)
        return self._points[index]

    def __len__(self) -> int:
        return len(self._points)

    def __iter__(self) -> Iterator[ProbePoint]:
        return iter(self._points)

    def rows(self) -> list[tuple[str, ...]]:
        """Returns the table: path, class, role, shape, call, probes or reason."""
        return [
            (
                p.path,
                p.class_name,
                "/".join(p.roles),
                ", ".join(format_shape(s) for s in p.shapes),
                f"{p.call_index}" if p.calls > 1 else "",
                ", ".join(p.probes) + (f" ({p.reason})" if p.reason else ""),
            )
            for p in self
        ]

    def to_json(self) -> list[dict[str, Any]]:
        """Returns the points as plain JSON values."""
        plain = []
        for point in self:
            fields = {f.name: getattr(point, f.name) for f in dataclasses.fields(point)}
            del fields["layer"]
            plain.append({"name": point.name, "role": point.role, **fields})
        return plain

    def __str__(self) -> str:
        return "\n".join(
            [f"{self.model_name}: {len(self)} probe points", *table(COLUMNS, self.rows())]
        )

    def __repr__(self) -> str:
        return str(self)


COLUMNS = ("path", "class", "role", "shape", "call", "can be probed for")


def not_itself(dtype: str) -> str:
    """Returns why there is no gradient at an input that is not of floating numbers itself."""
    if dtype in ("string", "object"):
        return "text: differentiated at what it is encoded to"
    return "integer: differentiated at its embedding"
