"""What tests cost in processor time, which a busy machine changes less than it does the clock's."""

from __future__ import annotations

import collections
import os
from collections.abc import Generator, Mapping, Sequence
from typing import Any

import pytest

#: How many files are listed.
_LISTED = 15
#: Where pytest's cache keeps file -> seconds, for the order of the next run.
_KEPT = "probegen/processor_seconds"
#: What a test takes whose file was never run here, in seconds.
_USUAL = 0.1
#: Files that take less, in seconds, are not listed.
_LITTLE = 2.0


class ProcessorTime:
    """A plugin of pytest that adds up processor seconds by file, and prints the most expensive.

    What a process spends counts, whatever thread of it does, and what it has waited for: programs
    that a test starts. A fixture counts for the test that is the first to ask for it.

    Where several workers share the tests, the most expensive files go first, as they were when
    they last ran: what comes last is short, and no worker waits long for another. For this
    `--no-loadscope-reorder` has to be given.
    """

    def __init__(self) -> None:
        self._last = 0.0
        self._by_file: collections.Counter[str] = collections.Counter()
        self._of_workers = 0.0

    @pytest.hookimpl(trylast=True)
    def pytest_collection_modifyitems(
        self, config: pytest.Config, items: list[pytest.Item]
    ) -> None:
        """Puts the most expensive files first, in a worker."""
        if hasattr(config, "workerinput") and config.cache is not None:
            files = [_file_of(item.nodeid) for item in items]
            places = costliest_first(files, config.cache.get(_KEPT, {}))
            items.sort(key=lambda item: places[_file_of(item.nodeid)])

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_protocol(self) -> Generator[None, Any, Any]:
        """Counts what a test does from here on."""
        self._last = _spent()
        return (yield)

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_makereport(self) -> Generator[None, Any, Any]:
        """Writes down what a phase of a test has cost; reports travel from process to process."""
        report = yield
        now = _spent()
        report.processor_seconds, self._last = now - self._last, now
        return report

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Adds a phase to what its file has cost."""
        self._by_file[_file_of(report.nodeid)] += getattr(report, "processor_seconds", 0.0)

    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        """Lets a worker say what it has spent altogether."""
        output = getattr(session.config, "workeroutput", None)
        if output is not None:
            output["processor_seconds"] = _spent()

    @pytest.hookimpl(optionalhook=True)
    def pytest_testnodedown(self, node: Any) -> None:
        """Adds what a worker has spent."""
        self._of_workers += getattr(node, "workeroutput", {}).get("processor_seconds", 0.0)

    def pytest_terminal_summary(
        self, terminalreporter: pytest.TerminalReporter, config: pytest.Config
    ) -> None:
        """Prints the sum and the most expensive files, and keeps what each has cost."""
        if config.cache is not None:
            config.cache.set(_KEPT, {**config.cache.get(_KEPT, {}), **self._by_file})
        # A process that has workers waits for them as well: they would count twice.
        whole = self._of_workers + sum(os.times()[:2]) if self._of_workers else _spent()
        inside = sum(self._by_file.values())
        terminalreporter.section(
            f"processor time: {whole:.0f} s, of which {whole - inside:.0f} s are spent outside of "
            "tests (imports, collecting, waiting)"
        )
        for file, seconds in self._by_file.most_common(_LISTED):
            if seconds >= _LITTLE:
                terminalreporter.write_line(f"{seconds:6.1f} s  {file}")


def costliest_first(files: Sequence[str], known: Mapping[str, float]) -> dict[str, int]:
    """Returns the place of each file: the most expensive first.

    Args:
        files: the file of each test.
        known: file -> seconds; of others, the number of tests tells.
    """
    cost = {file: count * _USUAL for file, count in collections.Counter(files).items()}
    cost.update((file, seconds) for file, seconds in known.items() if file in cost)
    return {file: place for place, file in enumerate(sorted(cost, key=lambda f: -cost[f]))}


def _file_of(nodeid: str) -> str:
    return nodeid.partition("::")[0]


def _spent() -> float:
    """Returns the processor seconds of this process and of those that it has waited for."""
    return sum(os.times()[:4])
