"""Runs jobs: here one after another, or by Dask on this machine or a cluster.

Both ways yield outcomes as they come and take jobs as they are needed, so that the number of
scans changes neither memory nor the load of the scheduler (a window of 4 futures a worker is
flat in both; submitting everything costs 5 KB a scan). Both stop taking jobs when told to and
let the running ones finish.

A worker that dies takes along every job it was holding, guilty or not. Those are run again, alone,
until one has seen `DEATHS` deaths: so a neighbour is never blamed.
"""

from __future__ import annotations

import contextlib
import importlib.util
import itertools
import logging
import os
import signal
from typing import TYPE_CHECKING, Any, Generic, NamedTuple, TypeVar

from vocodata.errors import SchedulerError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator


Job = TypeVar("Job")
Result = TypeVar("Result")

DEATHS = 3
"""Workers that may die of a job before it is given up."""
WINDOW = 4
"""Futures in flight for each worker."""
CONNECT_TIMEOUT_S = 20
"""How long a scheduler may take to answer."""

_DASK_SETTINGS: dict[str, Any] = {
    # The first death gives the job back to us; who is to blame is decided here.
    "distributed.scheduler.allowed-failures": 0,
    # A scan's memory is the arrays it works on: spilling and pausing would only stall.
    "distributed.worker.memory.target": False,
    "distributed.worker.memory.spill": False,
    "distributed.worker.memory.pause": False,
    "distributed.worker.memory.terminate": 0.95,
    "distributed.admin.tick.limit": "1h",
}
_WORKER_ENVIRONMENT = {
    "OMP_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    # Large arrays stay on the heap: fresh pages were 0.13 of 0.32 s a scan.
    "MALLOC_MMAP_THRESHOLD_": "2000000000",
    "MALLOC_TRIM_THRESHOLD_": "4000000000",
}


class Lost(NamedTuple, Generic[Job]):
    """A job that workers kept dying of."""

    job: Job
    deaths: int


def _distributed() -> Any:  # noqa: ANN401 (half of its functions have no types)
    """Dask's distributed, imported when a build first needs it."""
    import distributed

    return distributed


