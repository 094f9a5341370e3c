"""A small labelled store, written by the store's own code."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from vocodata.discover import Scan
from vocodata.geometry import Volume
from vocodata.ingest import ProcessedScan, ScanStats
from vocodata.store.catalog import write_catalog, write_excluded
from vocodata.store.metadata import SCHEMA_VERSION, STORE_KIND, document_bytes, group_document
from vocodata.store.writer import write_scan

ORGANS = {1: "spleen", 2: "Liver", 7: "stomach"}
ORGAN_HU = {1: 120, 2: 60, 7: -60}


def organ_phantom(shape_XYZ, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """A body in air with three boxes of their own HU: (hu, labels)."""
    random = np.random.default_rng(seed)
    hu = np.full(shape_XYZ, -1000, np.int16)
    labels = np.zeros(shape_XYZ, np.uint8)
    x, y, z = shape_XYZ
    hu[2:-2, 2:-2, 1:-1] = 0
    boxes = {1: (0.55, 0.5, 0.3), 2: (0.15, 0.2, 0.35), 7: (0.6, 0.15, 0.4)}
    for value, place in boxes.items():
        start = [
            int(p * side) + int(random.integers(0, 2))
            for p, side in zip(place, shape_XYZ, strict=True)
        ]
        box = tuple(
            slice(a, a + max(3, side // 4)) for a, side in zip(start, (x, y, z), strict=True)
        )
        labels[box] = value
        hu[box] = ORGAN_HU[value]
    noise = random.normal(0, 8, shape_XYZ) * (hu > -500)
    return (hu + noise).astype(np.int16), labels


def put_scan(root: Path, scan_id: str, hu, labels, *, names, spacing_mm, preset="demo"):
    """Write one scan's arrays; returns its catalogue row."""
    affine = np.diag([*spacing_mm, 1.0])
    source, name = scan_id.split("/")
    scan = Scan(scan_id, source, name, Path("none"), None, names, preset)
    processed = ProcessedScan(
        hu=Volume(hu, affine),
        labels=None if labels is None else Volume(labels, affine),
        field=None,
        stats=ScanStats(-1000, 200, 0.0, 1.0, -1000.0, 0.0, 100.0, 0.5),
        fingerprint=f"print of {scan_id}",
        source_shape_XYZ=Volume(hu, affine).shape_XYZ,
        source_spacing_mm=Volume(hu, affine).spacing_mm,
        source_digest=scan_id.encode().hex(),
    )
    return write_scan(root, scan, processed, "zstd")


def seal_store(root: Path, rows) -> Path:
    """Write the catalogue and the root document."""
    totals = write_catalog(root, sorted(rows, key=lambda row: row.id))
    write_excluded(root, [])
    own = {
        "kind": STORE_KIND,
        "schema_version": SCHEMA_VERSION,
        "recipe_digest": "test",
        "complete": True,
        "digest": totals.digest,
        "counts": {"found": totals.rows, "stored": totals.rows, "excluded": 0},
    }
    (root / "zarr.json").write_bytes(document_bytes(group_document({"voco": own})))
    return root


@pytest.fixture
def build_labelled_store(tmp_path) -> Callable[..., Path]:
    """Make a store of labelled phantoms at 5 mm: `(count, names=..., shape=..., ...) -> folder`."""

    def build(count=4, *, names=ORGANS, shape=(40, 36, 33), spacing_mm=(5.0, 5.0, 5.0), extra=()):
        root = tmp_path / "ct.zarr"
        root.mkdir()
        rows = []
        for k in range(count):
            hu, labels = organ_phantom(shape, k)
            scan_id = f"phantom/{k:02d}"
            rows.append(put_scan(root, scan_id, hu, labels, names=names, spacing_mm=spacing_mm))
        rows += [put_scan(root, **scan) for scan in extra]
        return seal_store(root, rows)

    return build
