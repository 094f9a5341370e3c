"""Random crops out of stored volumes: our store against what people use, in one run.

    python benchmarks/loader.py [--quick] [--tuned-malloc] [--json FILE.json]

Each reader returns the same crop of HU (checked first). Volumes are made to look like CT: a body
in air, correlated noise of 15 to 25 HU. Volumes, boxes and the order of readers are random; the
numbers are medians with the page cache warm, one thread each. Bytes are those of read calls.

Two things to know when reading the table. With glibc's defaults most of the time of `torch.load`
is fresh pages, not I/O; `--tuned-malloc` keeps the heap, which a careful user would do too. And
with a warm cache on a local disk the bytes say more about a file server than the times do.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import zarr

from vocodata.discover import Scan
from vocodata.geometry import Size, Spacing, Volume
from vocodata.ingest import ProcessedScan, ScanStats
from vocodata.store import open_store, write_scan
from vocodata.store.root import publish

CROPS = {"field": Size(192, 192, 64), "96": Size(96, 96, 96), "64": Size(64, 64, 64)}
TUNED = {"MALLOC_MMAP_THRESHOLD_": "2000000000", "MALLOC_TRIM_THRESHOLD_": "4000000000"}
WINDOW_HU = (-175.0, 250.0)
Reader = Callable[[int, Size, Size], np.ndarray]


def ct_like(seed: int, size: Size) -> np.ndarray:
    """int16 (X, Y, Z), Fortran order as a NIfTI's bytes lie."""
    rng = np.random.default_rng(seed)
    shape_ZYX = size[::-1]
    noise = rng.normal(size=shape_ZYX).astype(np.float32)
    for axis in range(3):
        noise = 0.25 * np.roll(noise, 1, axis) + 0.5 * noise + 0.25 * np.roll(noise, -1, axis)
    noise *= rng.uniform(15, 25) / noise.std()
    z, y, x = (np.linspace(-1, 1, n, dtype=np.float32) for n in shape_ZYX)
    radius = (y[:, None] / 0.75) ** 2 + (x[None, :] / 0.9) ** 2
    tissue = np.where(radius < 0.8, 45, -90) + 60 * np.sin(5 * x[None, :] + 3 * y[:, None])
    hu = np.where(radius < 1, tissue, -1000)[None] + 20 * np.sin(9 * z)[:, None, None] + noise
    return np.clip(hu, -1024, 3071).round().astype(np.int16).transpose(2, 1, 0)


def store_of(folder: Path, volumes: list[np.ndarray], codec: str) -> Reader:
    """Our store, read through the public door."""
    root = folder / f"voco-{codec}.zarr"
    rows = []
    for number, data in enumerate(volumes):
        volume = Volume(data, np.diag([1.5, 1.5, 1.5, 1.0]))
        scan = Scan(f"made/{number}", "made", str(number), Path("none"), None, None, "abdomen")
        stats = ScanStats(-1024, 3071, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0)
        shape, spacing = volume.shape_XYZ, Spacing(1.5, 1.5, 1.5)
        made = ProcessedScan(volume, None, None, stats, "", shape, spacing, "0")
        rows.append(write_scan(root, scan, made, codec))
    publish(root, rows, [], found=len(rows), recipe_digest="")
    store = open_store(root)
    return lambda number, start, size: store.read(f"made/{number}", start, size)


def pt_of(folder: Path, volumes: list[np.ndarray]) -> Reader:
    """A float32 tensor a file, as MONAI's PersistentDataset caches; the slice is copied."""
    import torch

    torch.set_num_threads(1)
    for number, data in enumerate(volumes):
        tensor = torch.from_numpy(np.ascontiguousarray(data, dtype=np.float32))
        torch.save(tensor, folder / f"{number}.pt")

    def read(number: int, start: Size, size: Size) -> np.ndarray:
        whole = torch.load(folder / f"{number}.pt", weights_only=True)
        x, y, z = (slice(a, a + n) for a, n in zip(start, size, strict=True))
        return whole[x, y, z].contiguous().numpy()

    return read


