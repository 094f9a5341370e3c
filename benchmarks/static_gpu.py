"""What each Triton kernel takes on each GPU, from the compiler alone: no GPU needed.

    python benchmarks/static_gpu.py [--write] [--json FILE] [--only TEXT] [--jobs N]
                                    [--no-twins] [--quick]

Compiles every shipped kernel ahead of time for sm_80, sm_90 and gfx942 and compares with the
committed table; exit code 5 when a kernel spills or got worse. `--write` takes today's figures as
the table. `--no-twins` leaves out float16 where the same kernel is there in bfloat16: they differ
in a few conversions. `docs/kernels.md` says what this proves and what not.
"""

import argparse
import json
import multiprocessing
import os
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict
from functools import lru_cache
from importlib.metadata import version
from pathlib import Path

from vocokernels.errors import BackendUnavailableError
from vocokernels.static_gpu import (
    TARGETS,
    Resources,
    ShippedKernel,
    Target,
    compile_for,
    shipped_kernels,
)
from vocokernels.static_table import (
    Rows,
    StaticTable,
    faults,
    read_table,
    regressions,
    strangers,
    write_table,
)

TABLE = Path(__file__).parents[1] / "tests/golden/static_gpu.csv"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--write", action="store_true", help=f"write {TABLE.name} anew")
    parser.add_argument("--json", type=Path, help="write figures and complaints here")
    parser.add_argument("--only", default="", help="kernels whose name holds this")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="compile at once")
    parser.add_argument("--no-twins", action="store_true", help="bfloat16 stands for float16")
    parser.add_argument("--quick", action="store_true", help="one GPU only")
    chosen = parser.parse_args()
    try:
        shipped = shipped_kernels()
    except BackendUnavailableError as missing:
        print(missing, file=sys.stderr)
        sys.exit(4)
    kernels = [kernel for kernel in shipped if chosen.only in kernel.name]
    if chosen.no_twins:
        kernels = without_twins(kernels)
    started = time.perf_counter()
    found = compile_all(kernels, TARGETS[1:2] if chosen.quick else TARGETS, jobs=chosen.jobs)
    show(found, seconds=time.perf_counter() - started)
    if chosen.write:
        write(found, shipped)
    complaints = compare(found, shipped)
    for sentence in complaints:
        print(sentence, file=sys.stderr)
    if chosen.json:
        rows = [
            {"kernel": name, "target": target, **asdict(resources)}
            for (name, target), resources in sorted(found.items())
        ]
        result = {"triton": version("triton"), "rows": rows, "complaints": complaints}
        chosen.json.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    sys.exit(5 if complaints else 0)


def without_twins(kernels: list[ShippedKernel]) -> list[ShippedKernel]:
    names = {kernel.name for kernel in kernels}
    return [
        kernel
        for kernel in kernels
        if "fp16" not in kernel.name or kernel.name.replace("fp16", "bf16") not in names
    ]


def compile_all(kernels: list[ShippedKernel], targets: tuple[Target, ...], *, jobs: int) -> Rows:
    """Compile in processes: a kernel's function cannot be sent, so each finds it by name."""
    tasks = [(kernel.name, target) for kernel in kernels for target in targets]
    jobs = max(1, min(jobs, len(tasks)))
    if jobs == 1:
        return dict(zip(tasks, map(_compile_one, tasks), strict=True))
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(jobs, mp_context=spawn) as pool:
        return dict(zip(tasks, pool.map(_compile_one, tasks, chunksize=4), strict=True))


def _compile_one(task: tuple[str, Target]) -> Resources:
    name, target = task
    return compile_for(_by_name()[name], target)


@lru_cache(maxsize=1)
def _by_name() -> dict[str, ShippedKernel]:
    return {kernel.name: kernel for kernel in shipped_kernels()}


def compare(found: Rows, shipped: list[ShippedKernel]) -> list[str]:
    """With the committed table; kernels and rows that have no partner are told in any case."""
    committed = read_table(TABLE)
    complaints = faults(found, shipped) + strangers(committed.rows, shipped, TARGETS)
    if committed.triton != version("triton"):
        print(
            f"The table is of triton {committed.triton}, here is {version('triton')}: only spills, "
            "stacks and matrix units were checked.",
            file=sys.stderr,
        )
        return complaints
    return complaints + regressions(committed.rows, found)


def write(found: Rows, shipped: list[ShippedKernel]) -> None:
    """New figures into the old table, without rows of kernels that are gone."""
    names = {kernel.name for kernel in shipped}
    old = {key: row for key, row in read_table(TABLE).rows.items() if key[0] in names}
    rows = {**old, **found}
    write_table(TABLE, StaticTable(version("triton"), rows))
    print(f"wrote {len(found)} rows of {len(rows)} to {TABLE.name}")


def show(found: Rows, *, seconds: float) -> None:
    width = max((len(name) for name, _ in found), default=6)
    for line in table_lines(found, width):
        print(line)
    print(f"{len(found)} compilations in {seconds:.0f} s, triton {version('triton')}")


def table_lines(found: Rows, width: int) -> Iterator[str]:
    yield (
        f"{'kernel':<{width}} {'target':<7} {'regs':>5} {'spill':>6} {'stack':>6} {'shared':>7} "
        f"{'warps':>6}  matrix"
    )
    for (name, target), take in sorted(found.items()):
        yield (
            f"{name:<{width}} {target:<7} {take.registers:>5} "
            f"{take.spill_stores + take.spill_loads:>6} {take.stack_bytes:>6} "
            f"{take.shared_bytes:>7} {take.occupancy_warps:>6}  {take.matrix_instruction}"
        )


if __name__ == "__main__":
    main()
