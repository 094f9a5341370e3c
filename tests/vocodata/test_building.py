"""A build ends in the same store whatever happens on the way, and accounts for every scan."""

import math
import os
import pickle
import resource
import shutil
import signal
import subprocess
import sys
import threading
import time

import nibabel as nib
import numpy as np
import pytest
from distributed import LocalCluster

import vocodata
from vocodata.building import build, build_status
from vocodata.discover import find_scans
from vocodata.errors import (
    REASONS,
    BuildInterruptedError,
    DiskFullError,
    LedgerError,
    ManifestError,
    StoreError,
    StoreExistsError,
    StoreLockedError,
    StoreUnwritableError,
)
from vocodata.job import ScanJob, run_job, without_paths
from vocodata.ledger import Ledger
from vocodata.lock import build_lock, is_locked, lock_path
from vocodata.manifest import load_manifest
from vocodata.plan import make_plan, predict_size
from vocodata.presets import preset
from vocodata.recipe import file_state
from vocodata.store import open_store, verify
from vocodata.store.catalog import CatalogRow, ExcludedRow
from vocodata.store.metadata import SCHEMA_VERSION
from vocodata.store.root import prove_accounting, publish


def _resumed(manifest, out, **options):
    return build(manifest, out, workers=0, resume=True, **options)


def _rewrite_scan(tmp_path, number, add=5):
    path = tmp_path / f"sources/btcv/images/case{number}.nii.gz"
    image = nib.load(path)
    nib.save(nib.Nifti1Image(np.asarray(image.dataobj) + np.int16(add), image.affine), path)
    os.utime(path, ns=(1, time.time_ns()))


def test_any_number_of_workers_gives_the_same_bytes(make_sources, tmp_path, tree):
    manifest = make_sources(5, labels=True, broken=[4])
    inline = build(manifest, tmp_path / "inline.zarr", workers=0)
    two = build(manifest, tmp_path / "two.zarr", workers=2)
    assert (inline.found, inline.stored, inline.excluded) == (5, 4, two.excluded)
    assert inline.digest == two.digest == open_store(two.store).digest
    assert inline.bytes_written == two.bytes_written > 0
    assert tree(inline.store) == tree(two.store)
    assert verify(two.store).ok


@pytest.mark.filterwarnings("ignore:Port 8787 is already in use:UserWarning")
def test_a_running_scheduler_gives_the_same_bytes_wherever_workers_stand(
    make_sources, tmp_path, tree, monkeypatch
):
    manifest = make_sources(3)
    build(manifest, tmp_path / "inline.zarr", workers=0)
    with LocalCluster(n_workers=1, threads_per_worker=1, dashboard_address=":0") as cluster:
        monkeypatch.chdir(tmp_path)
        build(manifest, "far.zarr", scheduler=cluster.scheduler_address, workers=1)
    assert tree(tmp_path / "inline.zarr") == tree(tmp_path / "far.zarr")


def test_every_scan_found_is_stored_or_excluded_with_a_reason(make_sources, tmp_path):
    events = []
    manifest = make_sources(6, broken=[1, 3])
    report = build(manifest, tmp_path / "ct.zarr", workers=0, on_event=events.append)
    store = open_store(report.store)
    assert store.ids() == [f"btcv/case{n}" for n in (0, 2, 4, 5)]
    rows = store.excluded().to_pylist()
    assert [(row["source"], row["scan"]) for row in rows] == [("btcv", "case1"), ("btcv", "case3")]
    assert {row["reason"] for row in rows} <= set(REASONS)
    assert all(row["detail"] for row in rows)
    assert report.found == report.stored + sum(report.excluded.values()) == 6
    assert [event.kind for event in events].count("excluded") == 2
    assert [event.kind for event in events][0::7] == ["plan", "done"]
    assert [event.done for event in events] == [0, 1, 2, 3, 4, 5, 6, 6]
    assert not report.exceeds(2)
    assert not report.exceeds()
    assert report.exceeds(1)
    status = build_status(report.store)
    assert (status.pop("plan")["scans"], status.pop("fact")["scans"]) == (6, 6)
    assert status == {
        "store": str(report.store),
        "ledger": f"{report.store}.ledger.sqlite",
        "running": False,
        "complete": True,
        "found": 6,
        "stored": 4,
        "excluded": 2,
        "pending": 0,
        "step_hu": 1,
    }


