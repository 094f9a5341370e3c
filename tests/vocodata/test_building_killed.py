"""A build killed by SIGKILL and run again equals an undisturbed build, file by file."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from vocodata import building
from vocodata.building import build
from vocodata.job import run_on_worker
from vocodata.store import open_store, verify
from vocodata.store.catalog import read_excluded

PROGRAM = Path(__file__).with_name("killed_builds.py")


def _run(*arguments, timeout_s=300):
    done = subprocess.run(
        [sys.executable, str(PROGRAM), *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
        timeout=timeout_s,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def _assert_whole(manifest, out, tmp_path, tree):
    undisturbed = build(manifest, tmp_path / "undisturbed.zarr", workers=0)
    assert tree(out) == tree(undisturbed.store)
    assert verify(out).ok
    # Neither temporary files nor discarded trees nor a lock are left beside the store.
    beside = {path.name.removeprefix(out.name) for path in tmp_path.glob(f"{out.name}?*")}
    whole = {".whole", ".whole.ledger.sqlite", ".whole.salt"}
    assert beside - whole == {".ledger.sqlite", ".salt"}


def test_killed_at_random_moments(make_sources, tmp_path, tree):
    manifest = make_sources(6, labels=True, broken=[4])
    out = tmp_path / "ct.zarr"
    assert _run("moments", manifest, out, 8, 7)["killed"] == 8
    _assert_whole(manifest, out, tmp_path, tree)


def test_killed_at_every_write_in_turn(make_sources, tmp_path, tree):
    manifest = make_sources(2, size=(24, 22, 20), labels=True, broken=[1])
    out = tmp_path / "ct.zarr"
    # One scan of 7 files and 6 more of the store, each a flush, a rename, a flush of its folder.
    assert _run("steps", manifest, out)["killed"] > 20
    _assert_whole(manifest, out, tmp_path, tree)


def test_no_room_at_every_write_in_turn(make_sources, tmp_path, tree):
    manifest = make_sources(1, size=(24, 22, 20), labels=True)
    out = tmp_path / "ct.zarr"
    assert _run("full", manifest, out)["killed"] > 20
    _assert_whole(manifest, out, tmp_path, tree)


@pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="finds workers through /proc")
def test_killed_with_its_workers_and_then_one_of_them(make_sources, tmp_path, tree):
    manifest = make_sources(10, size=(24, 22, 20))
    out = tmp_path / "ct.zarr"
    assert _run("workers", manifest, out) == {"killed": 2, "excluded": {}}
    _assert_whole(manifest, out, tmp_path, tree)


def test_a_scan_that_kills_three_workers_is_excluded_by_name_and_the_others_are_stored(
    make_sources, tmp_path, monkeypatch
):
    manifest, out, deaths = make_sources(3, size=(24, 22, 20)), tmp_path / "ct.zarr", tmp_path / "d"

    def run(job, room_bytes, **options):
        if job.scan.name == "case1":
            with deaths.open("a") as file:
                file.write("x")
            os.kill(os.getpid(), signal.SIGKILL)
        return run_on_worker(job, room_bytes, **options)

    monkeypatch.setattr(building, "run_on_worker", run)
    report = build(manifest, out, workers=1)
    assert (report.found, report.stored, report.excluded) == (3, 2, {"kills_worker": 1})
    assert deaths.read_text() == "xxx"
    (row,) = read_excluded(out).to_pylist()
    assert (row["source"], row["scan"], row["reason"]) == ("btcv", "case1", "kills_worker")
    assert row["detail"].startswith("3 workers ended while processing the scan")
    assert open_store(out).ids() == ["btcv/case0", "btcv/case2"]
    assert verify(out).ok


@pytest.mark.skipif(not hasattr(signal, "SIGSTOP"), reason="holds a process")
def test_of_two_commands_for_one_store_the_second_ends_at_once_and_the_first_ends_well(
    make_sources, tmp_path, tree
):
    manifest, out = make_sources(2, size=(24, 22, 20)), tmp_path / "ct.zarr"
    words = ["data", "build", "--sources", manifest, "--out", out, "--workers", "1"]
    command = [sys.executable, "-m", "vococli", *map(str, words)]
    piped = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    with subprocess.Popen(command, **piped) as first:
        until = time.monotonic() + 60
        while not (out / "zarr.json").exists() and time.monotonic() < until:
            time.sleep(0.02)
        # Held, so that it is at work however long the second takes to start.
        first.send_signal(signal.SIGSTOP)
        try:
            second = subprocess.run(command, check=False, timeout=120, **piped)
        finally:
            first.send_signal(signal.SIGCONT)
        _, said = first.communicate(timeout=120)
    assert second.returncode == 4
    assert f"process {first.pid}" in second.stderr
    assert first.returncode == 0, said
    _assert_whole(manifest, out, tmp_path, tree)


@pytest.mark.slow
def test_killed_at_many_random_moments(make_sources, tmp_path, tree):
    manifest = make_sources(8, labels=True, broken=[3])
    out = tmp_path / "ct.zarr"
    done = _run("moments", manifest, out, 150, 11, timeout_s=1800)
    assert done["killed"] == 150
    assert done["finished"] > 5
    _assert_whole(manifest, out, tmp_path, tree)
