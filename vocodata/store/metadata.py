"""The words around the voxels: Zarr v3 and OME-Zarr 0.5 documents, each a function of a row.

Because a document follows from the catalogue's row alone, `verify` writes it anew and compares.
There is nothing in it that could name a patient: no path, no time, no header of the source.

Orientation of the axes is as in RFC-4 of OME-Zarr; readers of 0.5 may ignore it. The translation
is the place of voxel 0 in RAS mm; the whole affine, oblique or not, is in the `voco` attributes.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from vocodata.store.shard import (
    CHUNK_VOX,
    CODECS,
    IMAGE_FILL_HU,
    LABEL_FILL,
    Codec,
    chunk_grid,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

    from vocodata.store.catalog import CatalogRow, Triple

SCHEMA_VERSION = 3
"""Of the layout and of what processing does; a change makes every scan be built anew."""
STORE_KIND = "voco-store"
DOCUMENT = "zarr.json"
SHARD = "c.0.0.0"
IMAGE_PATH = "0"
FIELD_PATH = "field"
LABELS_PATH = "labels/structures"
IMAGE_SHARD = f"{IMAGE_PATH}/{SHARD}"
FIELD_SHARD = f"{FIELD_PATH}/{SHARD}"
LABEL_SHARD = f"{LABELS_PATH}/0/{SHARD}"

Document = dict[str, Any]
_MEASURES = (
    *(
        "label_names",
        "voxels",
        "hu_min",
        "hu_max",
        "hu_mean",
        "hu_std",
        "hu_p1",
        "hu_p50",
        "hu_p99",
    ),
    *("body_fraction", "quality", "codec", "bytes", "image_bytes", "digest"),
    *("label_dtype", "label_bytes", "label_digest", "field_bytes", "field_digest"),
)
_AXES: tuple[tuple[str, str], ...] = (
    ("z", "inferior-to-superior"),
    ("y", "posterior-to-anterior"),
    ("x", "left-to-right"),
)


def document_bytes(document: Document) -> bytes:
    """JSON as it lies on disk."""
    return (json.dumps(document, indent=1, ensure_ascii=False, allow_nan=False) + "\n").encode()


def array_document(
    shape_xyz: Triple,
    *,
    dtype: str,
    fill: int,
    codec: Codec,
    attributes: Document | None = None,
) -> Document:
    """zarr.json of an array that is one shard."""
    shape = shape_xyz[::-1]
    chunk = [CHUNK_VOX] * 3
    blosc = {
        "typesize": 1 if dtype == "uint8" else 2,
        "cname": codec.compressor,
        "clevel": codec.level,
        "shuffle": "shuffle",
        "blocksize": 0,
    }
    checksum = {"name": "crc32c"}
    little = {"name": "bytes", "configuration": {"endian": "little"}}
    sharding = {
        "chunk_shape": chunk,
        "codecs": [little, {"name": "blosc", "configuration": blosc}, checksum],
        "index_codecs": [little, checksum],
        "index_location": "end",
    }
    return {
        "zarr_format": 3,
        "node_type": "array",
        "shape": list(shape),
        "data_type": dtype,
        "chunk_grid": {
            "name": "regular",
            "configuration": {"chunk_shape": [n * CHUNK_VOX for n in chunk_grid(shape)]},
        },
        "chunk_key_encoding": {"name": "default", "configuration": {"separator": "."}},
        "fill_value": fill,
        "codecs": [{"name": "sharding_indexed", "configuration": sharding}],
        "dimension_names": [name for name, _ in _AXES],
        "attributes": attributes or {},
    }


def group_document(attributes: Mapping[str, Any] | None = None) -> Document:
    """zarr.json of a group."""
    return {"zarr_format": 3, "node_type": "group", "attributes": dict(attributes or {})}


def scan_documents(row: CatalogRow, *, with_measures: bool = True) -> dict[str, Document]:
    """All zarr.json of a scan by their place in its folder; the scan's own comes last.

    Args:
        row: The catalogue's row.
        with_measures: As they are written; without, as older builds of this schema wrote them.
    """
    codec = CODECS[row.codec]
    documents = {
        f"{IMAGE_PATH}/{DOCUMENT}": array_document(
            row.shape_xyz, dtype="int16", fill=IMAGE_FILL_HU, codec=codec
        )
    }
    if row.field_shape_xyz is not None:
        assert row.field_affine is not None
        documents[f"{FIELD_PATH}/{DOCUMENT}"] = array_document(
            row.field_shape_xyz,
            dtype="int16",
            fill=IMAGE_FILL_HU,
            codec=codec,
            attributes={"voco": {"affine": matrix(row.field_affine)}},
        )
    if row.label_dtype is not None:
        documents |= _label_documents(row, codec)
    own = _own(row)
    if with_measures:
        own["catalog"] = _measures(row)
    documents[DOCUMENT] = group_document(
        {"ome": {"version": "0.5", "multiscales": [_multiscale(row, row.name)]}, "voco": own}
    )
    return documents


def _label_documents(row: CatalogRow, codec: Codec) -> dict[str, Document]:
    assert row.label_dtype is not None
    properties = [
        {"label-value": value, "name": name} for value, name in sorted(row.label_names.items())
    ]
    image_label: Document = {"source": {"image": "../../"}}
    if properties:
        image_label["properties"] = properties
    ome = {
        "version": "0.5",
        "multiscales": [_multiscale(row, "structures")],
        "image-label": image_label,
    }
    return {
        f"{LABELS_PATH}/0/{DOCUMENT}": array_document(
            row.shape_xyz, dtype=row.label_dtype, fill=LABEL_FILL, codec=codec
        ),
        f"{LABELS_PATH}/{DOCUMENT}": group_document({"ome": ome}),
        f"labels/{DOCUMENT}": group_document({"ome": {"version": "0.5", "labels": ["structures"]}}),
    }


def _multiscale(row: CatalogRow, name: str) -> Document:
    origin = [row.affine[3], row.affine[7], row.affine[11]]
    return {
        "name": name,
        "axes": [
            {
                "name": axis,
                "type": "space",
                "unit": "millimeter",
                "orientation": {"type": "anatomical", "value": direction},
            }
            for axis, direction in _AXES
        ],
        "datasets": [
            {
                "path": "0",
                "coordinateTransformations": [
                    {"type": "scale", "scale": list(row.spacing_mm[::-1])},
                    {"type": "translation", "translation": origin[::-1]},
                ],
            }
        ],
    }


def _own(row: CatalogRow) -> Document:
    """Provenance: what was done, and to what, without saying to whom."""
    return {
        "schema_version": SCHEMA_VERSION,
        "orientation": "RAS",
        "affine": matrix(row.affine),
        "preset": row.preset,
        "window_hu": list(row.window_hu),
        "licence": row.licence,
        "flags": list(row.flags),
        "fingerprint": row.fingerprint,
        "source_shape_xyz": list(row.source_shape_xyz),
        "source_spacing_mm": list(row.source_spacing_mm),
        "source_digest": row.source_digest,
        # Said where HU are lost only: documents of stores built before there were steps stay.
        **({} if row.step_hu == 1 else {"step_hu": row.step_hu}),
    }


def _measures(row: CatalogRow) -> Document:
    """What the catalogue says besides, a second time beside the voxels; `verify` compares.

    The weight is not there: a manifest may change it, and no scan is written anew for that.
    """
    record = row.to_record()
    return {name: record[name] for name in _MEASURES}


def matrix(affine: tuple[float, ...]) -> list[list[float]]:
    """Sixteen numbers as four rows."""
    return [list(affine[4 * row : 4 * row + 4]) for row in range(4)]
