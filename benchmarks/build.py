"""One scan from file to store against MONAI's chain to a cached tensor, one core, in one run.

    python benchmarks/build.py [--quick] [--tuned-malloc] [--json FILE.json]

MONAI's chain is what PersistentDataset runs before it caches: LoadImaged, EnsureChannelFirstd,
Orientationd RAS, Spacingd 1.5 mm bilinear, ScaleIntensityRanged, CropForegroundd, SpatialPadd,
torch.save of float32. Ours is timed twice: the same steps alone (read, orient, resample, crop to
the foreground, write the shard and its metadata, each file flushed to the disk), and the whole task
of `voco data build`, which also takes the quality checks, digests, fingerprint and statistics.

Scans are the real ones of `voco demo` (fetched once with pip), and a made-up one of full size,
since the real ones are small. The process is bound to one core, one thread on both sides; each
round runs all in random order; times are medians of processor time. The floor is the gzip decode by
isal, and one pass that reads the voxels and writes them: nothing that reads such files can be
faster. Memory is the highest resident size over that of the same process before the scan, a process
for each.

With glibc's defaults both sides, and MONAI's more, pay for fresh pages; `--tuned-malloc` keeps the
heap, as the workers of a build do.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import nibabel as nib
import numpy as np
from isal import isal_zlib

from vocodata.discover import Scan
from vocodata.foreground import crop, foreground_box
from vocodata.geometry import Spacing, Volume, orient_ras
from vocodata.ingest import ProcessedScan, ScanStats
from vocodata.job import Outcome, ScanJob, run_job
from vocodata.presets import preset
from vocodata.readers import read_volume
from vocodata.resampling import resample
from vocodata.sample_scans import default_cache, fetch_samples
from vocodata.store import write_scan

if TYPE_CHECKING:
    from vocodata.store.catalog import CatalogRow

PRESET = preset("abdomen")
FIELD_VOX = (192, 192, 64)
MADE_UP = "made up 512x512x300"
TUNED = {"MALLOC_MMAP_THRESHOLD_": "2000000000", "MALLOC_TRIM_THRESHOLD_": "4000000000"}
TARGETS = {"named steps": 9.0, "resample": 18.0, "memory share": 0.45}
Step = tuple[str, Callable[[Any], Any]]


def write_made_up(path: Path, slices: int) -> None:
    """A body in air with correlated noise, 0.75 x 0.75 x 1.25 mm, in LPS as scanners write."""
    rng = np.random.default_rng(0)
    z, y, x = (np.linspace(-1, 1, n, dtype=np.float32) for n in (slices, 512, 512))
    radius = (y[:, None] / 0.75) ** 2 + (x[None, :] / 0.9) ** 2
    tissue = np.where(radius < 0.8, 45, -90) + 60 * np.sin(5 * x[None, :] + 3 * y[:, None])
    plane = np.where(radius < 1, tissue, -1000).astype(np.float32)
    data_ZYX = np.empty((slices, 512, 512), np.int16)
    for n in range(slices):
        noise = rng.standard_normal((512, 512), np.float32)
        for axis in (0, 1, 0, 1):
            noise = 0.25 * np.roll(noise, 1, axis) + 0.5 * noise + 0.25 * np.roll(noise, -1, axis)
        noise *= 18 / noise.std()
        data_ZYX[n] = np.clip(plane + 20 * np.sin(9 * z[n]) + noise, -1024, 3071).round()
    affine = np.diag([-0.75, -0.75, 1.25, 1.0])
    nib.save(nib.Nifti1Image(data_ZYX.transpose(2, 1, 0), affine), path)


def our_steps(scan: Scan, root: Path) -> list[Step]:
    """The steps that MONAI's chain has, by the functions a build calls."""

    def cropped(volume: Volume) -> Volume:
        assert PRESET.foreground_above_hu is not None
        return crop(volume, foreground_box(volume, PRESET.foreground_above_hu))

    def written(volume: Volume) -> CatalogRow:
        stats = ScanStats(-1024, 3071, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0)
        shape, spacing = volume.shape_XYZ, Spacing(1, 1, 1)
        made = ProcessedScan(volume, None, None, stats, "", shape, spacing, "0")
        return write_scan(root, scan, made, "zstd")

    return [
        ("read", lambda _: orient_ras(read_volume(scan.image))),
        ("resample", lambda volume: resample(volume, PRESET.spacing_mm)),
        ("foreground", cropped),
        ("write", written),
    ]


def whole_task(scan: Scan, root: Path) -> list[Step]:
    """What a worker of `voco data build` does with a scan."""
    job = ScanJob(scan, "", root, "zstd")

    def work(_: object) -> Outcome:
        outcome = run_job(job)
        assert outcome.row is not None, outcome.detail
        return outcome

    return [("task", work)]


