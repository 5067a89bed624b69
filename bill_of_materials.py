"""Adds the hashes of a lock to a bill of materials that was made of an environment.

`python bill_of_materials.py ENVIRONMENT.json LOCK.json OUT.json`, all of CycloneDX: what
`cyclonedx-py environment` writes (licences, and what needs what) of an environment that was
installed from a lock, and what `cyclonedx-py requirements` writes (hashes) of the lock.
"""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Any

#: What a package that is no part of its lock is: probegen itself.
OWN = "probegen"


def with_hashes(environment: dict[str, Any], lock: dict[str, Any]) -> dict[str, Any]:
    """Returns the bill of an environment with the hashes of the files that its lock allows.

    Raises:
        ValueError: a package is not in the lock, or one of the lock is not installed.
    """
    locked = {
        (c["name"].lower().replace("_", "-"), c["version"]): [
            reference
            for reference in c["externalReferences"]
            if reference["type"] == "distribution"
        ]
        for c in lock["components"]
    }
    installed = set()
    for component in environment["components"]:
        name = component["name"].lower().replace("_", "-")
        if name == OWN:
            continue
        key = name, component["version"]
        if key not in locked:
            raise ValueError(f"{'=='.join(key)} is installed and is not in the lock: make lock")
        installed.add(key)
        kept = [r for r in component.get("externalReferences", []) if r["type"] != "distribution"]
        component["externalReferences"] = [*kept, *locked[key]]
    if missing := sorted(set(locked) - installed):
        raise ValueError(f"the lock has {'=='.join(missing[0])}, which is not installed: make lock")
    return environment


def main(environment: str, lock: str, out: str) -> None:
    """Reads both and writes the bill, the same bytes for the same lock."""
    read = [json.loads(Path(path).read_text(encoding="utf-8")) for path in (environment, lock)]
    bill = with_hashes(*read)
    said = re.search(r'__version__ = "(.+)"', Path("probegen/_version.py").read_text("utf-8"))
    if said is not None:  # which pyproject.toml leaves open
        bill["metadata"]["component"]["version"] = said.group(1)
    text = json.dumps(bill, indent=2, sort_keys=True, ensure_ascii=False)
    Path(out).write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main(*sys.argv[1:])
