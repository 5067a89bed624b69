"""What a comparison of an artefact found: figures by output, as a mapping and as a table."""

from __future__ import annotations

import abc
from collections.abc import Iterator, Mapping
from typing import Any, ClassVar, Protocol, TypeVar

from probegen.text import indented_table


class Figures(Protocol):
    """How far one output is off."""

    @property
    def passed(self) -> bool:
        """Whether it agrees."""


F = TypeVar("F", bound=Figures)


class Comparison(Mapping[str, F]):
    """Figures by output name; prints as a table.

    Attributes:
        columns: of the table.
        outputs: the figures.
    """

    columns: ClassVar[tuple[str, ...]]
    outputs: Any

    def __getitem__(self, name: str) -> F:
        figures: F = self.outputs[name]
        return figures

    def __iter__(self) -> Iterator[str]:
        return iter(self.outputs)

    def __len__(self) -> int:
        return len(self.outputs)

    @property
    def passed(self) -> bool:
        """Whether every output agrees."""
        return all(figures.passed for figures in self.values())

    @abc.abstractmethod
    def title(self) -> str:
        """Says what was compared, in a line."""

    @abc.abstractmethod
    def row(self, name: str, figures: F) -> tuple[str, ...]:
        """Returns what the table says of an output; see `columns`."""

    def rows(self) -> list[tuple[str, ...]]:
        """Returns the table, a row an output; see `columns`."""
        return [self.row(name, figures) for name, figures in self.items()]

    def __str__(self) -> str:
        return f"{self.title()}\n{indented_table(self.columns, self.rows())}"
