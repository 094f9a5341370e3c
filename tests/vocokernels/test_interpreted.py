"""The Triton kernels of the small operations, run on the processor by Triton's interpreter.

The claims are in `interpreted/check_*.py`. They run in a process of their own, since a kernel that
was decorated under TRITON_INTERPRET=1 cannot be compiled afterwards, nor the other way round. The
interpreter runs programs one after another: it cannot see a race. On a GPU the same claims are
checked with compiled kernels (`make test-gpu`).
"""

import os
import subprocess
import sys
import xml.etree.ElementTree as ET
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch

from tests.vocokernels import on_a_gpu

ROOT = Path(__file__).parents[2]
FOLDER = Path(__file__).parent / "interpreted"
# the operation, and the fewest claims that its file may hold
FILES = {"check_crop_similarity.py": 20, "check_cut_crops.py": 15, "check_voco_loss.py": 55}


@pytest.fixture(scope="module")
def interpreted(tmp_path_factory):
    """Cases by file, as the interpreter found them."""
    if find_spec("triton") is None:
        pytest.skip("triton is not installed")
    report = tmp_path_factory.mktemp("interpreted") / "report.xml"
    return run_claims(report, {**os.environ, "TRITON_INTERPRET": "1", "OMP_NUM_THREADS": "1"})


def run_claims(report, environment, *words):
    command = [sys.executable, "-m", "pytest", "-q", f"--junitxml={report}", "-o", "addopts="]
    command += ["--import-mode=importlib", *words, *(str(FOLDER / name) for name in FILES)]
    run = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert report.exists(), run.stdout + run.stderr
    cases = list(ET.parse(report).iter("testcase"))
    return {
        name: [case for case in cases if case.get("classname").endswith(Path(name).stem)]
        for name in FILES
    }


def complaints(cases):
    told = {case.get("name"): case.findtext("failure") or case.findtext("error") for case in cases}
    skipped = [case.get("name") for case in cases if case.find("skipped") is not None]
    return [f"{name}\n{text}" for name, text in told.items() if text] + skipped


@pytest.mark.parametrize("name", FILES)
def test_interpreted_kernels_are_the_specification(name, interpreted):
    assert len(interpreted[name]) >= FILES[name]
    assert complaints(interpreted[name]) == []


def test_a_claim_that_fails_is_told(tmp_path):
    (tmp_path / "check_wrong.py").write_text(
        "import pytest\n"
        "def test_wrong(): assert 1 == 2\n"
        "def test_left_out(): pytest.skip('why')\n"
        "def test_right(): pass\n"
    )
    report = tmp_path / "report.xml"
    command = [sys.executable, "-m", "pytest", f"--junitxml={report}", "-c", "/dev/null"]
    command += ["--rootdir", tmp_path, tmp_path / "check_wrong.py"]
    subprocess.run(command, cwd=tmp_path, capture_output=True)
    found = complaints(list(ET.parse(report).iter("testcase")))
    assert len(found) == 2
    assert "assert 1 == 2" in found[0]
    assert found[1] == "test_left_out"


def test_every_file_of_claims_is_run():
    assert {path.name for path in FOLDER.glob("check_*.py")} == set(FILES)


@pytest.fixture(scope="module")
def compiled(tmp_path_factory):
    """Cases by file, as a GPU found them."""
    if not torch.cuda.is_available():
        pytest.skip("no GPU here")
    report = tmp_path_factory.mktemp("compiled") / "report.xml"
    return run_claims(report, on_a_gpu.environment(), *on_a_gpu.WORDS)


@pytest.mark.gpu
@pytest.mark.parametrize("name", FILES)
def test_compiled_kernels_are_the_specification(name, compiled):
    assert len(compiled[name]) >= FILES[name]
    assert complaints(compiled[name]) == []
