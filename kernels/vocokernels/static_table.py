"""The committed table of what each shipped kernel takes on each GPU, and what counts as worse.

The table is CSV, sorted, one line a kernel and GPU, so that a change shows as changed lines. Its
first line names the compiler: registers are its decision, and figures of another version are not
comparable. What is wrong under any compiler (a spill, a stack, idle matrix units) is refused
without the table.
"""

import csv
from collections.abc import Mapping, Sequence
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any, NamedTuple

from vocokernels.static_gpu import Resources, ShippedKernel

_COLUMNS = ("kernel", "target", *(field.name for field in fields(Resources)))
_VERSION_LINE = "# triton "
Rows = dict[tuple[str, str], Resources]


class StaticTable(NamedTuple):
    """Resources by name of kernel and target."""

    triton: str
    """Version of the compiler."""
    rows: Rows


def read_table(path: Path) -> StaticTable:
    """Read the committed table."""
    first, *lines = path.read_text(encoding="utf-8").splitlines()
    rows: Rows = {}
    for line in csv.DictReader(lines):
        figures: dict[str, Any] = {
            field.name: line[field.name] if field.type is str else int(line[field.name])
            for field in fields(Resources)
        }
        rows[line["kernel"], line["target"]] = Resources(**figures)
    return StaticTable(first.removeprefix(_VERSION_LINE), rows)


def write_table(path: Path, table: StaticTable) -> None:
    """Write the table, sorted."""
    with path.open("w", encoding="utf-8", newline="") as file:
        file.write(f"{_VERSION_LINE}{table.triton}\n")
        writer = csv.DictWriter(file, _COLUMNS, lineterminator="\n")
        writer.writeheader()
        for (kernel, target), resources in sorted(table.rows.items()):
            writer.writerow({"kernel": kernel, "target": target, **asdict(resources)})


def faults(found: Mapping[tuple[str, str], Resources], kernels: list[ShippedKernel]) -> list[str]:
    """What no compiler may do to a shipped kernel, as sentences; empty if all is well."""
    needs_matrix = {kernel.name: kernel.matrix_units for kernel in kernels}
    complaints = []
    for (kernel, target), now in sorted(found.items()):
        where = f"{kernel} on {target}"
        if now.spill_stores or now.spill_loads:
            complaints.append(f"{where} spills: {now.spill_stores} out, {now.spill_loads} back.")
        if now.stack_bytes:
            complaints.append(f"{where} has a stack of {now.stack_bytes} bytes.")
        if needs_matrix[kernel] and not now.matrix_instruction:
            complaints.append(f"{where} does not use the matrix units.")
        if now.occupancy_warps == 0:
            complaints.append(f"{where} does not fit on a multiprocessor.")
    return complaints


def strangers(rows: Rows, kernels: list[ShippedKernel], targets: Sequence[str]) -> list[str]:
    """Kernels without a row and rows without a kernel, as sentences; nothing is compiled for it."""
    shipped = {(kernel.name, target) for kernel in kernels for target in targets}
    missing = [f"{name} on {target} has no row." for name, target in sorted(shipped - set(rows))]
    gone = sorted(set(rows) - shipped)
    return missing + [f"{name} on {target} has a row but no kernel." for name, target in gone]


def regressions(before: Rows, after: Rows) -> list[str]:
    """What got worse in kernels that both tables have, as sentences.

    More registers count only where fewer warps fit on a multiprocessor for it.
    """
    return [
        f"{' on '.join(key)}: {fault}."
        for key in sorted(set(before) & set(after))
        for fault in _worse(before[key], after[key])
    ]


def _worse(old: Resources, new: Resources) -> list[str]:
    fall = f"warps on a multiprocessor fell from {old.occupancy_warps} to {new.occupancy_warps}"
    registers = f"registers {old.registers} to {new.registers}"
    weaker = old.matrix_instruction != new.matrix_instruction != "HGMMA"
    checks = (
        (new.occupancy_warps < old.occupancy_warps, f"{fall} ({registers})"),
        (
            new.shared_bytes > old.shared_bytes,
            f"shared memory rose from {old.shared_bytes} to {new.shared_bytes} bytes",
        ),
        (
            bool(old.matrix_instruction) and weaker,
            f"{old.matrix_instruction} became {new.matrix_instruction or 'no matrix instruction'}",
        ),
    )
    return [text for is_worse, text in checks if is_worse]
