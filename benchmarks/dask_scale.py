"""What Dask costs beside the work: tasks that do nothing, through the build's own window.

    python benchmarks/dask_scale.py [--tasks 160000] [--quick] [--json FILE.json]

Tasks carry a job as a build hands it out and give back an outcome as a scan does, so the bytes on
the wire are real. Time is wall time a task, all of it overhead; memory is that of this process,
in which client and scheduler live, after the first 2,000 tasks and at its highest after the last.
At 160,000 tasks it takes about five minutes; `--quick` runs 5,000.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import time
from pathlib import Path
from typing import Any

from vocodata.discover import Scan
from vocodata.executor import run_dask, usable_cores
from vocodata.job import Outcome, ScanJob
from vocodata.passes import WINDOW

WARM_UP = 2000
TARGETS = {"ms_a_task": 3.0, "grown_mb": 150.0}


def nothing(job: ScanJob, _room_bytes: int) -> Outcome:
    """A scan that is done at once."""
    return Outcome(job, reason="listed", detail="", seconds=0.0)


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
    jobs = map(job_of, range(WARM_UP + tasks))
    for result in run_dask(
        nothing, jobs, workers=workers, scheduler=None, should_stop=lambda: False
    ):
        assert isinstance(result, Outcome), result
        done += 1
        if done == WARM_UP:
            began, warm_mb = time.perf_counter(), resident_mb()
            began_cpu = time.process_time()
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
        f"{report['cpu_ms_a_task']:.2f} ms of it the processor's in client and scheduler; "
        f"{report['grown_mb']:.0f} MB more than after the first {WARM_UP} "
        f"(target {TARGETS['grown_mb']:.0f}); {report['warm_mb']:.0f} MB then"
    )
    if arguments.json is not None:
        arguments.json.write_text(json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    main()
