"""The table of scans: one typed row each, and the Parquet files that hold them.

`catalog.parquet` has a row for every scan in the store, `excluded.parquet` one for every scan
that was found and is not. Rows are ordered by id and hold no time, path or machine, so the same
scans give the same bytes.
"""

from __future__ import annotations

import hashlib
import itertools
import json
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from vocodata.store.atomic import write_atomic
from vocodata.store.columns import Columns
from vocodata.store.metadata import FIELD_SHARD, IMAGE_SHARD, LABEL_SHARD

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from pathlib import Path

CATALOG_NAME = "catalog.parquet"
EXCLUDED_NAME = "excluded.parquet"

BATCH_ROWS = 8192
"""Rows turned into Parquet at a time, so that 160,000 scans need no gigabyte of objects."""

UNSAID: dict[str, int] = {"step_hu": 1}
"""Columns that catalogues were written without, and what that says."""

Triple = tuple[int, int, int]
TripleMm = tuple[float, float, float]


@dataclass(frozen=True)
class CatalogRow:
    """What the catalogue says of one scan.

    Attributes:
        id: `source/name`.
        source: Name of the manifest's source.
        name: The scan's own name.
        preset: Row of presets.yaml it was built with.
        window_hu: Window that training uses, HU; the store itself keeps every HU.
        weight: Sampling weight in training.
        licence: As the manifest has it, or None.
        label_names: Label value -> structure.
        shape_xyz: Voxels.
        spacing_mm: Distance between voxel centres.
        affine: Voxel index -> RAS mm, 16 numbers row by row.
        voxels: Product of the shape.
        hu_min: Smallest HU; `hu_max` to `hu_p99` likewise.
        hu_max: Largest HU.
        hu_mean: Mean HU.
        hu_std: Standard deviation, HU.
        hu_p1: First percentile, HU.
        hu_p50: Median, HU.
        hu_p99: 99th percentile, HU.
        body_fraction: Share of voxels that are neither air nor lung.
        flags: Short words on what a reader should know.
        fingerprint: Stays alike for near-duplicates.
        source_shape_xyz: Voxels of the file, RAS order.
        source_spacing_mm: Spacing of the file, RAS order.
        source_digest: SHA-256 of the file's voxels.
        quality: JSON object of what vocodata/quality.py measured of the file.
        codec: Key of `shard.CODECS`.
        bytes: Of all shards of the scan.
        image_bytes: Of the image's shard.
        digest: SHA-256 of the image's shard.
        label_dtype: `uint8`, `uint16`, or None without labels.
        label_bytes: Of the labels' shard; 0 without.
        label_digest: SHA-256 of the labels' shard, or None.
        field_shape_xyz: Voxels of the squeezed field, or None without.
        field_affine: As `affine`, of the field.
        field_bytes: Of the field's shard; 0 without.
        field_digest: SHA-256 of the field's shard, or None.
        step_hu: HU of image and field are multiples of this; 1 if none is lost.
    """

    id: str
    source: str
    name: str
    preset: str
    window_hu: tuple[float, float]
    weight: float
    licence: str | None
    label_names: Mapping[int, str]
    shape_xyz: Triple
    spacing_mm: TripleMm
    affine: tuple[float, ...]
    voxels: int
    hu_min: int
    hu_max: int
    hu_mean: float
    hu_std: float
    hu_p1: float
    hu_p50: float
    hu_p99: float
    body_fraction: float
    flags: tuple[str, ...]
    fingerprint: str
    source_shape_xyz: Triple
    source_spacing_mm: TripleMm
    source_digest: str
    codec: str
    bytes: int
    image_bytes: int
    digest: str
    label_dtype: str | None = None
    label_bytes: int = 0
    label_digest: str | None = None
    field_shape_xyz: Triple | None = None
    field_affine: tuple[float, ...] | None = None
    field_bytes: int = 0
    field_digest: str | None = None
    quality: str = "{}"
    step_hu: int = 1

    def to_record(self) -> dict[str, Any]:
        """Plain values, as Parquet and JSON take them."""
        record = {field.name: getattr(self, field.name) for field in fields(self)}
        names = {str(value): self.label_names[value] for value in sorted(self.label_names)}
        record["label_names"] = json.dumps(names, ensure_ascii=False)
        return record

    @classmethod
    def from_record(cls, record: Mapping[str, Any]) -> CatalogRow:
        """The row whose `to_record` gave these values; lists may stand for tuples."""
        known = {**UNSAID, **record}
        values: dict[str, Any] = {
            field.name: tuple(value) if isinstance(value, list) else value
            for field in fields(cls)
            for value in (known[field.name],)
        }
        names = json.loads(record["label_names"])
        values["label_names"] = {int(value): name for value, name in names.items()}
        return cls(**values)


class CatalogTotals(NamedTuple):
    """What was written: rows, the digest of their content, and that of the file."""

    rows: int
    digest: str
    file_digest: str


