"""Runs the tests beside a changed module, each time in a fork of this process."""

from __future__ import annotations

import importlib
import importlib.abc
import importlib.machinery
import importlib.util
import os
import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType

#: What takes long to import. None of it is changed, so that each fork has it already. It starts no
#: threads before it is used, which a fork would lose.
HEAVY = ("tensorflow", "keras", "tf2onnx", "onnx", "onnx_ir", "onnxruntime", "matplotlib.pyplot")

TOO_LATE = -1


def import_what_is_heavy() -> None:
    """Imports what every fork needs, once."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    os.environ.setdefault("CUDA_VISIBLE_DEVICES", "-1")
    os.environ.setdefault("MPLBACKEND", "agg")
    for name in (*HEAVY, "pytest", "_pytest.assertion.rewrite"):
        importlib.import_module(name)


class _Changed(importlib.abc.MetaPathFinder):
    """Finds one module with other code than that of its file, which stays as it is."""

    def __init__(self, name: str, path: Path, code: str) -> None:
        self.name, self.path, self.code = name, path, code

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        del path, target
        if fullname != self.name:
            return None
        loader = _Loader(fullname, str(self.path), self.code)
        within = [str(self.path.parent)] if self.path.name == "__init__.py" else None
        return importlib.util.spec_from_file_location(
            fullname, self.path, loader=loader, submodule_search_locations=within
        )


class _Loader(importlib.machinery.SourceFileLoader):
    def __init__(self, fullname: str, path: str, code: str) -> None:
        super().__init__(fullname, path)
        self.code = code

    def get_code(self, fullname: str) -> object:  # type: ignore[override]
        del fullname
        return compile(self.code, self.path, "exec", dont_inherit=True)


def run_tests(
    module: Path, code: str | None, tests: Sequence[Path], root: Path, seconds: float
) -> tuple[int, float]:
    """Runs tests with the code of a module replaced, or as it is.

    Tests that start processes of their own see the file, not the change.

    Returns:
        What pytest returned (0: all passed), or `TOO_LATE`, and how many seconds it took.
    """
    start = time.monotonic()
    child = os.fork()
    if child == 0:
        _in_the_fork(module, code, tests, root)
    while time.monotonic() - start < seconds:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status), time.monotonic() - start
        time.sleep(0.02)
    os.killpg(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return TOO_LATE, time.monotonic() - start


def _in_the_fork(module: Path, code: str | None, tests: Sequence[Path], root: Path) -> None:
    result: int = 70
    try:
        os.setpgid(0, 0)
        os.chdir(root)
        quiet = os.open(os.devnull, os.O_RDWR)
        for descriptor in (0, 1, 2):
            os.dup2(quiet, descriptor)
        if code is not None:
            name = ".".join(module.with_suffix("").parts).removesuffix(".__init__")
            sys.meta_path.insert(0, _Changed(name, root / module, code))
        import pytest

        options = ["-x", "-q", "-p", "no:cacheprovider", "-p", "no:xdist"]
        result = int(pytest.main([*options, *map(str, tests)]))
    finally:
        os._exit(result)
