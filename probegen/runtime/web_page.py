"""A self-contained web page: its style and script stand in it, and nothing comes from outside.

The content policy in the page lets the browser run its own script alone, or none.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterable
from html import escape


def whole_page(title: str, style: str, parts: Iterable[str], script: str = "") -> str:
    """Returns a page.

    Args:
        title: of the page, as text.
        style: CSS.
        parts: HTML of what it shows, one below the other; empty ones are left out.
        script: what it runs once all is there, if anything.
    """
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{_policy(script)}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(title)}</title>\n"
        f"<style>\n{style}</style>\n</head>\n<body>\n"
        + "\n".join(part for part in parts if part)
        + (f"\n<script>{script}</script>" if script else "")
        + "\n</body>\n</html>\n"
    )


def _policy(script: str) -> str:
    """Returns the content policy: nothing from outside, and no script but this one."""
    policy = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
    if not script:
        return policy
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    return f"{policy}; script-src 'sha256-{digest}'"