class ExcludedRow(NamedTuple):
    """A scan that was found and is not in the store."""

    source: str
    scan: str
    reason: str
    detail: str


class ShardRecord(NamedTuple):
    """What the catalogue says of one shard."""

    place: str
    bytes: int
    digest: str


def shard_records(row: CatalogRow) -> list[ShardRecord]:
    """The shards a scan has."""
    claims = [
        (IMAGE_SHARD, row.image_bytes, row.digest),
        (FIELD_SHARD, row.field_bytes, row.field_digest),
        (LABEL_SHARD, row.label_bytes, row.label_digest),
    ]
    return [ShardRecord(place, size, digest) for place, size, digest in claims if digest]


_TEXT, _WHOLE, _REAL = pa.string(), pa.int64(), pa.float64()
_KINDS: dict[str, pa.DataType] = {
    "str": _TEXT,
    "str | None": _TEXT,
    "int": _WHOLE,
    "float": _REAL,
    "Mapping[int, str]": _TEXT,
    "Triple": pa.list_(_WHOLE),
    "Triple | None": pa.list_(_WHOLE),
    "TripleMm": pa.list_(_REAL),
    "tuple[float, float]": pa.list_(_REAL),
    "tuple[float, ...]": pa.list_(_REAL),
    "tuple[float, ...] | None": pa.list_(_REAL),
    "tuple[str, ...]": pa.list_(_TEXT),
}
CATALOG_SCHEMA = pa.schema([(field.name, _KINDS[str(field.type)]) for field in fields(CatalogRow)])
EXCLUDED_SCHEMA = pa.schema([(name, _TEXT) for name in ExcludedRow._fields])
ROW_DIGEST = "row_digest"
"""Column of the file beyond those of a row: the row's own digest. Older stores have none."""
_FILE_SCHEMA = CATALOG_SCHEMA.append(pa.field(ROW_DIGEST, _TEXT))
CURATION_COLUMNS = {"fingerprint": "", "source_digest": "", "quality": "{}"}
"""What only curation reads, most of the file, and what stands for it where voxels are read."""


def write_catalog(root: Path, rows: Iterable[CatalogRow]) -> CatalogTotals:
    """Write `catalog.parquet` from rows that come ordered by id, a batch at a time."""
    remaining = iter(rows)
    digest, tables, last = hashlib.sha256(), [_FILE_SCHEMA.empty_table()], ""
    while batch := list(itertools.islice(remaining, BATCH_ROWS)):
        records = []
        for row in batch:
            assert last < row.id, f"catalogue rows out of order: {last!r} before {row.id!r}"
            line = digest_line(row)
            digest.update(line)
            records.append(row.to_record() | {ROW_DIGEST: hashlib.sha256(line).hexdigest()})
            last = row.id
        tables.append(pa.Table.from_pylist(records, schema=_FILE_SCHEMA))
    table = pa.concat_tables(tables)
    file_digest = _write_table(root / CATALOG_NAME, table.combine_chunks())
    return CatalogTotals(table.num_rows, digest.hexdigest(), file_digest)


def write_excluded(root: Path, rows: Iterable[ExcludedRow]) -> str:
    """Write `excluded.parquet`, ordered by source and scan; the file's digest."""
    records = [row._asdict() for row in sorted(rows)]
    table = pa.Table.from_pylist(records, schema=EXCLUDED_SCHEMA)
    return _write_table(root / EXCLUDED_NAME, table)


def _write_table(path: Path, table: pa.Table) -> str:
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink, compression="zstd", row_group_size=65536)
    data = sink.getvalue().to_pybytes()
    write_atomic(path, data)
    return hashlib.sha256(data).hexdigest()


def digest_line(row: CatalogRow) -> bytes:
    """What a row says, whatever Parquet makes of it; these bytes are what is digested.

    Raises:
        ValueError: A number is not finite.
    """
    record = row.to_record()
    # What a catalogue of before does not say is no part of its digest.
    for key, value in UNSAID.items():
        if record[key] == value:
            del record[key]
    return json.dumps(record, sort_keys=True, allow_nan=False).encode() + b"\n"


def open_catalog(root: Path) -> Columns:
    """The catalogue of a store, of which each column is read when it is asked for.

    Raises:
        StoreError: Not there, not readable, or without a column that is needed.
    """
    return Columns(root / CATALOG_NAME, CATALOG_SCHEMA, UNSAID)


def read_catalog(root: Path, columns: Sequence[str] | None = None) -> pa.Table:
    """The catalogue of a store, or some of its columns.

    Raises:
        StoreError: As `open_catalog`.
    """
    return open_catalog(root).table(columns)


def read_excluded(root: Path) -> pa.Table:
    """The excluded scans of a store.

    Raises:
        StoreError: As `open_catalog`.
    """
    return Columns(root / EXCLUDED_NAME, EXCLUDED_SCHEMA).table()


def catalog_rows(table: pa.Table) -> list[CatalogRow]:
    """All rows of a catalogue."""
    return [CatalogRow.from_record(record) for record in table.to_pylist()]
