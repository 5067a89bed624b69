"""What is written: whole, with the artefact as it is, and nothing of a model as HTML."""

import base64
import gzip
import hashlib
import html
import json
import re
from pathlib import Path

import pytest

from probegen import runtime
from probegen.errors import OutputExistsError, SpecError
from probegen.runtime.plot import style
from probegen.web import Options, write
from probegen.web.onnxruntime_web import WASM
from tests.serve.linear import linear_artefact
from tests.web.support import CONTENT, fake_package

EVIL = "</script><img src=x onerror=alert(1)>"


@pytest.fixture(scope="module")
def package(tmp_path_factory):
    return fake_package(tmp_path_factory.mktemp("npm"))


@pytest.fixture(scope="module")
def artefact(tmp_path_factory):
    names = [EVIL, "$told", "\u2028", "b", "c"]
    return linear_artefact(tmp_path_factory.mktemp("web") / "m.onnx", class_names=names)


def told_by(page):
    text = re.search(r'<script type="application/json" id="told">(.*?)</script>', page, re.S)[1]
    return json.loads(text)


def test_a_folder(artefact, package, tmp_path):
    written = write(artefact, tmp_path / "site", Options(onnxruntime_web=package, scale=0.5))
    site = tmp_path / "site"
    assert sorted(p.relative_to(site).as_posix() for p in written.files) == sorted(
        p.relative_to(site).as_posix() for p in site.rglob("*") if p.is_file()
    )
    assert (site / "m.onnx").read_bytes() == Path(artefact).read_bytes()
    for name, content in CONTENT.items():
        assert (site / "onnxruntime" / name).read_bytes() == content
    told = told_by((site / "index.html").read_text("utf-8"))
    assert told["manifest"] == json.loads(runtime.load(artefact).manifest.to_json())
    assert (told["graph"], told["data"], told["explainGraph"]) == ("m.onnx", None, None)
    assert (told["scale"], told["onnxruntime"]) == (0.5, "1.30.0")
    assert [p.name for p in tmp_path.iterdir()] == ["site"]


def test_what_a_page_on_the_disk_loads(artefact, package, tmp_path):
    """The same bytes once more, in scripts."""
    write(artefact, tmp_path / "site", Options(onnxruntime_web=package))
    local = tmp_path / "site" / "local"
    for name, content in CONTENT.items():
        text = _of(local, name)
        assert text.startswith(f'probegen.given("{name}", true, [\n')
        assert gzip.decompress(base64.b64decode(text.split('"')[3])) == content
    parts = re.findall(r'^"(.*)",$', _of(local, "m.onnx"), re.M)
    assert b"".join(map(base64.b64decode, parts)) == Path(artefact).read_bytes()


def _of(local, name):
    return (local / f"{name}.js").read_text()


def test_a_single_file(artefact, package, tmp_path):
    place = tmp_path / "page.html"
    written = write(artefact, place, Options(onnxruntime_web=package, single_file=True))
    assert written.files == (place,)
    page = place.read_text("utf-8")
    inlined = dict(re.findall(r'data-file="([^"]*)"[^>]*>([^<]*)</script>', page))
    assert base64.b64decode(inlined["m.onnx"]) == Path(artefact).read_bytes()
    assert gzip.decompress(base64.b64decode(inlined[WASM])) == CONTENT[WASM]
    # What the policy lets run is what stands there, and nothing else.
    policy = html.unescape(re.search(r'Content-Security-Policy" content="([^"]*)"', page)[1])
    run = re.findall(r"<script>(.*?)</script>", page, re.S)
    assert len(run) == 1
    for text in [*run, re.search(r"<style>(.*?)</style>", page, re.S)[1]]:
        digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
        assert f"'sha256-{digest}'" in policy
    assert "src=" not in re.sub(r"<script[ >].*?</script>", "", page, flags=re.S)


@pytest.mark.parametrize("single", [False, True])
def test_nothing_of_a_model_is_html(single, artefact, package, tmp_path):
    options = Options(onnxruntime_web=package, single_file=single, title=EVIL)
    page = write(artefact, tmp_path / "p", options).files[0].read_text("utf-8")
    assert EVIL not in page
    assert page.count(html.escape(EVIL)) == 2
    assert told_by(page)["manifest"]["class_names"][:3] == [EVIL, "$told", "\u2028"]


def test_no_address_of_elsewhere(artefact, package, tmp_path):
    page = write(artefact, tmp_path / "p", Options(onnxruntime_web=package, single_file=True))
    found = set(re.findall(r"https?://[^\s\"'`)]+", page.files[0].read_text("utf-8")))
    assert found == {"http://www.w3.org/2000/svg"}  # a name, which nothing fetches


def test_colours_are_those_of_the_pictures(artefact, package, tmp_path):
    page = write(artefact, tmp_path / "p", Options(onnxruntime_web=package)).files[0]
    colours = told_by(page.read_text("utf-8"))["colours"]
    for name, text in colours.items():
        levels = bytes.fromhex(text)
        for level in (0, 100, 255):
            expected = [round(c * 255) for c in style.colour_map(name)(level)[:3]]
            assert list(levels[3 * level : 3 * level + 3]) == expected


def test_two_graphs_and_their_weights(package, tmp_path):
    path = linear_artefact(tmp_path / "m.onnx", gate="split", external_data=True)
    write(path, tmp_path / "site", Options(onnxruntime_web=package))
    site = tmp_path / "site"
    told = told_by((site / "index.html").read_text("utf-8"))
    assert (told["graph"], told["explainGraph"]) == ("m.onnx", "m.explain.onnx")
    for name in filter(None, (told["graph"], told["explainGraph"], told["data"])):
        assert (site / name).read_bytes() == (tmp_path / name).read_bytes()
        assert (site / "local" / f"{name}.js").is_file()


def test_what_does_not_run_in_a_browser(package, tmp_path):
    path = linear_artefact(tmp_path / "m.onnx", gate="optional")
    with pytest.raises(SpecError, match=r"optional gate.*gate=True"):
        write(path, tmp_path / "site", Options(onnxruntime_web=package))
    assert not (tmp_path / "site").exists()


def test_a_place_that_is_taken(artefact, package, tmp_path):
    options = Options(onnxruntime_web=package)
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "mine.txt").write_text("mine")
    with pytest.raises(OutputExistsError, match="overwrite=True"):
        write(artefact, tmp_path / "site", options)
    assert [p.name for p in (tmp_path / "site").iterdir()] == ["mine.txt"]
    write(artefact, tmp_path / "site", options, overwrite=True)
    assert not (tmp_path / "site" / "mine.txt").exists()
    with pytest.raises(OutputExistsError, match="is a folder"):
        write(artefact, tmp_path / "site", Options(onnxruntime_web=package, single_file=True))


def test_nothing_is_left_of_a_page_that_fails(artefact, package, tmp_path, monkeypatch):
    monkeypatch.setattr("probegen.web.site.link_or_copy", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        write(artefact, tmp_path / "deep" / "site", Options(onnxruntime_web=package))
    assert list(tmp_path.iterdir()) == []


def test_a_number_that_scales_nothing(artefact, package, tmp_path):
    with pytest.raises(SpecError, match="finite"):
        write(artefact, tmp_path / "s", Options(onnxruntime_web=package, scale=float("nan")))
