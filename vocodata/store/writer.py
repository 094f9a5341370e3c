"""One processed scan into the store, so that a kill at any moment leaves nothing half.

Shards come first, the scan's own zarr.json last; the catalogue names the scan only later, when
its build records it. Writing a scan twice gives the same bytes, so a task may be run again.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from vocodata.errors import StoreError
from vocodata.presets import preset
from vocodata.store.atomic import make_folder, remove_tree, write_atomic
from vocodata.store.catalog import CatalogRow
from vocodata.store.metadata import (
    FIELD_PATH,
    FIELD_SHARD,
    IMAGE_SHARD,
    LABEL_SHARD,
    document_bytes,
    scan_documents,
)
from vocodata.store.shard import (
    IMAGE_FILL_HU,
    LABEL_FILL,
    Codec,
    codec_named,
    encode_shard,
)

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from vocodata.discover import Scan
    from vocodata.geometry import Affine, Size, Spacing, Volume
    from vocodata.ingest import ProcessedScan
    from vocodata.store.catalog import Triple, TripleMm


@dataclass(frozen=True)
class _Shard:
    bytes: int
    digest: str | None


def scan_folder(root: Path, scan_id: str) -> Path:
    """Where a scan lies.

    Raises:
        StoreError: An id that is not `source/name` or would leave the store.
    """
    parts = scan_id.split("/")
    if len(parts) != 2 or any(part in {"", ".", ".."} or "\\" in part for part in parts):
        msg = f"Scan id {scan_id!r} cannot be a folder; expected 'source/name'."
        raise StoreError(msg)
    return root / "scans" / parts[0] / parts[1]


def write_scan(root: Path, scan: Scan, processed: ProcessedScan, codec: str) -> CatalogRow:
    """Write a scan's arrays and metadata.

    Args:
        root: The store.
        scan: Which scan it is.
        processed: Its voxels and statistics.
        codec: Key of `shard.CODECS`.

    Returns:
        The row that the catalogue gets.

    Raises:
        DiskFullError: No room; what was being written is gone.
        StoreUnwritableError: The file system refuses.
        StoreError: A kind of voxel that the store does not hold.
    """
    folder = scan_folder(root, scan.id)
    how = codec_named(codec)
    image = _write_shard(folder / IMAGE_SHARD, processed.hu, IMAGE_FILL_HU, how, ("int16",))
    field = labels = _Shard(0, None)
    if processed.field is not None:
        field = _write_shard(folder / FIELD_SHARD, processed.field, IMAGE_FILL_HU, how, ("int16",))
    if processed.labels is not None:
        kinds = ("uint8", "uint16")
        labels = _write_shard(folder / LABEL_SHARD, processed.labels, LABEL_FILL, how, kinds)
    row = _row(scan, processed, codec, image=image, field=field, labels=labels)
    for place, document in scan_documents(row).items():
        write_atomic(folder / place, document_bytes(document))
    _drop_what_was(folder, row)
    return row


def _write_shard(
    path: Path, volume: Volume, fill: int, codec: Codec, kinds: tuple[str, ...]
) -> _Shard:
    if volume.data_XYZ.dtype.name not in kinds:
        msg = f"{path} would hold {volume.data_XYZ.dtype.name}; expected {' or '.join(kinds)}."
        raise StoreError(msg)
    make_folder(path.parent)
    data = encode_shard(disk_view(volume.data_XYZ), fill=fill, codec=codec)
    write_atomic(path, data)
    return _Shard(len(data), hashlib.sha256(data).hexdigest())


def disk_view(data_XYZ: NDArray[Any]) -> NDArray[Any]:
    """The same voxels in the order of disk, Z Y X: a view."""
    return data_XYZ.transpose(2, 1, 0)


def _drop_what_was(folder: Path, row: CatalogRow) -> None:
    """Remove arrays of an earlier recipe that this one does not have."""
    if row.field_digest is None:
        remove_tree(folder / FIELD_PATH)
    if row.label_digest is None:
        remove_tree(folder / "labels")


def _row(
    scan: Scan,
    processed: ProcessedScan,
    codec: str,
    *,
    image: _Shard,
    field: _Shard,
    labels: _Shard,
) -> CatalogRow:
    hu, stats = processed.hu, processed.stats
    assert image.digest is not None
    return CatalogRow(
        id=scan.id,
        source=scan.source,
        name=scan.name,
        preset=scan.preset,
        window_hu=preset(scan.preset).window_hu,
        weight=float(scan.weight),
        licence=scan.licence,
        label_names=dict(scan.label_names or {}) if processed.labels is not None else {},
        shape_xyz=_triple(hu.shape_XYZ),
        spacing_mm=_triple_mm(hu.spacing_mm),
        affine=_sixteen(hu.affine),
        voxels=int(np.prod(hu.shape_XYZ)),
        hu_min=int(stats.hu_min),
        hu_max=int(stats.hu_max),
        hu_mean=float(stats.hu_mean),
        hu_std=float(stats.hu_std),
        hu_p1=float(stats.hu_p1),
        hu_p50=float(stats.hu_p50),
        hu_p99=float(stats.hu_p99),
        body_fraction=float(stats.body_fraction),
        flags=tuple(processed.flags),
        fingerprint=processed.fingerprint,
        source_shape_xyz=_triple(processed.source_shape_XYZ),
        source_spacing_mm=_triple_mm(processed.source_spacing_mm),
        source_digest=processed.source_digest,
        codec=codec,
        bytes=image.bytes + field.bytes + labels.bytes,
        image_bytes=image.bytes,
        digest=image.digest,
        label_dtype=None if processed.labels is None else processed.labels.data_XYZ.dtype.name,
        label_bytes=labels.bytes,
        label_digest=labels.digest,
        field_shape_xyz=None if processed.field is None else _triple(processed.field.shape_XYZ),
        field_affine=None if processed.field is None else _sixteen(processed.field.affine),
        field_bytes=field.bytes,
        field_digest=field.digest,
        quality=json.dumps(dict(processed.quality), sort_keys=True),
        step_hu=processed.step_hu,
    )


def _triple(size: Size) -> Triple:
    return int(size.x), int(size.y), int(size.z)


def _triple_mm(spacing: Spacing) -> TripleMm:
    return float(spacing.x), float(spacing.y), float(spacing.z)


def _sixteen(affine: Affine) -> tuple[float, ...]:
    return tuple(affine.ravel().tolist())
