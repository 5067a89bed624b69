"""Which tests stand beside a module: `tests/` mirrors `probegen/`."""

from __future__ import annotations

from pathlib import Path

PACKAGE, TESTS = "probegen", "tests"


def find_tests(module: Path, root: Path) -> list[Path]:
    """Returns the tests that are run for a module, sorted, none where it has none.

    For `probegen/a/b.py` these are `tests/a/test_b.py` and all within `tests/a/b/`. Where there
    is neither, its folder is tested as one: by `tests/test_a.py` and by the files right within
    `tests/a/`; where these are missing too, the folder around, and so on. A module right below
    the package has a test of its own name or none.

    Args:
        module: a file of the package, relative to the root.
        root: the folder that holds the package and its tests.
    """
    place = module.relative_to(PACKAGE).with_suffix("")
    inside = "**/test_*.py"
    while place != Path():
        folder = root / TESTS / place.parent
        found = {folder / f"test_{place.name}.py", *(folder / place.name).glob(inside)}
        found = {path for path in found if path.exists()}
        if found:
            return sorted(path.relative_to(root) for path in found)
        place, inside = place.parent, "test_*.py"
    return []
