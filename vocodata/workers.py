"""Workers of Dask: started on this machine, or those of a scheduler that runs already.

Each declares its memory as the Dask resource `memory_mib`: those that are started here by
themselves, those of others by `dask worker --resources memory_mib=64000`.
"""

from __future__ import annotations

import contextlib
import importlib.metadata
import importlib.util
import logging
import os
import re
import signal
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from vocodata.errors import SchedulerError
from vocodata.memory import room_bytes
from vocodata.recipe import toolkit_version

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

CONNECT_TIMEOUT_S = 20
"""How long a scheduler may take to answer."""
MEMORY = "memory_mib"
"""The Dask resource in which workers declare their memory."""
UNLIMITED = 2**62
"""Room where nobody has set a limit."""

_DASK_SETTINGS: dict[str, Any] = {
    # The first death gives the job back to us; who is to blame is decided here.
    "distributed.scheduler.allowed-failures": 0,
    # A scan's memory is the arrays it works on: spilling and pausing would only stall.
    "distributed.worker.memory.target": False,
    "distributed.worker.memory.spill": False,
    "distributed.worker.memory.pause": False,
    "distributed.worker.memory.terminate": 0.95,
    "distributed.admin.tick.limit": "1h",
    # Scans of archives name each slice: on many workers they are larger than Dask thinks wise.
    "distributed.admin.large-graph-warning-threshold": "1 GB",
    # What the scheduler remembers of tasks that are gone; nobody reads it here.
    "distributed.admin.low-level-log-length": 100,
    "distributed.admin.log-length": 1000,
    "distributed.scheduler.events-cleanup-delay": "1m",
}
_WORKER_ENVIRONMENT = {
    "OMP_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    # Large arrays stay on the heap: fresh pages were 0.13 of 0.32 s a scan.
    "MALLOC_MMAP_THRESHOLD_": "2000000000",
    "MALLOC_TRIM_THRESHOLD_": "4000000000",
}


def dask_distributed() -> Any:  # noqa: ANN401 (half of its functions have no types)
    """Dask's distributed, imported when a build first needs it."""
    import distributed

    return distributed


@dataclass
class Pool:
    """Workers, and what each may give to a job.

    Attributes:
        client: Of their scheduler.
        threads: Of all workers together.
        room_bytes: What every thread of every worker can give.
        largest_bytes: What the largest worker can give, if it does nothing else.
        declares: Whether workers declare memory as a resource.
        is_own: Whether they were started here, so that nobody else can bring others.
        tell: Called with a sentence when no worker has a job for a while.
    """

    client: Any
    threads: int
    room_bytes: int
    largest_bytes: int
    declares: bool
    is_own: bool = False
    tell: Callable[[str], None] = lambda _: None


@contextlib.contextmanager
def started(workers: int, limit_bytes: int, tell: Callable[[str], None]) -> Iterator[Pool]:
    """Workers of one thread each on this machine, ended afterwards."""
    import dask

    room = room_bytes(limit_bytes)
    environment = {"distributed.nanny.pre-spawn-environ": _WORKER_ENVIRONMENT}
    with (
        _kept_environment(),
        dask.config.set({**_DASK_SETTINGS, **environment}),
        _own_cluster(workers, limit_bytes, room) as cluster,
        dask_distributed().Client(cluster, set_as_default=False) as client,
    ):
        _tell_dashboard(client, tell, is_shown=_has_bokeh())
        yield Pool(client, workers, room, room, declares=True, is_own=True, tell=tell)


def _own_cluster(workers: int, limit_bytes: int, room: int) -> Any:  # noqa: ANN401 (half typed)
    try:
        return dask_distributed().LocalCluster(
            n_workers=workers,
            threads_per_worker=1,
            processes=True,
            # Any free port, also without a dashboard: None takes 8787, and warns if another has it.
            dashboard_address=":0",
            silence_logs=logging.CRITICAL,
            memory_limit=limit_bytes,
            resources={MEMORY: room / 2**20},
            preload=["vocodata.workers"],
        )
    except (RuntimeError, OSError) as error:
        msg = (
            f"Dask did not start here ({error}); expected {workers} workers of "
            f"{limit_bytes / 1e9:.1f} GB each. Build with fewer --workers, or with --workers 0, "
            "which does without Dask."
        )
        raise SchedulerError(msg) from error


@contextlib.contextmanager
def _kept_environment() -> Iterator[None]:
    """Dask sets its workers' variables in this process too, and leaves them: one thread for all."""
    before = dict(os.environ)
    try:
        yield
    finally:
        for name in set(os.environ) - set(before):
            del os.environ[name]
        os.environ.update(before)


