"""Check and time one job after another."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor

from vocotrain.bench_kernels.attention import attention_job
from vocotrain.bench_kernels.cases import attention_cases
from vocotrain.bench_kernels.document import Absence, Document, Row, machine, rows_of, settings_of
from vocotrain.bench_kernels.limits import Limits, fair_metric, measure_limits
from vocotrain.bench_kernels.small_jobs import small_jobs
from vocotrain.bench_kernels.timing import MODES, Clock, Spread, Workload, clock_for, take_turns
from vocotrain.progress import OnEvent, ProgressEvent, silent

if TYPE_CHECKING:
    from collections.abc import Callable

    from vocotrain.bench_kernels.jobs import Job, Peer
    from vocotrain.bench_kernels.settings import BenchSettings

TOLERANCE = {torch.float32: 1e-4, torch.bfloat16: 5e-2, torch.float16: 1e-2}
"""Largest norm of a difference over the norm of the truth, of the output and each gradient."""

Found = tuple[list[Row], list[Absence]]


class Checked(NamedTuple):
    """An implementation that is right."""

    workload: Workload
    difference: float
    memory: dict[tuple[str, str], Spread]


def bench_kernels(settings: BenchSettings, on_event: OnEvent = silent) -> Document:
    """Time our kernels and their peers.

    Before anything of an implementation is timed, its output and all gradients are compared with
    those of the first peer in float32; one that differs is reported as wrong and gets no numbers.

    Args:
        settings: What to time, and where.
        on_event: Hears of each job before it starts.
    """
    clock = clock_for(settings.device)
    jobs = planned_jobs(settings)
    on_event(ProgressEvent("bench", 0, len(jobs), {"now": "what the device can do"}))
    limits = measure_limits(settings.device, settings.dtype, clock)
    rows: list[Row] = []
    absent: list[Absence] = []
    for number, (name, make) in enumerate(jobs):
        on_event(ProgressEvent("bench", number, len(jobs), {"now": name}))
        found, missing = run_job(make(), settings, clock, limits)
        rows += found
        absent += missing
    on_event(ProgressEvent("bench", len(jobs), len(jobs), {"now": "done"}))
    return Document(
        machine=machine(settings.device),
        settings=settings_of(settings),
        limits=limits,
        rows=tuple(rows),
        absent=tuple(absent),
    )


def planned_jobs(settings: BenchSettings) -> list[tuple[str, Callable[[], Job]]]:
    """Names of all jobs, and how to make each; tensors are made when its turn comes."""
    attention = [
        (case.name, partial(attention_job, case, settings))
        for case in attention_cases(
            settings.sizes, settings.crops_vox, settings.stages, maps=settings.maps
        )
    ]
    return [*attention, *small_jobs(settings)]


def run_job(job: Job, settings: BenchSettings, clock: Clock, limits: Limits) -> Found:
    """Check all implementations, then time those that are right."""
    try:
        truth = _truth(job)
    except torch.OutOfMemoryError:
        reason = "what all are compared with does not fit into memory; take fewer maps (--maps)"
        return [], [
            Absence(job.kernel, peer.name, job.name, reason, is_wrong=False) for peer in job.peers
        ]
    checked = {peer.name: _check(peer, job, truth, settings.device) for peer in job.peers}
    right = {name: found for name, found in checked.items() if isinstance(found, Checked)}
    times = take_turns(
        {name: found.workload for name, found in right.items()},
        clock,
        repeats=settings.repeats,
        least_s=settings.least_s,
    )
    metric = fair_metric(settings.device)
    rows: list[Row] = []
    for name, found in right.items():
        notes = {
            mode: _notes(job, mode, found.difference, times[name].get((mode, metric)), limits)
            for mode in MODES
        }
        measured = {**times[name], **found.memory}
        rows += rows_of(job, name, measured, notes=notes, device=settings.device)
    return rows, [found for found in checked.values() if isinstance(found, Absence)]


def _truth(job: Job) -> list[Tensor]:
    first = job.peers[0].run
    assert first is not None
    return _results(first, job)


def _results(run: Callable[[], Tensor], job: Job) -> list[Tensor]:
    """Output and, if there is a way back, the gradients of its sum weighed by fixed numbers."""
    if not job.wanted:
        with torch.no_grad():
            return [run()]
    out = run()
    return [out.detach(), *torch.autograd.grad(out, list(job.wanted), _weights(out))]


def _weights(out: Tensor) -> Tensor:
    """Gradient of the output: numbers that differ from place to place, the same at each call."""
    return torch.linspace(-1, 1, out.numel(), device=out.device).cos().view_as(out).to(out.dtype)


def _check(peer: Peer, job: Job, truth: list[Tensor], device: torch.device) -> Checked | Absence:
    """Run a peer once and compare, or say why it is not timed."""

    def absence(reason: str, *, is_wrong: bool = False) -> Absence:
        return Absence(job.kernel, peer.name, job.name, reason, is_wrong=is_wrong)

    if peer.run is None:
        return absence(peer.reason)
    tried = replace(job, wanted=job.wanted if peer.has_backward else ())
    run = _in_precision(peer.run, job.dtype, device)
    try:
        found = _results(run, tried)
    except torch.OutOfMemoryError:
        return absence("out of memory")
    except RuntimeError as error:
        if not peer.may_fail:
            raise
        return absence(f"{type(error).__name__}: {str(error).partition(chr(10))[0][:120]}")
    difference = max(_difference(*pair) for pair in zip(found, truth, strict=False))
    # turned round, so that what is not a number is wrong as well
    if not difference <= TOLERANCE[job.dtype]:
        return absence(
            f"differs from {job.peers[0].name} by {difference:.1e} of its norm; expected at most "
            f"{TOLERANCE[job.dtype]:.0e}",
            is_wrong=True,
        )
    workload = Workload(run, tried.wanted, _weights(found[0]) if tried.wanted else None)
    del found
    return Checked(workload, difference, _peak_memory(run, tried, device))


def _peak_memory(
    run: Callable[[], Tensor], job: Job, device: torch.device
) -> dict[tuple[str, str], Spread]:
    """The most that one run, gradients included, holds beside its inputs; on a GPU only."""
    if device.type != "cuda":
        return {}
    torch.cuda.reset_peak_memory_stats(device)
    before = torch.cuda.memory_allocated(device)
    _results(run, job)
    peak_mb = (torch.cuda.max_memory_allocated(device) - before) / 1e6
    mode = "full" if job.wanted else "forward"
    return {(mode, "memory"): Spread(peak_mb, peak_mb, peak_mb)}


def _in_precision(
    run: Callable[[], Tensor], dtype: torch.dtype, device: torch.device
) -> Callable[[], Tensor]:
    if dtype == torch.float32:
        return run

    def run_in_half() -> Tensor:
        with torch.autocast(device.type, dtype):
            return run()

    return run_in_half


def _difference(found: Tensor, truth: Tensor) -> float:
    """Norm of the difference over that of the truth; not a number if something is not one."""
    norm = torch.linalg.vector_norm
    return float(norm(found.double() - truth.double()) / norm(truth.double()).clamp_min(1e-30))


def _notes(
    job: Job, mode: str, difference: float, spread: Spread | None, limits: Limits
) -> dict[str, Any]:
    """What to say beside a number: sizes, and how well the device was used."""
    notes = {**job.notes, "difference": difference}
    work = job.work(mode)
    if work is None or spread is None:
        return notes
    seconds = 1e-3 * spread.median
    return {
        **notes,
        "needed_bytes": work.moved_bytes,
        "needed_flop": work.flop,
        "share_of_copy_speed": work.moved_bytes / seconds / limits.copy_bytes_per_s,
        "share_of_product_speed": work.flop / seconds / limits.product_flop_per_s,
    }
