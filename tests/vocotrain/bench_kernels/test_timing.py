import pytest
import torch

from vocotrain.bench_kernels import timing
from vocotrain.bench_kernels.timing import ProcessorClock, Spread, Workload, spread, take_turns


class CountedClock:
    """Each mark is one later than the last; a run in between may move it on."""

    def __init__(self):
        self.now = 0
        self.prepared = 0

    def prepare(self):
        self.prepared += 1

    def mark(self):
        self.now += 1
        return self.now

    def between_ms(self, start, stop):
        return {"speed": float(stop - start)}


def test_implementations_take_turns_and_the_first_round_does_not_count():
    clock, order = CountedClock(), []

    def run(name, lasts):
        order.append(name)
        clock.now += lasts
        return torch.zeros(())

    works = {
        "a": Workload(lambda: run("a", 100 if len(order) < 2 else 4), (), None),
        "b": Workload(lambda: run("b", 9), (), None),
    }
    found = take_turns(works, clock, repeats=3)
    assert order == ["a", "b"] * 4
    assert found["a"] == {("forward", "speed"): Spread(5, 5, 5)}
    assert found["b"] == {("forward", "speed"): Spread(10, 10, 10)}


def test_the_way_back_is_timed_alone_and_together():
    clock = CountedClock()
    x = torch.ones(3, requires_grad=True)

    def run():
        clock.now += 10
        return x * 2

    found = take_turns({"a": Workload(run, [x], torch.ones(3))}, clock, repeats=1)
    times = {mode: one.median for (mode, _), one in found["a"].items()}
    assert times == {"forward": 11, "backward": 1, "full": 12}
    # each run starts from the same state: twice a round, two rounds
    assert clock.prepared == 4


def test_short_runs_are_taken_oftener(monkeypatch):
    # a second passes with each look at the clock, which is not looked at before two turns
    seconds = iter(range(1000))
    monkeypatch.setattr(timing.time, "perf_counter", lambda: next(seconds))
    runs = []
    work = Workload(lambda: runs.append(1) or torch.zeros(()), (), None)
    take_turns({"a": work}, CountedClock(), repeats=2, least_s=7)
    assert len(runs) == 1 + 2 + 6
    runs.clear()
    take_turns({"a": work}, CountedClock(), repeats=1, least_s=10_000)
    assert len(runs) == 1 + timing.MOST_TURNS


def test_a_processor_has_two_clocks():
    clock = ProcessorClock()
    start = clock.mark()
    times = clock.between_ms(start, clock.mark())
    assert set(times) == {"speed", "processor"}
    assert all(0 <= time_ms < 1e4 for time_ms in times.values())


def test_one_run_has_no_spread():
    assert spread([2.0]) == Spread(2.0, 2.0, 2.0)


@pytest.mark.gpu
# compilers and cuBLAS warn of what is no fault of ours
@pytest.mark.filterwarnings("default")
def test_a_gpu_is_timed_by_events_after_its_cache_was_overwritten():
    clock = timing.CudaClock(torch.device("cuda"))
    x = torch.ones(1000, 1000, device="cuda", requires_grad=True)
    found = take_turns({"a": Workload(lambda: x @ x, [x], torch.ones_like(x))}, clock, repeats=2)
    assert {mode for mode, _ in found["a"]} == {"forward", "backward", "full"}
    assert all(one.median > 0 for one in found["a"].values())