def zarr_python_of(folder: Path, count: int) -> Reader:
    """zarr-python on our own zstd store."""
    scans = folder / "voco-zstd.zarr" / "scans" / "made"
    arrays = [zarr.open_array(scans / str(number) / "0", mode="r") for number in range(count)]

    def read(number: int, start: Size, size: Size) -> np.ndarray:
        box = tuple(slice(a, a + n) for a, n in zip(start[::-1], size[::-1], strict=True))
        return arrays[number][box].transpose(2, 1, 0)

    return read


def tensorstore_of(folder: Path, count: int) -> Reader | None:
    """Tensorstore on our own zstd store, if it is installed."""
    try:
        import tensorstore
    except ModuleNotFoundError:
        return None
    limits = {"data_copy_concurrency": {"limit": 1}, "file_io_concurrency": {"limit": 1}}
    context = tensorstore.Context(limits)
    scans = folder / "voco-zstd.zarr" / "scans" / "made"
    arrays = [
        tensorstore.open(
            {"driver": "zarr3", "kvstore": {"driver": "file", "path": str(scans / str(n) / "0")}},
            context=context,
            read=True,
        ).result()
        for n in range(count)
    ]

    def read(number: int, start: Size, size: Size) -> np.ndarray:
        box = tuple(slice(a, a + n) for a, n in zip(start[::-1], size[::-1], strict=True))
        return arrays[number][box].read().result().transpose(2, 1, 0)

    return read


def b2nd_of(folder: Path, volumes: list[np.ndarray]) -> Reader:
    """c-blosc2's own container, int16, chunks of 64 and blocks of 16: the best of its settings."""
    import blosc2

    blosc2.set_nthreads(1)
    settings = {"codec": blosc2.Codec.ZSTD, "clevel": 3, "filters": [blosc2.Filter.SHUFFLE]}
    for number, data in enumerate(volumes):
        blosc2.asarray(
            np.ascontiguousarray(data),
            chunks=(64,) * 3,
            blocks=(16,) * 3,
            cparams=settings,
            urlpath=str(folder / f"{number}.b2nd"),
            mode="w",
        )

    def read(number: int, start: Size, size: Size) -> np.ndarray:
        array = blosc2.open(str(folder / f"{number}.b2nd"), mode="r", dparams={"nthreads": 1})
        return array[tuple(slice(a, a + n) for a, n in zip(start, size, strict=True))]

    return read


def windowed(read: Reader) -> Reader:
    """The same, and the crop brought to float32 in [0, 1] here; in training the device does it."""
    low, high = WINDOW_HU

    def read_windowed(number: int, start: Size, size: Size) -> np.ndarray:
        crop = read(number, start, size).astype(np.float32)
        crop -= np.float32(low)
        crop *= np.float32(1 / (high - low))
        return np.clip(crop, 0, 1, out=crop)

    return read_windowed


def bytes_by_read_calls() -> int:
    """Bytes this process has asked the kernel for so far; 0 where the kernel does not say."""
    try:
        lines = Path("/proc/self/io").read_text().splitlines()
    except FileNotFoundError:
        return 0
    return int(dict(line.split(": ") for line in lines)["rchar"])


def measure(
    readers: dict[str, Reader], sizes: list[Size], crop: Size, *, rounds: int, seed: int
) -> dict[str, dict[str, float]]:
    """Median ms and bytes a crop of each reader, over the same random boxes."""
    rng = np.random.default_rng(seed)
    times: dict[str, list[float]] = {name: [] for name in readers}
    read_bytes: dict[str, list[int]] = {name: [] for name in readers}
    for _ in range(rounds):
        number = int(rng.integers(len(sizes)))
        for name in rng.permutation(list(readers)).tolist():
            spare = (n - c for n, c in zip(sizes[number], crop, strict=True))
            start = Size(*(int(rng.integers(0, n + 1)) for n in spare))
            before = bytes_by_read_calls()
            began = time.perf_counter()
            readers[name](number, start, crop)
            times[name].append(time.perf_counter() - began)
            read_bytes[name].append(bytes_by_read_calls() - before)
    return {
        name: {
            "ms": 1e3 * statistics.median(times[name]),
            "mb_read": statistics.median(read_bytes[name]) / 1e6,
        }
        for name in readers
    }