def test_a_store_of_nothing_exceeds_any_limit(make_sources, tmp_path):
    report = build(make_sources(2, broken=[0, 1]), tmp_path / "ct.zarr", workers=0)
    assert report.exceeds()
    assert open_store(report.store).ids() == []
    assert open_store(report.store).summary()["excluded"] == report.excluded
    assert verify(report.store).ok


def test_a_resumed_build_skips_what_is_done(make_sources, tmp_path, tree):
    manifest = make_sources(4, broken=[2])
    first = build(manifest, tmp_path / "ct.zarr", workers=0)
    before = tree(first.store)
    stamps = {path: path.stat().st_mtime_ns for path in first.store.rglob("c.0.0.0")}
    again = _resumed(manifest, first.store)
    assert (again.skipped_done, again.bytes_written, again.stored) == (3, 0, 3)
    assert tree(first.store) == before
    assert {path: path.stat().st_mtime_ns for path in stamps} == stamps


def test_a_changed_scan_is_built_anew_and_a_mended_one_comes_in(make_sources, tmp_path, tree):
    manifest = make_sources(4, broken=[2])
    out = build(manifest, tmp_path / "ct.zarr", workers=0).store
    old = open_store(out).info("btcv/case1").digest
    _rewrite_scan(tmp_path, 1)
    shutil.copy(
        tmp_path / "sources/btcv/images/case0.nii.gz", tmp_path / "sources/btcv/images/case2.nii.gz"
    )
    report = _resumed(manifest, out)
    assert (report.skipped_done, report.stored, report.excluded) == (2, 4, {})
    assert open_store(out).info("btcv/case1").digest != old
    fresh = build(manifest, tmp_path / "fresh.zarr", workers=0)
    assert tree(out) == tree(fresh.store)


def test_a_scan_that_broke_or_went_leaves_the_store(make_sources, tmp_path, tree):
    manifest = make_sources(4, labels=True)
    out = build(manifest, tmp_path / "ct.zarr", workers=0).store
    make_sources(4, labels=True, broken=[1])
    (tmp_path / "sources/btcv/images/case3.nii.gz").unlink()
    report = _resumed(manifest, out)
    assert (report.found, report.stored, sum(report.excluded.values())) == (3, 2, 1)
    assert tree(out) == tree(build(manifest, tmp_path / "fresh.zarr", workers=0).store)


def test_a_lost_shard_is_built_anew(make_sources, tmp_path, tree):
    manifest = make_sources(3)
    out = build(manifest, tmp_path / "ct.zarr", workers=0).store
    before = tree(out)
    (out / "scans/btcv/case1/0/c.0.0.0").unlink()
    (out / "scans/btcv/case2/zarr.json").unlink()
    (out / "scans/btcv/case0/0/c.0.0.0.tmp-77-0123abcd").write_bytes(b"half")
    assert _resumed(manifest, out).skipped_done == 1
    assert tree(out) == before


def test_a_lost_ledger_costs_time_only(make_sources, tmp_path, tree):
    manifest = make_sources(3)
    out = build(manifest, tmp_path / "ct.zarr", workers=0).store
    before = tree(out)
    (tmp_path / "ct.zarr.ledger.sqlite").unlink()
    assert _resumed(manifest, out).skipped_done == 0
    assert tree(out) == before


def test_a_new_weight_changes_the_catalogue_and_no_shard(make_sources, tmp_path):
    out = build(make_sources(2), tmp_path / "ct.zarr", workers=0).store
    report = _resumed(make_sources(2, weight=8.0), out)
    # The files were written again by the helper, so their times are new; the weight alone is not.
    again = _resumed(tmp_path / "manifest.yaml", out)
    assert again.skipped_done == 2
    assert {open_store(out).info(scan).weight for scan in open_store(out).ids()} == {8.0}
    text = (tmp_path / "manifest.yaml").read_text().replace("8.0", "3.0")
    (tmp_path / "manifest.yaml").write_text(text)
    last = _resumed(tmp_path / "manifest.yaml", out)
    assert last.skipped_done == 2
    assert last.digest != report.digest
    assert {open_store(out).info(scan).weight for scan in open_store(out).ids()} == {3.0}


