"""Figures of a whole store from its two tables, without touching a scan."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from vocodata.store.root import step_of
from vocodata.store.store import open_store

if TYPE_CHECKING:
    import pyarrow as pa
    from numpy.typing import NDArray

    from vocodata.store.store import Store

BINS = 24
_CHARTS = {
    "spacing_x_mm": "Spacing of the files across, mm",
    "spacing_z_mm": "Spacing of the files along, mm",
    "shape_x": "Stored width, voxels",
    "shape_z": "Stored length, voxels",
    "hu_p1": "First percentile of a scan, HU",
    "hu_p50": "Median of a scan, HU",
    "hu_p99": "99th percentile of a scan, HU",
    "body_fraction": "Share of body in a scan",
}
_COLUMNS = [
    *("source", "flags", "licence", "voxels", "bytes", "source_spacing_mm", "shape_xyz"),
    *(key for key in _CHARTS if key.startswith(("hu_", "body_"))),
]


def store_statistics(store: str | Path | Store) -> dict[str, Any]:
    """Counts, sizes and histograms of a store, plain values.

    Args:
        store: A store, or its folder.

    Returns:
        `complete`, whether the build has finished; `found`, `stored`, `flagged`, `excluded`;
        `sources` with the same counts each; `flags` and `reasons` with counts; `licences`;
        `step_hu`, 1 if no HU is lost; `voxels`, `bytes`; `histograms` with edges and counts.

    Raises:
        StoreError: Not a store of this version.
    """
    opened = open_store(store) if isinstance(store, str | Path) else store
    table, excluded = opened.catalog(_COLUMNS), opened.excluded()
    flags = table.column("flags").to_pylist()
    sources = table.column("source").to_pylist()
    reasons = excluded.column("reason").to_pylist()
    stored = Counter(sources)
    flagged = Counter(source for source, own in zip(sources, flags, strict=True) if own)
    left_out = Counter(excluded.column("source").to_pylist())
    return {
        "store": str(opened.root),
        "complete": bool(opened.attributes["complete"]),
        "found": table.num_rows + excluded.num_rows,
        "stored": table.num_rows,
        "flagged": sum(flagged.values()),
        "excluded": excluded.num_rows,
        "sources": {
            name: {"stored": stored[name], "flagged": flagged[name], "excluded": left_out[name]}
            for name in sorted(stored | left_out)
        },
        "flags": dict(Counter(flag for own in flags for flag in own).most_common()),
        "reasons": dict(Counter(reasons).most_common()),
        "licences": dict(
            Counter(each or "unknown" for each in table.column("licence").to_pylist()).most_common()
        ),
        "step_hu": step_of(opened.attributes),
        "voxels": int(np.sum(_numbers(table, "voxels"))),
        "bytes": int(np.sum(_numbers(table, "bytes"))),
        "histograms": {
            key: {"title": title, **histogram(_values(table, key))}
            for key, title in _CHARTS.items()
        },
    }


def histogram(values: NDArray[np.float64]) -> dict[str, list[float]]:
    """Edges and counts; one bin where all values are alike, none where there are none."""
    if values.size == 0:
        return {"edges": [], "counts": []}
    low, high = float(values.min()), float(values.max())
    if low == high:
        return {"edges": [round(low, 4), round(high, 4)], "counts": [values.size]}
    counts, edges = np.histogram(values, BINS, (low, high))
    return {"edges": [round(float(e), 4) for e in edges], "counts": counts.tolist()}


def _values(table: pa.Table, key: str) -> NDArray[np.float64]:
    axes = {"x": 0, "y": 1, "z": 2}
    if key.startswith("spacing_"):
        return _triples(table, "source_spacing_mm")[:, axes[key[8]]]
    if key.startswith("shape_"):
        return _triples(table, "shape_xyz")[:, axes[key[6]]]
    return _numbers(table, key)


def _numbers(table: pa.Table, name: str) -> NDArray[np.float64]:
    return np.asarray(table.column(name).to_numpy(), dtype=np.float64)


def _triples(table: pa.Table, name: str) -> NDArray[np.float64]:
    flat = table.column(name).combine_chunks().flatten().to_numpy()
    return np.asarray(flat, dtype=np.float64).reshape(-1, 3)
