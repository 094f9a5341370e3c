"""Jobs run once each, in both ways, whatever dies meanwhile, and with room for each."""

import logging
import os
import re
import signal
import subprocess
import sys
import time
from contextlib import contextmanager
from functools import partial
from importlib.util import find_spec
from itertools import count
from threading import Timer
from types import SimpleNamespace

import pytest
from distributed import Client, LocalCluster, as_completed

from vocodata import executor, passes, waiting, workers
from vocodata.errors import SchedulerError
from vocodata.executor import (
    fewer_workers,
    run_dask,
    run_inline,
    usable_cores,
    usable_workers,
)
from vocodata.memory import PROCESS_BYTES, room_bytes
from vocodata.passes import WINDOW, Lost, Needs

GIB = 1 << 30


def _never():
    return False


def _run(task, jobs, **options):
    options = {"workers": 1, "scheduler": None, "should_stop": _never} | options
    return run_dask(task, jobs, **options)


def test_jobs_run_in_order_and_stop_when_asked():
    taken = count()
    assert list(run_inline(lambda job, _: job * 2, [3, 1, 2], should_stop=_never)) == [6, 2, 4]
    stopped = run_inline(lambda job, _: job, range(99), should_stop=lambda: next(taken) >= 5)
    assert list(stopped) == [0, 1, 2, 3, 4]


def test_a_job_here_may_take_what_the_machine_has(monkeypatch):
    monkeypatch.setattr(executor, "usable_memory", lambda: 4 * GIB)
    assert list(run_inline(lambda _, room: room, [1], should_stop=_never)) == [room_bytes(4 * GIB)]


def test_a_job_that_kills_its_workers_is_given_up_and_its_neighbours_are_not(tmp_path):
    def task(job, _):
        with (tmp_path / f"runs-{job}").open("a") as file:
            file.write("x")
        if job == 3 or (job == 5 and (tmp_path / "runs-5").stat().st_size == 1):
            os.kill(os.getpid(), signal.SIGKILL)
        return job

    results = list(_run(task, range(16), workers=2))
    assert sorted(result for result in results if not isinstance(result, Lost)) == [
        job for job in range(16) if job != 3
    ]
    assert [result for result in results if isinstance(result, Lost)] == [Lost(3, deaths=3)]
    # Its first death may have been that of a worker where it waited behind job 5.
    assert (tmp_path / "runs-3").stat().st_size in {2, 3}


def _raising_at(number):
    """A task that gives the job back, but of one raises."""

    def task(job, _):
        if job == number:
            msg = "no room"
            raise ValueError(msg)
        return job

    return task


def test_what_a_task_raises_ends_the_run():
    with pytest.raises(ValueError, match="no room"):
        list(_run(_raising_at(2), range(20)))
    with pytest.raises(ValueError, match="no room"):
        list(run_inline(_raising_at(2), range(20), should_stop=_never))


class _Ended:
    """A future that has ended."""

    def __init__(self, key, status, value):
        self.key, self.status, self.value = key, status, value

    def release(self):
        pass


def test_a_single_result_comes_before_another_raises_that_ended_first(monkeypatch):
    futures = [_Ended("a", "error", ValueError("no room")), _Ended("b", "finished", "result")]
    waiting = [futures]

    def result(future, *_):
        if isinstance(future.value, Exception):
            raise future.value
        return future.value

    def completed(*_, **__):
        return SimpleNamespace(update=lambda more: pytest.fail(f"begun before the raise: {more}"))

    monkeypatch.setattr(passes, "_submit", lambda *_: waiting.pop() if waiting else [])
    monkeypatch.setattr(passes, "dask_distributed", lambda: SimpleNamespace(as_completed=completed))
    monkeypatch.setattr(passes, "come", lambda *_: iter([futures]))
    monkeypatch.setattr(passes, "_result", result)
    pool = SimpleNamespace(threads=1, room_bytes=1, client=SimpleNamespace(loop=None))
    got = passes.run_pass(pool, None, ["x", "y"], lambda: False, passes.Held())
    assert next(got) == "result"
    with pytest.raises(ValueError, match="no room"):
        next(got)


def test_results_that_are_there_come_before_another_raises():
    results = []

    def take():
        for result in _run(_raising_at(12), range(40), workers=1):
            results.append(result)
            # Others end meanwhile, the one that raises among them.
            time.sleep(0.02)

    with pytest.raises(ValueError, match="no room"):
        take()
    assert set(range(12)) <= set(results)


def test_jobs_are_taken_as_they_are_needed():
    pulled = []

    def jobs():
        for job in range(40):
            pulled.append(job)
            yield job

    results, before = [], dict(os.environ)
    for result in _run(lambda job, _: job, jobs()):
        results.append(result)
        # Those in flight, and those that ended with this one.
        assert len(pulled) <= 2 * WINDOW + len(results)
    assert sorted(results) == pulled == list(range(40))
    assert dict(os.environ) == before, "the workers' variables are theirs alone"