def test_another_codec_builds_all_anew(make_sources, tmp_path, caplog):
    manifest = make_sources(2)
    out = build(manifest, tmp_path / "ct.zarr", workers=0).store
    before = open_store(out).read("btcv/case1", (0, 0, 0), (9, 9, 9))
    with caplog.at_level("WARNING"):
        assert _resumed(manifest, out, codec="lz4").skipped_done == 0
    assert "codec or version; they are made again" in caplog.text
    # Who says nothing on resume goes on as it was.
    again = _resumed(manifest, out)
    assert again.skipped_done == again.stored
    np.testing.assert_array_equal(open_store(out).read("btcv/case1", (0, 0, 0), (9, 9, 9)), before)
    assert verify(out).ok
    with pytest.raises(StoreError, match="'gzip' is not known"):
        _resumed(manifest, out, codec="gzip")


def test_a_source_that_vanished_from_the_manifest_is_not_deleted(make_sources, tmp_path):
    make_sources(1)
    manifest = make_sources(1, name="lidc")
    out = build(manifest, tmp_path / "ct.zarr", workers=0).store
    manifest.unlink()
    with pytest.raises(StoreError, match="holds scans of lidc, which the manifest does not name"):
        _resumed(make_sources(1), out)
    assert (out / "scans/lidc/case0/0/c.0.0.0").exists()


def test_names_that_are_no_text_or_would_steer_a_terminal_are_built_and_told_in_one_line(
    make_sources, tmp_path
):
    manifest, images = make_sources(1), tmp_path / "sources/btcv/images"
    good = (images / "case0.nii.gz").read_bytes()
    for name in (b"\xff", b"\xfe", b"a\x1b[31m\nb"):
        (images / os.fsdecode(name + b".nii.gz")).write_bytes(good)
        (images / os.fsdecode(name + b"-bad.nii.gz")).write_bytes(b"xx")
    report = build(manifest, tmp_path / "ct.zarr", workers=0)
    assert (report.stored, report.excluded) == (4, {"wrong_magic": 3})
    assert all(row.detail.isprintable() for row in report.excluded_rows)
    again = _resumed(manifest, report.store)
    assert (again.skipped_done, again.digest) == (4, report.digest)


def test_a_resumed_build_says_which_scans_came_and_went(make_sources, tmp_path, caplog):
    manifest, images = make_sources(2), tmp_path / "sources/btcv/images"
    out = build(manifest, tmp_path / "ct.zarr", workers=0).store
    assert caplog.text == ""
    shutil.copyfile(images / "case0.nii.gz", images / "new.nii.gz")
    assert (_resumed(manifest, out).stored, len(caplog.records)) == (3, 1)
    assert "when it was built last: 1, the first btcv/new. They are built too." in caplog.text
    caplog.clear()
    (images / "case1.nii.gz").unlink()
    assert (_resumed(manifest, out).stored, len(caplog.records)) == (2, 1)
    assert (
        f"{out}: scans that are not found any more leave the store: 1, the first btcv/case1"
        in caplog.text
    )
    caplog.clear()
    assert (_resumed(manifest, out).stored, caplog.text) == (2, "")


