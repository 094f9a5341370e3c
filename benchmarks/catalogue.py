"""A catalogue of 160,000 scans: how long it takes to open, and to draw a scan by weight.

    python benchmarks/catalogue.py [--rows 160000] [--quick] [--json FILE]

The rows are simulated: one real row, given other names, sources, weights and digests. Opening is
the store, its catalogue and all ids; the table of scans is what training draws from. Each is timed
in a fresh process, since a second time would find everything warm; the page cache is warm.
"""

import argparse
import dataclasses
import json
import multiprocessing
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from vocodata.geometry import Size
from vocodata.store import CatalogRow, open_store
from vocodata.store.catalog import catalog_rows
from vocodata.store.root import publish
from vocotrain.bench_loader.volumes import ct_like, write_store
from vocotrain.scan_table import read_scan_table

SOURCES, DRAWS = 20, 20_000
OPEN_S, DRAW_US = 1.0, 20.0


def simulated(row: CatalogRow, count: int) -> list[CatalogRow]:
    rows = [
        dataclasses.replace(
            row,
            id=f"source-{at % SOURCES:02d}/{at:06d}",
            source=f"source-{at % SOURCES:02d}",
            name=f"{at:06d}",
            weight=1.0 + at % SOURCES / 10,
            digest=f"{at:064x}",
        )
        for at in range(count)
    ]
    return sorted(rows, key=lambda each: each.id)


def make(folder: Path, count: int) -> None:
    write_store(folder / "one.zarr", [ct_like(0, Size(64, 64, 64))], "zstd")
    row = catalog_rows(open_store(folder / "one.zarr").catalog())[0]
    (folder / "many.zarr").mkdir()
    publish(folder / "many.zarr", simulated(row, count), [], found=count, recipe_digest="")


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
    wall, processor = np.diff(np.array(marks), axis=0).T
    names = ("open_s", "table_s", "first_draw_s", "draws_s")
    found = {name: float(each) for name, each in zip(names, wall, strict=True)}
    found |= {f"processor_{n}": float(each) for n, each in zip(names, processor, strict=True)}
    return found | {"draw_us": 1e6 * found["draws_s"] / DRAWS}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=160_000)
    parser.add_argument("--quick", action="store_true", help="20,000 rows")
    parser.add_argument("--json", type=Path, help="JSON file for the numbers")
    arguments = parser.parse_args()
    count = 20_000 if arguments.quick else arguments.rows
    with tempfile.TemporaryDirectory() as name:
        make(Path(name), count)
        context = multiprocessing.get_context("spawn")
        runs = []
        for _ in range(3):
            with context.Pool(1) as pool:
                runs.append(pool.apply(timed, (Path(name),)))
    found: dict[str, Any] = {key: float(np.median([run[key] for run in runs])) for key in runs[0]}
    print(f"{count:,} rows, median of {len(runs)} processes, wall (processor):")
    print(
        f"  open and all ids   {found['open_s']:.2f} s ({found['processor_open_s']:.2f}),"
        f" asked {OPEN_S:g}"
    )
    print(f"  table to draw from {found['table_s']:.2f} s ({found['processor_table_s']:.2f})")
    print(f"  first draw         {1e3 * found['first_draw_s']:.0f} ms")
    print(f"  a draw by weight   {found['draw_us']:.1f} us, asked {DRAW_US:g}")
    if arguments.json is not None:
        arguments.json.write_text(json.dumps({"rows": count, **found}, indent=1) + "\n")


if __name__ == "__main__":
    main()
