"""Pages in headless Chromium; skipped where what `make test-web` installs is not there.

CHROMIUM says which browser, ONNXRUNTIME_WEB where the package lies, SCREENSHOTS where to leave
pictures of the pages.
"""

import functools
import http.server
import os
import re
import threading
from pathlib import Path

import numpy as np
import pytest

from probegen import runtime
from probegen.runtime.plot import class_panels
from probegen.runtime.plot.labels import Labels
from probegen.runtime.plot.view import view_of
from probegen.web import Options, write

ROOT = Path(__file__).resolve().parents[3]
#: Returns the texts of a page that hardly stand out.
CONTRAST = Path(__file__).with_name("contrast.js")
PACKAGE = ROOT / "runs_where" / "javascript" / "node_modules" / "onnxruntime-web"


@pytest.fixture(scope="session")
def package():
    folder = Path(os.environ.get("ONNXRUNTIME_WEB", PACKAGE))
    if not folder.is_dir():
        pytest.skip("onnxruntime-web is not there; make test-web installs it")
    return folder


@pytest.fixture(scope="session")
def browser():
    playwright = pytest.importorskip("playwright.sync_api", reason="make test-web installs it")
    program = os.environ.get("CHROMIUM", "/usr/bin/chromium")
    if not Path(program).exists():
        pytest.skip(f"there is no {program}")
    with playwright.sync_playwright() as started:
        opened = started.chromium.launch(executable_path=program, args=["--no-sandbox"])
        yield opened
        opened.close()


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_):
        pass


class Shown:
    """A page in the browser, and what it said to the console."""

    def __init__(self, page):
        self.page = page
        self.said = []
        self.requests = []
        page.on("console", lambda m: m.type in ("error", "warning") and self.said.append(m.text))
        page.on("pageerror", lambda error: self.said.append(str(error)))
        page.on("request", lambda request: self.requests.append(request.url))

    def done(self):
        """Waits until the model has run."""
        self.page.wait_for_function(
            "() => /^Done/.test(document.getElementById('status').textContent)"
            " || document.getElementById('problem').textContent",
            timeout=60000,
        )
        problem = self.page.locator("#problem").inner_text()
        assert not problem, problem

    def run(self):
        """Runs what was given."""
        self.page.evaluate("() => { document.getElementById('status').textContent = ''; }")
        self.page.get_by_role("button", name="Run", exact=True).click()
        self.done()

    def problem(self):
        self.page.wait_for_function("() => document.getElementById('problem').textContent")
        return self.page.locator("#problem").inner_text()

    def arrays(self, which):
        """Returns the feeds or the outputs of the last run as arrays by name."""
        told = self.page.evaluate(
            "(which) => Object.fromEntries(Object.entries(probegen.last[which]).map("
            "([name, one]) => [name, [Array.from(one.data, Number), one.dims, one.dtype]]))",
            which,
        )
        return {
            name: np.array(data, np.float64).reshape(dims).astype(dtype)
            for name, (data, dims, dtype) in told.items()
        }

    def is_legible(self):
        """Nothing runs over the edge, and text stands out from its ground (WCAG 2.1, 1.4.3)."""
        wide = "() => document.documentElement.scrollWidth - window.innerWidth"
        assert self.page.evaluate(wide) <= 0
        assert self.page.evaluate(CONTRAST.read_text()) == []

    def screenshot(self, name):
        if "SCREENSHOTS" in os.environ:
            folder = Path(os.environ["SCREENSHOTS"])
            folder.mkdir(parents=True, exist_ok=True)
            self.page.screenshot(path=folder / f"{name}.png", full_page=True)


@pytest.fixture
def shown(browser, package, tmp_path):
    """Opens the page of an artefact; afterwards nothing must have been said to the console."""
    opened, servers = [], []

    def show(artefact, way="http", overwrite=False, **given):
        view = {k: given.pop(k) for k in ("color_scheme", "viewport") if k in given}
        place = tmp_path / (f"{way}.html" if way == "single" else way)
        options = Options(onnxruntime_web=package, single_file=way == "single", **given)
        index = write(artefact, place, options, overwrite=overwrite).files[0]
        address = index.as_uri()
        if way == "http":
            handler = functools.partial(Quiet, directory=place)
            server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
            threading.Thread(target=server.serve_forever, daemon=True).start()
            servers.append(server)
            address = f"http://127.0.0.1:{server.server_port}/"
        made = Shown(browser.new_page(**view))
        opened.append(made)
        made.page.goto(address)
        made.page.wait_for_function("() => document.getElementById('status').textContent")
        made.own = address if way == "http" else "file://"
        return made

    yield show
    for one in opened:
        one.page.close()
        assert one.said == []
        elsewhere = [u for u in one.requests if not re.match(r"(data|blob):", u)]
        assert [u for u in elsewhere if not u.startswith(one.own)] == []
    for server in servers:
        server.shutdown()


def agree(artefact, view, tolerance=2e-5):
    """Holds the outputs of the last run against the runtime's for the same feeds."""
    loaded = runtime.load(artefact)
    feeds, found = view.arrays("feeds"), view.arrays("outputs")
    own = {spec.name: feeds[spec.name] for spec in loaded.inputs}
    target = feeds["target"] if loaded.manifest.target_input else None
    result = loaded.run(own, target=target)
    assert set(found) == {spec.name for spec in loaded.outputs}
    for name, array in found.items():
        right = np.asarray(result[name].array, np.float64)
        assert array.shape == right.shape, name
        limit = tolerance * max(1e-12, np.abs(right).max(initial=0.0))
        np.testing.assert_allclose(array, right, atol=limit, rtol=0, err_msg=name)
    _said_alike(result, view)
    return result


#: What the page says of each explanation.
SAID = """() => Object.fromEntries(probegen.last.manifest.outputs
  .filter((spec) => spec.kind !== 'prediction' && probegen.last.outputs[spec.name])
  .map((spec) => [spec.name, probegen.views.viewOf(spec, probegen.last)])
  .map(([name, view]) => [name, [probegen.views.verdict(view), view.quantity, view.signed,
    view.axes, view.array.shape, probegen.views.axisOfSeveral(view) === null ? null
      : probegen.views.namesAlong(view, view.axes[0], view.array.shape[0])]]))"""


def _said_alike(result, view):
    """Holds words, sign and axes of the page's pictures against those of the runtime's."""
    for name, told in view.page.evaluate(SAID).items():
        verdict, quantity, signed, axes, shape, entries = told
        ours = view_of(result[name], 0, Labels())
        if class_panels.fits(ours):
            assert entries == [entry for entry, _ in class_panels.views(ours)], name
        said = (verdict.replace("\u2212", "-"), quantity, tuple(axes), tuple(shape))
        assert said == (ours.verdict, ours.quantity, ours.axes, ours.array.shape), name
        assert signed == ours.signed, name
