"""What can be wrong with a row of the catalogue, seen from the row alone or from its voxels too.

A wrong row is a finding that names its scan; it must not end the check of the others. Every row has
a digest of its own since stores have the column; what else it says is compared with itself, with
the documents beside the voxels (vocodata/store/verification.py), and with the voxels.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections import Counter, defaultdict
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from vocodata.errors import StoreError
from vocodata.hu_statistics import ScanStats, statistics_of
from vocodata.store.catalog import ROW_DIGEST, CatalogRow, digest_line
from vocodata.store.problems import WRONG_ROW, Problem
from vocodata.store.shard import CODECS
from vocodata.store.writer import scan_folder

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    import numpy as np
    from numpy.typing import NDArray

    from vocodata.store.columns import Columns
    from vocodata.store.metadata import Document

_LENGTHS = {
    **dict.fromkeys(("shape_xyz", "spacing_mm", "source_shape_xyz", "source_spacing_mm"), 3),
    **dict.fromkeys(("affine", "field_affine"), 16),
    "window_hu": 2,
    "field_shape_xyz": 3,
}
_SIZES = ("shape_xyz", "source_shape_xyz", "field_shape_xyz")
_TOGETHER = (
    ("label_dtype", "label_digest", "label_bytes"),
    ("field_shape_xyz", "field_affine", "field_digest", "field_bytes"),
)
_LABEL_DTYPES = {None, "uint8", "uint16"}


class ReadRows(NamedTuple):
    """A catalogue as far as it can be read.

    Attributes:
        ids: Of all rows, in order.
        rows: Those that are rows at all.
        digest: Of the catalogue; another one than any build's if a row cannot be read.
        problems: Rows that cannot be read, or are not as they were written.
    """

    ids: list[str]
    rows: list[CatalogRow]
    digest: str
    problems: list[Problem]


def read_rows(columns: Columns) -> ReadRows:
    """All rows of a catalogue; a wrong one is a problem, never an error.

    Raises:
        StoreError: The file cannot be read.
    """
    records = columns.table().to_pylist()
    is_digested = ROW_DIGEST in columns
    digests = columns.unchecked([ROW_DIGEST]).column(0).to_pylist() if is_digested else []
    rows, problems, whole = [], [], hashlib.sha256()
    for at, record in enumerate(records):
        scan = str(record["id"] or "")
        try:
            row = _row(record)
            rows.append(row)
            line = digest_line(row)
        except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
            detail = f"The catalogue's row cannot be read ({type(error).__name__}: {error})."
            problems.append(Problem(scan, WRONG_ROW, detail))
            whole.update(b"unreadable")
            continue
        whole.update(line)
        if is_digested and hashlib.sha256(line).hexdigest() != digests[at]:
            detail = (
                "The catalogue's row is not as its build wrote it. A build with --resume mends it."
            )
            problems.append(Problem(scan, WRONG_ROW, detail))
    ids = [str(record["id"] or "") for record in records]
    return ReadRows(ids, rows, whole.hexdigest(), problems)


def _row(record: Mapping[str, Any]) -> CatalogRow:
    for column in fields(CatalogRow):
        value = record[column.name]
        is_gone = value is None and "None" not in str(column.type)
        if is_gone or (isinstance(value, list) and None in value):
            msg = f"{column.name} is {value}"
            raise ValueError(msg)
    return CatalogRow.from_record(record)


def row_faults(row: CatalogRow) -> Iterator[str]:
    """Sentences on where a row contradicts itself, or says what no scan can be."""
    yield from _name_faults(row)
    yield from _shape_faults(row)
    total = row.image_bytes + row.label_bytes + row.field_bytes
    if row.bytes != total:
        yield f"bytes is {row.bytes}; its shards have {total}."
    if row.codec not in CODECS:
        yield f"codec is '{row.codec}'; expected one of {', '.join(CODECS)}."
    if row.label_dtype not in _LABEL_DTYPES:
        yield f"label_dtype is '{row.label_dtype}'; expected uint8, uint16 or none."
    for names in _TOGETHER:
        if len({bool(getattr(row, name)) for name in names}) > 1:
            yield f"{', '.join(names)} are partly there; expected all or none."


def _name_faults(row: CatalogRow) -> Iterator[str]:
    try:
        scan_folder(Path(), row.id)
    except StoreError as error:
        yield error.detail
    if row.id != f"{row.source}/{row.name}":
        yield f"The row's source is '{row.source}' and its name '{row.name}'; expected its id's."


def _shape_faults(row: CatalogRow) -> Iterator[str]:
    for name, length in _LENGTHS.items():
        value = getattr(row, name)
        if value is not None and len(value) != length:
            yield f"{name} has {len(value)} numbers; expected {length}."
    for name in _SIZES:
        size = getattr(row, name)
        if size is not None and min(size, default=0) < 1:
            yield f"{name} is {size}; expected at least 1 each."
    voxels = math.prod(row.shape_xyz)
    if row.voxels != voxels:
        yield f"voxels is {row.voxels}; a shape of {row.shape_xyz} has {voxels}."


def statistics_faults(row: CatalogRow, counts: NDArray[np.int64]) -> Iterator[str]:
    """Sentences on where the voxels are others than the row says.

    Args:
        row: The row.
        counts: Of the image's values, as `hu_statistics.value_counts` gives.
    """
    found = statistics_of(counts)
    for column in fields(ScanStats):
        claimed, actual = getattr(row, column.name), getattr(found, column.name)
        # Sums may be added up in another order on another machine.
        if not math.isclose(claimed, actual, rel_tol=1e-9, abs_tol=1e-9):
            yield f"{column.name} is {claimed}; the voxels have {actual}."


def weight_problems(rows: Sequence[CatalogRow]) -> list[Problem]:
    """Scans whose weight is not that of most of their source: a manifest gives a source one."""
    by_source: dict[str, list[CatalogRow]] = defaultdict(list)
    for row in rows:
        by_source[row.source].append(row)
    problems = []
    for own in by_source.values():
        usual, count = Counter(row.weight for row in own).most_common(1)[0]
        problems += [
            Problem(row.id, WRONG_ROW, f"weight is {row.weight}; its source has {usual}.")
            for row in own
            if row.weight != usual and 2 * count > len(own)
        ]
    return problems


def differing_words(found: bytes, document: Document) -> str:
    """Which of a scan's own words differ, as the end of a sentence; "" if that cannot be told."""
    try:
        on_disk, implied = (_own(each) for each in (json.loads(found), document))
    except (KeyError, TypeError, ValueError):
        return ""
    differing = [name for name in implied.keys() & on_disk if implied[name] != on_disk[name]]
    return f": {', '.join(sorted(differing))} differ" if differing else ""


def _own(document: Document) -> Document:
    own: Document = document["attributes"]["voco"]
    flat = own | own.get("catalog", {})
    return {name: flat[name] for name in flat if name != "catalog"}
