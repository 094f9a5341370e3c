"""Whether a store is what its catalogue says, scan by scan.

Always: the files are there and as long as recorded, the metadata is what the row implies, the
index of every shard is sound, nothing lies in the store that the catalogue does not know, and the
counts add up. Deep: also every shard's digest, every chunk's checksum and its decoding.
"""

from __future__ import annotations

import errno
import hashlib
import os
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

from vocodata.errors import StoreError
from vocodata.geometry import Size
from vocodata.hu_statistics import value_counts
from vocodata.remote.objects import AT_ONCE
from vocodata.remote.path import RemotePath
from vocodata.store.atomic import temporary_files
from vocodata.store.catalog import (
    CATALOG_NAME,
    EXCLUDED_NAME,
    CatalogRow,
    ShardRecord,
    open_catalog,
    shard_records,
)
from vocodata.store.metadata import (
    DOCUMENT,
    IMAGE_SHARD,
    document_bytes,
    group_document,
    scan_documents,
)
from vocodata.store.opening import open_shard
from vocodata.store.problems import WRONG_ROW, Problem, VerifyReport
from vocodata.store.root import group_folders, root_bytes, store_path, stored_folders
from vocodata.store.row_check import (
    ReadRows,
    differing_words,
    read_rows,
    row_faults,
    statistics_faults,
    weight_problems,
)
from vocodata.store.store import Store, open_store
from vocodata.store.writer import scan_folder

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    import numpy as np
    from numpy.typing import NDArray

    from vocodata.store.reader import ShardReader

SLAB_VOX = 64
"""Deep reading goes slab by slab, so that memory stays small for any volume."""


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
        read = read_rows(open_catalog(opened.root))
    except StoreError as error:
        root = store.root if isinstance(store, Store) else store_path(store)
        if not any((root / name).exists() for name in (CATALOG_NAME, EXCLUDED_NAME)):
            raise
        return VerifyReport([Problem("", "unreadable_store", error.detail)])
    rows = read.rows
    problems = read.problems + weight_problems(rows) + _store_problems(opened, read)
    at_hand = AT_ONCE if isinstance(opened.root, RemotePath) else len(os.sched_getaffinity(0))
    threads = workers or at_hand
    with ThreadPoolExecutor(threads) as pool:
        checks = pool.map(lambda row: _scan_problems(opened.root, row, deep=deep), rows)
        for done, found in enumerate(checks, 1):
            problems += found
            if on_scan is not None:
                on_scan(done, len(rows))
    bytes_read = sum(row.bytes for row in rows) if deep else 0
    return VerifyReport(sorted(problems), len(read.ids), bytes_read)


def _store_problems(store: Store, read: ReadRows) -> list[Problem]:
    stored = len(read.ids)
    problems = list(_stray_problems(store.root, set(read.ids)))
    problems += _root_problems(store, read.ids)
    attributes = store.attributes
    counts = attributes["counts"]
    try:
        excluded = store.excluded().num_rows
    except StoreError as error:
        problems.append(Problem("", "unreadable_store", error.detail))
        excluded = counts["excluded"]
    actual = {"stored": stored, "excluded": excluded}
    claimed = {name: counts[name] for name in actual}
    if claimed != actual:
        detail = f"zarr.json counts {claimed}, the tables hold {actual}."
        problems.append(Problem("", "accounting", detail))
    if counts["found"] != stored + excluded:
        detail = (
            f"{counts['found']} scans were found, {stored} are in the catalogue and {excluded} "
            "excluded: the build has not finished. Build again with --resume."
        )
        problems.append(Problem("", "incomplete", detail))
    if attributes["digest"] != read.digest:
        detail = f"The catalogue's digest is {read.digest}; zarr.json says {attributes['digest']}."
        problems.append(Problem("", "catalog_digest", detail))
    if len(set(read.ids)) != stored:
        problems.append(Problem("", "duplicate_id", "The catalogue has a scan twice."))
    return problems


def _root_problems(store: Store, ids: list[str]) -> Iterator[Problem]:
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
    for folder in group_folders(root, sorted({scan.split("/")[0] for scan in ids})):
        path = folder / DOCUMENT
        if not _is_file(path):
            yield Problem("", "missing_metadata", f"{path} is missing.")
        elif path.read_bytes() != document_bytes(group_document()):
            yield Problem("", "metadata_mismatch", f"{path} is not that of a group of scans.")


