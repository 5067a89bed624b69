"""The HTML report: whole, self-contained, escaped, and complete."""

import base64
import hashlib
import re
import shutil
import subprocess
from html.parser import HTMLParser

import numpy as np
import pytest

from probegen import parity
from probegen.artefact.manifest import TargetSpec
from probegen.errors import InputError
from probegen.runtime.plot.style import INK
from tests.runtime.support import images, result_of

VOID = {"meta", "img", "br", "hr", "link", "input"}
EVIL = "<script>alert('x')</script>\"&"


class Page(HTMLParser):
    """Collects tags and text, and sees that each tag is closed in turn."""

    def __init__(self, path):
        super().__init__()
        self.open, self.tags, self.text, self.cells, self.scripts = [], [], [], [], []
        self.raw = path.read_text(encoding="utf-8")
        self.feed(self.raw)
        self.close()
        assert self.open == [], f"never closed: {self.open}"

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if data.strip() and self.open[-1] == "script":
            self.scripts.append(data)
        elif data.strip() and self.open[-1] != "style":
            self.text.append(data.strip())
            if self.open[-1] in ("td", "dd"):
                self.cells.append(data.strip())

    def all(self, tag):
        return [attrs for name, attrs in self.tags if name == tag]


@pytest.fixture(scope="module")
def page(artefact, tmp_path_factory):
    place = tmp_path_factory.mktemp("report")
    path = artefact.run(images(3), target=["cat", -1, 0]).to_html(place / "r.html")
    assert list(place.iterdir()) == [path]
    return Page(path)


def test_facts(page):
    assert page.text.count("zoo") >= 1
    assert "zoo.onnx" in page.cells
    assert "name zoo, class Functional" in page.cells
    assert "image: float32 [batch, height=5, width=7, channel=3]" in page.cells
    (explained,) = [c for c in page.cells if c.startswith("chosen in this run")]
    assert explained == (
        "chosen in this run: cat (2), argmax, ant (0) (the logit, before softmax or sigmoid)"
    )
    assert "ant, bee, cat, dog" in page.cells
    assert "explanations can be switched off in each run" in page.cells


def test_table_of_outputs(artefact, tmp_path):
    x = images(3)
    result = artefact.run(x)
    cells = Page(result.to_html(tmp_path / "r.html")).cells
    start = cells.index("saliency/image")
    heat = result["saliency/image"].array.astype(np.float64)
    assert cells[start : start + 8] == [
        "saliency/image", "Saliency", "image", "float32 [batch=3, height=5, width=7]",
        result["saliency/image"].spec.method,
        *(f"{f(heat):.4g}" for f in (np.min, np.mean, np.max)),
    ]  # fmt: skip


def test_pictures_are_inline(page):
    pictures = page.all("svg")
    assert len(pictures) == 3 * 3
    assert all(p["role"] == "img" and p["aria-label"] and int(p["width"]) > 100 for p in pictures)
    sources = [image["xlink:href"] for image in page.all("image")]
    assert sources
    for source in sources:
        kind, data = source.split(",", 1)
        assert kind == "data:image/png;base64"
        assert base64.b64decode(data).startswith(b"\x89PNG")


def test_pictures_take_the_colours_of_the_page(page):
    assert "var(--ink)" in page.raw
    assert INK not in page.raw.partition("</style>")[2]
    identifiers = [attrs["id"] for _, attrs in page.tags if "id" in attrs]
    assert len(set(identifiers)) == len(identifiers)


def test_outputs_of_layers_come_last_of_the_pictures(artefact, tmp_path):
    result = artefact.run(images(3))
    page = Page(result.to_html(tmp_path / "r.html", samples=2))
    kinds = [record.kind for record in result.values()]
    ordered = sorted(result.values(), key=lambda r: r.kind == "activation")
    places = [page.raw.index(f"<code>{r.name}</code>") for r in ordered]
    assert places == sorted(places), kinds
    assert "3 in this run, the first 2 shown" in page.cells


def test_the_only_output_is_no_highest_class(tmp_path):
    x, axes = np.ones((2, 3)), ("batch", "feature")
    more = {"target": TargetSpec("argmax"), "input": "x"}
    result = result_of(
        {"x": (x, axes, {})},
        {"y": (x[:, :1], "prediction", axes, {}), "saliency/x": (x, "saliency", axes, more)},
    )
    assert "the output" in [
        c.split(" (")[0] for c in Page(result.to_html(tmp_path / "r.html")).cells
    ]


def test_pictures_come_before_tables(page):
    assert page.raw.index("<svg") < page.raw.index("<table")
    assert page.raw.index("<svg") - page.raw.index("</style>") < 2000