def test_an_output_that_is_there_is_refused(make_sources, tmp_path, tree):
    manifest = make_sources(2)
    out = build(manifest, tmp_path / "ct.zarr", workers=0).store
    before = tree(out)
    with pytest.raises(StoreExistsError, match=r"holds a store of 2 scans.*--resume.*--overwrite"):
        build(manifest, out, workers=0)
    with pytest.raises(StoreError, match="Both resume and overwrite"):
        build(manifest, out, workers=0, resume=True, overwrite=True)
    assert build(manifest, out, workers=0, overwrite=True).skipped_done == 0
    assert tree(out) == before
    for options in ({}, {"resume": True}, {"overwrite": True}):
        with pytest.raises(StoreExistsError, match="is not a store of this toolkit"):
            build(manifest, tmp_path / "sources", workers=0, **options)
    root = out / "zarr.json"
    root.write_text(
        root.read_text().replace(f'"schema_version": {SCHEMA_VERSION}', '"schema_version": 0')
    )
    with pytest.raises(StoreError, match="has schema 0, this version writes "):
        _resumed(manifest, out)
    leftovers = {path.name for path in tmp_path.iterdir()}
    beside = {"ct.zarr.ledger.sqlite", "ct.zarr.salt"}
    assert leftovers == {"manifest.yaml", "sources", "ct.zarr"} | beside


def test_a_wrong_manifest_leaves_the_old_store_alone(make_sources, tmp_path, tree):
    out = build(make_sources(1), tmp_path / "ct.zarr", workers=0).store
    before = tree(out)
    (tmp_path / "manifest.yaml").write_text("version: 1\nsources: []\nsurprise: 1\n")
    with pytest.raises(ManifestError):
        build(tmp_path / "manifest.yaml", out, workers=0, overwrite=True)
    assert tree(out) == before


def test_a_ledger_of_another_store_is_refused(make_sources, tmp_path):
    manifest = make_sources(1)
    book = tmp_path / "book.sqlite"
    build(manifest, tmp_path / "a.zarr", workers=0, ledger=book)
    assert not (tmp_path / "a.zarr.ledger.sqlite").exists()
    assert build_status(tmp_path / "a.zarr", ledger=book)["stored"] == 1
    with pytest.raises(LedgerError, match=r"belongs to the store .*a\.zarr, not to .*b\.zarr"):
        build(manifest, tmp_path / "b.zarr", workers=0, ledger=book)


def test_a_store_may_move_with_its_ledger_and_salt(make_sources, tmp_path):
    manifest = make_sources(1)
    build(manifest, tmp_path / "a.zarr", workers=0)
    (tmp_path / "a.zarr").rename(tmp_path / "b.zarr")
    (tmp_path / "a.zarr.ledger.sqlite").rename(tmp_path / "b.zarr.ledger.sqlite")
    (tmp_path / "a.zarr.salt").rename(tmp_path / "b.zarr.salt")
    assert _resumed(manifest, tmp_path / "b.zarr").skipped_done == 1


def test_a_second_build_into_the_same_store_is_refused(make_sources, tmp_path):
    manifest = make_sources(1)
    out = tmp_path / "ct.zarr"
    with build_lock(out):
        assert is_locked(out)
        with pytest.raises(StoreLockedError, match=f"Another build .*process {os.getpid()}"):
            build(manifest, out, workers=0)
    assert not is_locked(out)
    assert not lock_path(out).exists()
    lock_path(out).write_text("12345\n")
    assert build(manifest, out, workers=0).stored == 1
    assert not lock_path(out).exists()


def test_a_store_may_be_the_folder_one_stands_in_and_must_have_a_name(
    make_sources, tmp_path, monkeypatch
):
    manifest, here = make_sources(1), tmp_path / "here"
    (here / "below").mkdir(parents=True)
    monkeypatch.chdir(here / "below")
    for out in ("", "/"):
        with pytest.raises(StoreError, match=f"'{out}' cannot be a store: it has no name"):
            build(manifest, out, workers=0)
    assert build(manifest, ".", workers=0).stored == 1
    assert {path.name for path in here.iterdir()} >= {"below", "below.ledger.sqlite"}
    assert (build_status(".")["stored"], build_status(".")["running"]) == (1, False)
    shutil.rmtree(here / "below")
    (here / "below").mkdir()
    monkeypatch.chdir(here / "below")
    assert build(manifest, tmp_path / "here/below/../below", workers=0, resume=True).stored == 1


