"""`voco bench kernels` on a machine that says it has a GPU: that its paths run, not what they give.

See pretended_gpu.py, which runs in a process of its own: kernels decorated under TRITON_INTERPRET=1
stay interpreted.
"""

import json
import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch

from tests.vocotrain.bench_kernels.pretended_gpu import (
    NAME,
    SCENARIOS,
    Disguised,
    Event,
    Pretence,
)

ROOT = Path(__file__).parents[3]
PEERS = {"monai", "monai-flash", "monai-compile", "sdpa", "flex", "voco-triton"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """What each scenario printed, and its picture."""
    if find_spec("triton") is None:
        pytest.skip("triton is not installed")
    folder = tmp_path_factory.mktemp("pretended")
    environment = {**os.environ, "TRITON_INTERPRET": "1", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "tests.vocotrain.bench_kernels.pretended_gpu", str(folder)]
    run = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    return folder


def told_by(folder, name):
    told = json.loads((folder / f"{name}.json").read_text())
    assert told["code"] == 0, told["err"]
    return told


def test_everything_is_checked_and_timed_with_its_memory(folder):
    document = json.loads(told_by(folder, "everything")["out"])
    assert document["absent"] == []
    rows = document["rows"]
    attention = [row for row in rows if row["kernel_name"] == "window_attention"]
    assert {row["kernel_provider"] for row in attention} == PEERS
    others = {row["kernel_provider"] for row in rows if row not in attention}
    assert others == {"loops", "torch", "chain", "voco-triton"}
    found = {(row["metric_name"], row["kernel_operation_mode"]) for row in attention}
    modes = ("forward", "backward", "full")
    assert found == {
        *(("speed", mode) for mode in modes),
        ("memory", "full"),
        ("memory", "forward"),
    }
    assert all(row["y_value_50"] > 0 for row in rows)
    # half precision leaves its mark
    differences = [json.loads(row["extra_benchmark_config_str"])["difference"] for row in attention]
    assert 1e-3 < min(differences) <= max(differences) < 5e-2


def test_the_document_names_the_gpu_and_its_arithmetic(folder):
    document = json.loads(told_by(folder, "everything")["out"])
    assert document["settings"]["device"] == "cuda"
    assert document["settings"]["dtype"] == "bfloat16"
    assert (
        {row["gpu_name"] for row in document["rows"]} == {document["machine"]["device"]} == {NAME}
    )
    assert (document["machine"]["capability"], document["machine"]["gpu_memory_gib"]) == ("9.0", 16)


def test_what_does_not_fit_is_left_out_and_the_rest_is_timed(folder):
    shown = told_by(folder, "little memory")["out"]
    assert "not timed: monai          out of memory" in shown
    assert "not timed: flex           out of memory" in shown
    assert "tiny 16^3 stage 2  voco-triton" in shown
    assert "memory MB" in shown
    # of nobody but MONAI
    assert "1.00x" not in shown


@pytest.mark.parametrize(
    ("name", "first", "reason"),
    [
        ("hardly any", "monai", "what all are compared with does not fit into memory"),
        ("none", "all", "the input does not fit into memory"),
    ],
)
def test_a_case_that_does_not_fit_at_all_says_so(name, first, reason, folder):
    shown = told_by(folder, name)["out"]
    (line,) = [line for line in shown.splitlines() if line.startswith(f"not timed: {first} ")]
    assert reason in line
    assert "--maps" in line


def test_an_old_gpu_without_triton_runs_what_it_can_in_float16(folder):
    told = told_by(folder, "old")
    document = json.loads(told["out"])
    assert document["settings"]["dtype"] == "float16"
    timed = {row["kernel_provider"] for row in document["rows"]}
    assert timed == {"monai", "monai-flash", "sdpa", "voco-reference"}
    reasons = {one["kernel_provider"]: one["reason"] for one in document["absent"]}
    assert reasons == dict.fromkeys(("monai-compile", "flex"), "RuntimeError: GPU too old")
    assert "the package triton is missing" in told["err"]


@pytest.mark.parametrize("name", SCENARIOS)
def test_there_is_a_picture_whatever_was_timed(name, folder):
    assert (folder / f"{name}.png").read_bytes().startswith(b"\x89PNG")


def test_disguised_tensors_meet_no_others():
    with Pretence():
        ours, theirs = torch.ones(2, device="cuda"), torch.ones(2)
        assert isinstance(ours, Disguised)
        assert (ours.device.type, theirs.device.type) == ("cuda", "cpu")
        with pytest.raises(RuntimeError, match="same device: add"):
            ours + theirs
        assert (ours + theirs.to(ours.device)).tolist() == [2, 2]
        assert (2 * ours + torch.tensor(1.0)).cpu().device.type == "cpu"


def test_disguised_tensors_have_gradients():
    with Pretence():
        x = torch.tensor([1.0, 3.0], device="cuda", requires_grad=True)
        (grad,) = torch.autograd.grad((x * x).sum(), [x])
        assert isinstance(grad, Disguised)
        assert grad.tolist() == [2, 6]


def test_an_event_that_nobody_waited_for_tells_no_time():
    start, stop = Event(enable_timing=True), Event(enable_timing=True)
    start.record()
    stop.record()
    with pytest.raises(RuntimeError, match="must be recorded"):
        start.elapsed_time(stop)
    stop.synchronize()
    assert start.elapsed_time(stop) >= 0
