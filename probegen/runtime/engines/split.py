"""Two graphs of one artefact as one engine: the first predicts, the second explains as well.

Whatever engine runs the first runs the second. The second is opened by the first request that asks
for an explanation, so that until then memory is that of the plain model.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence

from probegen.runtime.engines.base import Engine
from probegen.runtime.inputs import Array


class SplitEngine(Engine):
    """Lets the first graph compute what it can, and the second all else."""

    def __init__(self, plain: Engine, open_second: Callable[[], Engine]) -> None:
        """Takes the first graph, opened, and what opens the second."""
        self.product = plain.product
        self.manifest_text = plain.manifest_text
        self.signatures = plain.signatures
        self.plain = plain
        self._open_second = open_second
        self._second: Engine | None = None
        self._lock = threading.Lock()

    @property
    def name(self) -> str:
        """Engine and devices of the first graph, which are those of the second."""
        return self.plain.name

    def run(self, feeds: Mapping[str, Array], outputs: Sequence[str]) -> dict[str, Array]:
        """Computes outputs; see `Engine.run`."""
        (own,) = self.plain.signatures
        if set(outputs) <= set(own.outputs):
            return self.plain.run({n: a for n, a in feeds.items() if n in own.inputs}, outputs)
        return self.second().run(feeds, outputs)

    def second(self) -> Engine:
        """Returns the graph that explains, opened once.

        Raises:
            ArtefactError: it cannot be opened, or belongs to another build by now.
        """
        with self._lock:
            if self._second is None:
                self._second = self._open_second()
            return self._second
