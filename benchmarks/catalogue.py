"""A catalogue of 160,000 scans: how long it takes to open, to draw a scan by weight, to report.

    python benchmarks/catalogue.py [--rows 160000] [--report] [--quick] [--json FILE]

The rows are simulated from those of the sample scans (fetched from two public packages): each has a
name, digests, measures of quality, statistics and a fingerprint of its own, as long as real ones;
fingerprints are made as in dedup.py. Opening is the store, its catalogue and all ids; the table of
scans is what training draws from. *Every column* is all that the catalogue holds, read at once
before the ids. Each is timed in a fresh process, since a second time would find everything warm;
the page cache is warm. `--report` also writes the page of `voco data report`, duplicates included.
"""

import argparse
import base64
import dataclasses
import json
import multiprocessing
import resource
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from dedup import simulated as simulated_prints

from vocodata.building import build
from vocodata.curation_report import sample_of, write_curation_report
from vocodata.fingerprint import Fingerprint, parse_fingerprint
from vocodata.geometry import Size
from vocodata.landmarks import pack
from vocodata.sample_scans import default_cache, fetch_samples
from vocodata.store import CatalogRow, open_store
from vocodata.store.catalog import catalog_rows
from vocodata.store.root import publish
from vocotrain.scan_table import read_scan_table

SOURCES, DRAWS, RUNS = 20, 20_000, 5
OPEN_S, DRAW_US = 1.0, 20.0


def simulated(real: list[CatalogRow], count: int) -> list[CatalogRow]:
    rng = np.random.default_rng(0)
    prints = simulated_prints([parse_fingerprint(row.fingerprint) for row in real], count)
    rows = [
        own_values(real[at % len(real)], at, text_of(each), rng)
        for at, each in enumerate(prints.values())
    ]
    return sorted(rows, key=lambda each: each.id)


def text_of(each: Fingerprint) -> str:
    """As vocodata.fingerprint.fingerprint writes it; the content digest is whatever is unique."""
    parts = (each.marks.astype("<u4").tobytes(), pack(each.landmarks))
    return ":".join(("v2", each.content_digest, *(base64.b64encode(p).decode() for p in parts)))


def own_values(row: CatalogRow, at: int, text: str, rng: np.random.Generator) -> CatalogRow:
    source, name = f"source-{at % SOURCES:02d}", f"{at:06d}"
    content, digest, label_digest, source_digest = (rng.bytes(32).hex() for _ in range(4))
    measures = json.loads(row.quality)
    factors = rng.uniform(0.9, 1.1, len(measures) + 5).tolist()
    quality = {key: round(value * factors.pop(), 4) for key, value in measures.items()}
    return dataclasses.replace(
        row,
        id=f"{source}/{name}",
        source=source,
        name=name,
        weight=1.0 + at % SOURCES / 10,
        affine=(*row.affine[:3], row.affine[3] * factors[0], *row.affine[4:]),
        hu_mean=row.hu_mean * factors[1],
        hu_std=row.hu_std * factors[2],
        hu_p50=float(round(row.hu_p50 * factors[3])),
        body_fraction=row.body_fraction * factors[4],
        fingerprint=text.replace(text.split(":")[1], content),
        source_digest=source_digest,
        digest=digest,
        label_digest=label_digest if row.label_digest else None,
        quality=json.dumps(quality, sort_keys=True),
    )


def make(folder: Path, count: int, cache: Path) -> int:
    """A store of the sample scans, one of their many simulated rows; bytes of its catalogue."""
    build(fetch_samples(cache).manifest, folder / "real.zarr", workers=0)
    real = catalog_rows(open_store(folder / "real.zarr").catalog())
    rows, many = simulated(real, count), folder / "many.zarr"
    many.mkdir()
    publish(many, rows, [], found=count, recipe_digest="")
    # Pictures are of real scans.
    of_bytes = {row.image_bytes: row.id for row in real}
    drawn = set(sample_of(open_store(many)))
    for row in rows:
        if row.id in drawn:
            place = many / "scans" / row.id
            place.parent.mkdir(parents=True, exist_ok=True)
            place.symlink_to(folder / "real.zarr/scans" / of_bytes[row.image_bytes])
    return (many / "catalog.parquet").stat().st_size


