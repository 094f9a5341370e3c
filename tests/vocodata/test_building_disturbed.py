"""What a build does when its store, lock, ledger, sources or workers go away or are not its own."""

import errno
import fcntl
import os
import shutil
import signal
from pathlib import Path

import pytest

from vocodata import building
from vocodata.building import build, build_status
from vocodata.discover import find_scans
from vocodata.errors import (
    BuildInterruptedError,
    SchedulerError,
    SourceLostError,
    StoreLockedError,
    StoreUnreachableError,
    StoreUnwritableError,
)
from vocodata.job import refuse_lost_source, run_job, run_on_worker
from vocodata.ledger import default_ledger
from vocodata.lock import build_lock, lock_path
from vocodata.manifest import load_manifest
from vocodata.plan import make_plan
from vocodata.recipe import rules_digest
from vocodata.store import verify


def _resumed(manifest, out, **options):
    return build(manifest, out, workers=0, resume=True, **options)


def _after(count, action):
    """A listener that acts once, when so many scans are settled in this build."""
    seen = []

    def listen(event):
        if event.kind in {"stored", "excluded"}:
            seen.append(event)
            if len(seen) == count:
                action()

    return listen


@pytest.fixture
def undisturbed(tmp_path, tree):
    """A function: the files of a store that nobody disturbs."""

    def files(manifest):
        return tree(build(manifest, tmp_path / "undisturbed.zarr", workers=0).store)

    return files


def test_a_link_to_a_store_is_that_store(make_sources, tmp_path, tree):
    manifest = make_sources(2)
    (tmp_path / "disk").mkdir()
    out = build(manifest, tmp_path / "disk/ct.zarr", workers=0).store
    before, link = tree(out), tmp_path / "link.zarr"
    link.symlink_to("disk/ct.zarr")
    with build_lock(out), pytest.raises(StoreLockedError, match="Another build is writing to"):
        _resumed(manifest, link)
    assert _resumed(manifest, link).skipped_done == 2
    assert build_status(link)["ledger"] == str(default_ledger(out))
    build(manifest, link, workers=0, overwrite=True)
    assert link.is_symlink()
    assert tree(out) == before
    assert not list(tmp_path.glob("link.zarr?*"))


def test_a_lock_that_was_removed_is_noticed_and_that_of_another_build_stays(
    make_sources, tmp_path, undisturbed, tree
):
    manifest, out = make_sources(2), tmp_path / "ct.zarr"

    def steal():
        lock_path(out).unlink()
        lock_path(out).write_text("another build's\n")

    with pytest.raises(StoreLockedError, match="was removed or taken by another build") as caught:
        build(manifest, out, workers=0, on_event=_after(1, steal))
    assert "ct.zarr.lock" in str(caught.value)
    assert lock_path(out).read_text() == "another build's\n"
    _resumed(manifest, out)
    assert tree(out) == undisturbed(manifest)


def test_a_lock_says_which_machine_holds_it(tmp_path):
    with build_lock(tmp_path / "ct.zarr"):
        where = rf"\(process {os.getpid()} on {os.uname().nodename}\)"
        with pytest.raises(StoreLockedError, match=where), build_lock(tmp_path / "ct.zarr"):
            pass


def test_a_file_system_without_locks_is_told(tmp_path, monkeypatch):
    def refuse(*_):
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))

    monkeypatch.setattr(fcntl, "flock", refuse)
    words = "its file system has no locks.* Mount it with them"
    with pytest.raises(StoreUnwritableError, match=words), build_lock(tmp_path / "ct.zarr"):
        pass
    assert not list(tmp_path.iterdir())


def test_a_store_that_is_removed_meanwhile_is_not_called_whole(
    make_sources, tmp_path, undisturbed, tree
):
    manifest, out = make_sources(3), tmp_path / "ct.zarr"
    words = r"2 scans that were written are not in .* any more, the first btcv/case0"
    with pytest.raises(StoreUnreachableError, match=words):
        build(manifest, out, workers=0, on_event=_after(2, lambda: shutil.rmtree(out)))
    assert build_status(out)["pending"] == 2
    assert _resumed(manifest, out).skipped_done == 1
    assert tree(out) == undisturbed(manifest)


def _first_job(manifest, out):
    scans = find_scans(load_manifest(manifest))
    return make_plan(scans, {}, Path(out), "zstd").jobs[0]


def test_a_worker_without_the_store_or_of_another_version_ends_the_build(make_sources, tmp_path):
    job = _first_job(make_sources(1), tmp_path / "ct.zarr")
    with pytest.raises(StoreUnreachableError, match="is not there, as seen from") as caught:
        run_on_worker(job, 1 << 40, rules=rules_digest())
    assert caught.value.exit_code == 4
    with pytest.raises(SchedulerError, match="has another version of the toolkit"):
        run_on_worker(job, 1 << 40, rules="of another version")
    assert not (tmp_path / "ct.zarr").exists()


