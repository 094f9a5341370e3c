"""Whether a store is what its catalogue says, scan by scan.

Always: the files are there and as long as recorded, the metadata is what the row implies, the
index of every shard is sound, nothing lies in the store that the catalogue does not know, and the
counts add up. Deep: also every shard's digest, every chunk's checksum and its decoding.
"""

from __future__ import annotations

import hashlib
import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

from vocodata.errors import StoreError
from vocodata.geometry import Size
from vocodata.remote.objects import AT_ONCE
from vocodata.remote.path import RemotePath
from vocodata.store.atomic import temporary_files
from vocodata.store.catalog import (
    CATALOG_NAME,
    EXCLUDED_NAME,
    CatalogRow,
    ShardRecord,
    catalog_digest,
    catalog_rows,
    shard_records,
)
from vocodata.store.metadata import (
    DOCUMENT,
    document_bytes,
    group_document,
    scan_documents,
)
from vocodata.store.opening import open_shard
from vocodata.store.root import group_folders, root_bytes, store_path, stored_folders
from vocodata.store.store import Store, open_store
from vocodata.store.writer import scan_folder

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from vocodata.store.reader import ShardReader

SLAB_VOX = 64
"""Deep reading goes slab by slab, so that memory stays small for any volume."""


class Problem(NamedTuple):
    """One thing that is wrong.

    Attributes:
        scan: Its id, or "" for the store as a whole.
        kind: Short fixed word.
        detail: The sentence for people.
    """

    scan: str
    kind: str
    detail: str


@dataclass(frozen=True)
class VerifyReport:
    """What a check found."""

    problems: list[Problem] = field(default_factory=list)
    scans_checked: int = 0
    bytes_read: int = 0

    @property
    def ok(self) -> bool:
        """Whether nothing is wrong."""
        return not self.problems


def verify(
    store: Store | str | Path,
    deep: bool = True,  # noqa: FBT001, FBT002 (the public signature of DESIGN section 4)
    *,
    workers: int | None = None,
    on_scan: Callable[[int, int], None] | None = None,
) -> VerifyReport:
    """Check a store.

    Args:
        store: An open store or its folder.
        deep: Also read every byte of every shard.
        workers: Threads; if None the cores at hand, for a store in a bucket more.
        on_scan: Called with (scans checked, scans) after each.

    Returns:
        All problems, ordered by scan; a damaged scan does not hide another.

    Raises:
        StoreError: The folder is no store.
    """
    try:
        opened = store if isinstance(store, Store) else open_store(store)
        rows = catalog_rows(opened.catalog())
    except StoreError as error:
        root = store.root if isinstance(store, Store) else store_path(store)
        if not any((root / name).exists() for name in (CATALOG_NAME, EXCLUDED_NAME)):
            raise
        return VerifyReport([Problem("", "unreadable_store", error.detail)])
    problems = _store_problems(opened, rows)
    at_hand = AT_ONCE if isinstance(opened.root, RemotePath) else len(os.sched_getaffinity(0))
    threads = workers or at_hand
    with ThreadPoolExecutor(threads) as pool:
        checks = pool.map(lambda row: _scan_problems(opened.root, row, deep=deep), rows)
        for done, found in enumerate(checks, 1):
            problems += found
            if on_scan is not None:
                on_scan(done, len(rows))
    read = sum(row.bytes for row in rows) if deep else 0
    return VerifyReport(sorted(problems), len(rows), read)


def _store_problems(store: Store, rows: list[CatalogRow]) -> list[Problem]:
    problems = list(_stray_problems(store.root, {row.id for row in rows}))
    problems += _root_problems(store, rows)
    attributes = store.attributes
    counts = attributes["counts"]
    try:
        excluded = store.excluded().num_rows
    except StoreError as error:
        problems.append(Problem("", "unreadable_store", error.detail))
        excluded = counts["excluded"]
    actual = {"stored": len(rows), "excluded": excluded}
    claimed = {name: counts[name] for name in actual}
    if claimed != actual:
        detail = f"zarr.json counts {claimed}, the tables hold {actual}."
        problems.append(Problem("", "accounting", detail))
    if counts["found"] != len(rows) + excluded:
        detail = (
            f"{counts['found']} scans were found, {len(rows)} are in the catalogue and {excluded} "
            "excluded: the build has not finished. Build again with --resume."
        )
        problems.append(Problem("", "incomplete", detail))
    digest = catalog_digest(rows)
    if attributes["digest"] != digest:
        detail = f"The catalogue's digest is {digest}; zarr.json says {attributes['digest']}."
        problems.append(Problem("", "catalog_digest", detail))
    if len({row.id for row in rows}) != len(rows):
        problems.append(Problem("", "duplicate_id", "The catalogue has a scan twice."))
    return problems


