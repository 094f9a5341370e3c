"""The Triton kernels of the small operations, run on the processor by Triton's interpreter.

The claims are in `interpreted/check_*.py`. They run in a process of their own, since a kernel that
was decorated under TRITON_INTERPRET=1 cannot be compiled afterwards, nor the other way round. The
interpreter runs programs one after another: it cannot see a race.
"""

import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest

ROOT = Path(__file__).parents[2]
FOLDER = Path(__file__).parent / "interpreted"
# the operation, and the fewest claims that its file may hold
FILES = {"check_crop_similarity.py": 20, "check_cut_crops.py": 15, "check_voco_loss.py": 55}


@pytest.fixture(scope="module")
def outcome(tmp_path_factory):
    """Outcomes by file: how many ran, and the text of those that failed."""
    if find_spec("triton") is None:
        pytest.skip("triton is not installed")
    report = tmp_path_factory.mktemp("interpreted") / "report.xml"
    environment = {**os.environ, "TRITON_INTERPRET": "1", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "pytest", "-q", f"--junitxml={report}", "-o", "addopts="]
    command += ["--import-mode=importlib", *(str(FOLDER / name) for name in FILES)]
    run = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert report.exists(), run.stdout + run.stderr
    cases = list(ET.parse(report).iter("testcase"))
    return {
        name: [case for case in cases if case.get("classname").endswith(Path(name).stem)]
        for name in FILES
    }


@pytest.mark.parametrize("name", FILES)
def test_interpreted_kernels_are_the_specification(name, outcome):
    ran = outcome[name]
    assert len(ran) >= FILES[name]
    failed = {case.get("name"): case.findtext("failure") or case.findtext("error") for case in ran}
    assert [f"{test}\n{text}" for test, text in failed.items() if text] == []
    assert [case.get("name") for case in ran if case.find("skipped") is not None] == []


def test_every_file_of_claims_is_run():
    assert {path.name for path in FOLDER.glob("check_*.py")} == set(FILES)
