"""Opens a scan's shard as its catalogue row describes it, on a disk or in a bucket."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from vocodata.errors import StoreError
from vocodata.geometry import Size
from vocodata.remote.path import RemotePath
from vocodata.store.catalog import shard_records
from vocodata.store.metadata import FIELD_SHARD, LABEL_SHARD
from vocodata.store.reader import ShardReader
from vocodata.store.remote import RemoteShard
from vocodata.store.shard import IMAGE_FILL_HU, LABEL_FILL
from vocodata.store.writer import scan_folder

if TYPE_CHECKING:
    from pathlib import Path

    from vocodata.store.catalog import CatalogRow


def open_shard(root: Path, row: CatalogRow, place: str) -> ShardReader:
    """A scan's shard as the catalogue describes it.

    Raises:
        StoreError: The scan has no such array, or its file is missing, truncated or damaged.
    """
    shape, dtype, fill = row.shape_xyz, "int16", IMAGE_FILL_HU
    if place == LABEL_SHARD:
        if row.label_dtype is None:
            msg = f"Scan '{row.id}' has no labels; its source gives none."
            raise StoreError(msg)
        dtype, fill = row.label_dtype, LABEL_FILL
    if place == FIELD_SHARD:
        if row.field_shape_xyz is None:
            msg = f"Scan '{row.id}' has no field; its preset '{row.preset}' does not squeeze."
            raise StoreError(msg)
        shape = row.field_shape_xyz
    path = scan_folder(root, row.id) / place
    known: dict[str, Any] = {
        "shape_XYZ": Size(*shape),
        "dtype": np.dtype(dtype).newbyteorder("<"),
        "fill": fill,
        "name": row.id,
    }
    if isinstance(path, RemotePath):
        record = next(record for record in shard_records(row) if record.place == place)
        return RemoteShard(path, **known, shard_bytes=record.bytes, digest=record.digest)
    return ShardReader(path, **known)