@pytest.mark.parametrize("document", [None, "{", "[]", '{"attributes": {}}'])
def test_a_store_that_lost_its_document_is_known_by_its_ledger(make_sources, tmp_path, document):
    manifest = make_sources(2)
    report = build(manifest, tmp_path / "ct.zarr", workers=0)
    root = report.store / "zarr.json"
    root.unlink() if document is None else root.write_text(document)
    with pytest.raises(StoreExistsError, match="is not a store of this toolkit"):
        build(manifest, report.store, workers=0)
    again = _resumed(manifest, report.store)
    assert (again.skipped_done, again.digest) == (2, report.digest)
    assert verify(report.store).ok
    root.unlink()
    assert build(manifest, report.store, workers=0, overwrite=True).digest == report.digest
    root.unlink()
    (tmp_path / "ct.zarr.ledger.sqlite").unlink()
    with pytest.raises(StoreExistsError, match="is not a store of this toolkit"):
        _resumed(manifest, report.store)


def test_a_lock_that_cannot_be_written_is_told_in_a_sentence(make_sources, tmp_path):
    manifest, out = make_sources(1), tmp_path / "ct.zarr"
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    # No file may grow: as on a full disk.
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, limits[1]))
    try:
        with pytest.raises(DiskFullError, match=r"No room to write .*ct\.zarr\.lock"):
            build(manifest, out, workers=0)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert not lock_path(out).exists()
    lock_path(out).mkdir()
    with pytest.raises(StoreUnwritableError, match=r"ct\.zarr\.lock cannot be written") as caught:
        build(manifest, out, workers=0)
    assert caught.value.exit_code == 4


def test_a_lock_dies_with_its_process(tmp_path):
    script = (
        "import sys, time; from pathlib import Path; from vocodata.lock import build_lock\n"
        "with build_lock(Path(sys.argv[1])): print('held', flush=True); time.sleep(60)"
    )
    out = tmp_path / "ct.zarr"
    command = [sys.executable, "-c", script, str(out)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout.readline() == "held\n"
        assert is_locked(out)
        with pytest.raises(StoreLockedError, match=f"process {holder.pid}"), build_lock(out):
            pass
        holder.kill()
        holder.wait()
    with build_lock(out):
        pass


@pytest.mark.parametrize(
    ("signum", "workers"),
    [(signal.SIGINT, 0), (signal.SIGTERM, 0), (signal.SIGINT, 1), (signal.SIGTERM, 2)],
)
def test_a_signal_ends_the_build_cleanly(make_sources, tmp_path, tree, signum, workers):
    manifest = make_sources(12, size=(24, 22, 20))

    def interrupt(event):
        if event.kind == "stored" and event.done == 2:
            os.kill(os.getpid(), signum)

    out = tmp_path / "ct.zarr"
    handlers = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    with pytest.raises(BuildInterruptedError, match=r"came after \d+ of 12 scans") as caught:
        build(manifest, out, workers=workers, on_event=interrupt)
    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == handlers
    error = caught.value
    assert (error.signum, error.found) == (signum, 12)
    assert 2 <= error.done < 12
    assert (error.done == 2) is (workers == 0)
    store = open_store(out)
    assert len(store.ids()) == error.done
    assert not store.attributes["complete"]
    assert build_status(out)["pending"] == 12 - error.done
    assert {problem.kind for problem in verify(out).problems} == {"incomplete"}
    assert _resumed(manifest, out).skipped_done == error.done
    if workers == 0 and signum == signal.SIGTERM:
        assert tree(out) == tree(build(manifest, tmp_path / "whole.zarr", workers=0).store)


def test_what_comes_back_of_a_scan_is_small_whatever_the_scan(make_sources, tmp_path):
    manifest = make_sources(1, size=(90, 80, 70), labels=True)
    (scan,) = find_scans(load_manifest(manifest))
    out = build(manifest, tmp_path / "ct.zarr", workers=0).store
    outcome = run_job(ScanJob(scan, "recipe", out, "zstd"))
    assert outcome.row.voxels > 100_000
    assert len(pickle.dumps(outcome)) < 10_000


def test_a_signal_outside_the_main_thread_is_not_ours(make_sources, tmp_path):
    reports = []
    manifest = make_sources(1)
    thread = threading.Thread(
        target=lambda: reports.append(build(manifest, tmp_path / "ct.zarr", workers=0))
    )
    thread.start()
    thread.join(60)
    assert reports[0].stored == 1


def test_a_full_disk_ends_the_build_and_leaves_it_resumable(make_sources, tmp_path, tree):
    manifest = make_sources(2, size=(24, 22, 20))
    make_sources(1, name="large", size=(200, 190, 120))
    out = tmp_path / "ct.zarr"
    # A limit on the size of a file stands for a disk without room: the kernel refuses the write.
    script = (
        "import resource, sys; from vocodata.building import build\n"
        "from vocodata.errors import DiskFullError\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, resource.RLIM_INFINITY))\n"
        "try: build(sys.argv[1], sys.argv[2], workers=0)\n"
        "except DiskFullError as error: print(error.code, error); sys.exit(error.exit_code)"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, str(manifest), str(out)],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 4, done.stderr
    assert done.stdout.startswith("disk_full No room to write")
    assert not list(out.rglob("*.tmp-*"))
    assert build_status(out)["pending"] == 1
    assert _resumed(manifest, out).skipped_done == 2
    assert tree(out) == tree(build(manifest, tmp_path / "whole.zarr", workers=0).store)
    assert resource.getrlimit(resource.RLIMIT_FSIZE)[0] == resource.RLIM_INFINITY


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        (MemoryError("too much"), "out_of_memory"),
        (OSError(5, "Input/output error"), "io_error"),
        (TypeError("odd header"), "unexpected_error"),
        (ZeroDivisionError("division by zero"), "unexpected_error"),
    ],
    ids=["memory", "io", "type", "division"],
)
def test_whatever_a_scan_does_is_an_outcome(make_sources, tmp_path, monkeypatch, fault, reason):
    manifest = make_sources(2)

    def fail(scan, chosen, *, _real=run_job.__globals__["process_scan"], **options):
        if scan.name == "case0":
            raise fault
        return _real(scan, chosen, **options)

    monkeypatch.setitem(run_job.__globals__, "process_scan", fail)
    report = build(manifest, tmp_path / "ct.zarr", workers=0)
    assert report.excluded == {reason: 1}
    monkeypatch.undo()
    again = _resumed(manifest, report.store)
    tried_again = reason != "unexpected_error"
    assert again.stored == (2 if tried_again else 1)