def test_nothing_from_outside(page):
    (script,) = page.scripts
    assert page.all("script") == [{}]
    assert not re.search(r"eval|Function\(|innerHTML|document\.write|setTimeout|fetch|XML", script)
    assert not page.all("link")
    assert not re.search(r"https?://|@import|url\((?!#)", page.raw)
    (policy,) = (m["content"] for m in page.all("meta") if "http-equiv" in m)
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert policy == (
        "default-src 'none'; img-src data:; style-src 'unsafe-inline'; "
        f"script-src 'sha256-{digest}'"
    )
    assert all(a["href"].startswith("#sample-") for a in page.all("a"))


def test_dark_and_light(page):
    assert "color-scheme: light dark" in page.raw
    assert "prefers-color-scheme: dark" in page.raw


@pytest.mark.parametrize(("samples", "sections"), [(0, 0), (1, 1), (2, 2), (9, 3)])
def test_samples_are_capped(artefact, tmp_path, samples, sections):
    path = artefact.run(images(3), explain=False).to_html(tmp_path / "r.html", samples=samples)
    assert [h["id"] for h in Page(path).all("h2") if "id" in h] == [
        f"sample-{i}" for i in range(sections)
    ]


def test_four_samples_unless_told_otherwise(artefact, tmp_path):
    path = artefact.run(images(6), explain=False).to_html(tmp_path / "r.html")
    assert len(Page(path).all("svg")) == 4


def evil_result(**changes):
    ids = np.array([[1, 2, 3]], np.int32)
    axes = ("batch", "time")
    return result_of(
        {EVIL: (ids, axes, {"vocabulary": 9})},
        {
            EVIL + "p": (np.array([[0.4, 0.6]]), "prediction", ("batch", "class"), {}),
            EVIL + "s": (
                np.array([[0.5, -1.0, 0.25]]), "integrated_gradients", axes,
                {"layer": EVIL, "method": EVIL},
            ),
        },
        class_names=(EVIL, EVIL + "2"),
        model={"name": EVIL},
        producer={EVIL: EVIL},
        certificate={"samples": EVIL, "passed": False, "against": EVIL, "outputs": {EVIL: {}}},
        **changes,
    )  # fmt: skip


def test_everything_is_escaped(tmp_path):
    path = evil_result().to_html(tmp_path / "r.html", tokens=[EVIL, "b", "c"], title=EVIL)
    page = Page(path)
    assert len(page.scripts) == len(page.all("script")) == 1
    assert EVIL not in page.scripts[0]
    assert EVIL in page.text
    assert any(text.startswith("failed on") for text in page.text)


def test_text_is_text(tmp_path):
    tokens = ["good", "bad  one", "\n"]
    path = evil_result().to_html(tmp_path / "r.html", tokens=tokens)
    page = Page(path)
    spans = [s for s in page.all("span") if "style" in s]
    assert len(spans) == 3
    assert [s["title"] for s in spans] == [
        "integrated gradients 0.5", "integrated gradients \u22121", "integrated gradients 0.25",
    ]  # fmt: skip
    shown = [t for t in page.text if t in ("good", "bad\u2423\u2423one", "\u21b5")]
    assert shown == ["good", "bad\u2423\u2423one", "\u21b5"]
    colours = [re.match(r"background:(#\w{6});color:(white|#\w{6})$", s["style"]) for s in spans]
    reds = [int(c[1][1:3], 16) - int(c[1][5:7], 16) for c in colours]
    assert reds[0] > reds[2] > 0 > reds[1]
    assert colours[1][2] == "white"


def test_certificate(tmp_path):
    """Shows what the verifier writes, the limits above all."""
    rng = np.random.default_rng(5)
    y, g = rng.normal(size=(3, 1)), rng.normal(size=(3, 2))
    given = {"x": (np.ones((3, 2)), ("batch", "feature"), {})}
    outputs = {
        "y": (y, "prediction", ("batch", "unit"), {}),
        "g": (g, "input_gradient", ("batch", "feature"), {"input": "x"}),
    }
    specs = result_of(given, outputs).manifest.outputs
    figures = {
        "y": parity.compare(specs[0], y * (1 + 1e-6), y),
        "g": parity.compare(specs[1], g * 1.5, g),
    }
    runs = [{"batch": 3, "sizes": {"x[time]": 13}, "rows": []}]
    report = parity.Report("m.onnx", "zoo", 3, True, figures, runs)
    result = result_of(given, outputs, certificate=report.to_json())
    page = Page(result.to_html(tmp_path / "r.html"))
    assert "failed on 3 samples against zoo" in page.text
    start = page.cells.index("g", page.cells.index("agrees"))
    row = page.cells[start : page.cells.index("differs") + 1]
    columns = page.text[page.text.index("Max. absolute difference") - 1 :]
    said = dict(zip(columns, row, strict=False))
    assert any("batch 3, x[time] 13" in text for text in page.text)
    for field, title in (
        ("l2_rel", "Relative distance (L2)"),
        ("limit", "Limit"),
        ("worst", "Worst sample"),
        ("worst_limit", "Its limit"),
    ):
        assert said[title] == f"{getattr(figures['g'], field):.4g}"
    assert said["Verdict"] == "differs"


