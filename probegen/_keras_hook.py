"""Lets `keras.saving.load_model` find instrumented models after a plain `import probegen`.

Keras loads only classes that were registered, and registering ours means importing Keras and
TensorFlow, which `import probegen` must not do. So it is done when Keras itself is imported.
"""

from __future__ import annotations

import importlib
import importlib.abc
import importlib.machinery
import importlib.util
import sys
from collections.abc import Sequence
from types import ModuleType


def register_with_keras() -> None:
    """Registers the instrumented model class now if Keras is loaded, else once it is."""
    if sys.modules.get("keras") is not None:
        _register()
    elif not any(isinstance(finder, _WaitForKeras) for finder in sys.meta_path):
        sys.meta_path.insert(0, _WaitForKeras())


def _register() -> None:
    """Imports the module whose class registers itself; not for Keras on other backends."""
    if sys.modules.get("tensorflow") is not None:
        importlib.import_module("probegen.sources.keras.instrumented")


class _WaitForKeras(importlib.abc.MetaPathFinder):
    """Steps aside at the import of Keras, after arranging for the registration to follow it."""

    def find_spec(
        self,
        fullname: str,
        path: Sequence[str] | None,
        target: ModuleType | None = None,
    ) -> importlib.machinery.ModuleSpec | None:
        """Returns Keras' own spec with our loader around its loader; None for other modules."""
        del path, target
        if fullname != "keras":
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(fullname)
        if spec is not None and spec.loader is not None:
            spec.loader = _ThenRegister(spec.loader)
        return spec


class _ThenRegister(importlib.abc.Loader):
    """Loads a module as its own loader does, then registers."""

    def __init__(self, loader: importlib.abc.Loader) -> None:
        self._loader = loader

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> ModuleType | None:
        """Leaves the creation to the module's own loader."""
        return self._loader.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        """Runs the module, hands it back to its own loader, and registers."""
        if module.__spec__ is not None:
            module.__spec__.loader = self._loader
        module.__loader__ = self._loader
        self._loader.exec_module(module)
        _register()
