"""What outputs are called."""

from __future__ import annotations

from probegen.methods.base import Probe


def output_name(probe: Probe, path: str, several: bool) -> str:
    """Returns `"<kind>/<path>"`, or what `name=` says."""
    given = getattr(probe, "name", None)
    if given is None:
        return f"{probe.kind}/{path}"
    return f"{given}/{path}" if several else str(given)
