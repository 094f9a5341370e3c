"""One pass of jobs over a pool of Dask workers: handed out when needed, gathered as they end.

**Death.** A worker that dies takes along every job it was holding, guilty or not. Those are held
back and run again, alone, until one has seen `DEATHS` deaths: so a neighbour is never blamed.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Generic, NamedTuple, TypeVar

from vocodata.errors import SchedulerError
from vocodata.waiting import come, fetched, fetched_together
from vocodata.workers import MEMORY, dask_distributed, room_of, workers_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from vocodata.workers import Pool

Job = TypeVar("Job")
Task = Callable[[Any, int], Any]

DEATHS = 3
"""Workers that may die of a job before it is given up."""
WINDOW = 8
"""Futures in flight for each thread of a worker: with four, fewer end together, and Dask takes half
as long again for each; a worker that dies takes along no more than this many."""


class Lost(NamedTuple, Generic[Job]):
    """A job that workers kept dying of."""

    job: Job
    deaths: int


class Needs(NamedTuple, Generic[Job]):
    """A job that was not begun, since it needs more memory than it was offered.

    Attributes:
        job: Which.
        needed_bytes: What it is predicted to take.
        room_bytes: What it was offered.
    """

    job: Job
    needed_bytes: int
    room_bytes: int


@dataclass
class Held:
    """Jobs of a pass that must be run again: their worker died, or they need more room."""

    suspects: list[tuple[Any, int]] = field(default_factory=list)
    large: list[Needs[Any]] = field(default_factory=list)


def run_pass(
    pool: Pool,
    task: Task,
    jobs: Iterable[Any],
    should_stop: Callable[[], bool],
    held: Held,
    needed: Callable[[Any], int] | None = None,
) -> Iterator[Any]:
    """Run jobs with a bounded number in flight; what must be run again is held back."""
    waiting = iter(jobs)
    in_flight: dict[object, Any] = {}

    def submit(count: int) -> list[Any]:
        # Workers took seconds to start: a signal may have come meanwhile.
        first = [] if should_stop() else list(itertools.islice(waiting, count))
        rooms = [pool.room_bytes if needed is None else needed(job) for job in first]
        futures = _submit(pool, task, first, rooms)
        in_flight.update((future.key, job) for future, job in zip(futures, first, strict=True))
        return futures

    completed = dask_distributed().as_completed(
        submit(WINDOW * pool.threads), loop=pool.client.loop
    )
    for done in come(completed, pool, should_stop):
        together = fetched_together(done, pool)
        is_sound = all(future.status == "finished" for future in done)
        if is_sound:
            completed.update(submit(len(done)))
        # Those that are here come first, and those that failed last: they may raise.
        late = [number for number in range(len(done)) if number not in together]
        late.sort(key=lambda number: done[number].status != "finished")
        for number in (*together, *late):
            future = done[number]
            is_here = number in together
            result = together[number] if is_here else _result(future, pool, should_stop)
            job = in_flight.pop(future.key)
            future.release()
            if isinstance(result, _Died):
                held.suspects.append((job, result.deaths))
            elif isinstance(result, Needs):
                # The job as it was handed out: the one that came back is a copy.
                held.large.append(result._replace(job=job))
            else:
                yield result
        if not is_sound:
            completed.update(submit(len(done)))


def run_alone(
    pool: Pool,
    task: Task,
    job: Any,  # noqa: ANN401 (whatever a job is here)
    room: int,
    should_stop: Callable[[], bool],
    *,
    deaths: int,
) -> Iterator[Any]:
    """Run a job with nothing beside it, once at least, until it ends or has seen enough deaths."""
    is_first = True
    while is_first or deaths < DEATHS:
        is_first = False
        completed = dask_distributed().as_completed(
            _submit(pool, task, [job], [room]), loop=pool.client.loop
        )
        results = [
            _result(future, pool, should_stop)
            for done in come(completed, pool, should_stop)
            for future in done
        ]
        if not results:
            return
        (result,) = results
        if not isinstance(result, _Died):
            yield result
            return
        deaths += result.deaths
    yield Lost(job, deaths)


def _submit(pool: Pool, task: Task, jobs: list[Any], rooms: list[int]) -> list[Any]:
    """Hand jobs to workers that have so much room for each.

    Those that ask for the same go in one graph: what Dask takes for each is two thirds less so.
    """
    futures: list[Any] = []
    asked = [_asks(pool, room) for room in rooms]
    for asks, group in itertools.groupby(range(len(jobs)), lambda number: asked[number]):
        alike = list(group)
        futures += pool.client.map(
            task, [jobs[n] for n in alike], [rooms[n] for n in alike], pure=False, **asks
        )
    return futures


def _asks(pool: Pool, room: int) -> dict[str, Any]:
    """What to ask of a worker for a job that takes so much."""
    if pool.declares:
        return {"resources": {MEMORY: min(room, pool.largest_bytes) / 2**20}}
    if room > pool.room_bytes:
        fit = [name for name, worker in workers_of(pool.client) if room_of(worker) >= room]
        return {"workers": fit} if fit else {}
    return {}


class _Died(NamedTuple):
    """Stands for the result of a job whose worker died; others' schedulers try it again first."""

    deaths: int


def _result(future: Any, pool: Pool, should_stop: Callable[[], bool]) -> Any:  # noqa: ANN401 (whatever the task returns)
    """What the task returned, or that its worker died; raises what the task raised.

    Asked of each future by itself: `as_completed(with_results=True)` never yields one whose worker
    dies between the end of the task and the fetching of its result.
    """
    distributed = dask_distributed()
    try:
        return fetched(future, pool, should_stop, _Died(0))
    except distributed.scheduler.KilledWorker as error:
        return _Died(error.allowed_failures + 1)
    except distributed.client.FutureCancelledError as error:
        msg = (
            "The Dask scheduler went away while scans were being built; expected it to stay. "
            "Start it again, then build again with --resume."
        )
        raise SchedulerError(msg) from error