def test_no_certificate_no_section(page):
    assert "Parity certificate" not in page.text


def test_wrong_arguments(artefact, tmp_path):
    result = artefact.run(images(2), explain=False)
    with pytest.raises(InputError, match="samples is -1; it must be 0 or more"):
        result.to_html(tmp_path / "r.html", samples=-1)
    with pytest.raises(InputError, match="class_names has 9 entries, but no prediction"):
        result.to_html(tmp_path / "r.html", class_names=list("abcdefghi"))
    assert list(tmp_path.iterdir()) == []


# -- what a reader chooses -----------------------------------------------------------------------


def of_classes(names=("ant", EVIL)):
    """Two samples with a map a class, one of a layer without classes, and a prediction."""
    rng = np.random.default_rng(12)
    axes = ("batch", "feature")
    return result_of(
        {"row": (rng.random((2, 3)), axes, {})},
        {
            "y": (np.array([[0.4, 0.6], [0.7, 0.3]]), "prediction", ("batch", "class"), {}),
            "all/row": (
                rng.normal(size=(2, 2, 3)), "integrated_gradients", ("batch", "class", "feature"),
                {"input": "row", "target": TargetSpec("all", output="y", classes=2, count=2)},
            ),
            "one/row": (rng.random((2, 3)), "saliency", axes, {"input": "row"}),
        },
        class_names=names,
    )  # fmt: skip


def options_of(page, name):
    """Values of one choice, in order."""
    places = [i for i, (tag, _) in enumerate(page.tags) if tag == "select"]
    start = next(i for i in places if page.tags[i][1]["name"] == name)
    found = []
    for tag, attrs in page.tags[start + 1 :]:
        if tag != "option":
            break
        found.append(attrs["value"])
    return found


def test_choices_and_what_they_choose_of(tmp_path):
    page = Page(of_classes().to_html(tmp_path / "r.html"))
    assert options_of(page, "sample") == ["", "0", "1"]
    assert options_of(page, "output") == ["", "y", "all/row", "one/row"]
    assert options_of(page, "class") == ["", "ant", EVIL]
    assert [s["data-sample"] for s in page.all("section") if "data-sample" in s] == ["0", "1"]
    outputs = [a["data-output"] for a in page.all("article")]
    assert outputs == ["y", "all/row", "one/row"] * 2
    classes = [f["data-class"] for f in page.all("figure") if "data-class" in f]
    assert classes == ["ant", EVIL] * 2
    assert len(page.all("figure")) == 8
    # Nothing is hidden where no script runs, but what only a script can use.
    assert [tag for tag, attrs in page.tags if "hidden" in attrs] == ["form", "p", "p"]
    assert all("data-none" in p for p in page.all("p") if "hidden" in p)


def test_no_choice_where_there_is_one_thing(artefact, tmp_path):
    page = Page(artefact.run(images(1), explain=False).to_html(tmp_path / "r.html"))
    assert page.all("select") == []
    none = Page(artefact.run(images(1)).to_html(tmp_path / "r.html", samples=0))
    assert not none.scripts
    assert not none.all("form")


@pytest.mark.skipif(shutil.which("chromium") is None, reason="needs a browser")
@pytest.mark.parametrize(("link", "shown"), [("", "0"), ("#sample-1", "1")])
def test_a_browser_shows_what_is_chosen(tmp_path, link, shown):
    path = of_classes().to_html(tmp_path / "r.html")
    text = path.read_text(encoding="utf-8")
    for value in ("ant", "all/row"):  # as a reader would choose them
        text = text.replace(f'<option value="{value}">', f'<option value="{value}" selected>')
    path.write_text(text, encoding="utf-8")
    command = ["chromium", "--headless", "--no-sandbox", "--disable-gpu", "--dump-dom"]
    done = subprocess.run(
        [*command, f"{path.as_uri()}{link}"], capture_output=True, text=True, check=False
    )
    drawn = tmp_path / "drawn.html"
    drawn.write_text(done.stdout)
    page = Page(drawn)
    sections = {s["data-sample"]: s for s in page.all("section") if "data-sample" in s}
    assert [n for n, s in sections.items() if "hidden" not in s] == [shown]
    articles = [(a["data-output"], "hidden" in a) for a in page.all("article")]
    assert articles == [("y", True), ("all/row", False), ("one/row", True)] * 2
    figures = [(f["data-class"], "hidden" in f) for f in page.all("figure") if "data-class" in f]
    assert figures == [("ant", False), (EVIL, True)] * 2
    assert all("hidden" in p for p in page.all("p") if "data-none" in p)
    assert "hidden" not in page.all("form")[0]
    assert "hidden" in page.all("nav")[0]
