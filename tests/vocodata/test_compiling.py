"""Compiled functions work where nothing can be kept."""

import os
import subprocess
import sys

SCRIPT = """
import sys
sys.path.insert(0, sys.argv[1])
import doubling
assert doubling.twice(21) == int(sys.argv[2])
"""
MODULE = """
from vocodata.compiling import compiled

@compiled
def twice(x: int) -> int:
    return 2 * x
"""


def _run(folder, environment, wanted=42):
    subprocess.run(
        [sys.executable, "-B", "-c", SCRIPT, str(folder), str(wanted)],
        env={**os.environ, **environment},
        check=True,
        timeout=60,
    )


def test_a_function_is_kept_beside_its_file(tmp_path):
    (tmp_path / "doubling.py").write_text(MODULE)
    _run(tmp_path, {})
    assert list((tmp_path / "__pycache__").glob("*.nbi"))


def test_what_is_kept_for_two_types_has_names_of_its_own(tmp_path):
    """Two processes that compile at once took one number for two types: numba's own names."""
    (tmp_path / "doubling.py").write_text(MODULE)
    script = "import sys\nsys.path.insert(0, sys.argv[1])\nimport doubling\n"
    names = set()
    for call in ("twice(21)", "twice(0.5)"):
        command = [sys.executable, "-B", "-c", script + f"doubling.{call}", str(tmp_path)]
        subprocess.run(command, check=True, timeout=60)
        names |= {path.name for path in tmp_path.rglob("*.nbc")}
        # As if neither had been there when the other looked.
        for index in tmp_path.rglob("*.nbi"):
            index.unlink()
    assert len(names) == 2


def test_what_was_kept_of_another_source_goes(tmp_path):
    (tmp_path / "doubling.py").write_text(MODULE)
    _run(tmp_path, {})
    (tmp_path / "doubling.py").write_text(MODULE.replace("2 * x", "3 * x"))
    _run(tmp_path, {}, wanted=63)
    assert len(list(tmp_path.rglob("*.nbc"))) == 1
    _run(tmp_path, {}, wanted=63)


def test_a_function_is_compiled_where_nothing_can_be_written(tmp_path):
    (tmp_path / "doubling.py").write_text(MODULE)
    # Files where folders would have to be: even root cannot write there.
    (tmp_path / "__pycache__").write_bytes(b"")
    nowhere = str(tmp_path / "__pycache__" / "home")
    _run(tmp_path, {"HOME": nowhere, "XDG_CACHE_HOME": nowhere})
    assert not list(tmp_path.rglob("*.nbi"))


def test_a_function_is_compiled_and_called_where_the_disk_is_full(tmp_path):
    (tmp_path / "doubling.py").write_text(MODULE)
    # No file may grow beyond a byte, as on a full disk; the kernel refuses the write.
    full = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (1, 1))\n"
    subprocess.run(
        [sys.executable, "-B", "-c", full + SCRIPT, str(tmp_path), "42"], check=True, timeout=60
    )
    assert not list(tmp_path.rglob("*.nbi"))


def test_a_change_in_a_module_that_is_imported_is_not_answered_from_the_cache(tmp_path):
    """numba looks at the function's own file: it went on with constants of before an upgrade."""
    package = tmp_path / "doubling"
    package.mkdir()
    (package / "__init__.py").write_text("from doubling.twice import twice as twice\n")
    (package / "twice.py").write_text(
        "from doubling import times\n" + MODULE.replace("2 * x", "times.FACTOR * x")
    )
    (package / "times.py").write_text("from doubling.factors import (\n    FACTOR,\n)\n")
    (package / "factors.py").write_text("FACTOR = 3\n")
    (package / "unrelated.py").write_text("")
    _run(tmp_path, {}, wanted=63)
    (index,) = (package / "__pycache__").glob("*.nbi")
    before = index.read_bytes()
    (package / "unrelated.py").write_text("# edited")
    _run(tmp_path, {}, wanted=63)
    assert index.read_bytes() == before
    (package / "factors.py").write_text("FACTOR = 2\n")
    _run(tmp_path, {}, wanted=42)
    assert index.read_bytes() != before
