"""The suites by name."""

from __future__ import annotations

import functools
import gc
from collections.abc import Sequence

from sweep.outcome import Outcome, sweep
from sweep.subject import Subject
from sweep.tensorflow_ops.row import Row, run

SUITES = ("layers", "applications", "hub", "tensorflow")

#: Anything that a suite lists: models, or single operations.
Named = Subject | Row


@functools.cache
def subjects(suite: str, large: bool = False) -> tuple[Named, ...]:
    """Returns the models or operations of a suite, in the order of the table.

    Raises:
        ValueError: there is no such suite, or two of its rows have one name.
    """
    found: Sequence[Named]
    if suite == "layers":
        from sweep import activations, layers, operations, precision

        modules = (layers, activations, operations, precision)
        found = [s for module in modules for s in module.subjects()]
    elif suite == "applications":
        from sweep import applications

        found = applications.subjects(large)
    elif suite == "hub":
        from sweep import hub

        found = hub.subjects()
    elif suite == "tensorflow":
        from sweep import tensorflow_ops

        found = tensorflow_ops.rows()
    else:
        raise ValueError(f"there is no suite {suite!r}; there are {', '.join(SUITES)}")
    names = [s.name for s in found]
    twice = sorted({n for n in names if names.count(n) > 1})
    if twice:
        raise ValueError(f"two rows of {suite} are called {', '.join(twice)}")
    return tuple(found)


def sweep_one(suite: str, name: str, large: bool = False) -> Outcome:
    """Sweeps one row of a suite by its name."""
    gc.collect()  # the model of the row before, which may be large
    found = next(s for s in subjects(suite, large) if s.name == name)
    return run(found) if isinstance(found, Row) else sweep(found)
