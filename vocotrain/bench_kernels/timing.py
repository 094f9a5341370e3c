"""Clocks, and runs of several implementations that take turns.

Turns, so that a machine which is busy for a while slows all alike; one run of each comes first and
is not counted. On a processor two clocks run at once: the one on the wall, and the time that this
process's threads spent, which other work on the machine does not lengthen. On a GPU the time
between two events is taken, and before each run a buffer twice the size of its last cache is
overwritten, so that nothing a run needs lies there yet. Between the forward and the backward pass
of one run it is left alone: in a training step, too, the one follows the other.
"""

from __future__ import annotations

import statistics
import time
from typing import TYPE_CHECKING, NamedTuple, Protocol

import torch

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from torch import Tensor

    Mark = object
    Run = Callable[[], Tensor]

MODES = ("forward", "backward", "full")
"""Without gradients; the way back alone; there and back."""

MOST_TURNS = 100

FALLBACK_CACHE_BYTES = 128 * 2**20
"""Where torch does not tell a GPU's cache: more than any has."""


class Clock(Protocol):
    """Takes marks, and tells the time between two of them."""

    def prepare(self) -> None:
        """Before a run: the same state for all."""

    def mark(self) -> object:
        """Now."""

    def between_ms(self, start: object, stop: object) -> dict[str, float]:
        """Time from one mark to another, by metric, ms."""


class ProcessorClock:
    """The wall's and the processor's time."""

    def prepare(self) -> None:
        """Nothing to do."""

    def mark(self) -> tuple[float, float]:
        """Seconds on both clocks."""
        return time.perf_counter(), time.process_time()

    def between_ms(self, start: object, stop: object) -> dict[str, float]:
        """`speed` is the wall's time, `processor` that of all threads together."""
        assert isinstance(start, tuple)
        assert isinstance(stop, tuple)
        return {"speed": 1e3 * (stop[0] - start[0]), "processor": 1e3 * (stop[1] - start[1])}


class CudaClock:
    """Events on the current stream of a CUDA device."""

    def __init__(self, device: torch.device) -> None:
        """Take a buffer of twice the last cache."""
        properties = torch.cuda.get_device_properties(device)
        cache_bytes = getattr(properties, "L2_cache_size", 0) or FALLBACK_CACHE_BYTES
        self._buffer = torch.empty(2 * cache_bytes, dtype=torch.int8, device=device)

    def prepare(self) -> None:
        """Overwrite the buffer."""
        self._buffer.zero_()

    def mark(self) -> torch.cuda.Event:
        """An event that the device will time."""
        event: torch.cuda.Event = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]  # torch's own
        event.record()
        return event

    def between_ms(self, start: object, stop: object) -> dict[str, float]:
        """`speed` is the device's time."""
        assert isinstance(start, torch.cuda.Event)
        assert isinstance(stop, torch.cuda.Event)
        stop.synchronize()
        return {"speed": start.elapsed_time(stop)}


class Spread(NamedTuple):
    """Of several runs, the middle and how far they lie apart."""

    median: float
    low: float
    """A fifth of the runs is below."""
    high: float
    """A fifth of the runs is above."""


class Workload(NamedTuple):
    """Something that computes, and what its gradients are taken of."""

    run: Run
    wanted: Sequence[Tensor]
    """Empty when there is no way back."""
    grad: Tensor | None
    """Gradient of the output."""


def clock_for(device: torch.device) -> Clock:
    """The clock of a device."""
    return CudaClock(device) if device.type == "cuda" else ProcessorClock()


def take_turns(
    workloads: Mapping[str, Workload], clock: Clock, *, repeats: int, least_s: float = 0.0
) -> dict[str, dict[tuple[str, str], Spread]]:
    """Time all workloads in turns.

    Args:
        workloads: By name; those without a way back are timed forward only.
        clock: Of the device they run on.
        repeats: Turns that count at least; one more comes before them.
        least_s: More turns while they took less than this together, up to MOST_TURNS: what lasts
            a fraction of a millisecond needs many.

    Returns:
        For each name, by mode (see MODES) and metric (see the clock), ms.
    """
    samples: dict[str, dict[tuple[str, str], list[float]]] = {name: {} for name in workloads}
    for workload in workloads.values():
        _one_run(workload, clock)
    start_s, turns = time.perf_counter(), 0
    while turns < repeats or (turns < MOST_TURNS and time.perf_counter() - start_s < least_s):
        turns += 1
        for name, workload in workloads.items():
            for key, time_ms in _one_run(workload, clock).items():
                samples[name].setdefault(key, []).append(time_ms)
    return {
        name: {key: spread(times_ms) for key, times_ms in found.items()}
        for name, found in samples.items()
    }


def spread(values: Sequence[float]) -> Spread:
    """Median and the fifths at both ends, straight lines between neighbours.

    >>> spread([1.0, 2.0, 3.0, 4.0, 5.0, 6.0])
    Spread(median=3.5, low=2.0, high=5.0)
    """
    if len(values) == 1:
        return Spread(values[0], values[0], values[0])
    fifths = statistics.quantiles(values, n=5, method="inclusive")
    return Spread(statistics.median(values), fifths[0], fifths[3])


def _one_run(workload: Workload, clock: Clock) -> dict[tuple[str, str], float]:
    clock.prepare()
    with torch.no_grad():
        start = clock.mark()
        workload.run()
        stop = clock.mark()
    taken = {"forward": clock.between_ms(start, stop)}
    if workload.wanted:
        clock.prepare()
        start = clock.mark()
        out = workload.run()
        between = clock.mark()
        torch.autograd.grad(out, list(workload.wanted), workload.grad)
        stop = clock.mark()
        taken["backward"] = clock.between_ms(between, stop)
        taken["full"] = clock.between_ms(start, stop)
    return {
        (mode, metric): time_ms
        for mode, times in taken.items()
        for metric, time_ms in times.items()
    }
