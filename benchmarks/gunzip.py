"""Ways to decode a .nii.gz into int16 voxels, in the same run.

    python benchmarks/gunzip.py [--tuned-malloc] [--quick] [--cache FOLDER] [--json FILE.json]

Ours is ISA-L's stream, straight into the array, its checksum proved. `deflate` (libdeflate, if it
is installed) gives back a fresh object of the whole file; SimpleITK reads voxels and says nothing
of a stream that is cut short. Processor time of one thread, medians; each way takes fresh memory
as a build's task does.
"""

from __future__ import annotations

import argparse
import gzip
import importlib.util
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from importlib import import_module
from pathlib import Path

import nibabel as nib
import numpy as np
import SimpleITK
from build import MADE_UP, TUNED, write_made_up

from vocodata.readers.inflate import read_array
from vocodata.sample_scans import default_cache, fetch_samples

Way = Callable[[], object]


def ours(path: Path) -> object:
    header = nib.load(path).header
    offset, kind = int(header.get_data_offset()), header.get_data_dtype()
    return read_array(path, offset=offset, dtype=kind, count=int(np.prod(header.get_data_shape())))


def zlib_whole(path: Path) -> object:
    with gzip.open(path) as file:
        return np.frombuffer(file.read(), np.uint8)


def deflate_whole(path: Path) -> object:
    data = path.read_bytes()
    size = int.from_bytes(data[-4:], "little")
    return np.frombuffer(import_module("deflate").gzip_decompress(data, size), np.uint8)


def ways(path: Path) -> dict[str, Way]:
    found: dict[str, Way] = {"ours (isal)": partial(ours, path)}
    if importlib.util.find_spec("deflate") is not None:
        found["deflate"] = partial(deflate_whole, path)
    found["SimpleITK"] = partial(SimpleITK.ReadImage, str(path))
    return found | {"gzip (zlib)": partial(zlib_whole, path)}


def measured(path: Path, rounds: int) -> dict[str, float]:
    seconds: dict[str, list[float]] = {}
    order = np.random.default_rng(0)
    of_path = ways(path)
    for _ in range(rounds):
        for name in order.permutation(list(of_path)).tolist():
            began = time.process_time()
            of_path[name]()
            seconds.setdefault(name, []).append(time.process_time() - began)
    return {name: statistics.median(seconds[name]) for name in of_path}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tuned-malloc", action="store_true", help="keep the heap, as workers do")
    parser.add_argument("--quick", action="store_true", help="the made-up scan only, thrice")
    parser.add_argument("--cache", type=Path, default=None, help="cache of the real scans")
    parser.add_argument("--json", type=Path, help="JSON file for the numbers")
    arguments = parser.parse_args()
    if arguments.tuned_malloc and any(os.environ.get(k) != v for k, v in TUNED.items()):
        os.execve(sys.executable, [sys.executable, *sys.argv], {**os.environ, **TUNED})
    SimpleITK.ProcessObject.SetGlobalDefaultNumberOfThreads(1)
    with tempfile.TemporaryDirectory() as folder:
        made = Path(folder) / "made-up.nii.gz"
        write_made_up(made, 300)
        scans = {MADE_UP: made}
        if not arguments.quick:
            real = fetch_samples(arguments.cache or default_cache()).scans
            scans |= {scan.id: scan.image for scan in real if scan.image.name.endswith(".gz")}
        rows = {name: measured(path, 3 if arguments.quick else 9) for name, path in scans.items()}
    names = next(iter(rows.values()))
    print(f"{'ms':24}" + "".join(f"{name:>14}" for name in names))
    for scan, row in rows.items():
        print(f"{scan:24}" + "".join(f"{1e3 * row[name]:14.0f}" for name in names))
    if arguments.json is not None:
        report = {"benchmark": "gunzip", "tuned_malloc": arguments.tuned_malloc, "seconds": rows}
        arguments.json.write_text(json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    main()
