"""The Triton kernels of window attention, run on the processor by Triton's interpreter.

The claims are in `interpreted_attention/check_window_attention.py`; it runs once, in a process of
its own, and each claim and configuration is a test here. The interpreter runs programs one after
another and computes in full precision: it cannot see a race, nor what tensor cores round. On a GPU
the same claims are checked with compiled kernels (`make test-gpu`).
"""

import ast
import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest
import torch

from tests.vocokernels import on_a_gpu
from tests.vocokernels.attention_cases import CASES, SLOW_CASES
from vocokernels import window_attention
from vocokernels.errors import BackendUnavailableError
from vocokernels.static_table import read_table
from vocokernels.window_attention.tiles import TILES, WIDEST_HEAD, padded_width, tile_of

ROOT = Path(__file__).parents[2]
CHECKS = Path(__file__).parent / "interpreted_attention/check_window_attention.py"
CLAIMS = [
    node.name
    for node in ast.parse(CHECKS.read_text(encoding="utf-8")).body
    if isinstance(node, ast.FunctionDef)
    and node.name.startswith("test_")
    and not node.name.endswith("_case")
]

# warps on a multiprocessor for heads of 16, 32 and 64 channels, as first tried
LEAST_WARPS = {
    "forward": {"sm_80": (16, 16, 8), "sm_90": (20, 24, 16)},
    "query": {"sm_80": (16, 16, 8), "sm_90": (16, 20, 12)},
    "key": {"sm_80": (20, 12, 16), "sm_90": (20, 12, 12)},
    "bias": {"sm_80": (16, 16, 12), "sm_90": (16, 16, 12)},
}


def run_checks(folder, *which, environment=None):
    """Complaint about each check that ran, empty where it held."""
    if find_spec("triton") is None:
        pytest.skip("triton is not installed")
    report = folder / "report.xml"
    environment = environment or {**os.environ, "TRITON_INTERPRET": "1", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "pytest", "-q", "-o", "addopts=", "--import-mode=importlib"]
    command += [f"--junitxml={report}", "-p", "no:cacheprovider", *which, str(CHECKS)]
    run = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert report.exists(), run.stdout + run.stderr
    return {
        case.get("name"): "".join(bad.text or bad.get("message") for bad in case)
        for case in ET.parse(report).iter("testcase")
    }


@pytest.fixture(scope="module")
def outcome(tmp_path_factory):
    return run_checks(tmp_path_factory.mktemp("interpreted"), "-m", "not slow")


@pytest.fixture(scope="module")
def slow_outcome(tmp_path_factory):
    return run_checks(tmp_path_factory.mktemp("interpreted"), "-m", "slow")


@pytest.mark.parametrize("name", [case.name for case in CASES])
def test_values_and_gradients_are_those_of_the_specification(name, outcome):
    assert outcome[f"test_case[{name}]"] == ""


@pytest.mark.parametrize("claim", CLAIMS)
def test_what_is_claimed_holds(claim, outcome):
    found = {name: text for name, text in outcome.items() if name.split("[")[0] == claim}
    assert found
    assert [f"{name}\n{text}" for name, text in found.items() if text] == []


@pytest.mark.slow
@pytest.mark.parametrize("name", [case.name for case in SLOW_CASES])
def test_the_sizes_of_models_are_right_too(name, slow_outcome):
    assert slow_outcome[f"test_slow_case[{name}]"] == ""


@pytest.fixture(scope="module")
def compiled_outcome(tmp_path_factory):
    if not torch.cuda.is_available():
        pytest.skip("no GPU here")
    folder = tmp_path_factory.mktemp("compiled")
    return run_checks(folder, *on_a_gpu.WORDS, environment=on_a_gpu.environment())


@pytest.mark.gpu
def test_compiled_kernels_are_what_is_claimed(compiled_outcome):
    assert len(compiled_outcome) >= len(CASES) + len(SLOW_CASES) + len(CLAIMS)
    assert [f"{name}\n{text}" for name, text in compiled_outcome.items() if text] == []


def test_a_check_that_fails_is_seen(tmp_path, monkeypatch):
    """A tolerance of nothing: so the harness is no rubber stamp."""
    broken = tmp_path / "check_broken.py"
    broken.write_text("def test_wrong():\n    assert 1 == 2, 'one is not two'\n")
    monkeypatch.setattr(sys.modules[__name__], "CHECKS", broken)
    assert "one is not two" in run_checks(tmp_path)["test_wrong"]


def test_there_are_forty_configurations_and_more():
    assert len({case.name for case in CASES}) == len(CASES) >= 40
    assert {case.dtype for case in CASES} == {"float64", "float32", "float16", "bfloat16"}
    assert {16, 24, 32, 48, 64} <= {case.width for case in CASES}


@pytest.mark.parametrize("target", ["sm_80", "sm_90"])
@pytest.mark.parametrize("kernel", LEAST_WARPS)
def test_as_many_warps_fit_as_in_the_prototype(kernel, target):
    rows = read_table(ROOT / "tests/golden/static_gpu.csv").rows
    for dtype in ("bf16", "fp16"):
        for width, least in zip((16, 32, 64), LEAST_WARPS[kernel][target], strict=True):
            found = rows[f"window_attention {kernel} {dtype} d{width}", target]
            assert found.occupancy_warps >= least
            tile = tile_of(kernel, 2, width)
            wide = (tile.keys if kernel == "key" else tile.queries) >= 64
            best = "HGMMA" if wide and target == "sm_90" else "HMMA"
            assert found.matrix_instruction == best


def test_every_width_has_a_tile_of_powers_of_two():
    for kernel, itemsize in TILES:
        for channels in range(1, WIDEST_HEAD + 1):
            tile = tile_of(kernel, itemsize, channels)
            assert padded_width(channels) >= max(16, channels)
            for side in (tile.queries, tile.keys, tile.warps, padded_width(channels)):
                assert side & (side - 1) == 0


def test_auto_leaves_heads_that_are_too_wide_to_the_reference(monkeypatch):
    monkeypatch.setattr("vocokernels.backends.resolve_backend", lambda *_: "triton")
    # no GPU, yet no processor either
    qkv, table = torch.randn(1, 1, 2, 1, 195, device="meta"), torch.randn(27, 1, device="meta")
    settings = {"heads": 1, "window": (2, 2, 2), "shift": (0, 0, 0)}
    assert window_attention(qkv, table, backend="auto", **settings).shape == (1, 1, 2, 1, 65)
    with pytest.raises(BackendUnavailableError, match="Heads have 65 channels"):
        window_attention(qkv, table, backend="triton", **settings)
