"""The bill of materials of a lock, and whether the lock fits what the package asks for."""

import re
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from bill_of_materials import with_hashes

ROOT = Path(__file__).resolve().parent.parent


def component(name, version, *digests):
    hashes = [{"alg": "SHA-256", "content": digest} for digest in digests]
    files = {"type": "distribution", "url": "https://index/", "hashes": hashes}
    return {"name": name, "version": version, "externalReferences": [files] if digests else []}


def test_hashes_of_the_lock_are_in_the_bill():
    environment = {"components": [component("Py_thing", "1.0"), component("probegen", "0.1")]}
    bill = with_hashes(environment, {"components": [component("py-thing", "1.0", "aa", "bb")]})
    (files,) = bill["components"][0]["externalReferences"]
    assert [entry["content"] for entry in files["hashes"]] == ["aa", "bb"]
    assert bill["components"][1]["externalReferences"] == []


@pytest.mark.parametrize(
    ("installed", "locked", "told"),
    [
        ([("a", "1"), ("b", "2")], [("a", "1")], "b==2 is installed and is not in the lock"),
        ([("a", "1")], [("a", "2")], "a==1 is installed and is not in the lock"),
        ([("a", "1")], [("a", "1"), ("c", "3")], "the lock has c==3, which is not installed"),
    ],
)
def test_what_is_installed_is_what_is_locked(installed, locked, told):
    environment = {"components": [component(*pair) for pair in installed]}
    lock = {"components": [component(*pair, "aa") for pair in locked]}
    with pytest.raises(ValueError, match=told):
        with_hashes(environment, lock)


@pytest.mark.parametrize("extra", [None, "serve"])
def test_the_lock_has_what_the_package_asks_for(extra):
    """Each at a version within its bounds, with a hash at least, and no index."""
    text = (ROOT / "locks" / f"{extra or 'runtime'}.txt").read_text()
    assert "://" not in text
    pinned = dict(re.findall(r"^([\w.-]+)==([\w.]+)(?: ;.*)? \\\n    --hash=sha256:", text, re.M))
    assert len(pinned) == len(re.findall(r"^\w", text, re.M))
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    more = project["optional-dependencies"][extra] if extra else []
    for line in [*project["dependencies"], *more]:
        requirement = Requirement(line)
        assert pinned[requirement.name] in requirement.specifier, line
