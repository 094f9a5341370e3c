"""Jobs run once each, in both ways, whatever dies meanwhile."""

import os
import signal
import time
from itertools import count

import pytest
from distributed import LocalCluster

from vocodata import executor
from vocodata.errors import SchedulerError
from vocodata.executor import Lost, run_dask, run_inline, usable_cores


def _never():
    return False


def test_jobs_run_in_order_and_stop_when_asked():
    taken = count()
    assert list(run_inline(lambda job: job * 2, [3, 1, 2], should_stop=_never)) == [6, 2, 4]
    stopped = run_inline(lambda job: job, range(99), should_stop=lambda: next(taken) >= 5)
    assert list(stopped) == [0, 1, 2, 3, 4]


def test_a_job_that_kills_its_workers_is_given_up_and_its_neighbours_are_not(tmp_path):
    def task(job):
        with (tmp_path / f"runs-{job}").open("a") as file:
            file.write("x")
        if job == 3 or (job == 5 and (tmp_path / "runs-5").stat().st_size == 1):
            os.kill(os.getpid(), signal.SIGKILL)
        return job

    pulled = []

    def jobs():
        for job in range(16):
            pulled.append(job)
            yield job

    results = []
    for result in run_dask(task, jobs(), workers=2, scheduler=None, should_stop=_never):
        if not results:
            assert len(pulled) <= 10, "the window is bounded"
        results.append(result)
    assert sorted(result for result in results if not isinstance(result, Lost)) == [
        job for job in range(16) if job != 3
    ]
    assert [result for result in results if isinstance(result, Lost)] == [Lost(3, deaths=3)]
    assert (tmp_path / "runs-3").stat().st_size == 3


def test_what_a_task_raises_ends_the_run():
    def task(job):
        if job == 2:
            msg = "no room"
            raise ValueError(msg)
        return job

    with pytest.raises(ValueError, match="no room"):
        list(run_dask(task, range(20), workers=1, scheduler=None, should_stop=_never))
    with pytest.raises(ValueError, match="no room"):
        list(run_inline(task, range(20), should_stop=_never))


def test_a_scheduler_that_does_not_answer_is_told(monkeypatch):
    monkeypatch.setattr(executor, "CONNECT_TIMEOUT_S", 0.2)
    for address in ("tcp://127.0.0.1:9", "nonsense://x"):
        with pytest.raises(SchedulerError, match="No Dask scheduler answers at") as caught:
            list(run_dask(abs, [1], workers=1, scheduler=address, should_stop=_never))
        assert caught.value.exit_code == 4


def test_a_scheduler_that_goes_away_is_told():
    def task(job):
        time.sleep(0.2)
        return job

    with LocalCluster(n_workers=1, threads_per_worker=1, dashboard_address=None) as cluster:
        results = run_dask(
            task, range(50), workers=1, scheduler=cluster.scheduler_address, should_stop=_never
        )
        next(results)
        cluster.close()
        with pytest.raises(SchedulerError, match="went away"):
            list(results)


def test_there_is_a_core_to_work_with():
    assert 1 <= usable_cores() <= (os.cpu_count() or 1)
