"""A change is seen by the tests, and the file stays as it is."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
MODULE = "def double(x):\n    return 2 * x\n"
TEST = "from package.double import double\n\n\ndef test_it():\n    assert double(3) == 6\n"
#: Run in a process of its own, which has no threads that a fork would lose.
PROGRAM = """
import sys
from pathlib import Path
from mutants.trials import TOO_LATE, run_tests
root, code, seconds = Path(sys.argv[1]), sys.argv[2] or None, float(sys.argv[3])
sys.path.insert(0, str(root))
result, _ = run_tests(Path("package/double.py"), code, [Path("test_double.py")], root, seconds)
print("too late" if result == TOO_LATE else result)
"""


@pytest.mark.parametrize(
    ("code", "seconds", "expected"),
    [
        ("", 60, "0"),
        (MODULE.replace("2", "3"), 60, "1"),
        (MODULE.replace("2 *", "1 * 2 *"), 60, "0"),
        ("this is no Python", 60, "2"),
        ("while True: pass", 3, "too late"),
    ],
)
def test_what_the_tests_say_of_a_change(tmp_path, code, seconds, expected):
    (tmp_path / "package").mkdir()
    (tmp_path / "package" / "__init__.py").touch()
    (tmp_path / "package" / "double.py").write_text(MODULE)
    (tmp_path / "test_double.py").write_text(TEST)
    command = [sys.executable, "-c", PROGRAM, str(tmp_path), code, str(seconds)]
    found = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=True)
    assert found.stdout.strip() == expected
    assert (tmp_path / "package" / "double.py").read_text() == MODULE
