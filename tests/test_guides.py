"""The guides' Python is run as it stands there; what the pages name is there."""

import inspect
import re
from operator import attrgetter
from pathlib import Path

import matplotlib as mpl
import pytest

import probegen as pg
from probegen import runtime
from tests.test_readme import CLASSIFIER, code_of, save

GUIDES = Path(__file__).parent.parent / "docs" / "guides"


@pytest.mark.parametrize("name", sorted(path.stem for path in GUIDES.glob("*.md")))
def test_a_guide_runs(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(mpl, "use", lambda _: None)
    save(CLASSIFIER, "any.onnx", kernel=(5, 3, 3, 2), matrix=(5, 4))
    text = (GUIDES / f"{name}.md").read_text("utf-8")
    code = code_of(text)
    exec(compile(code, f"{name}.md", "exec"), {})
    written = re.findall(r'"(\w+\.(?:onnx|html|png))"', code)
    assert written
    assert all(Path(file).stat().st_size for file in written)


#: The recipes of ARCHITECTURE.md name what a reader makes.
PAGES = sorted(p for p in GUIDES.parent.rglob("*.md") if p.stem != "ARCHITECTURE")


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.stem)
def test_what_pages_name_is_there(page):
    """Names of `pg` and `runtime`, and the fields that a page gives to a probe."""
    text = page.read_text("utf-8")
    for module, path in set(re.findall(r"`(pg|runtime)\.(\w+(?:\.\w+)*)", text)):
        assert attrgetter(path)({"pg": pg, "runtime": runtime}[module]), path
    for name, given in re.findall(r"`pg\.([A-Z]\w+)\(([^()`]*)\)", text):
        fields = inspect.signature(getattr(pg, name)).parameters
        assert set(re.findall(r"(?:^|, )(\w+)=", given)) <= set(fields), name
