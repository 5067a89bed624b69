"""Hooks of the site: puts the pictures of `examples/catalogue.py` onto the page of methods.

The page in the repository has none, since pictures that code draws are not kept in it.
"""

from __future__ import annotations

import logging
import re
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File

PICTURES = Path(__file__).parent / "out" / "catalogue"
PAGE, FOLDER = "METHODS.md", "catalogue"

#: A heading, the call, and in the line of the output the option that has the method's name.
_METHOD = re.compile(r"^## (?P<title>.+)\n\n`pg\..+\n\n- output .+`--(?P<name>[a-z-]+)`\n", re.M)
_log = logging.getLogger("mkdocs.hooks")


def on_files(files: Any, config: Any) -> Any:
    """Adds the pictures to the files of the site."""
    for picture in sorted(PICTURES.glob("*.png")):
        files.append(File.generated(config, f"{FOLDER}/{picture.name}", abs_src_path=str(picture)))
    return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Puts a picture behind the facts of each method; one that lacks its picture is a warning."""
    return with_pictures(markdown) if page.file.src_uri == PAGE else markdown


def with_pictures(markdown: str) -> str:
    """Returns the page of methods with a picture before the call of each method."""

    def shown(found: re.Match[str]) -> str:
        name = found["name"].replace("-", "_")
        if not (PICTURES / f"{name}.png").is_file():
            _log.warning("there is no picture of %s: run make docs", name)
            return found[0]
        heading = f"## {found['title']}\n"
        return found[0].replace(heading, f"{heading}\n![]({FOLDER}/{name}.png)\n", 1)

    return _METHOD.sub(shown, markdown)
