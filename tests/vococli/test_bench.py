"""`voco bench kernels`: words in, a table or a document out, and its exit codes."""

import json
import subprocess
import sys

import pytest
import torch

from vococli.main import main
from vocotrain.bench_kernels import running

TINY = [
    *("bench", "kernels", "--device", "cpu", "--quick", "--repeats", "1"),
    *("--size", "tiny", "--crop", "16", "--stage", "2"),
]


def test_the_document_is_one_json_and_the_talk_is_on_stderr(capsys):
    assert main([*TINY, "--json"]) == 0
    shown = capsys.readouterr()
    document = json.loads(shown.out)
    assert {row["kernel_name"] for row in document["rows"]} >= {"window_attention", "voco_loss"}
    assert document["limits"]["copy_bytes_per_s"] > 0
    assert "bench" in shown.err


def test_a_table_and_a_picture_are_for_people(capsys, tmp_path):
    assert main([*TINY, "--plot", str(tmp_path / "bars.png")]) == 0
    shown = capsys.readouterr().out
    assert "tiny 16^3 stage 2" in shown
    assert "not timed: flex" in shown
    assert (tmp_path / "bars.png").read_bytes().startswith(b"\x89PNG")


def test_a_missing_gpu_ends_with_4(capsys, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert main(["bench", "kernels", "--device", "cuda"]) == 4
    shown = capsys.readouterr()
    assert "device is 'cuda', but torch" in shown.err
    assert shown.out == ""


@pytest.mark.parametrize(
    ("words", "said"), [("--stage 9", "Stage 9 of size"), ("--size Q", "no model size 'Q'")]
)
def test_what_does_not_exist_ends_with_2(capsys, words, said):
    assert main(["bench", "kernels", "--device", "cpu", *words.split()]) == 2
    assert said in capsys.readouterr().err


def test_results_that_differ_end_with_5_and_are_not_timed(capsys, monkeypatch):
    # nothing is equal to less than nothing
    monkeypatch.setitem(running.TOLERANCE, torch.float32, -1.0)
    assert main([*TINY, "--json"]) == 5
    shown = capsys.readouterr()
    assert "differs from monai" in shown.err
    assert "Nothing of it was timed" in shown.err
    assert json.loads(shown.out)["rows"] == []


@pytest.mark.slow
def test_it_runs_without_the_packages_that_only_developers_have():
    missing = "import sys; sys.modules |= dict.fromkeys(['einops', 'pytest', 'triton'])"
    code = f"{missing}; from vococli.main import main; sys.exit(main({TINY}))"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    assert "tiny 16^3 stage 2" in run.stdout
