"""What the server counts and measures, in Prometheus' format."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.exposition import CONTENT_TYPE_LATEST

from probegen._version import __version__
from probegen.runtime.drift import OutputDrift

CONTENT_TYPE = CONTENT_TYPE_LATEST
#: Upper bounds of times, in seconds, and of samples in a batch.
_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
_SAMPLES = (1, 2, 4, 8, 16, 32, 64, 128)


class Metrics:
    """The metrics of one server, in a registry of its own.

    The label `explain` is `true` or `false`: whether explanations were computed.
    """

    def __init__(self, model: str, waiting: Callable[[], int]) -> None:
        """Takes the model's name, and what tells how many requests wait."""
        self.registry = CollectorRegistry()
        self._model = model
        labels = ("model", "explain")

        def histogram(name: str, text: str, buckets: tuple[float, ...]) -> Histogram:
            return Histogram(
                f"probegen_{name}", text, labels, buckets=buckets, registry=self.registry
            )

        self._requests = Counter(
            "probegen_requests",
            "Requests for inference, by HTTP status.",
            (*labels, "status"),
            registry=self.registry,
        )
        self._samples = Counter(
            "probegen_samples", "Samples that were run.", labels, registry=self.registry
        )
        self._request = histogram("request_seconds", "From request to response.", _SECONDS)
        self._queue = histogram("queue_seconds", "Waiting for a run.", _SECONDS)
        self._run = histogram("run_seconds", "A run of a batch.", _SECONDS)
        self._batch = histogram("batch_samples", "Samples in a batch.", _SAMPLES)
        Gauge(
            "probegen_queue_length", "Requests that wait.", ("model",), registry=self.registry
        ).labels(model).set_function(waiting)
        Gauge("probegen_info", "Which probegen.", ("version",), registry=self.registry).labels(
            __version__
        ).set(1)

    def watch(self, drift: Callable[[], Sequence[OutputDrift]]) -> None:
        """Adds attribution drift, which is computed when the metrics are asked for."""
        self.registry.register(_Drift(self._model, drift))

    def request(self, explain: bool, status: int, seconds: float) -> None:
        """Counts a request that was answered."""
        labels = (self._model, _word(explain))
        self._requests.labels(*labels, str(status)).inc()
        self._request.labels(*labels).observe(seconds)

    def waited(self, explain: bool, seconds: float) -> None:
        """Notes how long a request was in the queue."""
        self._queue.labels(self._model, _word(explain)).observe(seconds)

    def batch(self, explain: bool, samples: int, seconds: float) -> None:
        """Notes a run."""
        labels = (self._model, _word(explain))
        self._samples.labels(*labels).inc(samples)
        self._batch.labels(*labels).observe(samples)
        self._run.labels(*labels).observe(seconds)

    def text(self) -> bytes:
        """Returns all of them as Prometheus reads them."""
        return generate_latest(self.registry)


class _Drift:
    """Attribution drift as metrics: distances of each output, and those of the units that moved."""

    def __init__(self, model: str, drift: Callable[[], Sequence[OutputDrift]]) -> None:
        self._model, self._drift = model, drift

    def collect(self) -> Iterator[GaugeMetricFamily]:
        """Yields the metrics."""
        labels = ("model", "output")
        families = {
            name: GaugeMetricFamily(f"probegen_attribution_{name}", text, labels=labels)
            for name, text in (
                ("samples", "Explained samples that are compared with the reference."),
                ("psi", "Largest population stability index of a feature or bin."),
                ("js", "Largest Jensen-Shannon distance of a feature or bin."),
                ("moved", "Features or bins that have moved."),
            )
        }
        units = GaugeMetricFamily(
            "probegen_attribution_moved_psi",
            "Population stability index of a feature or bin that has moved.",
            labels=(*labels, "unit"),
        )
        for own in self._drift():
            figures = {
                "samples": own.samples,
                "psi": own.psi,
                "js": own.js,
                "moved": len(own.moved),
            }
            for name, figure in figures.items():
                families[name].add_metric((self._model, own.output), figure)
            for unit in own.moved:
                units.add_metric((self._model, own.output, unit.name), unit.psi)
        yield from (*families.values(), units)


def _word(explain: bool) -> str:
    return "true" if explain else "false"
