"""Stores in a bucket: built, resumed, verified and read there, and the same as on a disk."""

import json
import os
import pickle
import signal
import subprocess
import sys

import numpy as np
import pytest

from tests.vocodata.conftest import write_sources
from vocodata import lock
from vocodata.building import build, build_status
from vocodata.curation_report import write_curation_report
from vocodata.errors import (
    RemoteError,
    StoreError,
    StoreExistsError,
    StoreLockedError,
    StoreUnreachableError,
)
from vocodata.leaks import find_leaks
from vocodata.ledger import default_ledger
from vocodata.remote import as_path, objects
from vocodata.store import open_store, verify


@pytest.fixture(autouse=True)
def state(tmp_path, monkeypatch):
    """A state folder of the test's own."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    return tmp_path / "state/voco"


@pytest.fixture
def manifest(tmp_path):
    """Two scans with labels, and one that is broken."""
    return write_sources(tmp_path, 3, labels=True, broken=[1])


@pytest.fixture
def url(s3):
    return f"s3://{s3.bucket}/deep/ct.zarr"


def _keys(s3, prefix="deep/"):
    found = s3.list_objects_v2(Bucket=s3.bucket, Prefix=prefix).get("Contents", [])
    return {item["Key"].removeprefix(prefix) for item in found}


def _contents(s3, prefix="deep/ct.zarr/"):
    return {
        key: s3.get_object(Bucket=s3.bucket, Key=prefix + key)["Body"].read()
        for key in _keys(s3, prefix)
    }


def test_a_store_in_a_bucket_is_the_store_on_a_disk_byte_for_byte(
    tmp_path, manifest, url, s3, tree, state
):
    local = build(manifest, tmp_path / "ct.zarr", workers=0)
    report = build(manifest, url, workers=0)
    assert (str(report.store), report.found, report.stored) == (url, 3, 2)
    assert report.digest == local.digest
    assert _contents(s3) == tree(local.store)
    assert "ct.zarr.lock" not in _keys(s3)
    assert {path.suffix for path in state.iterdir()} == {".salt", ".sqlite"}


def test_a_store_in_a_bucket_says_how_it_is_and_goes_on(manifest, url, s3):
    build(manifest, url, workers=0)
    status = build_status(url)
    assert (status["complete"], status["running"], status["stored"]) == (True, False, 2)
    before = _contents(s3)
    with pytest.raises(StoreExistsError, match="holds a store of 2 scans"):
        build(manifest, url, workers=0)
    assert build(manifest, url, workers=0, resume=True).skipped_done == 2
    s3.delete_object(Bucket=s3.bucket, Key="deep/ct.zarr/scans/btcv/case0/0/c.0.0.0")
    assert build(manifest, url, workers=0, resume=True).skipped_done == 1
    assert build(manifest, url, workers=0, overwrite=True).skipped_done == 0
    assert _contents(s3) == before


def test_a_scan_that_went_leaves_the_bucket(tmp_path, manifest, url, s3):
    build(manifest, url, workers=0)
    (tmp_path / "sources/btcv/images/case2.nii.gz").unlink()
    assert build(manifest, url, workers=0, resume=True).stored == 1
    assert not [key for key in _keys(s3) if "case2" in key]


def test_boxes_of_a_bucket_are_those_of_a_disk(tmp_path, manifest, url):
    local = open_store(build(manifest, tmp_path / "ct.zarr", workers=0).store)
    build(manifest, url, workers=0)
    remote = pickle.loads(pickle.dumps(open_store(url)))
    assert remote.ids() == local.ids()
    random = np.random.default_rng(7)
    for _ in range(12):
        scan = str(random.choice(local.ids()))
        start = tuple(random.integers(-20, 50, 3))
        size = tuple(random.integers(1, 70, 3))
        box = remote.read(scan, start, size)
        np.testing.assert_array_equal(box, local.read(scan, start, size))
        assert box.flags.c_contiguous
        np.testing.assert_array_equal(
            remote.read_label(scan, start, size), local.read_label(scan, start, size)
        )


def test_a_box_costs_few_requests_and_the_index_one(manifest, url, monkeypatch):
    build(manifest, url, workers=0)
    store = open_store(url)
    scan = store.ids()[0]
    asked = []
    read, many = objects.read, objects.read_many
    monkeypatch.setattr(objects, "read", lambda *a: asked.append(a) or read(*a))
    monkeypatch.setattr(objects, "read_many", lambda *a: asked.extend(a[1]) or many(*a))
    store.read(scan, (0, 0, 0), (64, 64, 32))
    first = len(asked)
    open_store(url).read(scan, (0, 0, 0), (64, 64, 32))
    # The catalogue and the root's document are read anew, whole; the index is known.
    (stretch,) = [one for one in asked[first:] if len(one) > 1]
    assert asked[:first][1:] == [stretch]


DAMAGES = {
    "missing_shard": ("0/c.0.0.0", lambda _: None),
    "truncated_shard": ("0/c.0.0.0", lambda data: data[:-9]),
    "corrupt_chunk": ("0/c.0.0.0", lambda data: data[:99] + bytes([data[99] ^ 1]) + data[100:]),
    "corrupt_index": ("0/c.0.0.0", lambda data: data[:-9] + bytes([data[-9] ^ 1]) + data[-8:]),
    "metadata_mismatch": ("zarr.json", lambda data: data + b" "),
}


def test_verify_names_each_damaged_scan_of_a_bucket(tmp_path, url, s3):
    build(write_sources(tmp_path, len(DAMAGES)), url, workers=0)
    assert verify(url, deep=True).ok
    for number, (place, damage) in enumerate(DAMAGES.values()):
        key = f"deep/ct.zarr/scans/btcv/case{number}/{place}"
        data = damage(s3.get_object(Bucket=s3.bucket, Key=key)["Body"].read())
        s3.delete_object(Bucket=s3.bucket, Key=key)
        if data is not None:
            s3.put_object(Bucket=s3.bucket, Key=key, Body=data)
    s3.put_object(Bucket=s3.bucket, Key="deep/ct.zarr/scans/btcv/other/zarr.json", Body=b"")
    from vocodata.store import remote

    remote._index.cache_clear()
    found = {(problem.scan, problem.kind) for problem in verify(url, deep=True).problems}
    expected = {(f"btcv/case{number}", kind) for number, kind in enumerate(DAMAGES)}
    assert found == expected | {("btcv/other", "extra_scan")}
    store = open_store(url)
    with pytest.raises(StoreError, match=r"its shard s3://.* is missing"):
        store.read("btcv/case0", (0, 0, 0), (8, 8, 8))
    with pytest.raises(StoreError, match=r"btcv/case2.*does not match its checksum"):
        store.read("btcv/case2", (0, 0, 0), store.info("btcv/case2").shape_XYZ)


def test_a_second_build_of_another_machine_is_refused(tmp_path, manifest, url, s3):
    root = as_path(url)
    with lock.build_lock(root, tmp_path / "one.sqlite"):
        assert lock.is_locked(root, tmp_path / "two.sqlite")
        with pytest.raises(StoreLockedError, match=r"or remove s3://.*ct.zarr.lock"):
            build(manifest, url, workers=0, ledger=tmp_path / "two.sqlite")
        with pytest.raises(StoreLockedError, match=r"s3://.*ct.zarr \(process \d+ on"):
            build(manifest, url, workers=0, ledger=tmp_path / "one.sqlite")
    assert not lock.is_locked(root, tmp_path / "two.sqlite")
    assert _keys(s3) == set()


def test_a_lock_that_was_taken_away_is_noticed_before_the_catalogue_is_written(manifest, url, s3):
    def steal(event):
        if event.kind == "stored":
            s3.put_object(Bucket=s3.bucket, Key="deep/ct.zarr.lock", Body=b"another")

    with pytest.raises(
        StoreLockedError, match=r"s3://.*lock was removed or taken by another build"
    ):
        build(manifest, url, workers=0, on_event=steal)
    assert json.loads(_contents(s3)["zarr.json"])["attributes"]["voco"]["complete"] is False
    assert "ct.zarr.lock" in _keys(s3)


def test_a_lock_whose_answers_were_all_lost_is_known_as_our_own_later(
    manifest, url, s3, monkeypatch
):
    from vocodata.remote import s3 as door

    put = door.put

    def lose(path, data, *, only_new):
        put(path, data, only_new=only_new)
        raise ConnectionResetError

    with monkeypatch.context() as patch:
        patch.setattr(door, "put", lose)
        patch.setattr(door, "read", _reset)
        with pytest.raises(StoreUnreachableError, match="cannot be written or locked"):
            build(manifest, url, workers=0)
    assert "ct.zarr.lock" in _keys(s3)
    assert build(manifest, url, workers=0).stored == 2
    assert "ct.zarr.lock" not in _keys(s3)


def _reset(*_):
    raise ConnectionResetError


def test_leaks_are_found_in_a_store_in_a_bucket(manifest, url):
    build(manifest, url, workers=0)
    report = find_leaks(url, url)
    assert (report.checked, report.unreadable) == (2, {})
    assert {leak.scan for leak in report.leaks if leak.kind == "exact"} == set(report.scans)
    assert len(report.scans) == 2


def test_the_page_of_a_store_in_a_bucket_is_that_of_a_disk(tmp_path, manifest, url, s3):
    local = build(manifest, tmp_path / "ct.zarr", workers=0).store
    build(manifest, url, workers=0)
    page = write_curation_report(local, tmp_path / "local.html")
    far = write_curation_report(url, tmp_path / "new" / "far.html")
    text = far.read_text(encoding="utf-8")
    assert text == page.read_text(encoding="utf-8")
    # Three planes of each scan, and no word of where the store lies.
    assert text.count("data:image/png;base64,") >= 6
    assert s3.bucket not in text
    there = write_curation_report(url, f"s3://{s3.bucket}/pages/")
    assert str(there) == f"s3://{s3.bucket}/pages/report.html"
    assert there.read_bytes() == far.read_bytes()


@pytest.mark.parametrize(
    ("out", "told"),
    [("https://host/page.html", "a web server is read only"), ("gs://b/p.html", "gs:// is not")],
)
def test_a_page_is_not_written_where_it_cannot_be(tmp_path, manifest, out, told):
    local = build(manifest, tmp_path / "ct.zarr", workers=0).store
    with pytest.raises(StoreError, match=f"page cannot be written to .*{told}"):
        write_curation_report(local, out)


def test_the_page_of_a_bucket_that_refuses_or_holds_none_ends_with_a_sentence(
    tmp_path, url, manifest, monkeypatch
):
    with pytest.raises(StoreError, match=r"s3://.* is no store: it has no zarr.json"):
        write_curation_report(url, tmp_path)
    build(manifest, url, workers=0)
    from vocodata.remote import s3 as door

    def refuse(*_, **__):
        raise PermissionError(13, "Access Denied")

    with monkeypatch.context() as patch:
        patch.setattr(door, "read", refuse)
        with pytest.raises(RemoteError, match="does not allow to read it"):
            write_curation_report(url, tmp_path)
    assert not (tmp_path / "report.html").exists()


KILLED = """
import os, signal, sys
from vocodata.building import build
def die(event):
    if event.kind == "stored":
        os.kill(os.getpid(), signal.SIGKILL)