def timed(folder: Path) -> dict[str, float]:
    """Wall and processor seconds of the steps, in order."""
    marks = [(time.perf_counter(), time.process_time())]

    def mark() -> None:
        marks.append((time.perf_counter(), time.process_time()))

    store = open_store(folder / "many.zarr")
    store.ids()
    mark()
    table = read_scan_table(store, Size(192, 192, 64))
    mark()
    # The first draw adds the weights up.
    table.drawn(0.5)
    mark()
    for uniform in np.random.default_rng(0).random(DRAWS):
        table.drawn(uniform)
    mark()
    return spans(marks, ("open_s", "table_s", "first_draw_s", "draws_s"))


def timed_whole(folder: Path) -> dict[str, float]:
    """Opening when every column is read for it."""
    marks = [(time.perf_counter(), time.process_time())]
    store = open_store(folder / "many.zarr")
    store.catalog()
    store.ids()
    marks.append((time.perf_counter(), time.process_time()))
    return spans(marks, ("whole_s",))


def timed_report(folder: Path) -> dict[str, float]:
    """The page of the report, once."""
    marks = [(time.perf_counter(), time.process_time())]
    page = write_curation_report(folder / "many.zarr", folder / "report.html")
    marks.append((time.perf_counter(), time.process_time()))
    found = spans(marks, ("report_s",))
    found["report_peak_mb"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    found["page_mb"] = page.stat().st_size / 1e6
    return found


def spans(marks: list[tuple[float, float]], names: tuple[str, ...]) -> dict[str, float]:
    wall, processor = np.diff(np.array(marks), axis=0).T
    found = {name: float(each) for name, each in zip(names, wall, strict=True)}
    return found | {f"processor_{n}": float(x) for n, x in zip(names, processor, strict=True)}


def alone(step: Callable[[Path], dict[str, float]], folder: Path) -> dict[str, float]:
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(step, (folder,))


def show(found: dict[str, Any]) -> None:
    def took(name: str) -> str:
        return f"{found[name]:.2f} s ({found[f'processor_{name}']:.2f})"

    print(f"{found['rows']:,} rows, a catalogue of {found['catalogue_mb']:.0f} MB;")
    print(f"median of {RUNS} processes, wall (processor):")
    print(f"  open and all ids   {took('open_s')}, asked {OPEN_S:g}")
    print(f"  every column       {took('whole_s')}")
    print(f"  table to draw from {took('table_s')}")
    print(f"  first draw         {1e3 * found['first_draw_s']:.0f} ms")
    print(f"  a draw by weight   {found['draw_us']:.1f} us, asked {DRAW_US:g}")


def show_report(found: dict[str, Any]) -> None:
    took = f"{found['report_s']:.0f} s ({found['processor_report_s']:.0f})"
    print(f"  report             {took}, {found['report_peak_mb']:,.0f} MB of memory at most,")
    print(f"                     a page of {found['page_mb']:.1f} MB")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=160_000)
    parser.add_argument("--report", action="store_true", help="also write the report; minutes")
    parser.add_argument("--cache", type=Path, default=default_cache(), help="of the sample scans")
    parser.add_argument("--quick", action="store_true", help="20,000 rows")
    parser.add_argument("--json", type=Path, help="JSON file for the numbers")
    options = parser.parse_args()
    count = 20_000 if options.quick else options.rows
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        size = make(folder, count, options.cache)
        runs = [alone(timed, folder) | alone(timed_whole, folder) for _ in range(RUNS)]
        found: dict[str, Any] = {k: float(np.median([run[k] for run in runs])) for k in runs[0]}
        found |= {"draw_us": 1e6 * found["draws_s"] / DRAWS, "catalogue_mb": size / 1e6}
        found["rows"] = count
        show(found)
        if options.report:
            found |= alone(timed_report, folder)
            show_report(found)
    if options.json is not None:
        options.json.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
