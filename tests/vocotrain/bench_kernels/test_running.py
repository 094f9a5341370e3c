import json
from dataclasses import replace
from subprocess import SubprocessError

import pytest
import torch

from vocotrain.bench_kernels import bench_kernels, not_timed, resolve_settings, running, table
from vocotrain.bench_kernels.chart import write_chart
from vocotrain.bench_kernels.document import Absence, Document, Row
from vocotrain.bench_kernels.jobs import Job, Peer, Work
from vocotrain.bench_kernels.limits import Limits
from vocotrain.bench_kernels.running import planned_jobs, run_job
from vocotrain.bench_kernels.timing import ProcessorClock

TINY = resolve_settings(
    device="cpu", sizes=("tiny",), crops_vox=(16,), stages=(2,), repeats=1, is_quick=True
)
LIMITS = Limits(copy_bytes_per_s=1e9, product_flop_per_s=1e12)


def toy_job(*more: Peer, **settings) -> Job:
    x = torch.linspace(1, 2, 10, requires_grad=True)
    right = Peer("right", lambda: x * x)
    return Job("toy", "toy 10", [right, *more], [x], **settings), x


def run_toy(job: Job) -> tuple[list[Row], list]:
    return run_job(job, TINY, ProcessorClock(), LIMITS)


@pytest.fixture(scope="module")
def document() -> Document:
    return bench_kernels(TINY)


def test_a_wrong_output_gets_no_numbers():
    job, x = toy_job()
    job = Job("toy", "toy 10", [*job.peers, Peer("wrong", lambda: x * x * 1.01)], [x])
    rows, absent = run_toy(job)
    assert {row.kernel_provider for row in rows} == {"right"}
    (wrong,) = absent
    assert wrong.is_wrong
    assert "differs from right by 1.0e-02 of its norm; expected at most 1e-04" in wrong.reason


@pytest.mark.parametrize("poison", [float("nan"), float("inf")])
def test_what_is_not_a_number_is_wrong(poison):
    job, x = toy_job()
    job = Job("toy", "toy 10", [*job.peers, Peer("wrong", lambda: x * poison)], [x])
    _, (wrong,) = run_toy(job)
    assert wrong.is_wrong


def test_a_gradient_that_is_not_a_number_is_wrong_though_the_output_is_right():
    job, x = toy_job()
    # its slope is 0 times infinity
    hidden = Peer("hidden", lambda: x * x + ((x - x) ** 0.5).detach() * (x - x.detach()) ** 0.5)
    rows, (wrong,) = run_toy(Job("toy", "toy 10", [*job.peers, hidden], [x]))
    assert "differs from right by nan" in wrong.reason
    assert all(row.kernel_provider != "hidden" for row in rows)


def test_what_is_wrong_only_without_gradients_gets_no_numbers():
    job, x = toy_job()
    fast = Peer("fast", lambda: x * x if torch.is_grad_enabled() else x)
    _, (wrong,) = run_toy(Job("toy", "toy 10", [*job.peers, fast], [x]))
    assert wrong.is_wrong


def test_memory_that_ends_while_taking_turns_leaves_all_out():
    job, x = toy_job()
    calls = []

    def run():
        calls.append(1)
        # twice to be checked
        return x * x if len(calls) < 3 else fail(torch.OutOfMemoryError)

    rows, absent = run_toy(Job("toy", "toy 10", [*job.peers, Peer("late", run)], [x]))
    assert rows == []
    assert [one.kernel_provider for one in absent] == ["right", "late"]
    assert all("taking turns does not fit into memory" in one.reason for one in absent)


def test_an_input_that_fits_no_memory_leaves_the_next_job_alone(monkeypatch):
    small = toy_job()[0]
    jobs = [("big", lambda: fail(torch.OutOfMemoryError)), ("toy 10", lambda: small)]
    monkeypatch.setattr(running, "planned_jobs", lambda _settings: jobs)
    document = bench_kernels(TINY)
    assert {row.kernel_provider for row in document.rows} == {"right"}
    (absence,) = document.absent
    assert (absence.x_value, absence.is_wrong) == ("big", False)
    assert "the input does not fit into memory" in absence.reason


def test_products_are_not_rounded_where_the_process_allows_it(monkeypatch):
    seen = []
    monkeypatch.setattr(
        running, "_measured", lambda *_: seen.append(torch.get_float32_matmul_precision())
    )
    torch.set_float32_matmul_precision("high")
    bench_kernels(TINY)
    assert (seen, torch.get_float32_matmul_precision()) == (["highest"], "high")
    torch.set_float32_matmul_precision("highest")


