"""Where onnxruntime for browsers comes from."""

import io
import stat
import tarfile

import pytest

from probegen.errors import SpecError
from probegen.web.onnxruntime_web import FILES, VERSION, bundle_of
from tests.web.support import CONTENT, fake_package


@pytest.mark.parametrize("place", ["", "dist", ".."])
def test_from_a_folder(place, tmp_path):
    """The package, its `dist`, or the folder of packages that it lies in."""
    package = fake_package(tmp_path, "1.29.0")
    bundle = bundle_of(package / place)
    assert (dict(bundle.files), bundle.version) == (CONTENT, "1.29.0")


def test_the_version_that_the_script_tells(tmp_path):
    package = fake_package(tmp_path)
    (package / "package.json").unlink()
    assert bundle_of(package).version == ""
    (package / "dist" / FILES[0]).write_text("/*!\n * ONNX Runtime Web v1.31.0-dev\n */")
    assert bundle_of(package).version == "1.31.0-dev"


def test_a_folder_without_it(tmp_path):
    package = fake_package(tmp_path)
    (package / "dist" / FILES[2]).unlink()
    with pytest.raises(SpecError, match=rf"no folder of onnxruntime-web.*npm pack .*@{VERSION}"):
        bundle_of(package)


def npm(folder, script):
    """A program called npm."""
    path = folder / "npm"
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)


def packed(path, names):
    with tarfile.open(path, "w:gz") as archive:
        for name in names:
            entry = tarfile.TarInfo(f"package/dist/{name}")
            entry.size = len(CONTENT[name])
            archive.addfile(entry, io.BytesIO(CONTENT[name]))


def test_from_npm(tmp_path, monkeypatch):
    """npm is asked for the version that pages are tested with, and runs nothing of the package."""
    packed(tmp_path / "p.tgz", FILES)
    npm(tmp_path, f'echo "$@" > {tmp_path}/asked; cp {tmp_path}/p.tgz ./onnxruntime-web.tgz')
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    bundle = bundle_of(None)
    assert (dict(bundle.files), bundle.version) == (CONTENT, VERSION)
    asked = (tmp_path / "asked").read_text()
    assert f"pack onnxruntime-web@{VERSION}" in asked
    assert "--ignore-scripts" in asked


def test_npm_that_fails(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    npm(tmp_path, "echo 'network is down' >&2; exit 1")
    with pytest.raises(SpecError, match=r"network is down.*--onnxruntime-web DIR"):
        bundle_of(None)
    packed(tmp_path / "p.tgz", FILES[:2])
    npm(tmp_path, f"cp {tmp_path}/p.tgz ./onnxruntime-web.tgz")
    with pytest.raises(SpecError, match="cannot be read"):
        bundle_of(None)
    monkeypatch.setenv("PATH", str(tmp_path / "empty"))
    with pytest.raises(SpecError, match=r"npm is not installed.*--onnxruntime-web DIR"):
        bundle_of(None)