def _files_below(folder: Path) -> list[Path]:
    """What lies in a folder; nothing where its name is too long for any, as a wrong row has it."""
    try:
        return sorted(folder.rglob("*"))
    except OSError as error:
        if error.errno != errno.ENAMETOOLONG:
            raise
        return []


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except OSError as error:
        if error.errno != errno.ENAMETOOLONG:
            raise
        return False


def _stray_problems(root: Path, known: set[str]) -> Iterator[Problem]:
    for scan_id in stored_folders(root):
        if scan_id not in known:
            detail = f"{scan_folder(root, scan_id)} is not in the catalogue."
            yield Problem(scan_id, "extra_scan", detail)
    for path in temporary_files(root):
        yield Problem("", "stray_file", f"{path} was left by a build that was killed.")


def _scan_problems(root: Path, row: CatalogRow, *, deep: bool) -> list[Problem]:
    """All that is wrong with a scan; a row that implies no files is a finding too."""
    problems = [Problem(row.id, WRONG_ROW, fault) for fault in row_faults(row)]
    try:
        problems += _document_problems(root, row)
        for record in shard_records(row):
            problems += _shard_problems(root, row, record, deep=deep)
    except (ArithmeticError, AssertionError, LookupError, TypeError, ValueError) as error:
        if not problems:
            detail = f"The catalogue's row fits no scan ({type(error).__name__}: {error})."
            problems.append(Problem(row.id, WRONG_ROW, detail))
    return problems


def _document_problems(root: Path, row: CatalogRow) -> Iterator[Problem]:
    folder = scan_folder(root, row.id)
    documents = scan_documents(row)
    older = scan_documents(row, with_measures=False)
    for place, document in documents.items():
        path = folder / place
        if not _is_file(path):
            yield Problem(row.id, "missing_metadata", f"{path} is missing.")
            continue
        found = path.read_bytes()
        if found not in {document_bytes(document), document_bytes(older[place])}:
            words = differing_words(found, document)
            detail = f"{path} is not what the catalogue's row implies{words}."
            yield Problem(row.id, "metadata_mismatch", detail)
    expected = {folder / place for place in documents}
    expected |= {folder / record.place for record in shard_records(row)}
    for path in _files_below(folder):
        if path.is_file() and path not in expected and ".tmp-" not in path.name:
            yield Problem(row.id, "stray_file", f"{path} does not belong to the scan.")


def _shard_problems(
    root: Path, row: CatalogRow, record: ShardRecord, *, deep: bool
) -> Iterator[Problem]:
    path = scan_folder(root, row.id) / record.place
    if not _is_file(path):
        yield Problem(row.id, "missing_shard", f"{path} is missing.")
        return
    size = path.stat().st_size
    if size != record.bytes:
        kind = "truncated_shard" if size < record.bytes else "size_mismatch"
        detail = f"{path} has {size} bytes, the catalogue says {record.bytes}."
        yield Problem(row.id, kind, detail)
        return
    try:
        shard = open_shard(root, row, record.place)
    except StoreError as error:
        yield Problem(row.id, "corrupt_index", error.detail)
        return
    if deep:
        yield from _content_problems(shard, row, record)


def _content_problems(
    shard: ShardReader, row: CatalogRow, record: ShardRecord
) -> Iterator[Problem]:
    """Of a shard's bytes and, if they are those that were written, of what the row says of them."""
    try:
        counts = _decode_all(shard, count=record.place == IMAGE_SHARD)
    except StoreError as error:
        yield Problem(row.id, "corrupt_chunk", error.detail)
        return
    digest = _file_digest(shard.path)
    if digest != record.digest:
        detail = f"{shard.path} has digest {digest}, the catalogue says {record.digest}."
        yield Problem(row.id, "digest_mismatch", detail)
    elif counts is not None:
        faults = statistics_faults(row, counts)
        yield from (Problem(row.id, WRONG_ROW, fault) for fault in faults)


def _decode_all(shard: ShardReader, *, count: bool) -> NDArray[np.int64] | None:
    """Read the whole array, checksums on, without holding it; count its values if asked."""
    x, y, z = shard.shape_XYZ
    counts = None
    for first in range(0, z, SLAB_VOX):
        depth = min(SLAB_VOX, z - first)
        slab_XYZ = shard.read(Size(0, 0, first), Size(x, y, depth), check_crc=True)
        if count:
            own = value_counts(slab_XYZ)
            counts = own if counts is None else counts + own
    return counts


def _file_digest(path: Path) -> str:
    if isinstance(path, RemotePath):
        return hashlib.sha256(path.read_bytes()).hexdigest()
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