def test_a_wrong_gradient_gets_no_numbers():
    job, x = toy_job()
    liar = Peer("liar", lambda: (x * x).detach() + 0 * x)
    rows, (wrong,) = run_toy(Job("toy", "toy 10", [*job.peers, liar], [x]))
    assert wrong.is_wrong
    assert all(row.kernel_provider != "liar" for row in rows)


def test_a_peer_without_a_way_back_is_timed_forward_only():
    job, x = toy_job()
    forward = Peer("forward", lambda: (x * x).detach(), has_backward=False)
    rows, absent = run_toy(Job("toy", "toy 10", [*job.peers, forward], [x]))
    assert absent == []
    modes = {row.kernel_operation_mode for row in rows if row.kernel_provider == "forward"}
    assert modes == {"forward"}


def fail(kind):
    raise kind("no room\nsecond line")


def test_a_peer_that_torch_refuses_is_left_out_with_its_first_line():
    job, x = toy_job()
    peers = [
        *job.peers,
        Peer("big", lambda: fail(torch.OutOfMemoryError)),
        Peer("odd", lambda: fail(RuntimeError), may_fail=True),
        Peer("rude", lambda: fail(SubprocessError), may_fail=True),
        Peer("none", None, "not here"),
    ]
    _, absent = run_toy(Job("toy", "toy 10", peers, [x]))
    assert {one.kernel_provider: one.reason for one in absent} == {
        "big": "out of memory",
        "odd": "RuntimeError: no room",
        "rude": "SubprocessError: no room",
        "none": "not here",
    }
    assert not any(one.is_wrong for one in absent)


def test_a_truth_that_fits_no_memory_leaves_all_out_with_the_remedy():
    x = torch.ones(3, requires_grad=True)
    big, small = Peer("big", lambda: fail(torch.OutOfMemoryError)), Peer("small", lambda: x * x)
    rows, absent = run_toy(Job("toy", "toy 3", [big, small], [x]))
    assert rows == []
    assert [one.kernel_provider for one in absent] == ["big", "small"]
    assert all("take fewer maps (--maps)" in one.reason for one in absent)


def test_an_error_of_ours_is_wrong_and_the_others_keep_their_numbers():
    job, x = toy_job()
    peers = [*job.peers, Peer("ours", lambda: fail(RuntimeError))]
    rows, (wrong,) = run_toy(Job("toy", "toy 10", peers, [x]))
    assert (wrong.kernel_provider, wrong.reason) == ("ours", "RuntimeError: no room")
    assert wrong.is_wrong
    assert {row.kernel_provider for row in rows} == {peer.name for peer in job.peers}


def test_shares_are_of_what_the_device_can_do():
    job, _ = toy_job(work=lambda _mode: Work(moved_bytes=1e6, flop=1e9))
    rows, _ = run_toy(job)
    # of a processor's time, which other work on the machine does not lengthen
    row = next(row for row in rows if row.metric_name == "processor")
    notes = json.loads(row.extra_benchmark_config_str)
    seconds = 1e-3 * row.y_value_50
    assert notes["share_of_copy_speed"] == pytest.approx(1e6 / seconds / 1e9)
    assert notes["share_of_product_speed"] == pytest.approx(1e9 / seconds / 1e12)
    assert notes["difference"] == 0


def test_a_half_type_runs_under_autocast_against_the_truth_in_single_precision():
    weight = torch.randn(8, 8, requires_grad=True)
    seen = []

    def run():
        out = weight @ weight
        seen.append(out.dtype)
        return out

    job = Job("toy", "toy 8", [Peer("product", run)], [weight], dtype=torch.bfloat16)
    rows, absent = run_toy(job)
    assert absent == []
    assert set(seen) == {torch.float32, torch.bfloat16}
    assert 0 < json.loads(rows[0].extra_benchmark_config_str)["difference"] < 0.05