def test_a_store_that_cannot_be_written_ends_the_build(make_sources, tmp_path, monkeypatch):
    tries = []

    def fail(*_):
        tries.append(1)
        msg = "read-only"
        raise StoreError(msg)

    monkeypatch.setitem(run_job.__globals__["_store"].__globals__, "write_scan", fail)
    with pytest.raises(StoreError, match="read-only"):
        build(make_sources(3), tmp_path / "ct.zarr", workers=0)
    assert len(tries) == 3


def test_details_name_scans_and_not_places(make_sources, tmp_path):
    manifest = make_sources(1)
    (scan,) = find_scans(load_manifest(manifest))
    detail = without_paths(f"{scan.image} and {scan.image.parent}/x.dcm are cut", scan)
    assert str(tmp_path) not in detail
    assert "btcv/case0" in detail


def test_the_plan_knows_what_is_to_do_and_how_big(make_sources, tmp_path):
    manifest = make_sources(4, broken=[3])
    scans = find_scans(load_manifest(manifest))
    out = tmp_path / "ct.zarr"
    plan = make_plan(scans, {}, out, "zstd")
    assert [job.scan.id for job in plan.jobs] == [scan.id for scan in scans]
    assert all(isinstance(job, ScanJob) for job in plan.jobs)
    size = predict_size(plan)
    # Of four headers of 40 x 34 x 28 voxels, 2 x 2.5 x 3 mm, one is broken.
    each = 40 * 34 * 28 * 2 * 2.5 * 3 / math.prod(preset("abdomen").spacing_mm)
    assert size.voxels == pytest.approx(3 * each, rel=0.01)
    assert (size.headers_read, size.unreadable) == (4, 1)
    assert size.free_bytes > 0
    report = build(manifest, out, workers=0)
    with Ledger(tmp_path / "ct.zarr.ledger.sqlite") as book:
        done = make_plan(scans[:3], book.entries(), out, "zstd")
    assert done.jobs == ()
    assert done.done == set(open_store(report.store).ids())
    assert done.dropped == {"btcv/case3"}
    assert predict_size(done).bytes == 0


