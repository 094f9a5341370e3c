"""What training opens: scans by id, boxes of voxels in X Y Z, HU as int16.

Opening reads nothing. A column of the catalogue is read when first asked for, a scan's shard when
first read; at most `open_shards` descriptors are kept by each thread. A store travels to spawned
workers as its path, and a forked worker goes on with what its parent had open.
"""

from __future__ import annotations

import difflib
import threading
from collections import Counter, OrderedDict
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from vocodata.errors import StoreError
from vocodata.geometry import Size, Spacing
from vocodata.store.catalog import (
    CATALOG_SCHEMA,
    CURATION_COLUMNS,
    CatalogRow,
    open_catalog,
    read_excluded,
)
from vocodata.store.metadata import (
    FIELD_SHARD,
    IMAGE_SHARD,
    LABEL_SHARD,
    SCHEMA_VERSION,
)
from vocodata.store.opening import open_shard
from vocodata.store.root import read_attributes, step_of, store_path
from vocodata.store.scan_info import ScanInfo

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

    import pyarrow as pa
    from numpy.typing import NDArray

    from vocodata.store.columns import Columns
    from vocodata.store.reader import ShardReader

OPEN_SHARDS = 128
"""Descriptors kept open by a thread; far below the usual limit of 1024 a process."""


class Store:
    """A built store, open for reading."""

    def __init__(
        self, root: Path, *, open_shards: int = OPEN_SHARDS, check_crc: bool = True
    ) -> None:
        """Remember where it is; nothing is read yet.

        Args:
            root: Folder of the store.
            open_shards: Descriptors kept open by each thread.
            check_crc: Compare every chunk that is read with its checksum; costs 1 to 12 % of a
                read's time (measured, zstd and lz4).
        """
        self.root = root
        self.open_shards = open_shards
        self.check_crc = check_crc
        self._open = threading.local()

    def __getstate__(self) -> dict[str, Any]:
        """Only where and how; tables and descriptors are opened anew by whoever unpickles."""
        return {name: self.__dict__[name] for name in ("root", "open_shards", "check_crc")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """As after `__init__`."""
        self.__init__(**state)  # type: ignore[misc]  # the one place where it is called twice

    def __repr__(self) -> str:
        """The path."""
        return f"Store({str(self.root)!r})"

    def __len__(self) -> int:
        """Scans in the catalogue."""
        return len(self._columns)

    @cached_property
    def _columns(self) -> Columns:
        return open_catalog(self.root)

    @cached_property
    def _position(self) -> dict[str, int]:
        return {scan: at for at, scan in enumerate(self.catalog(["id"])["id"].to_pylist())}

    @cached_property
    def attributes(self) -> dict[str, Any]:
        """The store's own words in its root zarr.json: schema, recipe digest, counts."""
        return read_attributes(self.root)

    def ids(self) -> list[str]:
        """All scans, sorted."""
        return list(self._position)

    def catalog(self, columns: Sequence[str] | None = None) -> pa.Table:
        """The catalogue, a row a scan.

        Args:
            columns: Those needed, or all; of 160,000 scans all take 0.7 GB and seconds.

        Raises:
            StoreError: It is not there or cannot be read.
        """
        return self._columns.table(columns)

    def excluded(self) -> pa.Table:
        """Scans that were found and are not in the store, with the reason."""
        return read_excluded(self.root)

    @property
    def digest(self) -> str:
        """SHA-256 of the catalogue's content, which names every shard's digest.

        As the build wrote it; `verify` is what compares it with the catalogue.
        """
        return str(self.attributes["digest"])

    def row(self, scan_id: str) -> CatalogRow:
        """The catalogue's row of a scan.

        Raises:
            StoreError: No such scan.
        """
        return CatalogRow.from_record(_record(self.catalog(), self._at(scan_id)))

    def brief_row(self, scan_id: str) -> CatalogRow:
        """The row with nothing in the columns that only curation reads, and without reading them.

        Raises:
            StoreError: No such scan.
        """
        names = [name for name in CATALOG_SCHEMA.names if name not in CURATION_COLUMNS]
        record = _record(self.catalog(names), self._at(scan_id))
        return CatalogRow.from_record(CURATION_COLUMNS | record)

    def _at(self, scan_id: str) -> int:
        at = self._position.get(scan_id)
        if at is None:
            near = difflib.get_close_matches(scan_id, self._position, n=1)
            hint = f" Did you mean '{near[0]}'?" if near else ""
            msg = f"Scan '{scan_id}' is not among the {len(self)} scans of {self.root}.{hint}"
            raise StoreError(msg)
        return at

    def info(self, scan_id: str) -> ScanInfo:
        """Geometry and settings of a scan.

        Raises:
            StoreError: No such scan.
        """
        row = self.brief_row(scan_id)
        return ScanInfo(
            id=row.id,
            source=row.source,
            preset=row.preset,
            shape_XYZ=Size(*row.shape_xyz),
            spacing_mm=Spacing(*row.spacing_mm),
            affine=np.array(row.affine).reshape(4, 4),
            window_hu=row.window_hu,
            weight=row.weight,
            licence=row.licence,
            label_names=dict(row.label_names),
            flags=row.flags,
            digest=row.digest,
            voxels=row.voxels,
        )

    def has_labels(self, scan_id: str) -> bool:
        """Whether the scan has a label array."""
        return self.brief_row(scan_id).label_dtype is not None

    def has_field(self, scan_id: str) -> bool:
        """Whether the scan has a squeezed field."""
        return self.brief_row(scan_id).field_shape_xyz is not None

    def read(
        self, scan_id: str, start_XYZ: tuple[int, int, int], size_XYZ: tuple[int, int, int]
    ) -> NDArray[np.int16]:
        """HU of a box.

        Args:
            scan_id: Which scan.
            start_XYZ: First voxel; may be negative or beyond the volume.
            size_XYZ: Voxels, each at least 1.

        Returns:
            int16 (X, Y, Z), C-contiguous and the caller's own; -1024 outside the volume.

        Raises:
            StoreError: No such scan, or its shard is missing, truncated or damaged.
        """
        return self._read(scan_id, IMAGE_SHARD, start_XYZ, size_XYZ)

    def read_label(
        self, scan_id: str, start_XYZ: tuple[int, int, int], size_XYZ: tuple[int, int, int]
    ) -> NDArray[Any]:
        """Labels of a box: uint8 or uint16 (X, Y, Z), 0 outside the volume.

        Raises:
            StoreError: As `read`, or the scan has no labels.
        """
        return self._read(scan_id, LABEL_SHARD, start_XYZ, size_XYZ)

    def read_field(self, scan_id: str) -> NDArray[np.int16]:
        """The whole scan squeezed to the preset's field: int16 (X, Y, Z).

        Raises:
            StoreError: As `read`, or the scan's preset does not squeeze.
        """
        shard = self._shard(scan_id, FIELD_SHARD)
        return shard.read(Size(0, 0, 0), shard.shape_XYZ, check_crc=self.check_crc)

    def _read(
        self,
        scan_id: str,
        place: str,
        start_XYZ: tuple[int, int, int],
        size_XYZ: tuple[int, int, int],
    ) -> NDArray[Any]:
        size = Size(*map(int, size_XYZ))
        if min(size) < 1:
            msg = f"Scan '{scan_id}': size of the box is {tuple(size)}; expected at least 1 each."
            raise StoreError(msg)
        start = Size(*map(int, start_XYZ))
        return self._shard(scan_id, place).read(start, size, check_crc=self.check_crc)

    def _shard(self, scan_id: str, place: str) -> ShardReader:
        """The open shard, from this thread's cache; the one used longest ago is let go."""
        if not hasattr(self._open, "shards"):
            self._open.shards = OrderedDict()
        shards: OrderedDict[tuple[str, str], ShardReader] = self._open.shards
        key = (scan_id, place)
        if key in shards:
            shards.move_to_end(key)
            return shards[key]
        shard = open_shard(self.root, self.brief_row(scan_id), place)
        shards[key] = shard
        if len(shards) > self.open_shards:
            shards.popitem(last=False)
        return shard

    def summary(self) -> dict[str, Any]:
        """Counts and sizes, plain values for people and JSON."""
        names = ["label_dtype", "source", "preset", "licence", "flags", "voxels", "bytes"]
        columns = self.catalog(names).to_pydict()
        return {
            "path": str(self.root),
            "digest": self.digest,
            "recipe_digest": self.attributes["recipe_digest"],
            "complete": self.attributes["complete"],
            "scans": len(self),
            "excluded": _counts(self.excluded()["reason"].to_pylist()),
            "with_labels": sum(dtype is not None for dtype in columns["label_dtype"]),
            "sources": _counts(columns["source"]),
            "presets": _counts(columns["preset"]),
            "licences": _counts(licence or "unknown" for licence in columns["licence"]),
            "flags": _counts(flag for flags in columns["flags"] for flag in flags),
            "step_hu": step_of(self.attributes),
            "voxels": sum(columns["voxels"]),
            "bytes": sum(columns["bytes"]),
        }


def _record(table: pa.Table, at: int) -> dict[str, Any]:
    record: dict[str, Any] = table.slice(at, 1).to_pylist()[0]
    return record


def _counts(words: Iterable[str]) -> dict[str, int]:
    return dict(sorted(Counter(words).items()))


def open_store(url: str | Path, *, check_crc: bool = True) -> Store:
    """Open a store for reading.

    Args:
        url: Folder of the store, also as `file://`, or an `s3://` URL.
        check_crc: Compare every chunk that is read with its checksum.

    Raises:
        StoreError: Not a store of this version.
        RemoteError: The server refuses, or does not answer.
    """
    root = store_path(url)
    store = Store(root, check_crc=check_crc)
    if store.attributes["schema_version"] != SCHEMA_VERSION:
        msg = (
            f"{root} has schema {store.attributes['schema_version']}; this version reads "
            f"{SCHEMA_VERSION}. Build it again."
        )
        raise StoreError(msg)
    return store