build(sys.argv[1], sys.argv[2], workers=0, on_event=die)
"""


def test_a_killed_build_goes_on_with_its_own_lock(tmp_path, manifest, url, s3, tree):
    whole = build(manifest, tmp_path / "whole.zarr", workers=0)
    run = subprocess.run(
        [sys.executable, "-c", KILLED, str(manifest), url], check=False, timeout=60
    )
    assert run.returncode == -signal.SIGKILL
    assert "ct.zarr.lock" in _keys(s3)
    root = as_path(url)
    assert not lock.is_locked(root, default_ledger(root))
    with pytest.raises(StoreLockedError, match="or was killed"):
        build(manifest, url, workers=0, resume=True, ledger=tmp_path / "other.sqlite")
    report = build(manifest, url, workers=0, resume=True)
    assert report.skipped_done == 1
    assert _contents(s3) == tree(whole.store)
    assert "ct.zarr.lock" not in _keys(s3)


@pytest.mark.parametrize(
    ("out", "told"),
    [
        ("https://host/ct.zarr", "a web server is read only"),
        ("gs://b/ct.zarr", "gs:// is not read"),
        ("s3:///ct.zarr", "no bucket in"),
    ],
)
def test_a_url_that_cannot_be_a_store_is_refused(manifest, out, told):
    with pytest.raises(StoreError, match=told):
        build(manifest, out, workers=0)


def test_a_bucket_that_refuses_or_is_not_there_ends_with_a_sentence(manifest, url, monkeypatch):
    with pytest.raises(
        StoreUnreachableError, match=r"cannot be written or locked: .*no such bucket"
    ) as caught:
        build(manifest, "s3://there-is-none/ct.zarr", workers=0)
    assert caught.value.exit_code == 4
    from vocodata.remote import s3 as door

    def refuse(*_, **__):
        raise PermissionError(13, "Access Denied")

    monkeypatch.setattr(door, "read", refuse)
    with pytest.raises(RemoteError, match="does not allow to read it") as caught:
        open_store(url)
    assert caught.value.exit_code == 4
    assert os.environ["AWS_SECRET_ACCESS_KEY"] not in caught.value.detail
