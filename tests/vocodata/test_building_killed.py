"""A build killed by SIGKILL and run again equals an undisturbed build, file by file."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from vocodata.building import build
from vocodata.store import verify

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


@pytest.mark.slow
def test_killed_at_many_random_moments(make_sources, tmp_path, tree):
    manifest = make_sources(8, labels=True, broken=[3])
    out = tmp_path / "ct.zarr"
    done = _run("moments", manifest, out, 150, 11, timeout_s=1800)
    assert done["killed"] == 150
    assert done["finished"] > 5
    _assert_whole(manifest, out, tmp_path, tree)
