"""Writes the page: a folder of files, or one file that holds all of them.

Browsers let no page that lies on the disk (`file://`) read files beside it, scripts excepted. So a
folder holds what the page reads twice: as it is, for a page that a server gives out, and as scripts
in `local/`, which only a page on the disk loads. A single file holds all in itself.
"""

from __future__ import annotations

import base64
import dataclasses
import gzip
import hashlib
import json
import math
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from html import escape
from pathlib import Path
from string import Template
from typing import IO, Any

from probegen.artefact.publishing import aside, check_place, link_or_copy, put
from probegen.errors import SpecError
from probegen.runtime import load
from probegen.runtime.files import write_atomic
from probegen.runtime.loaded import Artefact
from probegen.stages import writing
from probegen.web import description, onnxruntime_web
from probegen.web.onnxruntime_web import Bundle

_PAGE = Path(__file__).with_name("page")


def _in_folder(name: str) -> tuple[str, ...]:
    """Returns the scripts of a folder, one plot or widget each, by name."""
    return tuple(f"{name}/{path.name}" for path in sorted((_PAGE / name).glob("*.js")))


#: The scripts of the page in the order in which they are run. `plots.js` and `widgets.js` hold the
#: tables of what lies in the folders of these names.
SCRIPTS = (
    "errors.js",
    "arrays.js",
    "scales.js",
    "files.js",
    "fingerprint.js",
    "texts.js",
    "tables.js",
    "pictures.js",
    "inputs.js",
    "session.js",
    "views.js",
    "drawing.js",
    *_in_folder("plots"),
    "plots.js",
    "controls.js",
    *_in_folder("widgets"),
    "widgets.js",
    "main.js",
)
INDEX, STYLE, SCRIPT, WORKER = "index.html", "page.css", "page.js", "worker.js"
ONNXRUNTIME, LOCAL = "onnxruntime", "local"

#: Bytes that become base64 at a time: a multiple of three, so that no padding stands between, and
#: of a size that the page (`files.js`) takes apart again.
_CHUNK = 3 * 2**18
#: Beyond this, base64 of a file is more than a browser holds in one text.
MOST_INLINE = 256_000_000
#: Nothing from elsewhere; the worker, WebAssembly and the module that loads it come from memory.
_POLICY = (
    "default-src 'none'; script-src {scripts} 'wasm-unsafe-eval' blob:; worker-src blob:; "
    "style-src {styles}; img-src 'self' data: blob:; connect-src 'self'; base-uri 'none'; "
    "form-action 'none'"
)
_END = "</body>\n</html>\n"


@dataclasses.dataclass(frozen=True)
class Options:
    """How a page is written.

    Attributes:
        onnxruntime_web: a folder of the npm package; None fetches it by npm.
        single_file: write one HTML file that holds all.
        title: of the page; by default the model's name.
        scale: what pixels of pictures are multiplied by, as of `probegen run --scale`, where the
            artefact does not preprocess them; the user of the page can change it. None for 1.
    """

    onnxruntime_web: str | os.PathLike[str] | None = None
    single_file: bool = False
    title: str | None = None
    scale: float | None = None


@dataclasses.dataclass(frozen=True)
class Written:
    """What was written.

    Attributes:
        files: the files, the page itself first.
        notes: what the user should know of the page.
    """

    files: tuple[Path, ...]
    notes: tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class _Content:
    """What a page is made of.

    Attributes:
        title: its heading.
        told: what it is told of the artefact.
        notes: what the user should know of it.
        artefact: the files of the artefact.
        bundle: onnxruntime-web.
    """

    title: str
    told: Mapping[str, Any]
    notes: tuple[str, ...]
    artefact: tuple[Path, ...]
    bundle: Bundle

    @property
    def reads_from_disk(self) -> bool:
        """Whether a page on the disk can read the artefact."""
        return _size(self.artefact) <= MOST_INLINE


