"""The build's memory: which scans are settled, by which recipe, and with what result.

An SQLite file beside the store, written by the one process that runs the build. Every settled
scan is one transaction, so a kill loses at most the scans that were being worked on. Paths of
sources are here and nowhere else, since the store must not tell where scans came from.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import sqlite3
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, Self

from vocodata.errors import DiskFullError, LedgerError
from vocodata.remote.path import RemotePath
from vocodata.store.catalog import CatalogRow, ExcludedRow, shard_records

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from types import TracebackType

    from vocodata.discover import Scan

LEDGER_VERSION = "1"
STORED, EXCLUDED = "stored", "excluded"

# A quota, other than a full disk, is a failed write to SQLite.
_FULL = {"SQLITE_FULL", "SQLITE_IOERR_WRITE", "SQLITE_IOERR_SHMSIZE"}

# All or nothing: a build that is killed here leaves an empty file, which is a ledger to come.
_TABLES = f"""
BEGIN;
CREATE TABLE IF NOT EXISTS meta (key TEXT PRIMARY KEY, value TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS scans (
    id TEXT PRIMARY KEY, recipe TEXT NOT NULL, state TEXT NOT NULL,
    source TEXT NOT NULL, name TEXT NOT NULL, image TEXT NOT NULL, labels TEXT,
    shards TEXT, row TEXT, reason TEXT, detail TEXT, seconds REAL NOT NULL
);
INSERT OR IGNORE INTO meta VALUES ('version', '{LEDGER_VERSION}');
COMMIT;
"""  # noqa: S608 (a constant of ours)


class Entry(NamedTuple):
    """What is known of a settled scan, without its row.

    Attributes:
        recipe: Digest of all that the result depends on.
        state: `stored` or `excluded`.
        reason: Why it is excluded, or None.
        shards: Place in the scan's folder -> bytes.
    """

    recipe: str
    state: str
    reason: str | None
    shards: dict[str, int]


def default_ledger(store: Path) -> Path:
    """Where a store's ledger is unless told otherwise: `ct.zarr` -> `ct.zarr.ledger.sqlite`.

    Of a store on a server it is on this machine: in voco/ of XDG_STATE_HOME or ~/.local/state.
    """
    if isinstance(store, RemotePath):
        state = Path(os.environ.get("XDG_STATE_HOME") or Path.home() / ".local/state")
        short = hashlib.sha256(str(store).encode()).hexdigest()[:8]
        return state / "voco" / f"{store.host}-{store.name}-{short}.ledger.sqlite"
    return store.with_name(f"{store.name}.ledger.sqlite")


class Ledger:
    """An open ledger; use as a context manager."""

    def __init__(self, path: Path, *, read_only: bool = False) -> None:
        """Open it, and make it if it is not there.

        Args:
            path: The SQLite file.
            read_only: Look only; a file that is not there is then an error.

        Raises:
            LedgerError: Not a ledger, of another version, or in a place SQLite cannot use.
            DiskFullError: No room.
        """
        self.path = path
        try:
            # One connection, one thread at a time; the build's own loop is the only user.
            if read_only:
                uri = f"{path.absolute().as_uri()}?{_reading(path)}"
                self._db = sqlite3.connect(uri, uri=True, isolation_level=None)
            else:
                self._db = sqlite3.connect(path, isolation_level=None)
        except sqlite3.Error as error:
            raise self._fault(error) from error
        try:
            with self._guarded():
                self._prepare(read_only=read_only)
        except (LedgerError, DiskFullError):
            self._db.close()
            raise

    def _prepare(self, *, read_only: bool) -> None:
        is_empty = not self._db.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]
        if is_empty or not read_only:
            self._db.execute("PRAGMA journal_mode = WAL")
            self._db.execute("PRAGMA synchronous = NORMAL")
            self._db.executescript(_TABLES)
        if read_only:
            self._db.execute("PRAGMA query_only = ON")
        version = self.note("version")
        if version != LEDGER_VERSION:
            msg = (
                f"Ledger {self.path} is of version {version}, expected {LEDGER_VERSION}. "
                "Build with --overwrite, or give another --ledger."
            )
            raise LedgerError(msg)

    def __enter__(self) -> Self:
        """The ledger itself."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Close it."""
        self.close()

    def close(self) -> None:
        """Close the file; what was recorded stays."""
        self._db.close()

    def entries(self) -> dict[str, Entry]:
        """All settled scans by id."""
        query = "SELECT id, recipe, state, reason, shards FROM scans ORDER BY id"
        with self._guarded():
            return {
                scan: Entry(recipe, state, reason, json.loads(shards or "{}"))
                for scan, recipe, state, reason, shards in self._db.execute(query)
            }

    def stored_rows(self) -> Iterator[CatalogRow]:
        """Catalogue rows of all stored scans, ordered by id."""
        query = "SELECT row FROM scans WHERE state = ? ORDER BY id"
        with self._guarded():
            for (text,) in self._db.execute(query, (STORED,)):
                yield CatalogRow.from_record(json.loads(text))

    def excluded_rows(self) -> list[ExcludedRow]:
        """All excluded scans, ordered by id."""
        query = "SELECT source, name, reason, detail FROM scans WHERE state = ? ORDER BY id"
        with self._guarded():
            return [ExcludedRow(*values) for values in self._db.execute(query, (EXCLUDED,))]

    def places(self, source: str) -> list[tuple[str, str, str]]:
        """Id, name and image of every settled scan of a source, ordered by id."""
        query = "SELECT id, name, image FROM scans WHERE source = ? ORDER BY id"
        with self._guarded():
            return self._db.execute(query, (source,)).fetchall()

    def counts(self) -> dict[str, int]:
        """Scans stored and excluded so far."""
        query = "SELECT state, count(*) FROM scans GROUP BY state"
        with self._guarded():
            return {STORED: 0, EXCLUDED: 0, **dict(self._db.execute(query))}

    def spent(self) -> tuple[int, float]:
        """Bytes of all stored shards, and seconds of all settled scans."""
        with self._guarded():
            (seconds,) = self._db.execute("SELECT total(seconds) FROM scans").fetchone()
            shards = self._db.execute("SELECT shards FROM scans WHERE state = ?", (STORED,))
            return sum(sum(json.loads(text).values()) for (text,) in shards), float(seconds)

    def record_stored(self, scan: Scan, recipe: str, row: CatalogRow, *, seconds: float) -> None:
        """Note that a scan's files are in the store."""
        shards = {record.place: record.bytes for record in shard_records(row)}
        result = (json.dumps(shards), json.dumps(row.to_record()), None, None)
        self._record(scan, recipe, STORED, result, seconds)

    def record_excluded(
        self, scan: Scan, recipe: str, reason: str, detail: str, *, seconds: float
    ) -> None:
        """Note that a scan cannot be stored, and why."""
        self._record(scan, recipe, EXCLUDED, (None, None, reason, detail), seconds)

    def _record(
        self,
        scan: Scan,
        recipe: str,
        state: str,
        result: tuple[str | None, ...],
        seconds: float,
    ) -> None:
        labels = None if scan.labels is None else _text(scan.labels)
        values = (scan.id, recipe, state, scan.source, scan.name, _text(scan.image), labels)
        with self._guarded():
            self._db.execute(
                "INSERT OR REPLACE INTO scans VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
                (*values, *result, seconds),
            )

    def forget(self, ids: Iterable[str]) -> None:
        """Take scans out: they are about to be built again, or are no longer wanted."""
        with self._guarded():
            self._db.execute("BEGIN")
            self._db.executemany("DELETE FROM scans WHERE id = ?", ((scan,) for scan in ids))
            self._db.execute("COMMIT")

    def clear(self) -> None:
        """Forget everything, for a build that starts afresh."""
        with self._guarded():
            self._db.executescript(
                "BEGIN; DELETE FROM scans; DELETE FROM meta WHERE key != 'version'; COMMIT;"
            )

    def note(self, key: str, value: str | None = None) -> str | None:
        """A remembered word; with `value`, remember it."""
        with self._guarded():
            if value is not None:
                self._db.execute("INSERT OR REPLACE INTO meta VALUES (?, ?)", (key, value))
            found = self._db.execute("SELECT value FROM meta WHERE key = ?", (key,)).fetchone()
        return None if found is None else str(found[0])

    @contextlib.contextmanager
    def _guarded(self) -> Iterator[None]:
        """SQLite's errors in our words."""
        try:
            yield
        except sqlite3.Error as error:
            raise self._fault(error) from error

    def _fault(self, error: sqlite3.Error) -> LedgerError | DiskFullError:
        name = getattr(error, "sqlite_errorname", "")
        if name in _FULL or (name.startswith("SQLITE_CANTOPEN") and _is_without_inodes(self.path)):
            msg = (
                f"No room for the ledger {self.path}: {os.strerror(errno.ENOSPC)}. Free space or "
                "give another --ledger, then build again with --resume."
            )
            return DiskFullError(msg)
        msg = (
            f"Ledger {self.path} cannot be used ({error}); expected an SQLite file on a local "
            "disk. Give another --ledger, or remove it and build again with --resume: scans are "
            "then processed anew."
        )
        return LedgerError(msg)


def _is_without_inodes(path: Path) -> bool:
    """Whether no more files can be made there; SQLite says only that it could not open one."""
    try:
        system = os.statvfs(path.parent)
    except OSError:
        return False
    # Some file systems count none at all.
    return system.f_files > 0 and system.f_favail == 0


def _reading(path: Path) -> str:
    """How a ledger is opened to be read: a closed one may lie where nothing can be written."""
    if os.access(path, os.W_OK) and os.access(path.parent, os.W_OK):
        # Not mode=ro: such a connection leaves its -wal and -shm files behind.
        return "mode=rw"
    is_closed = not path.with_name(f"{path.name}-wal").exists()
    return "immutable=1" if is_closed else "mode=ro"


def _text(path: Path) -> str:
    """A path as SQLite takes it; bytes of a name that are no text are spelled out."""
    return str(path).encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
