"""Draws random choices, as what they are in Python code."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeVar

import numpy as np

T = TypeVar("T")


class Draw:
    """Random choices from one seed.

    Args:
        key: `"<seed>:<number>"`.
    """

    def __init__(self, key: str) -> None:
        self.rng = np.random.default_rng([int(part) for part in key.split(":")])

    def one(self, choices: Sequence[T]) -> T:
        """Returns one of some."""
        return choices[int(self.rng.integers(len(choices)))]

    def some(self, choices: Sequence[T], least: int = 1) -> list[T]:
        """Returns a few of some, in their order."""
        count = self.whole(least, len(choices))
        at = sorted(self.rng.choice(len(choices), count, replace=False))
        return [choices[int(i)] for i in at]

    def whole(self, low: int, high: int) -> int:
        """Returns a whole number; both ends are possible."""
        return int(self.rng.integers(low, high + 1))

    def number(self, low: float, high: float) -> float:
        """Returns a number of three digits."""
        return float(f"{self.rng.uniform(low, high):.3g}")

    def maybe(self, chance: float = 0.5) -> bool:
        """Returns True as often as `chance` says."""
        return bool(self.rng.random() < chance)

    def call(self, name: str, /, *args: Any, **given: Any) -> str:
        """Returns the code of a call; strings are code, `repr` them where they are text."""
        parts = [str(a) for a in args] + [f"{k}={v}" for k, v in given.items()]
        return f"{name}({', '.join(parts)})"

    def arguments(self, **chances: tuple[float, Sequence[Any]]) -> dict[str, Any]:
        """Returns keyword arguments: each is given by chance, as the `repr` of one of some."""
        found = {}
        for name, (chance, choices) in chances.items():
            if self.maybe(chance):
                found[name] = repr(self.one(choices))
        return found
