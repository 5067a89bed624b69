"""What every probe says of itself, whatever it gives out."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any, ClassVar, TypeVar

from probegen.errors import SpecError
from probegen.methods.axes import Axes, Sizes

#: A glob, `"re:..."`, `"type:..."`, `"role:..."`, an index, a layer, a predicate, or a list.
Selector = Any

P = TypeVar("P", bound="Probe")


@dataclasses.dataclass(frozen=True)
class Probe:
    """Base of all probes.

    Attributes:
        kind: the first part of the names of its outputs.
        text_name: what specs and the command line call it; `kind` where it is not said.
        title: what people call it.
        help: one sentence that says what comes out, for the command line and the README.
        unit: what one number means; empty where that is the layer's own affair.
        sign: one of `manifest.SIGNS`.
        draw: one of `manifest.DRAWN_AS`.
        equation: how a number is defined, in one line.
        paper: where that was published, with the place in it.
        selects: the field that selects layers or inputs.
        point: the word in `ProbePoint.probes` of the points that it can be used at.
    """

    kind: ClassVar[str] = ""
    text_name: ClassVar[str] = ""
    title: ClassVar[str] = ""
    help: ClassVar[str] = ""
    unit: ClassVar[str] = ""
    sign: ClassVar[str] = ""
    draw: ClassVar[str] = ""
    equation: ClassVar[str] = ""
    paper: ClassVar[str] = ""
    selects: ClassVar[str] = ""
    point: ClassVar[str] = ""

    def __init_subclass__(cls, **more: Any) -> None:
        super().__init_subclass__(**more)
        if "text_name" not in vars(cls):
            cls.text_name = cls.kind

    def __post_init__(self) -> None:
        name = getattr(self, "name", None)
        if name is not None and (not isinstance(name, str) or not name.strip()):
            raise SpecError(f"{type(self).__name__}(name=...) takes a non-empty string or None.")

    @property
    def selector(self) -> Selector:
        """Which layers or inputs are meant."""
        return getattr(self, self.selects)

    def resolved(self: P, paths: Sequence[str]) -> P:
        """Returns the probe with explicit paths in the place of its selector."""
        return self.with_selector(list(paths))

    def with_selector(self: P, selector: Selector) -> P:
        """Returns the probe with another selector."""
        changes: dict[str, Any] = {self.selects: selector}
        return dataclasses.replace(self, **changes)

    def definition(self, axes: Axes) -> str:
        """Returns one line that says how a number is defined, with its source.

        Args:
            axes: those of the tensor that is given out or explained.
        """
        del axes
        return f"{self.equation} ({self.paper})" if self.paper else self.equation

    def result(self, axes: Axes, sizes: Sizes, layer: str = "the layer") -> tuple[Axes, Sizes]:
        """Returns the axes and sizes of what is made of a tensor (given out or explained).

        A method that only leaves axes out says which it keeps in `kept_axes`. One that adds axes
        or changes sizes overrides this.

        Args:
            axes: the tensor's.
            sizes: the tensor's.
            layer: what the layer is called in the message.

        Raises:
            InstrumentError: the probe asks for axes or entries that are not there, or the tensor
                has not the sizes that the probe was written for.
        """
        kept = self.kept_axes(axes, layer)
        return tuple(axes[i] for i in kept), tuple(sizes[i] for i in kept)

    def kept_axes(self, axes: Axes, layer: str = "the layer") -> tuple[int, ...]:
        """Returns which axes of the tensor are kept, in their order: all of them.

        Args:
            axes: the tensor's.
            layer: what the layer is called in the message.

        Raises:
            InstrumentError: the probe asks for axes that are not there.
        """
        del layer
        return tuple(range(len(axes)))

    def detail(self, axes: Axes) -> dict[str, Any]:
        """Returns further facts for the manifest, as plain JSON values."""
        del axes
        return {}

    def described(self, axes: Axes) -> dict[str, Any]:
        """Returns what an `OutputSpec` says that depends on the method alone.

        Args:
            axes: those of the tensor that is given out or explained.
        """
        return {
            "kind": self.kind,
            "title": self.title,
            "unit": self.unit,
            "sign": self.sign,
            "paper": self.paper,
            "draw": self.draw,
            "method": self.definition(axes),
            "detail": self.detail(axes),
        }


def all_methods(family: type[P]) -> list[type[P]]:
    """Returns the methods of a family that have a name, each once, its families' included."""
    found, left = [], [family]
    while left:
        for method in left.pop().__subclasses__():
            left.append(method)
            if method.text_name and method not in found:
                found.append(method)
    return found
