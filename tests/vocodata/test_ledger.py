"""The ledger keeps what was settled, whatever happens to its process."""

import os
import resource
import sqlite3
from pathlib import Path
from types import SimpleNamespace

import pytest

from vocodata.discover import Scan
from vocodata.errors import DiskFullError, LedgerError
from vocodata.ledger import Ledger, default_ledger
from vocodata.store.catalog import ExcludedRow, catalog_rows
from vocodata.store.metadata import IMAGE_SHARD, LABEL_SHARD
from vocodata.store.store import open_store


def _scan(name):
    return Scan(f"btcv/{name}", "btcv", name, Path("/data") / name, None, None, "abdomen")


def test_rows_come_back_as_they_were(built, tmp_path):
    rows = catalog_rows(open_store(built).catalog())
    with Ledger(tmp_path / "l.sqlite") as book:
        for row in reversed(rows):
            scan = Scan(row.id, row.source, row.name, Path("/data"), None, None, "abdomen")
            book.record_stored(scan, f"recipe of {row.id}", row, seconds=0.5)
        book.record_excluded(_scan("bad"), "r", "truncated_gzip", "ends early", seconds=0.1)
    with Ledger(tmp_path / "l.sqlite", read_only=True) as book:
        assert list(book.stored_rows()) == rows
        assert book.excluded_rows() == [ExcludedRow("btcv", "bad", "truncated_gzip", "ends early")]
        assert book.counts() == {"stored": 6, "excluded": 1}
        entry = book.entries()["btcv/case0"]
        assert entry.recipe == "recipe of btcv/case0"
        assert set(entry.shards) == {IMAGE_SHARD, LABEL_SHARD}
        assert book.entries()["btcv/bad"].reason == "truncated_gzip"
    assert [path.name for path in tmp_path.glob("l.sqlite*")] == ["l.sqlite"]


def test_a_scan_settled_again_replaces_what_was(tmp_path):
    with Ledger(tmp_path / "l.sqlite") as book:
        for reason in ("io_error", "truncated_gzip"):
            book.record_excluded(_scan("a"), reason, reason, "", seconds=0)
        assert [row.reason for row in book.excluded_rows()] == ["truncated_gzip"]
        book.record_excluded(_scan("b"), "r", "io_error", "", seconds=0)
        book.forget(["btcv/a"])
        assert set(book.entries()) == {"btcv/b"}
        book.note("store", "/x")
        book.clear()
        assert book.entries() == {}
        assert book.note("store") is None


def test_what_was_recorded_is_there_without_a_close(tmp_path):
    book = Ledger(tmp_path / "l.sqlite")
    book.record_excluded(_scan("a"), "r", "io_error", "", seconds=0)
    with Ledger(tmp_path / "l.sqlite") as other:
        assert set(other.entries()) == {"btcv/a"}
    book.close()


def test_a_file_that_is_no_ledger_is_refused(tmp_path):
    (tmp_path / "no.sqlite").write_bytes(b"not a database, but long enough to be read as one" * 9)
    with pytest.raises(LedgerError, match=r"no\.sqlite cannot be used .*not a database"):
        Ledger(tmp_path / "no.sqlite")
    with pytest.raises(LedgerError, match="cannot be used"):
        Ledger(tmp_path / "absent.sqlite", read_only=True)
    with Ledger(tmp_path / "old.sqlite") as book:
        book.note("version", "0")
    with pytest.raises(LedgerError, match="is of version 0, expected 1"):
        Ledger(tmp_path / "old.sqlite")


def test_a_full_disk_is_told_as_such(tmp_path):
    with Ledger(tmp_path / "l.sqlite") as book:
        (pages,) = book._db.execute("PRAGMA page_count").fetchone()
        book._db.execute(f"PRAGMA max_page_count = {pages}")
        with pytest.raises(DiskFullError, match="No room for the ledger") as caught:
            book.record_excluded(_scan("a"), "r", "io_error", "x" * 50_000, seconds=0)
    assert caught.value.exit_code == 4


def test_a_quota_is_told_as_a_full_disk(tmp_path):
    # A limit on the size of a file stands for the quota: the kernel refuses the write.
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    with Ledger(tmp_path / "l.sqlite") as book:
        resource.setrlimit(resource.RLIMIT_FSIZE, (60_000, limits[1]))
        try:
            with pytest.raises(DiskFullError, match="No room for the ledger"):
                book.record_excluded(_scan("a"), "r", "io_error", "x" * 90_000, seconds=0)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        book.record_excluded(_scan("a"), "r", "io_error", "x", seconds=0)
        assert book.counts()["excluded"] == 1


@pytest.mark.parametrize("limit_bytes", [4096, 20_000])
def test_a_ledger_that_a_full_disk_cut_at_its_birth_is_told_so_and_made_later(
    tmp_path, limit_bytes
):
    path, limits = tmp_path / "l.sqlite", resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit_bytes, limits[1]))
    try:
        with pytest.raises(DiskFullError, match="No room for the ledger"):
            Ledger(path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert path.exists()
    with Ledger(path, read_only=True) as book:
        assert (book.entries(), book.note("salt")) == ({}, None)


@pytest.mark.parametrize(("free", "error"), [(0, DiskFullError), (9, LedgerError)])
def test_a_disk_without_inodes_is_full(tmp_path, monkeypatch, free, error):
    monkeypatch.setattr(os, "statvfs", lambda _: SimpleNamespace(f_files=9, f_favail=free))
    # SQLite cannot open a folder, and says no more than where no file can be made.
    with pytest.raises(error, match=r"ledger|Ledger"):
        Ledger(tmp_path)


def test_an_empty_file_is_a_ledger_to_come(tmp_path):
    (tmp_path / "l.sqlite").touch()
    with Ledger(tmp_path / "l.sqlite", read_only=True) as book:
        assert book.counts() == {"stored": 0, "excluded": 0}
    with Ledger(tmp_path / "l.sqlite") as book:
        book.record_excluded(_scan("a"), "r", "io_error", "x", seconds=0)
        assert book.counts()["excluded"] == 1


def test_a_ledger_is_read_where_nothing_can_be_written(tmp_path, monkeypatch):
    with Ledger(tmp_path / "l.sqlite") as book:
        book.record_excluded(_scan("a"), "r", "io_error", "x", seconds=0)
    monkeypatch.setattr(os, "access", lambda *_: False)
    touched = []
    monkeypatch.setattr(sqlite3, "connect", _noting(sqlite3.connect, touched))
    with Ledger(tmp_path / "l.sqlite", read_only=True) as book:
        assert book.counts()["excluded"] == 1
        assert [path.name for path in tmp_path.iterdir()] == ["l.sqlite"]
    assert touched[0].endswith("?immutable=1")
    # While a build has it open, what is in its -wal counts.
    with Ledger(tmp_path / "l.sqlite") as book:
        book.record_excluded(_scan("b"), "r", "io_error", "x", seconds=0)
        with Ledger(tmp_path / "l.sqlite", read_only=True) as reader:
            assert reader.counts()["excluded"] == 2
    assert touched[-1].endswith("?mode=ro")


def _noting(connect, touched):
    def noting(place, **options):
        touched.append(str(place))
        return connect(place, **options)

    return noting


def test_the_ledger_lies_beside_its_store():
    assert default_ledger(Path("/data/ct.zarr")) == Path("/data/ct.zarr.ledger.sqlite")