def test_a_run_measures_every_operation_in_every_mode(document):
    assert document.wrong == []
    found = {(row.kernel_name, row.kernel_provider) for row in document.rows}
    assert {"window_attention", "voco_loss", "crop_similarity", "cut_crops"} == {
        kernel for kernel, _ in found
    }
    for kernel in ("window_attention", "voco_loss", "crop_similarity"):
        modes = {row.kernel_operation_mode for row in document.rows if row.kernel_name == kernel}
        assert modes == {"forward", "backward", "full"}
    assert {(row.metric_name, row.metric_unit) for row in document.rows} == {
        ("speed", "ms"),
        ("processor", "ms"),
    }
    assert all(row.y_value_20 <= row.y_value_50 <= row.y_value_80 for row in document.rows)


def test_a_run_says_what_it_ran_on(document):
    assert document.machine["packages"]["torch"]
    assert document.settings["dtype"] == "float32"
    assert document.limits.copy_bytes_per_s > 0
    assert document.limits.product_flop_per_s > 0


def test_each_job_is_announced():
    heard = []
    quick = resolve_settings(
        device="cpu", sizes=("tiny",), crops_vox=(16,), stages=(1,), repeats=1, is_quick=True
    )
    bench_kernels(quick, heard.append)
    assert [event.step for event in heard] == [0, 0, 1, 2, 3, 4]
    assert heard[1].values["now"] == "tiny 16^3 stage 1"
    assert heard[-1].step == heard[-1].total


def test_a_gpu_runs_every_stage_of_b_l_and_h_at_both_crops(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda **_: True)
    names = [name for name, _ in planned_jobs(resolve_settings())]
    stages = [
        f"{size} {crop}^3 stage {stage}"
        for size in ("B", "L", "H")
        for crop in (64, 96)
        for stage in (1, 2, 3, 4)
    ]
    assert names[:24] == stages
    assert [name.split()[0] for name in names[24:]] == ["voco_loss", "crop_similarity", "cut_crops"]


@pytest.mark.gpu
# compilers and cuBLAS warn of what is no fault of ours
@pytest.mark.filterwarnings("default")
def test_a_gpu_is_measured_with_its_memory():
    settings = resolve_settings(
        device="cuda", sizes=("B",), crops_vox=(32,), stages=(3,), maps=2, repeats=2, is_quick=True
    )
    document = bench_kernels(settings)
    assert document.wrong == []
    assert {"speed", "memory"} == {row.metric_name for row in document.rows}
    assert {"monai", "sdpa", "voco-triton"} <= {row.kernel_provider for row in document.rows}
    assert all(row.y_value_50 > 0 for row in document.rows)


def test_the_table_has_a_line_for_each_that_was_timed(document):
    header, lines = table(document)
    timed = {(row.x_value, row.kernel_provider) for row in document.rows}
    assert {(line[0], line[1]) for line in lines} == timed
    assert {len(line) for line in lines} == {len(header)}
    first = next(line for line in lines if line[1] == "monai")
    assert first[6:8] == ("1.00x", "1.00x")
    assert all(line[8].endswith("%") for line in lines)


def test_a_gpu_has_memory_where_a_processor_has_its_own_ratio(document):
    plain = next(row for row in document.rows if row.kernel_operation_mode == "full")
    memory = replace(plain, metric_name="memory", metric_unit="MB", y_value_50=123.0)
    speed = replace(plain, metric_name="speed")
    header, (line,) = table(replace(document, rows=(speed, memory)))
    assert dict(zip(header, line, strict=True))["memory MB"] == "123"


def test_what_was_not_timed_is_said_once(document):
    names = [name for name, _ in not_timed(document)]
    assert sorted(names) == ["flex", "monai-compile"]


def test_what_was_timed_elsewhere_is_said_with_its_cases(document):
    first = next(row for row in document.rows if row.kernel_provider == "sdpa")
    absence = Absence("window_attention", "sdpa", "large", "out of memory", is_wrong=False)
    both = replace(document, rows=(first,), absent=(absence,))
    assert not_timed(both) == [("sdpa", "out of memory (large)")]
    assert not_timed(replace(both, rows=())) == [("sdpa", "out of memory")]


def test_without_the_first_peer_there_is_no_ratio(document):
    rows = tuple(row for row in document.rows if row.kernel_provider == "sdpa")
    header, (line,) = table(replace(document, rows=rows))
    found = dict(zip(header, line, strict=True))
    assert (found["ratio"], found["processor ratio"]) == ("", "")
    assert found["full ms"]


def test_the_picture_is_a_png_of_some_size(document, tmp_path):
    path = write_chart(tmp_path / "bars.png", document)
    data = path.read_bytes()
    assert data.startswith(b"\x89PNG")
    assert 5_000 < len(data) < 500_000