def check_equal(readers: dict[str, Reader], volumes: list[np.ndarray]) -> None:
    """Every reader gives the voxels that were stored."""
    for number, data in enumerate(volumes):
        start = Size(*(n // 3 for n in data.shape))
        size = Size(*(n // 2 for n in data.shape))
        box = tuple(slice(a, a + n) for a, n in zip(start, size, strict=True))
        for name, read in readers.items():
            assert np.array_equal(read(number, start, size), data[box]), name


def stored_bytes(folder: Path) -> dict[str, int]:
    """Bytes on disk by kind of file."""
    totals: dict[str, int] = {}
    for path in folder.rglob("*"):
        if path.is_file():
            kind = path.suffix if path.suffix in {".pt", ".b2nd"} else path.parts[len(folder.parts)]
            totals[kind] = totals.get(kind, 0) + path.stat().st_size
    return totals


def run(folder: Path, *, quick: bool) -> dict[str, Any]:
    """Make, check, measure."""
    # 66 MB as float32. A volume below 32 MB would hide the fresh pages of glibc's defaults.
    size = Size(256, 256, 250)
    count, rounds = (2, 8) if quick else (5, 30)
    volumes = [ct_like(seed, size) for seed in range(count)]
    readers: dict[str, Reader | None] = {
        "torch.load .pt float32": pt_of(folder, volumes),
        "voco store zstd": store_of(folder, volumes, "zstd"),
        "voco store lz4": store_of(folder, volumes, "lz4"),
        "zarr-python": zarr_python_of(folder, count),
        "tensorstore": tensorstore_of(folder, count),
        "b2nd int16": b2nd_of(folder, volumes),
    }
    present = {name: read for name, read in readers.items() if read is not None}
    check_equal(present, volumes)
    present["voco store zstd, then window"] = windowed(present["voco store zstd"])
    sizes = [Size(*data.shape) for data in volumes]
    results = {}
    for name, crop in CROPS.items():
        measure(present, sizes, crop, rounds=2, seed=0)
        results[name] = measure(present, sizes, crop, rounds=rounds, seed=1)
    return {
        "volume_vox": size,
        "volumes": count,
        "rounds": rounds,
        "tuned_malloc": all(os.environ.get(name) == value for name, value in TUNED.items()),
        "processor": platform.processor() or platform.machine(),
        "absent": [name for name, read in readers.items() if read is None],
        "bytes_per_voxel": {
            kind: total / (count * np.prod(size)) for kind, total in stored_bytes(folder).items()
        },
        "results": results,
    }


def table(report: dict[str, Any]) -> str:
    """For people."""
    lines = [f"{'':30}" + "".join(f"{name:>26}" for name in report["results"])]
    for reader in next(iter(report["results"].values())):
        cells = []
        for rows in report["results"].values():
            ratio = rows["torch.load .pt float32"]["ms"] / rows[reader]["ms"]
            cell = f"{rows[reader]['ms']:.2f} ms {rows[reader]['mb_read']:.1f} MB {ratio:.1f}x"
            cells.append(f"{cell:>26}")
        lines.append(f"{reader:30}" + "".join(cells))
    per_voxel = ", ".join(f"{kind} {n:.2f}" for kind, n in report["bytes_per_voxel"].items())
    malloc = "kept heap" if report["tuned_malloc"] else "glibc's defaults"
    lines.append(f"Bytes a voxel: {per_voxel}. Malloc: {malloc}. Ratios are to torch.load.")
    return "\n".join(lines)


def main() -> None:
    """Parse, run, print, write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="fewer volumes and rounds")
    parser.add_argument("--tuned-malloc", action="store_true", help="keep the heap, for all")
    parser.add_argument("--json", type=Path, help="JSON file for the numbers")
    parser.add_argument("--folder", type=Path, help="where volumes are made (default: temporary)")
    arguments = parser.parse_args()
    if arguments.tuned_malloc and any(os.environ.get(k) != v for k, v in TUNED.items()):
        os.execve(sys.executable, [sys.executable, *sys.argv], {**os.environ, **TUNED})
    with tempfile.TemporaryDirectory(dir=arguments.folder) as folder:
        report = run(Path(folder), quick=arguments.quick)
    print(table(report))
    if arguments.json is not None:
        arguments.json.write_text(json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    main()
