"""What the built wheel holds: our four packages, their tables and nothing else."""

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
TABLES = [
    "vocodata/catalog/presets.yaml",
    "vocotrain/catalog/sizes.yaml",
    "vocotrain/catalog/tasks.yaml",
    "vocotrain/recipes/tiny.yaml",
    "vocotrain/templates/report.html.j2",
]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("wheel")
    build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(out)]
    subprocess.run(build, cwd=ROOT, check=True, capture_output=True, timeout=120)
    (path,) = out.glob("*.whl")
    return path


def test_the_wheel_holds_exactly_our_four_packages(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    top = {name.split("/")[0] for name in names}
    assert {name for name in top if not name.endswith(".dist-info")} == {
        "vocodata",
        "vocotrain",
        "vocokernels",
        "vococli",
    }


def test_the_wheel_carries_the_tables_and_no_build_litter(wheel: Path) -> None:
    names = set(zipfile.ZipFile(wheel).namelist())
    assert [table for table in TABLES if table not in names] == []
    assert [name for name in names if name.endswith((".pyc", ".nbi", ".nbc"))] == []