def write(
    artefact: str | os.PathLike[str],
    place: str | os.PathLike[str],
    options: Options | None = None,
    *,
    overwrite: bool = False,
) -> Written:
    """Writes a page for an artefact, whole or not at all.

    Args:
        artefact: an ONNX artefact.
        place: a folder, or for a single file its name.
        options: see `Options`.
        overwrite: replace a folder that exists.

    Raises:
        SpecError: the artefact does not run in browsers, or onnxruntime-web is not there.
        OutputExistsError: the folder exists.
        ArtefactError: the artefact cannot be opened.
        WriteError: the place cannot be written to.
    """
    options = options or Options()
    final = Path(place)
    if options.scale is not None and not math.isfinite(options.scale):
        raise SpecError(f"scale={options.scale}: pixels are multiplied by a finite number.")
    check_place(final, "file" if options.single_file else "savedmodel", overwrite)
    opened = load(artefact)
    path = Path(artefact)
    if path.is_file() and not all(file.is_file() for file in description.files_of(path)):
        path = path.resolve()  # a symbolic link, whose weights lie where it leads to
    description.check(path, opened.manifest)
    content = _content(path, opened, options)
    return (_write_file if options.single_file else _write_folder)(content, final)


def _content(path: Path, opened: Artefact, options: Options) -> _Content:
    """Gathers what a page is made of.

    Raises:
        SpecError: it is too much for a single file, has a name that the page needs, or
            onnxruntime-web is not there.
    """
    files = description.files_of(path)
    taken = {INDEX, STYLE, SCRIPT, WORKER, ONNXRUNTIME, LOCAL} & {file.name for file in files}
    if taken:
        raise SpecError(f"the page has a {taken.pop()!r} of its own; call the artefact otherwise.")
    size = _size(files)
    if options.single_file and size > MOST_INLINE:
        raise SpecError(
            f"the artefact has {size / 1e6:.0f} MB, and a single file holds {MOST_INLINE / 1e6:g}: "
            "browsers read no longer texts. Leave single_file (--single-file) out, and put the "
            "folder behind a web server."
        )
    notes = tuple(
        f"the page cannot take the text {name!r} apart ({kind}): it takes ids there"
        for name, kind in description.unread_texts(opened.manifest).items()
    )
    if size > MOST_INLINE:
        notes += (
            "the artefact is too large for a page to read it from the disk: the folder needs a web "
            "server",
        )
    bundle = onnxruntime_web.bundle_of(options.onnxruntime_web)
    told = description.description(
        path, opened.manifest, onnxruntime=bundle.version, scale=options.scale
    )
    title = options.title or description.title_of(path, opened.manifest)
    return _Content(title, told, notes, files, bundle)


def _size(files: Iterable[Path]) -> int:
    return sum(path.stat().st_size for path in files)


# -- a folder ------------------------------------------------------------------------------------


def _write_folder(content: _Content, final: Path) -> Written:
    with aside(final) as place, writing(final):
        for folder in (place, place / ONNXRUNTIME, place / LOCAL):
            folder.mkdir()
        files = dict(_files(content))
        for name, fill in files.items():
            fill(place / name)
        put(place, final)
    return Written(tuple(final / name for name in files), content.notes)


def _files(content: _Content) -> Iterator[tuple[str, Callable[[Path], object]]]:
    """Yields the files of a folder by name, each with what writes it."""
    # A page on the disk runs the scripts beside it, which not every browser takes for 'self'.
    policy = _POLICY.format(scripts="'self' file:", styles="'self' file:")
    html = _html(content, policy, f'<link rel="stylesheet" href="{STYLE}">')
    html += f'<script src="{SCRIPT}"></script>\n{_END}'
    yield INDEX, _writer(html)
    yield STYLE, _writer(_style())
    yield SCRIPT, _writer(script())
    for folder, name, data in _read_by_page(content):
        yield f"{folder}{name}", _copier(data)
        parts = [base64.b64encode(_zipped(data))]
        yield f"{LOCAL}/{name}.js", _giver(name, parts, packed=True)
    for file in content.artefact:
        yield file.name, _linker(file)
        if content.reads_from_disk:
            yield f"{LOCAL}/{file.name}.js", _giver(file.name, _base64_of(file), packed=False)


