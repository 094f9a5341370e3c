import json
from types import SimpleNamespace

import pytest
import torch

from vocotrain.distributed import World
from vocotrain.metrics import MetricsLog, StepClock, TermMeans
from vocotrain.objective import VoCoOutput
from vocotrain.ops import VoCoTerms

ALONE = World()


def output(intra, inter=0.0, regulariser=0.0, accuracy=0.0):
    terms = VoCoTerms(*(torch.tensor(v) for v in (intra, inter, regulariser)))
    return VoCoOutput(terms, torch.tensor(accuracy))


def test_a_line_holds_means_over_the_steps_since_the_last():
    means = TermMeans(torch.device("cpu"))
    means.add(output(1.0, 0.5, 0.25, 0.5))
    means.add(output(3.0, 0.5, 0.25, 1.0))
    expected = {"intra": 2.0, "inter": 0.5, "regulariser": 0.25, "position_accuracy": 0.75}
    assert means.take(ALONE) == {"loss": 2.75, **expected}
    means.add(output(7.0))
    assert means.take(ALONE)["intra"] == 7.0


def test_sums_go_on_after_a_restore():
    first, second = TermMeans(torch.device("cpu")), TermMeans(torch.device("cpu"))
    first.add(output(1.0))
    second.restore(*first.state(ALONE))
    for means in (first, second):
        means.add(output(2.0))
    assert first.take(ALONE) == second.take(ALONE)


def test_the_clock_leaves_out_what_is_not_training(monkeypatch):
    now = [0.0]
    fake = SimpleNamespace(perf_counter=lambda: now[0])
    monkeypatch.setattr("vocotrain.metrics.time", fake)
    clock = StepClock()
    now[0] = 2.0
    with clock:
        now[0] = 100.0
    now[0] = 102.0
    assert clock.read(scans=8, waited_s=1.0) == {"scans_per_s": 2.0, "data_stall": 0.25}
    now[0] = 104.0
    assert clock.read(scans=8, waited_s=1.5) == {"scans_per_s": 4.0, "data_stall": 0.25}


def test_lines_past_the_resumed_step_are_dropped(tmp_path):
    for step in (1, 2, 4, 6):
        log = MetricsLog(tmp_path, step=step)
        log.write(step, {"loss": float(step)})
        log.close()
    path = tmp_path / "metrics.jsonl"
    cut = b'\x00\xff\x00}\n{"step": 8, "lo'  # by a power cut, and by a kill
    path.write_bytes(path.read_bytes() + cut)
    log = MetricsLog(tmp_path, step=4)
    log.write(5, {"loss": 0.5})
    log.close()
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert lines == [
        *({"step": step, "loss": float(step)} for step in (1, 2, 4)),
        {"step": 5, "loss": 0.5},
    ]


def test_a_number_that_is_not_finite_never_gets_into_a_line(tmp_path):
    log = MetricsLog(tmp_path, step=0)
    with pytest.raises(ValueError, match="not JSON compliant"):
        log.write(1, {"loss": float("nan")})
    log.close()
