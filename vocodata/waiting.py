"""Waiting for Dask's futures, where Dask itself would wait without a word.

Clusters come and go: workers may die, or never come. That is noticed, said and waited out.
"""

from __future__ import annotations

import asyncio
import itertools
import time
from concurrent.futures import CancelledError
from typing import TYPE_CHECKING, Any

from vocodata.errors import SchedulerError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from vocodata.workers import Pool

LOOK_S = 5.0
"""Time without a result after which to look whether anybody works."""
PATIENCE_S = 60.0
"""How long no worker may have a job before that is said."""
GIVE_UP_S = 300.0
"""How long all workers that were started here may be gone."""


class Watch:
    """Notices that no worker has a job, for Dask would wait without a word."""

    def __init__(self, pool: Pool, should_stop: Callable[[], bool]) -> None:
        """Of workers that are at work now."""
        self._pool, self._should_stop = pool, should_stop
        self._busy_at, self._is_told = time.monotonic(), False

    def is_over(self) -> bool:
        """Whether to wait no more: told to stop, and no worker has a job. Says so once if not.

        Raises:
            SchedulerError: All workers that were started here are gone for good.
        """
        now_s = time.monotonic()
        if is_anybody_at_work(self._pool.client):
            self._busy_at, self._is_told = now_s, False
        elif self._should_stop():
            return True
        elif not self._is_told and now_s - self._busy_at >= PATIENCE_S:
            self._is_told = True
            self._pool.tell(
                f"No worker has had a scan for {PATIENCE_S:.0f} s: all are gone, have another "
                "toolkit, or less memory than scans ask for. Waiting for others; Ctrl-C ends the "
                "build."
            )
        elif self._pool.is_own and now_s - self._busy_at >= GIVE_UP_S:
            msg = (
                f"All Dask workers ended and none came back for {GIVE_UP_S:.0f} s; expected them "
                "to be started again. Build again with --resume, with --workers 0 to see why."
            )
            raise SchedulerError(msg)
        return False


def come(completed: Any, pool: Pool, should_stop: Callable[[], bool]) -> Iterator[list[Any]]:  # noqa: ANN401 (half typed)
    """Futures as they are done, all that are at a time; ends early as `Watch` has it.

    Args:
        completed: Dask's `as_completed` of futures; others may be added meanwhile.
        pool: Whose workers they are.
        should_stop: If so, futures that no worker has begun are left.
    """
    watch, looked_at = Watch(pool, should_stop), time.monotonic()
    left: set[str] | None = None
    while not completed.is_empty():
        if left is None and should_stop():
            left = _withdrawn(pool.client, list(completed.futures))
        if completed.has_ready():
            done = completed.next_batch(block=False)
            yield [future for future in done if future.key not in (left or ())]
            watch, looked_at = Watch(pool, should_stop), time.monotonic()
            continue
        # As Dask waits itself; the time limit lets signals through.
        with completed.thread_condition:
            completed.thread_condition.wait(0.1)
        if time.monotonic() - looked_at >= LOOK_S:
            looked_at = time.monotonic()
            if watch.is_over():
                return


def _withdrawn(client: Any, futures: list[Any]) -> set[str]:  # noqa: ANN401 (half typed)
    """Take back the futures that no worker has begun; their keys."""
    try:
        # A lambda travels as it is written.
        begun = client.run(
            lambda dask_worker: [task.key for task in dask_worker.state.executing],
            on_error="ignore",
        )
    except OSError:
        # No answer, which is found out by who waits.
        return set()
    running = set(itertools.chain.from_iterable(begun.values()))
    waiting = [one for one in futures if one.status == "pending" and one.key not in running]
    client.cancel(waiting)
    return {future.key for future in waiting}


def fetched(future: Any, pool: Pool, should_stop: Callable[[], bool], missing: Any) -> Any:  # noqa: ANN401 (half typed)
    """What a done future holds, or `missing` as `Watch` has it: its worker may die before that."""
    watch = Watch(pool, should_stop)
    while True:
        try:
            return future.result(timeout=LOOK_S)
        except TimeoutError:
            if future.status == "error":
                raise
            if watch.is_over():
                return missing


def fetched_together(futures: list[Any], pool: Pool) -> dict[int, Any]:
    """What done futures hold, by their number in the list, as far as it comes at once.

    One question instead of one for each. Of a future that failed, or whose worker died since, there
    is nothing: `fetched` says why.
    """
    sound = {number: one for number, one in enumerate(futures) if one.status == "finished"}
    if len(sound) < 2:
        return {}
    asked = asyncio.run_coroutine_threadsafe(
        pool.client.gather(sound, errors="skip", asynchronous=True), pool.client.loop.asyncio_loop
    )
    try:
        got: dict[int, Any] = asked.result(LOOK_S)
    except (TimeoutError, CancelledError, OSError):
        asked.cancel()
        return {}
    return {number: result for number, result in got.items() if result is not None}


def is_anybody_at_work(client: Any) -> bool:  # noqa: ANN401 (half typed)
    """Whether any worker has a task; also if the scheduler does not say, which is found out."""
    try:
        return any(client.processing().values())
    except OSError:
        return True
