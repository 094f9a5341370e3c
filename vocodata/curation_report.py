"""One HTML page of a store: what is in it, what is not and why, how it looks, what is there twice.

The page needs no network and no second file. Words from file names reach it only through the
template's escaping or as JSON that the page's script sets as text, so a hostile name is a name.
However many scans there are, pictures are of a sample, and the table shows a part of the matches.
"""

from __future__ import annotations

import json
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import jinja2
import numpy as np

from vocodata.duplicates import find_duplicates, groups
from vocodata.errors import StoreError
from vocodata.pictures import thumbnails
from vocodata.remote.path import RemotePath, as_path, redacted
from vocodata.statistics import store_statistics
from vocodata.store.atomic import make_folder, write_atomic
from vocodata.store.store import open_store

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from vocodata.duplicates import Cluster
    from vocodata.pictures import Thumbnail
    from vocodata.similarity import OnProgress
    from vocodata.store.store import Store

MAX_ROWS = 200_000
"""Rows of the table that the page carries; of more, a sample."""
SHOWN_SCANS = 48
SHOWN_FLAGGED = 12
SHOWN_CLUSTERS = 20
SHOWN_OF_A_CLUSTER = 4
_TEMPLATE = "curation.html.j2"


class Sheet(NamedTuple):
    """A scan as it is shown.

    Attributes:
        id: Of the scan.
        source: Of the scan.
        facts: Size and spacing, for people.
        flags: Of the scan.
        pictures: Three planes.
    """

    id: str
    source: str
    facts: str
    flags: tuple[str, ...]
    pictures: list[Thumbnail]


def write_curation_report(
    store: str | Path, out: str | Path | None = None, *, on_progress: OnProgress | None = None
) -> Path:
    """Write the page.

    Args:
        store: Folder of the store, or an `s3://` URL.
        out: The page, or a folder for `report.html` (one that is there, or a text that ends in a
            slash), also in a bucket; the current folder if None.
        on_progress: As for `find_matches`: the search for duplicates is what takes long.

    Returns:
        Where it is.

    Raises:
        StoreError: Not a store of this version, a shown scan's shard is damaged, or the page cannot
            be written there.
        RemoteError: The server of the store refuses, or does not answer.
    """
    path = _page_path(out)
    opened = open_store(store)
    if path.suffix != ".html" and path.resolve().is_relative_to(opened.root.resolve()):
        msg = f"The page would be written over a file of the store, {path}. Give another --out."
        raise StoreError(msg)
    make_folder(path.parent)
    found = find_duplicates(opened, on_progress=on_progress)
    write_atomic(path, page_of(opened, found).encode())
    return path


def _page_path(out: str | Path | None) -> Path:
    try:
        path = Path() if out is None else as_path(out)
    except ValueError as error:
        msg = f"The page cannot be written to {redacted(str(out))}: {error}."
        raise StoreError(msg) from error
    if isinstance(path, RemotePath) and path.scheme != "s3":
        msg = f"The page cannot be written to {path}: a web server is read only. Give a file."
        raise StoreError(msg)
    is_folder = str(out).endswith("/") or path.is_dir()
    return path / "report.html" if is_folder else path


def page_of(store: Store, clusters: Sequence[Cluster]) -> str:
    """The page's text.

    Args:
        store: The store.
        clusters: Of scans that are there twice.
    """
    figures = store_statistics(store)
    rows = _rows(store)
    environment = jinja2.Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True)
    text = resources.files("vocodata").joinpath("templates", _TEMPLATE).read_text("utf-8")
    return environment.from_string(text).render(
        name=store.root.name,
        figures=figures,
        bars=_bars,
        rows=_json(rows),
        rows_carried=len(rows["id"]),
        rows_all=figures["found"],
        sheets=[_sheet(store, scan) for scan in sample_of(store)],
        clusters=[
            (cluster, [_sheet(store, scan) for scan in cluster.scans[:SHOWN_OF_A_CLUSTER]])
            for cluster in clusters[:SHOWN_CLUSTERS]
        ],
        clusters_all=len(clusters),
        groups=groups(clusters),
    )


def sample_of(store: Store) -> list[str]:
    """Scans to show: as many of each source, evenly spread, and some that have a flag."""
    names = ["id", "source", "flags"]
    table = store.catalog(names)
    by_source: dict[str, list[str]] = {}
    flagged = []
    columns = (table.column(name).to_pylist() for name in names)
    for scan, source, flags in zip(*columns, strict=True):
        by_source.setdefault(source, []).append(scan)
        if flags:
            flagged.append(scan)
    each = max(1, SHOWN_SCANS // max(1, len(by_source)))
    chosen = [scan for scans in by_source.values() for scan in _spread(scans, each)][:SHOWN_SCANS]
    return sorted({*chosen, *_spread(flagged, SHOWN_FLAGGED)})


def _spread(scans: Sequence[str], count: int) -> list[str]:
    step = max(1, -(-len(scans) // count))
    return list(scans[::step])


def _sheet(store: Store, scan: str) -> Sheet:
    row = store.brief_row(scan)
    size = " x ".join(map(str, row.shape_xyz))
    spacing = " x ".join(f"{side:.3g}" for side in row.source_spacing_mm)
    facts = f"{size} voxels; file {spacing} mm"
    return Sheet(scan, row.source, facts, row.flags, thumbnails(store, scan))


def _rows(store: Store) -> dict[str, list[Any]]:
    """Columns of the table, stored and excluded together; few bytes a row."""
    names = ["id", "shape_xyz", "source_spacing_mm", "flags", "hu_p50"]
    table, excluded = store.catalog(names), store.excluded()
    step = max(1, -(-(table.num_rows + excluded.num_rows) // MAX_ROWS))
    kept, out = table.take(np.arange(0, table.num_rows, step)), excluded.to_pylist()[::step]
    shapes = kept.column("shape_xyz").to_pylist()
    spacings = kept.column("source_spacing_mm").to_pylist()
    words = [" ".join(flags) for flags in kept.column("flags").to_pylist()]
    return {
        "id": kept.column("id").to_pylist() + [f"{row['source']}/{row['scan']}" for row in out],
        "state": ["flagged" if word else "kept" for word in words] + ["excluded"] * len(out),
        "why": words + [row["reason"] for row in out],
        "shape": ["x".join(map(str, each)) for each in shapes] + [""] * len(out),
        "spacing": [" ".join(f"{side:.3g}" for side in each) for each in spacings]
        + [""] * len(out),
        "hu": [f"{value:.0f}" for value in kept.column("hu_p50").to_pylist()] + [""] * len(out),
    }


def _json(value: object) -> str:
    """JSON that can stand inside a script element whatever it holds."""
    text = json.dumps(value, separators=(",", ":"))
    return text.replace("&", "\\u0026").replace("<", "\\u003c").replace(">", "\\u003e")


def _bars(counts: Iterable[float]) -> list[tuple[int, float, float]]:
    """Of a histogram: position, count, and height of each bar in percent."""
    values = list(counts)
    top = max(values, default=1) or 1
    return [(at, count, 100 * count / top) for at, count in enumerate(values)]