def usable_cores() -> int:
    """Cores this process may run on, which a container or a batch system may have limited."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def run_inline(
    task: Callable[[Job], Result], jobs: Iterable[Job], *, should_stop: Callable[[], bool]
) -> Iterator[Result]:
    """Run jobs in this process, one after another.

    Args:
        task: What to do with a job; what it raises ends the run.
        jobs: In the order they are run.
        should_stop: Asked before each job.
    """
    for job in jobs:
        if should_stop():
            return
        yield task(job)


def run_dask(
    task: Callable[[Job], Result],
    jobs: Iterable[Job],
    *,
    workers: int,
    scheduler: str | None,
    should_stop: Callable[[], bool],
) -> Iterator[Result | Lost[Job]]:
    """Run jobs by Dask, in processes of one thread each.

    Args:
        task: A function of a module, so that workers can import it; what it raises ends the run.
        jobs: Taken as they are needed.
        workers: Processes to start on this machine; with a scheduler, only the window's width.
        scheduler: Address of a running scheduler, or None to start one.
        should_stop: Asked before each job is handed out.

    Yields:
        Results as they come, in no order; `Lost` for a job that was given up.
    """
    with _client(workers, scheduler) as client:
        width = max(workers, len(client.scheduler_info(n_workers=-1)["workers"]))
        suspects: list[Job] = []
        for job, result in _windowed(client, task, jobs, WINDOW * width, should_stop):
            if isinstance(result, Exception):
                suspects.append(job)
            else:
                yield result
        for job in suspects:
            if should_stop():
                return
            yield _alone(client, task, job)


def _windowed(
    client: Any,  # noqa: ANN401 (half typed)
    task: Callable[[Job], Result],
    jobs: Iterable[Job],
    window: int,
    should_stop: Callable[[], bool],
) -> Iterator[tuple[Job, Result | Exception]]:
    """Keep `window` jobs in flight; an exception stands for a worker that died."""
    waiting = iter(jobs)
    in_flight: dict[object, Job] = {}

    def submit(job: Job) -> Any:  # noqa: ANN401 (a Future; distributed is half typed)
        future = client.submit(task, job, pure=False)
        in_flight[future.key] = job
        return future

    completed = _distributed().as_completed(
        [submit(job) for job in itertools.islice(waiting, window)], loop=client.loop
    )
    for future in completed:
        job = in_flight.pop(future.key)
        result = _result(future)
        future.release()
        if not should_stop():
            for following in itertools.islice(waiting, 1):
                completed.add(submit(following))
        yield job, result


def _alone(
    client: Any,  # noqa: ANN401 (half typed)
    task: Callable[[Job], Result],
    job: Job,
) -> Result | Lost[Job]:
    """Run a job that has seen one death with nothing beside it, until it or we give up."""
    for _ in range(1, DEATHS):
        result: Result | Exception = _result(client.submit(task, job, pure=False))
        if not isinstance(result, Exception):
            return result
    return Lost(job, DEATHS)


def _result(future: Any) -> Any:  # noqa: ANN401 (whatever the task returns)
    """What the task returned; the exception if its worker died; raises what the task raised."""
    distributed = _distributed()
    try:
        error = future.exception()
        if error is None:
            return future.result()
    except distributed.client.FutureCancelledError as cancelled:
        error = cancelled
    if isinstance(error, distributed.scheduler.KilledWorker):
        return error
    if isinstance(error, distributed.client.FutureCancelledError):
        msg = (
            "The Dask scheduler went away while scans were being built; expected it to stay. "
            "Start it again, then build again with --resume."
        )
        raise SchedulerError(msg) from error
    raise error


@contextlib.contextmanager
def _client(workers: int, scheduler: str | None) -> Iterator[Any]:
    """A client of the given scheduler, or of a cluster started here and ended afterwards."""
    import dask

    distributed = _distributed()
    environment = {
        "distributed.nanny.pre-spawn-environ": _WORKER_ENVIRONMENT,
    }
    with contextlib.ExitStack() as stack:
        stack.enter_context(_quiet("distributed"))
        stack.enter_context(dask.config.set({**_DASK_SETTINGS, **environment}))
        if scheduler is not None:
            yield stack.enter_context(_connected(scheduler))
            return
        has_dashboard = importlib.util.find_spec("bokeh") is not None
        cluster = stack.enter_context(
            distributed.LocalCluster(
                n_workers=workers,
                threads_per_worker=1,
                processes=True,
                dashboard_address=":0" if has_dashboard else None,
                silence_logs=logging.CRITICAL,
                preload=["vocodata.executor"],
            )
        )
        yield stack.enter_context(distributed.Client(cluster, set_as_default=False))


def _connected(scheduler: str) -> Any:  # noqa: ANN401 (half typed)
    try:
        return _distributed().Client(scheduler, set_as_default=False, timeout=CONNECT_TIMEOUT_S)
    except (OSError, ValueError) as error:
        msg = (
            f"No Dask scheduler answers at {scheduler!r} ({error}); expected an address such as "
            "tcp://host:8786. Start one with 'dask scheduler', or leave --scheduler out."
        )
        raise SchedulerError(msg) from error


@contextlib.contextmanager
def _quiet(name: str) -> Iterator[None]:
    """Only critical lines of a logger: dead workers and late heartbeats are told in our words."""
    logger = logging.getLogger(name)
    before = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        logger.setLevel(before)


def dask_setup(_worker: object) -> None:
    """Called by Dask in each worker that we start: Ctrl-C is the build's to handle, not theirs."""
    with contextlib.suppress(ValueError):
        signal.signal(signal.SIGINT, signal.SIG_IGN)