def test_a_file_is_known_by_name_size_and_time(tmp_path):
    (tmp_path / "series").mkdir()
    (tmp_path / "series" / "1.dcm").write_bytes(b"a")
    before = file_state(tmp_path / "series")
    (tmp_path / "series" / "2.dcm").write_bytes(b"b")
    assert len(file_state(tmp_path / "series")) == len(before) + 1
    (tmp_path / "scan.mhd").write_text("header")
    alone = file_state(tmp_path / "scan.mhd")
    (tmp_path / "scan.raw").write_bytes(b"voxels")
    assert file_state(tmp_path / "scan.mhd") != alone
    assert file_state(tmp_path / "nothing") == []


def test_a_scan_unaccounted_for_fails_loudly(built, tmp_path):
    rows: list[CatalogRow] = [open_store(built).row(scan) for scan in open_store(built).ids()]
    publish(tmp_path, rows, [ExcludedRow("a", "b", "io_error", "")], found=7, recipe_digest="")
    ids = [*(row.id for row in rows), "a/b"]
    prove_accounting(tmp_path, ids)
    for found in (ids[1:], [*ids, "a/c"], [*ids[1:], "a/c"]):
        with pytest.raises(StoreError, match=r"scans were found.*unaccounted") as caught:
            prove_accounting(tmp_path, found)
        assert caught.value.code == "accounting"


def test_the_public_name_stays_the_function():
    assert vocodata.build is build
    assert vocodata.build is build
    assert vocodata.verify is verify
    assert callable(vocodata.store.verify)


def test_a_scan_too_large_for_the_machine_is_named_and_tried_again(
    make_sources, tmp_path, monkeypatch
):
    manifest = make_sources(2)
    make_sources(1, name="large", size=(200, 190, 120))
    monkeypatch.setattr("vocodata.executor.room_bytes", lambda _: 12_000_000)
    report = build(manifest, tmp_path / "ct.zarr", workers=0)
    assert (report.stored, report.excluded) == (2, {"out_of_memory": 1})
    (row,) = report.excluded_rows
    assert (row.source, row.scan) == ("large", "case0")
    assert "there is room for 0.01 GB. Build on a larger machine with --resume" in row.detail
    monkeypatch.undo()
    assert _resumed(manifest, report.store).stored == 3


def test_status_sets_the_plan_beside_what_came_of_it(make_sources, tmp_path):
    manifest = make_sources(4, size=(60, 50, 40), broken=[3])
    out = build(manifest, tmp_path / "ct.zarr", workers=0).store
    status = build_status(out)
    plan, fact = status["plan"], status["fact"]
    assert (plan["scans"], fact["scans"], plan["headers_read"]) == (4, 4, 4)
    shards = sum(path.stat().st_size for path in out.rglob("c.0.0.0"))
    assert fact["bytes"] == shards <= plan["bytes"]
    assert 0 < fact["seconds"] < 60
    assert plan["seconds"] > 0
    assert fact["worker_bytes"] > 50_000_000
    assert plan["worker_bytes"] > 400_000_000
    # The plan is that of the build's beginning, also when the build goes on.
    _rewrite_scan(tmp_path, 1)
    _resumed(manifest, out)
    assert build_status(out)["plan"] == plan
    _resumed(manifest, out, codec="lz4")
    assert build_status(out)["plan"]["bytes"] > plan["bytes"]
    (tmp_path / "ct.zarr.ledger.sqlite").unlink()
    assert (build_status(out)["plan"], build_status(out)["fact"]) == (None, None)