def monai_steps(scan: Scan, root: Path) -> list[Step]:
    """MONAI's chain."""
    warnings.filterwarnings("ignore", module="monai")
    import torch
    from monai import transforms as t

    torch.set_num_threads(1)
    low, high = PRESET.window_hu
    keys = ["image"]
    steps = [
        t.LoadImaged(keys),
        t.EnsureChannelFirstd(keys),
        t.Orientationd(keys, axcodes="RAS", labels=None),
        t.Spacingd(keys, pixdim=tuple(PRESET.spacing_mm), mode="bilinear"),
        t.ScaleIntensityRanged(keys, low, high, 0.0, 1.0, clip=True),
        t.CropForegroundd(keys, source_key="image", allow_smaller=True),
        t.SpatialPadd(keys, FIELD_VOX),
    ]

    def saved(data: dict[str, Any]) -> None:
        torch.save(data["image"], root / "cached.pt")

    first = steps[0]
    return [
        ("LoadImaged", lambda _: first({"image": str(scan.image)})),
        *((type(step).__name__, step) for step in steps[1:]),
        ("torch.save", saved),
    ]


CONTENDERS: dict[str, Callable[[Scan, Path], list[Step]]] = {
    "voco, the same steps": our_steps,
    "voco, whole task": whole_task,
    "MONAI chain": monai_steps,
}
OURS, TASK, MONAI = CONTENDERS


def timed(steps: list[Step]) -> dict[str, float]:
    """Processor seconds of each step and of all; wall seconds as `wall`."""
    gc.collect()
    seconds, value = {}, None
    began, began_wall = time.process_time(), time.perf_counter()
    for name, step in steps:
        before = time.process_time()
        value = step(value)
        seconds[name] = time.process_time() - before
    seconds["all"] = time.process_time() - began
    seconds["wall"] = time.perf_counter() - began_wall
    return seconds


def floor_s(path: Path) -> float:
    """Processor seconds to inflate a file by isal and to copy its voxels once."""
    voxels = np.ones(int(np.prod(nib.load(path).shape)), np.int16)
    copy = np.ones_like(voxels)
    before = time.process_time()
    inflater = isal_zlib.decompressobj(31)
    with path.open("rb") as file:
        while data := file.read(1 << 16):
            inflater.decompress(data)
    copy[:] = voxels
    return time.process_time() - before


def difference_hu(steps: list[Step], volume: Volume) -> float:
    """Largest difference between our resampled voxels and those of MONAI's Spacingd."""
    data = None
    for name, step in steps:
        data = step(data)
        if name == "Spacingd":
            assert data is not None
            theirs = data["image"].numpy()[0]
            return float(np.abs(theirs - volume.data_XYZ).max())
    raise AssertionError


def measure(scan: Scan, root: Path, repeats: int) -> dict[str, Any]:
    """One scan through all contenders in turn."""
    contenders = {}
    for number, (name, make) in enumerate(CONTENDERS.items()):
        (root / str(number)).mkdir(exist_ok=True)
        contenders[name] = make(scan, root / str(number))
    ours = resample(orient_ras(read_volume(scan.image)), PRESET.spacing_mm)
    error = difference_hu(contenders[MONAI], ours)
    for steps in contenders.values():
        timed(steps)
    order = np.random.default_rng(0)
    runs: dict[str, list[dict[str, float]]] = {name: [] for name in contenders}
    floors = []
    for _ in range(repeats):
        floors.append(floor_s(scan.image))
        for name in order.permutation(list(contenders)).tolist():
            runs[name].append(timed(contenders[name]))
    return {
        "scan": scan.name,
        "shape": [int(n) for n in nib.load(scan.image).shape],
        "file_mb": scan.image.stat().st_size / 1e6,
        "floor_s": statistics.median(floors),
        "error_hu": error,
        "seconds": {
            name: {step: statistics.median(run[step] for run in each) for step in each[0]}
            for name, each in runs.items()
        },
    }


