"""Names of features, with their units."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping
from typing import Any

#: A name with its unit, such as `wind speed [m/s]`.
_WITH_UNIT = re.compile(r"(.*\S)\s+\[([^\[\]]+)\]")


@dataclasses.dataclass(frozen=True)
class Feature:
    """A feature of an input.

    Attributes:
        name: what it is called.
        unit: what its numbers are in; empty where that is not known.
    """

    name: str
    unit: str = ""

    @property
    def label(self) -> str:
        """The name with the unit, such as `wind speed [m/s]`."""
        return f"{self.name} [{self.unit}]" if self.unit else self.name


def feature(given: Any) -> Feature:
    """Returns a feature as a caller names it.

    Args:
        given: a name, `"name [unit]"`, or a pair of name and unit.
    """
    if isinstance(given, Feature):
        return given
    if isinstance(given, tuple | list) and len(given) == 2:
        return Feature(str(given[0]), str(given[1] or ""))
    found = _WITH_UNIT.fullmatch(str(given))
    return Feature(found[1], found[2]) if found else Feature(str(given))


def wrong_features(names: Any) -> str | None:
    """Returns what is wrong with names that a caller gave for features, None where nothing is."""
    is_list = hasattr(names, "__len__") and hasattr(names, "__iter__")
    if not is_list or isinstance(names, str | bytes | Mapping):
        return f"feature_names takes a list with a name for each feature, got {names!r}."
    called = [feature(given).name for given in names]
    twice = sorted({name for name in called if called.count(name) > 1})
    if twice:
        return f"feature_names has {', '.join(map(repr, twice[:5]))} twice; each needs its own."
    if not all(name.strip() for name in called):
        return "feature_names has an empty name."
    return None
