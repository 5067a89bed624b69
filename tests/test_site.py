"""The site: the page of methods has a place for a picture behind each heading."""

import importlib.util
import sys
import types
from pathlib import Path

from probegen import methods

ROOT = Path(__file__).parent.parent


def test_each_method_gets_its_picture(monkeypatch, tmp_path):
    files = types.ModuleType("mkdocs.structure.files")
    files.File = object  # mkdocs is in an environment of its own
    for name in ("mkdocs", "mkdocs.structure"):
        monkeypatch.setitem(sys.modules, name, types.ModuleType(name))
    monkeypatch.setitem(sys.modules, "mkdocs.structure.files", files)
    spec = importlib.util.spec_from_file_location("mkdocs_hooks", ROOT / "mkdocs_hooks.py")
    hooks = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(hooks)
    monkeypatch.setattr(hooks, "PICTURES", tmp_path)
    for method in methods.METHODS:
        (tmp_path / f"{method.text_name}.png").write_bytes(b"")
    page = hooks.with_pictures((ROOT / "docs" / "METHODS.md").read_text("utf-8"))
    for method in methods.METHODS:
        assert f"## {method.title}\n\n![](catalogue/{method.text_name}.png)\n\n`pg." in page
