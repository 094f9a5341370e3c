"""Runs jobs: here one after another, or by Dask on this machine or a cluster.

Both ways yield outcomes as they come and take jobs as they are needed, so that the number of
scans changes neither memory nor the load of the scheduler (a window of 4 futures a worker is
flat in both; submitting everything costs 5 KB a scan). Both stop taking jobs when told to and
let the running ones finish. Jobs that kill their workers: vocodata/passes.py.

**Memory.** A worker declares its memory as a Dask resource, `memory_mib`, and a job asks for the
share of one thread. A job that finds that it needs more says so (`Needs`) before it takes it, and
waits for room: it is run when the others are done, by workers that are fewer and larger each time,
and at last by one that has all the memory. On a cluster of others it asks for as much as it needs
(`dask worker --resources memory_mib=64000`); without that word it is run alone, on a worker whose
limit is large enough. What no worker can hold comes back as `Needs`.

**Absence.** When no worker has a job for a while, that is said and waited out: clusters come and
go. It ends the run where told to stop, or where the workers are our own and none came back.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any, TypeVar

from vocodata.memory import limit_for, room_bytes, usable_memory
from vocodata.passes import Held, Lost, Needs, run_alone, run_pass
from vocodata.workers import joined, quiet, started

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from vocodata.passes import Task
    from vocodata.workers import Pool

Job = TypeVar("Job")
Result = TypeVar("Result")

USUAL_BYTES = 600 << 20
"""What all but few scans fit in: 512 x 512 x 600 as int16."""


def usable_cores() -> int:
    """Cores this process may run on, which a container or a batch system may have limited."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def usable_workers(jobs: int) -> int:
    """Workers to start unless told otherwise: one a core, but with room for a usual scan each."""
    fitting = usable_memory() // limit_for(USUAL_BYTES)
    return max(1, min(usable_cores(), fitting, jobs))


def run_inline(
    task: Callable[[Job, int], Result | Needs[Job]],
    jobs: Iterable[Job],
    *,
    should_stop: Callable[[], bool],
) -> Iterator[Result | Needs[Job]]:
    """Run jobs in this process, one after another.

    Args:
        task: What to do with a job and so much memory; what it raises ends the run.
        jobs: In the order they are run.
        should_stop: Asked before each job.
    """
    room = room_bytes(usable_memory())
    for job in jobs:
        if should_stop():
            return
        yield task(job, room)


def run_dask(
    task: Callable[[Job, int], Result | Needs[Job]],
    jobs: Iterable[Job],
    *,
    workers: int,
    scheduler: str | None,
    should_stop: Callable[[], bool],
    tell: Callable[[str], None] = lambda _: None,
) -> Iterator[Result | Lost[Job] | Needs[Job]]:
    """Run jobs by Dask, in processes of one thread each.

    Args:
        task: A function of a module, so that workers can import it, of a job and the memory it
            may take, bytes; what it raises ends the run.
        jobs: Taken as they are needed.
        workers: Processes to start on this machine; with a scheduler, only the window's width.
        scheduler: Address of a running scheduler, or None to start one.
        should_stop: Asked before each job is handed out.
        tell: Called with a sentence: where the dashboard is, which jobs wait for room.

    Yields:
        Results as they come, in no order; `Lost` for a job that was given up, `Needs` for one
        that no worker can hold.
    """
    with quiet("distributed", "distributed.client"):
        if scheduler is None:
            yield from _run_here(task, jobs, workers, should_stop, tell)
        else:
            yield from _run_there(task, jobs, scheduler, workers, should_stop, tell)


def _run_here(
    task: Task,
    jobs: Iterable[Any],
    workers: int,
    should_stop: Callable[[], bool],
    tell: Callable[[str], None],
) -> Iterator[Any]:
    """Workers of this machine; fewer and larger ones for jobs that did not fit."""
    memory_bytes, suspects = usable_memory(), list[tuple[Any, int]]()
    while True:
        with started(workers, memory_bytes // workers, tell) as pool:
            held = Held(suspects)
            yield from run_pass(pool, task, jobs, should_stop, held)
            suspects = held.suspects
            if workers > 1 and held.large and should_stop():
                # Larger workers would have had room: nothing is known of these.
                return
            if workers == 1 or not held.large:
                yield from held.large
                yield from _run_suspects(pool, task, suspects, should_stop)
                return
        workers = fewer_workers(workers, memory_bytes, held.large)
        jobs = [large.job for large in held.large]
        tell(f"{len(jobs)} scans need more memory than a worker has; now by {workers} workers.")


def fewer_workers(workers: int, memory_bytes: int, large: Iterable[Needs[Any]]) -> int:
    """How many workers to go on with, so that at least one of the large jobs fits: at most half.

    Args:
        workers: So far.
        memory_bytes: That they share.
        large: What did not fit.
    """
    least = min(each.needed_bytes for each in large)
    return max(1, min(workers // 2, memory_bytes // limit_for(least)))


def _run_there(
    task: Task,
    jobs: Iterable[Any],
    scheduler: str,
    workers: int,
    should_stop: Callable[[], bool],
    tell: Callable[[str], None],
) -> Iterator[Any]:
    """Workers of a cluster that runs already."""
    with joined(scheduler, workers, tell) as pool:
        held = Held()
        yield from run_pass(pool, task, jobs, should_stop, held)
        yield from _run_large(pool, task, held, should_stop, tell)
        yield from _run_suspects(pool, task, held.suspects, should_stop)


def _run_large(
    pool: Pool,
    task: Task,
    held: Held,
    should_stop: Callable[[], bool],
    tell: Callable[[str], None],
) -> Iterator[Any]:
    """Jobs that did not fit a thread's share of a cluster; by as much as they need, or alone."""
    waiting, held.large = held.large, []
    fitting = [large for large in waiting if large.needed_bytes <= pool.largest_bytes]
    for large in waiting:
        if large.needed_bytes > pool.largest_bytes:
            yield large._replace(room_bytes=pool.largest_bytes)
    if fitting:
        tell(f"{len(fitting)} scans need more memory than others; now by workers that have it.")
    if pool.declares:
        needs = {id(large.job): large.needed_bytes for large in fitting}
        jobs = [large.job for large in fitting]
        yield from run_pass(pool, task, jobs, should_stop, held, lambda job: needs[id(job)])
        yield from held.large
        return
    for large in fitting:
        if should_stop():
            return
        yield from run_alone(pool, task, large.job, large.needed_bytes, should_stop, deaths=0)


def _run_suspects(
    pool: Pool,
    task: Task,
    suspects: list[tuple[Any, int]],
    should_stop: Callable[[], bool],
) -> Iterator[Any]:
    for job, deaths in suspects:
        if should_stop():
            return
        yield from run_alone(pool, task, job, pool.largest_bytes, should_stop, deaths=deaths)