def test_a_worker_that_does_not_see_a_source_ends_the_build(make_sources, tmp_path):
    manifest = make_sources(2, labels=True)
    job = _first_job(manifest, tmp_path / "ct.zarr")
    for place in (job.scan.image, job.scan.labels):
        aside = place.rename(tmp_path / "aside")
        outcome = run_job(job)
        aside.rename(place)
        with pytest.raises(SchedulerError, match=f"does not find {place}, which is there"):
            refuse_lost_source(outcome)


def test_a_source_that_goes_away_ends_the_build_and_no_scan_is_lost(
    make_sources, tmp_path, undisturbed, tree
):
    manifest, out = make_sources(3), tmp_path / "ct.zarr"
    images, aside = tmp_path / "sources/btcv/images", tmp_path / "unmounted"
    with pytest.raises(SourceLostError, match="of source 'btcv' went away") as caught:
        build(manifest, out, workers=0, on_event=_after(1, lambda: images.rename(aside)))
    assert caught.value.exit_code == 4
    # As a disk that is not mounted leaves it.
    images.mkdir()
    shutil.copytree(aside, images, dirs_exist_ok=True)
    again = _resumed(manifest, out)
    assert (again.skipped_done, again.stored) == (1, 3)
    assert tree(out) == undisturbed(manifest)


def test_a_scan_that_was_missing_for_a_while_comes_in(make_sources, tmp_path, undisturbed, tree):
    manifest, out = make_sources(3), tmp_path / "ct.zarr"
    image, aside = tmp_path / "sources/btcv/images/case1.nii.gz", tmp_path / "aside"
    report = build(manifest, out, workers=0, on_event=_after(1, lambda: image.rename(aside)))
    assert report.excluded == {"file_missing": 1}
    # The same file of the same time: nothing but the resume itself says to look again.
    aside.rename(image)
    assert _resumed(manifest, out).stored == 3
    assert tree(out) == undisturbed(manifest)


def test_a_file_system_that_refuses_for_a_while_costs_no_scan(
    make_sources, tmp_path, monkeypatch, caplog
):
    manifest = make_sources(2)

    def stale(*_, **__):
        raise OSError(errno.ESTALE, "Stale file handle")

    monkeypatch.setattr("vocodata.ingest.read_header", stale)
    report = build(manifest, tmp_path / "ct.zarr", workers=0)
    assert report.excluded == {"io_error": 2}
    assert "may pass: io_error 2. --resume tries them again." in caplog.text
    monkeypatch.undo()
    caplog.clear()
    assert _resumed(manifest, report.store).stored == 2
    assert not caplog.text


@pytest.mark.parametrize("is_emptied", [False, True], ids=["gone", "empty"])
def test_a_store_without_its_ledger_is_said_to_be_processed_again(
    make_sources, tmp_path, caplog, is_emptied
):
    manifest = make_sources(2)
    out = build(manifest, tmp_path / "ct.zarr", workers=0).store
    _resumed(manifest, out)
    assert not caplog.messages
    default_ledger(out).unlink()
    if is_emptied:
        default_ledger(out).touch()
    _resumed(manifest, out)
    assert len(caplog.messages) == 1
    assert "holds 2 scans of which the ledger" in caplog.text
    assert "--ledger" in caplog.text


def test_status_says_what_workers_held_while_they_work(make_sources, tmp_path):
    manifest, out, seen = make_sources(2), tmp_path / "ct.zarr", []

    def look():
        seen.append(build_status(out)["fact"]["worker_bytes"])

    build(manifest, out, workers=0, on_event=_after(1, look))
    assert seen[0] > 50_000_000


def test_a_signal_that_ends_the_workers_too_is_told_as_a_signal(
    make_sources, tmp_path, monkeypatch
):
    def ended(*_, **__):
        os.kill(os.getpid(), signal.SIGTERM)
        msg = "no worker started"
        raise SchedulerError(msg)
        yield

    monkeypatch.setattr(building, "run_dask", ended)
    with pytest.raises(BuildInterruptedError, match="SIGTERM came after 0 of 2 scans"):
        build(make_sources(2), tmp_path / "ct.zarr", workers=2)


def test_a_scan_that_a_worker_began_in_the_moment_of_a_signal_is_not_left_over(
    make_sources, tmp_path
):
    manifest, out = make_sources(3), tmp_path / "ct.zarr"

    def stop():
        shutil.copytree(out / "scans/btcv/case0", out / "scans/btcv/case1")
        os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(BuildInterruptedError):
        build(manifest, out, workers=0, on_event=_after(1, stop))
    assert {problem.kind for problem in verify(out).problems} == {"incomplete"}