def _root_problems(store: Store, rows: list[CatalogRow]) -> Iterator[Problem]:
    """Of the files that belong to no scan."""
    root, attributes = store.root, dict(store.attributes)
    attributes.pop("check", None)
    if (root / DOCUMENT).read_bytes() != root_bytes(attributes):
        detail = f"{root / DOCUMENT} is not as its build wrote it. A build with --resume mends it."
        yield Problem("", "metadata_mismatch", detail)
    for name in (CATALOG_NAME, EXCLUDED_NAME):
        is_there = (root / name).is_file()
        if is_there and _file_digest(root / name) != attributes.get("files", {}).get(name):
            detail = f"{root / name} is not as its build wrote it. A build with --resume mends it."
            yield Problem("", "digest_mismatch", detail)
    for folder in group_folders(root, sorted({row.source for row in rows})):
        path = folder / DOCUMENT
        if not path.is_file():
            yield Problem("", "missing_metadata", f"{path} is missing.")
        elif path.read_bytes() != document_bytes(group_document()):
            yield Problem("", "metadata_mismatch", f"{path} is not that of a group of scans.")


def _stray_problems(root: Path, known: set[str]) -> Iterator[Problem]:
    for scan_id in stored_folders(root):
        if scan_id not in known:
            detail = f"{scan_folder(root, scan_id)} is not in the catalogue."
            yield Problem(scan_id, "extra_scan", detail)
    for path in temporary_files(root):
        yield Problem("", "stray_file", f"{path} was left by a build that was killed.")


def _scan_problems(root: Path, row: CatalogRow, *, deep: bool) -> list[Problem]:
    problems = list(_document_problems(root, row))
    for record in shard_records(row):
        problem = _shard_problem(root, row, record, deep=deep)
        if problem is not None:
            problems.append(problem)
    return problems


def _document_problems(root: Path, row: CatalogRow) -> Iterator[Problem]:
    folder = scan_folder(root, row.id)
    documents = scan_documents(row)
    for place, document in documents.items():
        path = folder / place
        if not path.is_file():
            yield Problem(row.id, "missing_metadata", f"{path} is missing.")
        elif path.read_bytes() != document_bytes(document):
            yield Problem(
                row.id, "metadata_mismatch", f"{path} is not what the catalogue's row implies."
            )
    expected = {folder / place for place in documents}
    expected |= {folder / record.place for record in shard_records(row)}
    for path in sorted(folder.rglob("*")):
        if path.is_file() and path not in expected and ".tmp-" not in path.name:
            yield Problem(row.id, "stray_file", f"{path} does not belong to the scan.")


def _shard_problem(
    root: Path, row: CatalogRow, record: ShardRecord, *, deep: bool
) -> Problem | None:
    path = scan_folder(root, row.id) / record.place
    if not path.is_file():
        return Problem(row.id, "missing_shard", f"{path} is missing.")
    size = path.stat().st_size
    if size != record.bytes:
        kind = "truncated_shard" if size < record.bytes else "size_mismatch"
        return Problem(row.id, kind, f"{path} has {size} bytes, the catalogue says {record.bytes}.")
    try:
        shard = open_shard(root, row, record.place)
    except StoreError as error:
        return Problem(row.id, "corrupt_index", error.detail)
    if not deep:
        return None
    try:
        _decode_all(shard)
    except StoreError as error:
        return Problem(row.id, "corrupt_chunk", error.detail)
    digest = _file_digest(path)
    if digest != record.digest:
        detail = f"{path} has digest {digest}, the catalogue says {record.digest}."
        return Problem(row.id, "digest_mismatch", detail)
    return None


def _decode_all(shard: ShardReader) -> None:
    """Read the whole array, checksums on, without holding it."""
    x, y, z = shard.shape_XYZ
    for first in range(0, z, SLAB_VOX):
        depth = min(SLAB_VOX, z - first)
        shard.read(Size(0, 0, first), Size(x, y, depth), check_crc=True)


def _file_digest(path: Path) -> str:
    if isinstance(path, RemotePath):
        return hashlib.sha256(path.read_bytes()).hexdigest()
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def problem_records(report: VerifyReport) -> list[dict[str, Any]]:
    """The problems as plain values, for JSON."""
    return [problem._asdict() for problem in report.problems]
