"""A package of onnxruntime-web that is none, and the page's script run by node."""

import json
import shutil
import subprocess

import pytest

from probegen.web import site
from probegen.web.onnxruntime_web import FILES

#: What each file of the package holds where nothing runs it.
CONTENT = {name: f"// {name}\nconst end = '</script>';\n".encode() for name in FILES}

needs_node = pytest.mark.skipif(shutil.which("node") is None, reason="node is not installed")


def fake_package(folder, version="1.30.0"):
    """Writes a package with the files that a page takes; returns its folder."""
    dist = folder / "onnxruntime-web" / "dist"
    dist.mkdir(parents=True)
    for name, content in CONTENT.items():
        (dist / name).write_bytes(content)
    told = {"name": "onnxruntime-web", "version": version}
    (dist.parent / "package.json").write_text(json.dumps(told))
    return dist.parent


def in_node(folder, code, given):
    """Returns what `code` returns: the body of a function of `page` and `given`.

    It may return numbers that JSON has not, which come as text.
    """
    program = folder / "program.cjs"
    told = "(_, v) => (typeof v === 'number' && !Number.isFinite(v) ? String(v) : v)"
    program.write_text(
        f"{site.script()}\n"
        "const given = JSON.parse(require('fs').readFileSync(0, 'utf8'));\n"
        f"(async (page) => {{{code}}})(globalThis.probegen).then("
        f"(made) => process.stdout.write(JSON.stringify(made, {told})));\n",
        encoding="utf-8",
    )
    done = subprocess.run(
        ["node", program], input=json.dumps(given), capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)