def _large_task(folder, needed, job, room):
    """Ask for memory, then note when the job began and ended, and with how much room."""
    if needed[job] > room:
        return Needs(job, needed[job], room)
    began = time.monotonic()
    time.sleep(0.3)
    (folder / f"{job}").write_text(f"{began} {time.monotonic()} {room}")
    return job


def _spans(folder, jobs):
    return sorted(tuple(map(float, (folder / str(job)).read_text().split()))[:2] for job in jobs)


def test_two_huge_jobs_never_run_at_once_and_one_beyond_the_machine_is_told(tmp_path, monkeypatch):
    monkeypatch.setattr(executor, "usable_memory", lambda: 4 * GIB)
    share, whole = room_bytes(2 * GIB), room_bytes(4 * GIB)
    needed = {0: 1, 1: share + 1, 2: 1, 3: whole, 4: whole + 1, 5: share, 6: 1}
    said = []
    task = partial(_large_task, tmp_path, needed)
    results = list(_run(task, sorted(needed), workers=2, tell=said.append))
    assert sorted(result for result in results if isinstance(result, int)) == [0, 1, 2, 3, 5, 6]
    assert [result for result in results if isinstance(result, Needs)] == [
        Needs(4, whole + 1, whole)
    ]
    (_, first_end), (second_begin, _) = _spans(tmp_path, [1, 3])
    assert first_end <= second_begin
    assert (tmp_path / "3").read_text().endswith(f" {whole}")
    assert (tmp_path / "5").read_text().endswith(f" {share}")
    assert "3 scans need more memory than a worker has; now by 1 workers." in said


def test_the_dashboard_is_named_where_there_is_one_and_else_what_brings_it(monkeypatch):
    said = []
    monkeypatch.setattr(workers.importlib.util, "find_spec", lambda _: None)
    assert list(_run(lambda job, _: job, [1], tell=said.append)) == [1]
    assert len(said) == 1
    assert "pip install 'voco-toolkit[dashboard]'" in said[0]
    said.clear()
    monkeypatch.setattr(workers.importlib.util, "find_spec", lambda name: name == "bokeh")
    assert list(_run(lambda job, _: job, [1], tell=said.append)) == [1]
    assert [text.startswith("Dask dashboard: http") for text in said] == [True]


def test_workers_become_no_fewer_than_they_must():
    def large(limit):
        return Needs("job", room_bytes(limit), 0)

    assert fewer_workers(16, 32 * GIB, [large(3 * GIB), large(30 * GIB)]) == 8
    assert fewer_workers(16, 32 * GIB, [large(9 * GIB)]) == 3
    assert fewer_workers(16, 32 * GIB, [large(99 * GIB)]) == 1
    assert fewer_workers(2, 32 * GIB, [large(GIB)]) == 1


@pytest.mark.parametrize("threads", [1, 2])
def test_workers_of_others_are_asked_for_the_memory_that_they_declare(tmp_path, threads):
    # 1000 MiB declared, in shares of its threads; two jobs of 600 do not fit beside each other.
    needed = {0: 600 << 20, 1: 600 << 20, 2: 1, 3: 1001 << 20}
    task = partial(_large_task, tmp_path, needed)
    with LocalCluster(
        n_workers=1,
        threads_per_worker=threads,
        dashboard_address=":0",
        resources={workers.MEMORY: 1000},
    ) as cluster:
        results = list(_run(task, [0, 1, 2, 3], scheduler=cluster.scheduler_address))
    assert [result for result in results if isinstance(result, Needs)] == [
        Needs(3, 1001 << 20, 1000 << 20)
    ]
    assert sorted(result for result in results if isinstance(result, int)) == [0, 1, 2]
    (_, first_end), (second_begin, _) = _spans(tmp_path, [0, 1])
    assert first_end <= second_begin