def memory_of(contender: str, scan: Scan) -> dict[str, float]:
    """Highest resident MB over that before the scan, in a process of its own."""
    command = [sys.executable, __file__, "--memory-of", contender, "--image", str(scan.image)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def report_memory(contender: str, image: Path) -> None:
    """Run one scan, and print how the process grew."""
    with tempfile.TemporaryDirectory() as folder:
        small = Path(folder) / "small.nii.gz"
        write_made_up(small, 16)
        # What is imported and compiled stays out of it.
        timed(CONTENDERS[contender](scan_of(small), Path(folder)))
        gc.collect()
        before_mb = resident_mb()
        timed(CONTENDERS[contender](scan_of(image), Path(folder)))
        peak_mb = resident_mb("VmHWM")
    print(json.dumps({"before_mb": before_mb, "grown_mb": peak_mb - before_mb}))


def resident_mb(which: str = "VmRSS") -> float:
    """Resident size, now or at its highest; where the kernel does not say, the highest.

    Not ru_maxrss where it can be helped: a child inherits that of the process that started it.
    """
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
    except FileNotFoundError:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return int(dict(line.split(":\t") for line in lines)[which].split()[0]) / 1024


def scan_of(image: Path) -> Scan:
    """A scan without labels: MONAI's chain has none either."""
    name = image.name.removesuffix(".nii.gz")
    return Scan(f"bench/{name}", "bench", name, image, None, None, "abdomen")


def run(folder: Path, cache: Path, *, quick: bool) -> dict[str, Any]:
    """Make, measure."""
    big = folder / f"{MADE_UP}.nii.gz"
    write_made_up(big, 150 if quick else 300)
    samples = [] if quick else [scan.image for scan in fetch_samples(cache).scans]
    images = [big, *(path for path in samples if path.suffix == ".gz")]
    rows = []
    for image in images:
        scan = scan_of(image)
        row = measure(scan, folder, 2 if quick else 5)
        row["memory"] = {name: memory_of(name, scan) for name in CONTENDERS}
        rows.append(row)
    return {
        "benchmark": "build",
        "processor": platform.processor() or platform.machine(),
        "tuned_malloc": all(os.environ.get(name) == value for name, value in TUNED.items()),
        "quick": quick,
        "targets": TARGETS,
        "rows": rows,
    }


def table(report: dict[str, Any]) -> str:
    """For people."""
    lines = [
        (
            f"{'scan':24}{'MONAI s':>9}{'same s':>8}{'task s':>8}{'floor s':>8}"
            f"{'same':>7}{'task':>7}{'same/floor':>11}{'task/floor':>11}"
            f"{'resample':>9}{'memory':>8}{'error HU':>9}"
        )
    ]
    for row in report["rows"]:
        seconds, memory = row["seconds"], row["memory"]
        monai, ours, task = (seconds[name]["all"] for name in (MONAI, OURS, TASK))
        share = memory[TASK]["grown_mb"] / memory[MONAI]["grown_mb"]
        step = seconds[MONAI]["Spacingd"] / seconds[OURS]["resample"]
        lines.append(
            f"{row['scan']:24}{monai:9.3f}{ours:8.3f}{task:8.3f}{row['floor_s']:8.3f}"
            f"{monai / ours:6.1f}x{monai / task:6.1f}x{ours / row['floor_s']:10.2f}x"
            f"{task / row['floor_s']:10.2f}x{step:8.1f}x{100 * share:7.0f}%{row['error_hu']:9.2f}"
        )
    monai, ours, task = (
        sum(row["seconds"][name]["all"] for row in report["rows"]) for name in (MONAI, OURS, TASK)
    )
    lines.append(
        f"{'all, one after the other':24}{monai:9.3f}{ours:8.3f}{task:8.3f}{'':8}"
        f"{monai / ours:6.1f}x{monai / task:6.1f}x"
    )
    for name in (MONAI, OURS):
        for row in report["rows"]:
            steps = "  ".join(
                f"{step} {1e3 * s:.0f}" for step, s in row["seconds"][name].items() if step != "all"
            )
            lines.append(f"{name}, {row['scan']}, ms: {steps}")
    malloc = "kept heap" if report["tuned_malloc"] else "glibc's defaults"
    lines.append(
        f"Processor time of one core, medians. Malloc: {malloc}. Memory: the whole task's growth, "
        "of MONAI's. Scans already at 1.5 mm, or small, gain least."
    )
    return "\n".join(lines)


def main() -> None:
    """Parse, run, print, write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="half the made-up scan, twice")
    parser.add_argument("--tuned-malloc", action="store_true", help="keep the heap, for all")
    parser.add_argument("--json", type=Path, help="JSON file for the numbers")
    parser.add_argument("--cache", type=Path, default=None, help="cache of the real scans")
    parser.add_argument("--memory-of", choices=list(CONTENDERS), help=argparse.SUPPRESS)
    parser.add_argument("--image", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.memory_of:
        report_memory(arguments.memory_of, arguments.image)
        return
    if arguments.tuned_malloc and any(os.environ.get(k) != v for k, v in TUNED.items()):
        os.execve(sys.executable, [sys.executable, *sys.argv], {**os.environ, **TUNED})
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    with tempfile.TemporaryDirectory() as folder:
        report = run(Path(folder), arguments.cache or default_cache(), quick=arguments.quick)
    print(table(report))
    if arguments.json is not None:
        arguments.json.write_text(json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    main()
