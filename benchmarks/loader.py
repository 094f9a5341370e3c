"""Random crops out of stored volumes: our store against what people use, in one run.

    python benchmarks/loader.py [--quick] [--json FILE.json]

`voco bench loader` with one reader more, zarr-python, which no package of ours may import. Volumes
are made to look like CT: a body in air, correlated noise of 15 to 25 HU. Each reader returns the
same crop of HU (checked first); boxes and the order of readers are random, files are in the page
cache, one thread each; ratios are of processor time, in one process. Each of glibc's ways has a
process of its own, since with the defaults most of the time of `torch.load` is fresh pages, not
I/O. And with a warm cache on a local disk, the bytes say more about a file server than the times.
"""

import argparse
import json
import sys
from dataclasses import asdict
from pathlib import Path

import numpy as np
import zarr

from vocodata.geometry import Size
from vocotrain.bench_loader import bench_loader, goals, resolve_settings, table
from vocotrain.bench_loader.readers import Reader
from vocotrain.bench_loader.volumes import scan_id, store_path


def zarr_python(folder: Path, volumes: int) -> Reader:
    """zarr-python on our own zstd store."""
    scans = store_path(folder, "zstd") / "scans"
    arrays = [zarr.open_array(scans / scan_id(n) / "0", mode="r") for n in range(volumes)]

    def read(number: int, start: Size, size: Size) -> np.ndarray:
        box = tuple(slice(a, a + n) for a, n in zip(start[::-1], size[::-1], strict=True))
        return arrays[number][box].transpose(2, 1, 0)

    return read


def lines(header: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    widths = [max(map(len, column)) for column in zip(header, *rows, strict=True)]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in (header, *rows)
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="one volume, few rounds")
    parser.add_argument("--json", type=Path, help="JSON file for the numbers")
    parser.add_argument("--folder", type=Path, help="where volumes are made (default: temporary)")
    arguments = parser.parse_args()
    report = bench_loader(
        resolve_settings(is_quick=arguments.quick),
        lambda text: print(text, file=sys.stderr),
        folder=arguments.folder,
        others={"zarr-python on voco zstd": zarr_python},
    )
    print(lines(*table(report)))
    print(lines(*goals(report)))
    per_voxel = ", ".join(f"{kind} {n:.2f}" for kind, n in report.bytes_per_voxel.items())
    print(f"Bytes a voxel: {per_voxel}. Machine: {report.machine}.")
    if arguments.json is not None:
        arguments.json.write_text(json.dumps(asdict(report), indent=1) + "\n")


if __name__ == "__main__":
    main()