def _read_by_page(content: _Content) -> Iterator[tuple[str, str, bytes]]:
    """Yields what a page reads beside the artefact: where it lies, its name, and what it holds."""
    yield "", WORKER, (_PAGE / WORKER).read_bytes()
    for name, data in content.bundle.files.items():
        yield f"{ONNXRUNTIME}/", name, data


def _writer(text: str) -> Callable[[Path], object]:
    return lambda path: path.write_text(text, encoding="utf-8")


def _copier(data: bytes) -> Callable[[Path], object]:
    return lambda path: path.write_bytes(data)


def _linker(source: Path) -> Callable[[Path], object]:
    return lambda path: link_or_copy(source, path)


def _giver(name: str, parts: Iterable[bytes], *, packed: bool) -> Callable[[Path], object]:
    """Returns what writes a script that hands a file to the page."""

    def fill(path: Path) -> None:
        with path.open("wb") as file:
            file.write(f"probegen.given({json.dumps(name)}, {json.dumps(packed)}, [\n".encode())
            for part in parts:
                file.write(b'"' + part + b'",\n')
            file.write(b"]);\n")

    return fill


# -- one file ------------------------------------------------------------------------------------


def _write_file(content: _Content, final: Path) -> Written:
    style, own = _style(), script()
    policy = _POLICY.format(scripts=f"'sha256-{_digest(own)}'", styles=f"'sha256-{_digest(style)}'")
    html = _html(content, policy, f"<style>{style}</style>")

    def fill(file: IO[bytes]) -> None:
        file.write(html.encode("utf-8"))
        for _, name, data in _read_by_page(content):
            _inline(file, name, [base64.b64encode(_zipped(data))], packed=True)
        for path in content.artefact:
            _inline(file, path.name, _base64_of(path), packed=False)
        file.write(f"<script>{own}</script>\n{_END}".encode())

    return Written((write_atomic(final, fill),), content.notes)


def _inline(file: IO[bytes], name: str, parts: Iterable[bytes], *, packed: bool) -> None:
    """Writes a file as an element that no browser runs."""
    zipped = " data-gzip" if packed else ""
    head = f'<script type="text/plain" data-file="{escape(name)}"{zipped}>'
    file.write(head.encode("utf-8"))
    for part in parts:
        file.write(part)
    file.write(b"</script>\n")


# -- both ----------------------------------------------------------------------------------------


def script() -> str:
    """Returns the page's own script."""
    return _inside("\n".join((_PAGE / name).read_text(encoding="utf-8") for name in SCRIPTS))


def _style() -> str:
    return (_PAGE / STYLE).read_text(encoding="utf-8")


def _html(content: _Content, policy: str, style: str) -> str:
    """Returns the page up to its scripts."""
    template = Template((_PAGE / INDEX).read_text(encoding="utf-8"))
    # With no "<" in it, nothing in a model's names ends the element that the JSON stands in.
    told = json.dumps(content.told, separators=(",", ":")).replace("<", "\\u003c")
    return template.substitute(
        policy=escape(policy), title=escape(content.title), style=style, told=told
    )


def _inside(code: str) -> str:
    """Returns a script as it can stand within a page: nothing in it ends its element."""
    return code.replace("\r\n", "\n").replace("</script", "<\\/script")


def _digest(text: str) -> str:
    return base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


def _zipped(content: bytes) -> bytes:
    return gzip.compress(content, 6, mtime=0)


def _base64_of(path: Path) -> Iterator[bytes]:
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            yield base64.b64encode(chunk)
