"""What Dask costs beside the work: tasks that do nothing, through the build's own window.

    python benchmarks/dask_scale.py [--tasks 160000] [--quick] [--json FILE.json]

Tasks carry a job as a build hands it out and give back an outcome with a catalogue row of a scan's
length, so the bytes on the wire are real. Time is wall time a task, all of it overhead, over all
and over the first and the last tenth: it must stay flat. Memory is that of this process, in which
client and scheduler live, after the first 2,000 tasks and at its highest after the last. At 160,000
tasks it takes about seven minutes; `--quick` runs 5,000.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import platform
import time
from pathlib import Path
from typing import Any

import numpy as np

from vocodata.discover import Scan
from vocodata.executor import run_dask, usable_cores
from vocodata.job import Outcome, ScanJob
from vocodata.passes import WINDOW
from vocodata.store import CatalogRow

WARM_UP = 2000
TARGETS = {"ms_a_task": 3.0, "grown_mb": 150.0}


ROW = CatalogRow(
    id="collection/patient-000000_0000",
    source="collection",
    name="patient-000000_0000",
    preset="abdomen",
    window_hu=(-175.0, 250.0),
    weight=1.0,
    licence="CC BY 4.0",
    label_names={},
    shape_xyz=(243, 193, 223),
    spacing_mm=(1.5, 1.5, 1.5),
    affine=tuple(np.diag([1.5, 1.5, 1.5, 1.0]).ravel().tolist()),
    voxels=243 * 193 * 223,
    hu_min=-1024,
    hu_max=1643,
    hu_mean=-312.4,
    hu_std=461.3,
    hu_p1=-1024.0,
    hu_p50=-87.0,
    hu_p99=312.0,
    body_fraction=0.471,
    flags=(),
    fingerprint="v2:" + "0123456789abcdef" * 80,
    source_shape_xyz=(122, 97, 112),
    source_spacing_mm=(3.0, 3.0, 3.0),
    source_digest="0" * 64,
    codec="zstd",
    bytes=9_600_000,
    image_bytes=9_600_000,
    digest="1" * 64,
    quality=json.dumps({f"measure_{number}": number / 7 for number in range(24)}),
)


def nothing(job: ScanJob, _room_bytes: int) -> Outcome:
    """A scan that is done at once."""
    return Outcome(job, row=ROW, seconds=0.0)


def job_of(number: int) -> ScanJob:
    name = f"patient-{number:06d}_0000"
    image = Path(f"/data/sources/collection/imagesTr/{name}.nii.gz")
    scan = Scan(f"collection/{name}", "collection", name, image, None, None, "abdomen")
    return ScanJob(scan, f"{number:064x}", Path("/data/ct.zarr"), "zstd")


def resident_mb() -> float:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


def run(tasks: int, workers: int) -> dict[str, Any]:
    """Run tasks, watch time and memory."""
    done, highest, warm_mb = 0, 0.0, 0.0
    began = began_cpu = 0.0
    tenths: list[float] = []
    jobs = map(job_of, range(WARM_UP + tasks))
    for result in run_dask(
        nothing, jobs, workers=workers, scheduler=None, should_stop=lambda: False
    ):
        assert isinstance(result, Outcome), result
        done += 1
        if done == WARM_UP:
            began, warm_mb = time.perf_counter(), resident_mb()
            began_cpu = time.process_time()
        if done >= WARM_UP and (done - WARM_UP) % (tasks // 10) == 0:
            tenths.append(time.perf_counter())
        if done % 500 == 0:
            highest = max(highest, resident_mb())
    seconds, cpu_seconds = time.perf_counter() - began, time.process_time() - began_cpu
    assert done == WARM_UP + tasks, f"{done} of {WARM_UP + tasks} tasks came back"
    return {
        "benchmark": "dask_scale",
        "processor": platform.processor() or platform.machine(),
        "tasks": tasks,
        "workers": workers,
        "window": WINDOW * workers,
        "seconds": seconds,
        "ms_a_task": 1e3 * seconds / tasks,
        "cpu_ms_a_task": 1e3 * cpu_seconds / tasks,
        "ms_by_tenths": [1e4 * (b - a) / tasks for a, b in itertools.pairwise(tenths)],
        "warm_mb": warm_mb,
        "grown_mb": highest - warm_mb,
        "targets": TARGETS,
    }


def main() -> None:
    """Parse, run, print, write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tasks", type=int, default=160_000, help="after 2,000 to warm up")
    parser.add_argument("--workers", type=int, default=usable_cores())
    parser.add_argument("--quick", action="store_true", help="5,000 tasks")
    parser.add_argument("--json", type=Path, help="JSON file for the numbers")
    arguments = parser.parse_args()
    report = run(5000 if arguments.quick else arguments.tasks, arguments.workers)
    print(
        f"{report['tasks']} tasks that do nothing, {report['workers']} workers: "
        f"{report['ms_a_task']:.2f} ms a task (target {TARGETS['ms_a_task']:.0f}), "
        f"{report['cpu_ms_a_task']:.2f} ms of it the processor's in client and scheduler; first "
        f"tenth {report['ms_by_tenths'][0]:.2f} ms, last {report['ms_by_tenths'][-1]:.2f} ms; "
        f"{report['grown_mb']:.0f} MB more than after the first {WARM_UP} "
        f"(target {TARGETS['grown_mb']:.0f}); {report['warm_mb']:.0f} MB then"
    )
    if arguments.json is not None:
        arguments.json.write_text(json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    main()