def test_workers_of_others_that_declare_nothing_give_what_their_limit_leaves(tmp_path):
    limit = PROCESS_BYTES * 2
    needed = {0: room_bytes(limit), 1: room_bytes(limit) + 1, 2: room_bytes(limit) // 2 + 1}
    task = partial(_large_task, tmp_path, needed)
    with LocalCluster(
        n_workers=1, threads_per_worker=2, dashboard_address=":0", memory_limit=limit
    ) as cluster:
        results = list(_run(task, [0, 1, 2], scheduler=cluster.scheduler_address))
    assert [result for result in results if isinstance(result, Needs)] == [
        Needs(1, room_bytes(limit) + 1, room_bytes(limit))
    ]
    (_, first_end), (second_begin, _) = _spans(tmp_path, [0, 2])
    assert first_end <= second_begin


def test_a_scheduler_that_does_not_answer_is_told(monkeypatch):
    monkeypatch.setattr(workers, "CONNECT_TIMEOUT_S", 0.2)
    for address in ("tcp://127.0.0.1:9", "nonsense://x", "nonsense", "http://127.0.0.1:9"):
        with pytest.raises(SchedulerError, match="No Dask scheduler answers at") as caught:
            list(_run(abs, [1], scheduler=address))
        assert caught.value.exit_code == 4


def test_a_scheduler_without_workers_is_told():
    def task(job, _):
        return job

    said = []
    with LocalCluster(n_workers=0, dashboard_address=":0") as cluster:

        def tell(text):
            said.append(text)
            cluster.scale(1)

        address = cluster.scheduler_address
        assert sorted(_run(task, range(3), scheduler=address, tell=tell)) == [0, 1, 2]
    assert said[0] == "The scheduler has no workers yet; waiting for some."


def test_a_scheduler_that_goes_away_is_told():
    def task(job, _):
        time.sleep(0.2)
        return job

    with LocalCluster(n_workers=1, threads_per_worker=1, dashboard_address=":0") as cluster:
        results = _run(task, range(50), scheduler=cluster.scheduler_address)
        next(results)
        cluster.close()
        with pytest.raises(SchedulerError, match="went away"):
            list(results)


def _slow(job, _):
    time.sleep(0.05)
    return job


def test_workers_that_all_vanish_are_told_once_and_waited_for(monkeypatch):
    monkeypatch.setattr(waiting, "LOOK_S", 0.1)
    monkeypatch.setattr(waiting, "PATIENCE_S", 0.3)
    said = []
    with LocalCluster(n_workers=1, threads_per_worker=1, dashboard_address=":0") as cluster:

        def tell(text):
            said.append(text)
            if text.startswith("No worker has had a scan"):
                Timer(0.5, cluster.scale, [1]).start()

        results = _run(_slow, range(8), scheduler=cluster.scheduler_address, tell=tell)
        first = next(results)
        cluster.scale(0)
        assert sorted([first, *results]) == list(range(8))
    assert sum(text.startswith("No worker has had a scan for") for text in said) == 1


def test_a_run_that_is_told_to_stop_does_not_wait_for_workers_that_are_gone(monkeypatch):
    monkeypatch.setattr(waiting, "LOOK_S", 0.1)
    stops = []
    with LocalCluster(n_workers=1, threads_per_worker=1, dashboard_address=":0") as cluster:
        address = cluster.scheduler_address
        results = _run(_slow, range(8), scheduler=address, should_stop=lambda: bool(stops))
        first = next(results)
        cluster.scale(0)
        stops.append(1)
        assert len([first, *results]) < 8


def test_workers_of_ours_that_never_come_back_end_the_run(monkeypatch):
    for name, seconds in {"LOOK_S": 0.1, "PATIENCE_S": 0.2, "GIVE_UP_S": 0.5}.items():
        monkeypatch.setattr(waiting, name, seconds)
    said = []
    with (
        LocalCluster(n_workers=0, dashboard_address=":0") as cluster,
        Client(cluster, set_as_default=False) as client,
    ):
        pool = workers.Pool(client, 1, 1, 1, declares=False, is_own=True, tell=said.append)
        completed = as_completed([client.submit(abs, -1)], loop=client.loop)
        with pytest.raises(SchedulerError, match="none came back") as caught:
            list(waiting.come(completed, pool, _never))
    assert caught.value.exit_code == 4
    assert len(said) == 1


def test_a_run_that_is_stopped_calls_no_scan_too_large_that_larger_workers_had_room_for(
    monkeypatch,
):
    monkeypatch.setattr(executor, "usable_memory", lambda: 4 * GIB)
    stops = []

    def task(job, room):
        return Needs(job, 2 * GIB, room) if job == 1 and room < 2 * GIB else job

    results = []
    for result in _run(task, range(3), workers=2, should_stop=lambda: bool(stops)):
        results.append(result)
        if len(results) == 2:
            stops.append(1)
    assert sorted(results) == [0, 2]


def _noted(job, _, *, folder):
    (folder / f"begun-{job}").touch()
    time.sleep(0.5)
    return job


def test_a_run_that_is_told_to_stop_begins_nothing_more(tmp_path):
    stops = []
    with LocalCluster(n_workers=1, threads_per_worker=1, dashboard_address=":0") as cluster:
        results = _run(
            partial(_noted, folder=tmp_path),
            range(20),
            scheduler=cluster.scheduler_address,
            should_stop=lambda: bool(stops),
        )
        done = [next(results)]
        stops.append(1)
        done += results
        # The one that was running, and one that may have begun in that moment.
        assert len(done) <= 3
        assert len(list(tmp_path.iterdir())) == len(done)
        # A signal that comes while workers start.
        assert (
            list(_run(abs, [1, 2], scheduler=cluster.scheduler_address, should_stop=lambda: True))
            == []
        )


def test_workers_that_do_not_start_are_told(monkeypatch):
    monkeypatch.setitem(workers._WORKER_ENVIRONMENT, "PYTHONHOME", "/nowhere")
    with pytest.raises(SchedulerError, match=r"Dask did not start here .* --workers 0") as caught:
        list(_run(abs, [1]))
    assert caught.value.exit_code == 4


@pytest.mark.parametrize(
    ("has", "told"), [(None, "(none)"), ("0.0.1", "(version 0.0.1)"), ("", "(version unknown)")]
)
def test_workers_with_another_toolkit_are_named(has, told):
    class Client:
        def run(self, task, **_):
            return {"tcp://b:1": task(), "tcp://a:1": has}

    words = f"1 of 2 Dask workers .* the first tcp://a:1 {re.escape(told)}; expected version"
    with pytest.raises(SchedulerError, match=words):
        workers._refuse_other_toolkits(Client())


def test_dask_is_quiet_though_its_first_import_sets_its_own_levels():
    code = (
        "import logging; from vocodata.workers import quiet\n"
        "with quiet('distributed.client'):\n"
        "    import distributed; print(logging.getLogger('distributed.client').level)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == str(logging.CRITICAL)


@contextmanager
def _program(*words):
    """A program of Dask's, ended with the block."""
    command = [sys.executable, "-m", "distributed.cli.dask_" + words[0], *map(str, words[1:])]
    program = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        yield program
    finally:
        program.terminate()
        program.wait(30)


@pytest.fixture
def started_scheduler(tmp_path):
    """A scheduler and a worker with its nanny, started as people start them; its address."""
    file = tmp_path / "scheduler.json"
    with (
        _program("scheduler", "--host", "127.0.0.1", "--port", 0, "--scheduler-file", file) as _,
    ):
        for _ in range(300):
            if file.exists():
                break
            time.sleep(0.1)
        address = next(
            word for word in file.read_text().replace('"', " ").split() if word.startswith("tcp://")
        )
        with _program("worker", address, "--nthreads", 1, "--nworkers", 1, "--no-dashboard"):
            yield address


def test_a_scheduler_started_by_others_loses_a_worker_and_the_job_is_run_again(
    started_scheduler, tmp_path
):
    def task(job, _):
        with (tmp_path / f"run-{job}").open("a") as file:
            file.write("x")
        if job == 2 and (tmp_path / "run-2").stat().st_size == 1:
            # A worker that dies while it starts is not started again by its nanny.
            time.sleep(2)
            os.kill(os.getpid(), signal.SIGKILL)
        return job

    said = []
    results = list(_run(task, range(6), scheduler=started_scheduler, tell=said.append))
    assert sorted(results) == list(range(6))
    assert (tmp_path / "run-2").stat().st_size >= 2
    has_one = find_spec("bokeh") is not None
    dashboard = "Dask dashboard: http" if has_one else "Dask shows no dashboard, since bokeh is not"
    # The worker may have been late.
    assert said[-1].startswith(dashboard)


@pytest.mark.slow
def test_a_job_that_kills_the_workers_of_others_is_given_up_too(started_scheduler, tmp_path):
    def task(job, _):
        with (tmp_path / f"run-{job}").open("a") as file:
            file.write("x")
        if job == 2:
            # A worker that dies while it starts is not started again by its nanny.
            time.sleep(2)
            os.kill(os.getpid(), signal.SIGKILL)
        return job

    results = list(_run(task, range(6), scheduler=started_scheduler))
    assert sorted(result for result in results if not isinstance(result, Lost)) == [0, 1, 3, 4, 5]
    (lost,) = (result for result in results if isinstance(result, Lost))
    # Their scheduler tries four times before it tells, in company and then alone.
    assert (lost.job, lost.deaths) == (2, 8)
    assert (tmp_path / "run-2").stat().st_size == 8


def test_there_is_a_core_to_work_with():
    assert 1 <= usable_cores() <= (os.cpu_count() or 1)


def test_workers_are_no_more_than_cores_scans_or_memory_allow(monkeypatch):
    monkeypatch.setattr(executor, "usable_cores", lambda: 16)
    monkeypatch.setattr(executor, "usable_memory", lambda: 64 * GIB)
    assert (usable_workers(999), usable_workers(3), usable_workers(0)) == (16, 3, 1)
    monkeypatch.setattr(executor, "usable_memory", lambda: 8 * GIB)
    assert usable_workers(999) == 7
    monkeypatch.setattr(executor, "usable_memory", lambda: GIB)
    assert usable_workers(999) == 1