@contextlib.contextmanager
def joined(scheduler: str, workers: int, tell: Callable[[str], None]) -> Iterator[Pool]:
    """The workers of a scheduler that runs already."""
    import dask

    with dask.config.set(_DASK_SETTINGS), _connected(scheduler) as client:
        known = [worker for _, worker in workers_of(client)]
        if not known:
            tell("The scheduler has no workers yet; waiting for some.")
        declares = bool(known) and all(MEMORY in worker["resources"] for worker in known)
        threads = sum(worker["nthreads"] for worker in known)
        shares = [room_of(worker) // worker["nthreads"] for worker in known]
        _refuse_other_toolkits(client)
        # A lambda, since a scheduler need not have this package.
        is_shown = client.run_on_scheduler(lambda: importlib.util.find_spec("bokeh") is not None)
        _tell_dashboard(client, tell, is_shown=is_shown)
        yield Pool(
            client,
            max(workers, threads),
            min(shares, default=UNLIMITED),
            max(map(room_of, known), default=UNLIMITED),
            declares,
            tell=tell,
        )


def workers_of(client: Any) -> list[tuple[str, dict[str, Any]]]:  # noqa: ANN401 (half typed)
    """Address and description of each worker, as its scheduler knows it."""
    return list(client.scheduler_info(n_workers=-1)["workers"].items())


def room_of(worker: dict[str, Any]) -> int:
    """What a worker can give to jobs: what it declares, else what its limit leaves."""
    if MEMORY in worker["resources"]:
        return int(worker["resources"][MEMORY] * 2**20)
    return room_bytes(worker["memory_limit"]) if worker["memory_limit"] else UNLIMITED


def _has_bokeh() -> bool:
    return importlib.util.find_spec("bokeh") is not None


def _tell_dashboard(client: Any, tell: Callable[[str], None], *, is_shown: bool) -> None:  # noqa: ANN401 (half typed)
    if is_shown:
        tell(f"Dask dashboard: {client.dashboard_link}")
    else:
        tell(
            "Dask shows no dashboard, since bokeh is not installed beside its scheduler; "
            "`pip install 'voco-toolkit[dashboard]'` brings it."
        )


def _refuse_other_toolkits(client: Any) -> None:  # noqa: ANN401 (half typed)
    """Workers without this package, or with another version, would die of their first job."""
    own = toolkit_version()

    # Defined in here it travels as it is written: nothing of ours is needed there.
    def installed() -> str | None:
        if importlib.util.find_spec("vocodata") is None:
            return None
        try:
            return importlib.metadata.version("voco-toolkit")
        except importlib.metadata.PackageNotFoundError:
            return ""

    found = client.run(installed, on_error="ignore")
    others = sorted(name for name, version in found.items() if version != own)
    if others:
        has = found[others[0]]
        what = "none" if has is None else f"version {has or 'unknown'}"
        msg = (
            f"{len(others)} of {len(found)} Dask workers have another toolkit than this machine, "
            f"the first {others[0]} ({what}); expected version {own or 'unknown'} everywhere. "
            "Install it there: pip install voco-toolkit."
        )
        raise SchedulerError(msg)


def _connected(scheduler: str) -> Any:  # noqa: ANN401 (half typed)
    # A client of what is no address would wait 40 s for its own end.
    if not re.fullmatch(r"((tcp|tls|ucx|wss?)://)?[^/\s]+:\d+/?|inproc://.+", scheduler):
        raise _no_answer(scheduler, "that is no address")
    try:
        client = dask_distributed().Client
        return client(scheduler, set_as_default=False, timeout=CONNECT_TIMEOUT_S)
    except (OSError, ValueError) as error:
        raise _no_answer(scheduler, error) from error


def _no_answer(scheduler: str, why: object) -> SchedulerError:
    msg = (
        f"No Dask scheduler answers at {scheduler!r} ({why}); expected an address such as "
        "tcp://host:8786. Start one with 'dask scheduler', or leave --scheduler out."
    )
    return SchedulerError(msg)


@contextlib.contextmanager
def quiet(*names: str) -> Iterator[None]:
    """Only critical lines of loggers: dead workers and late heartbeats are told in our words."""
    # Its first import sets these levels itself.
    dask_distributed()
    before = [(logging.getLogger(name), logging.getLogger(name).level) for name in names]
    for logger, _ in before:
        logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        for logger, level in before:
            logger.setLevel(level)


def dask_setup(_worker: object) -> None:
    """Called by Dask in each worker that we start: Ctrl-C is the build's to handle, not theirs."""
    with contextlib.suppress(ValueError):
        signal.signal(signal.SIGINT, signal.SIG_IGN)
