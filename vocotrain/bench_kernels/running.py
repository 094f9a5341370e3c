"""Check and time one job after another."""

from __future__ import annotations

from contextlib import contextmanager
from functools import partial
from subprocess import SubprocessError
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor

from vocotrain.bench_kernels.attention import attention_job
from vocotrain.bench_kernels.cases import attention_cases
from vocotrain.bench_kernels.document import Absence, Document, Row, machine, rows_of, settings_of
from vocotrain.bench_kernels.jobs import fixed_weights
from vocotrain.bench_kernels.limits import Limits, fair_metric, measure_limits
from vocotrain.bench_kernels.small_jobs import small_jobs
from vocotrain.bench_kernels.timing import MODES, Clock, Spread, Workload, clock_for, take_turns
from vocotrain.progress import OnEvent, ProgressEvent, silent

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from vocotrain.bench_kernels.jobs import Job, Peer
    from vocotrain.bench_kernels.settings import BenchSettings

TOLERANCE = {torch.float32: 1e-4, torch.bfloat16: 5e-2, torch.float16: 1e-2}
"""Largest norm of a difference over the norm of the truth, of the output and each gradient."""

TOO_LARGE = "does not fit into memory; take fewer maps (--maps), or --quick"

FOREIGN_ERRORS = (
    RuntimeError,
    AssertionError,
    AttributeError,
    ImportError,
    LookupError,
    OSError,
    SubprocessError,
    TypeError,
    ValueError,
)
"""What code of others raises where a GPU, a compiler or a version does not suit it: torch's
compiler calls Triton, which calls a C compiler, and each has its own words."""

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
    with exact_products():
        return _measured(settings, on_event)


@contextmanager
def exact_products() -> Iterator[None]:
    """Products of float32 as such, whatever the process or its environment allows.

    Some containers let torch round them to tf32 (TORCH_ALLOW_TF32_CUBLAS_OVERRIDE=1): the truth
    would be off by more than what an implementation may differ from it.
    """
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("highest")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)


def _measured(settings: BenchSettings, on_event: OnEvent) -> Document:
    clock = clock_for(settings.device)
    jobs = planned_jobs(settings)
    on_event(ProgressEvent("bench", 0, len(jobs), {"now": "what the device can do"}))
    limits = measure_limits(settings.device, settings.dtype, clock)
    rows: list[Row] = []
    absent: list[Absence] = []
    for number, (name, make) in enumerate(jobs):
        on_event(ProgressEvent("bench", number, len(jobs), {"now": name}))
        try:
            job = make()
        except torch.OutOfMemoryError:
            absent.append(Absence(name, "all", name, f"the input {TOO_LARGE}", is_wrong=False))
            continue
        found, missing = run_job(job, settings, clock, limits)
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
        truth = job.truth() if job.truth else _truth(job)
    except torch.OutOfMemoryError:
        reason = f"what all are compared with {TOO_LARGE}"
        return [], [_absence(job, peer, reason) for peer in job.peers]
    checked = {peer.name: _check(peer, job, truth, settings.device) for peer in job.peers}
    del truth
    right = {name: found for name, found in checked.items() if isinstance(found, Checked)}
    absent = [found for found in checked.values() if isinstance(found, Absence)]
    try:
        times = take_turns(
            {name: found.workload for name, found in right.items()},
            clock,
            repeats=settings.repeats,
            least_s=settings.least_s,
        )
    except torch.OutOfMemoryError:
        # each did fit when it was checked: memory is so full that nobody's numbers would be fair
        reason = f"taking turns {TOO_LARGE}"
        timed = [peer for peer in job.peers if peer.name in right]
        return [], [*absent, *(_absence(job, peer, reason) for peer in timed)]
    metric = fair_metric(settings.device)
    rows: list[Row] = []
    for name, found in right.items():
        notes = {
            mode: _notes(job, mode, found.difference, times[name].get((mode, metric)), limits)
            for mode in MODES
        }
        measured = {**times[name], **found.memory}
        rows += rows_of(job, name, measured, notes=notes, device=settings.device)
    return rows, absent


def _absence(job: Job, peer: Peer, reason: str, *, is_wrong: bool = False) -> Absence:
    return Absence(job.kernel, peer.name, job.name, reason, is_wrong=is_wrong)


def _truth(job: Job) -> list[Tensor]:
    first = job.peers[0].run
    assert first is not None
    return _results(first, job.wanted)


def _results(run: Callable[[], Tensor], wanted: Sequence[Tensor]) -> list[Tensor]:
    """Output and, if there is a way back, the gradients of its sum weighed by fixed numbers."""
    if not wanted:
        with torch.no_grad():
            return [run()]
    out = run()
    return [out.detach(), *torch.autograd.grad(out, list(wanted), fixed_weights(out))]


def _check(peer: Peer, job: Job, truth: list[Tensor], device: torch.device) -> Checked | Absence:
    """Run a peer and compare, or say why it is not timed."""
    if peer.run is None:
        return _absence(job, peer, peer.reason)
    run = _in_precision(peer.run, job.dtype, device)
    wanted = job.wanted if peer.has_backward else ()
    try:
        workload, difference = _compared(run, wanted, truth)
        if difference <= TOLERANCE[job.dtype]:
            return Checked(workload, difference, _peak_memory(workload, device))
    except torch.OutOfMemoryError:
        return _absence(job, peer, "out of memory")
    except FOREIGN_ERRORS as error:
        first_line = str(error).partition("\n")[0][:120]
        reason = f"{type(error).__name__}: {first_line}"
        return _absence(job, peer, reason, is_wrong=not peer.may_fail)
    reason = (
        f"differs from {job.peers[0].name} by {difference:.1e} of its norm; expected at most "
        f"{TOLERANCE[job.dtype]:.0e}"
    )
    return _absence(job, peer, reason, is_wrong=True)


def _compared(
    run: Callable[[], Tensor], wanted: Sequence[Tensor], truth: list[Tensor]
) -> tuple[Workload, float]:
    """What will be timed, and how far it is from the truth at most; not a number if any is not."""
    found = _results(run, wanted)
    differences = [_difference(*pair) for pair in zip(found, truth, strict=False)]
    grad = fixed_weights(found[0]) if wanted else None
    del found
    if wanted:
        # without gradients, which is timed by itself, torch and MONAI may take another path
        with torch.no_grad():
            differences.append(_difference(run(), truth[0]))
    # the maximum of Python would pass over what is not a number
    return Workload(run, wanted, grad), float(torch.tensor(differences).max())


def _peak_memory(workload: Workload, device: torch.device) -> dict[tuple[str, str], Spread]:
    """The most that one run, gradients included, holds beside its inputs; on a GPU only."""
    if device.type != "cuda":
        return {}
    torch.cuda.reset_peak_memory_stats(device)
    before = torch.cuda.memory_allocated(device)
    if workload.wanted:
        torch.autograd.grad(workload.run(), list(workload.wanted), workload.grad)
    else:
        with torch.no_grad():
            workload.run()
    peak_mb = (torch.cuda.max_memory_allocated(device) - before) / 1e6
    mode = "full" if workload.wanted else "forward"
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
    notes = {**job.notes, "against": job.peers[0].name, "difference": difference}
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
