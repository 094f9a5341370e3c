"""Every Triton kernel is compiled for three GPUs and held against the committed table.

In processes of their own: where TRITON_INTERPRET was set when a kernel was decorated, it cannot be
compiled.
"""

import ast
import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from vocokernels.errors import BackendUnavailableError
from vocokernels.static_gpu import (
    TARGETS,
    Resources,
    ShippedKernel,
    compile_for,
    occupancy,
    shipped_kernels,
    what_is_missing,
)
from vocokernels.static_table import (
    StaticTable,
    faults,
    read_table,
    regressions,
    strangers,
    write_table,
)

ROOT = Path(__file__).parents[2]
TABLE = ROOT / "tests/golden/static_gpu.csv"
GOOD = Resources(
    registers=96,
    spill_stores=0,
    spill_loads=0,
    stack_bytes=0,
    shared_bytes=14336,
    occupancy_warps=20,
    matrix_instruction="HGMMA",
)
KEY = ("some kernel", "sm_90")
KERNEL = ShippedKernel("some kernel", None, {}, {}, matrix_units=True)


def complaints_of(folder, *options):
    """What `benchmarks/static_gpu.py` found, compiled anew."""
    result = folder / "static.json"
    run = run_python(
        "benchmarks/static_gpu.py", "--json", str(result), "--jobs", "2", *options, cache=folder
    )
    assert run.returncode in (0, 5), run.stderr
    found = json.loads(result.read_text())
    assert found["rows"]
    return found


def run_python(*arguments, cache):
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    environment |= {"TRITON_CACHE_DIR": str(cache), "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    return subprocess.run(
        [sys.executable, *arguments], cwd=ROOT, env=environment, capture_output=True, text=True
    )


@pytest.fixture
def _can_compile(monkeypatch):
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    if reason := what_is_missing():
        pytest.skip(reason)


@pytest.mark.usefixtures("_can_compile")
@pytest.mark.parametrize(
    "options", [("--no-twins",), pytest.param((), marks=pytest.mark.slow)], ids=["covering", "all"]
)
def test_no_kernel_spills_or_got_worse_than_the_table(tmp_path, options):
    compiled = complaints_of(tmp_path, *options)
    assert compiled["complaints"] == []
    table = read_table(TABLE)
    if compiled["triton"] != table.triton:
        pytest.skip(
            f"No kernel spills; the table of triton {table.triton} says nothing of "
            f"{compiled['triton']}."
        )
    compared = {(row["kernel"], row["target"]) for row in compiled["rows"]}
    assert {name for name, _ in compared} >= {
        name for name, _ in table.rows if not options or "fp16" not in name
    }


@pytest.mark.usefixtures("_can_compile")
def test_a_kernel_that_spills_is_seen(tmp_path):
    run = run_python("tests/vocokernels/spilling_kernel.py", cache=tmp_path)
    assert run.returncode == 0, run.stderr
    for size, expected in (("1024", []), ("32768", ["spills", "has a stack of"])):
        for target in TARGETS:
            found = Resources(**json.loads(run.stdout)[size][target])
            key, kernel = ("center", target), replace(KERNEL, name="center", matrix_units=False)
            complaints = faults({key: found}, [kernel])
            assert len(complaints) == len(expected), (target, found)
            assert all(word in text for word, text in zip(expected, complaints, strict=True))


def test_every_kernel_of_a_kernel_file_is_shipped():
    """So that none escapes the table."""
    for kernel_file in sorted((ROOT / "kernels/vocokernels").rglob("kernel.py")):
        operation = kernel_file.relative_to(ROOT / "kernels/vocokernels").parts[0]
        names = [
            node.name
            for node in ast.parse(kernel_file.read_text(encoding="utf-8")).body
            if isinstance(node, ast.FunctionDef) and node.name.endswith("_kernel")
        ]
        assert names, f"{kernel_file} holds no kernel that is named so"
        shipped = (ROOT / "kernels/vocokernels" / operation / "shipped.py").read_text()
        assert [name for name in names if name not in shipped] == []


def test_the_table_survives_being_written_and_read(tmp_path):
    rows = {KEY: GOOD, ("another", "gfx942"): replace(GOOD, matrix_instruction="")}
    write_table(tmp_path / "table.csv", StaticTable("3.7.1", rows))
    assert read_table(tmp_path / "table.csv") == StaticTable("3.7.1", rows)
    lines = (tmp_path / "table.csv").read_text().splitlines()
    assert lines[2].startswith("another,gfx942,96,0,0,0,14336,20,")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"spill_stores": 1}, "spills: 1 out, 0 back"),
        ({"spill_loads": 2}, "spills: 0 out, 2 back"),
        ({"stack_bytes": 16}, "has a stack of 16 bytes"),
        ({"matrix_instruction": ""}, "does not use the matrix units"),
        ({"occupancy_warps": 0}, "does not fit on a multiprocessor"),
    ],
)
def test_what_no_kernel_may_do_is_named(change, words):
    (complaint,) = faults({KEY: replace(GOOD, **change)}, [KERNEL])
    assert complaint.startswith("some kernel on sm_90")
    assert words in complaint


def test_a_kernel_that_is_well_raises_no_complaint():
    assert faults({KEY: GOOD}, [KERNEL]) == []
    assert regressions({KEY: GOOD}, {KEY: GOOD}) == []


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"registers": 128, "occupancy_warps": 16}, r"fell from 20 to 16 (registers 96 to 128)"),
        ({"shared_bytes": 14337}, "shared memory rose from 14336 to 14337 bytes"),
        ({"matrix_instruction": "HMMA"}, "HGMMA became HMMA"),
        ({"matrix_instruction": ""}, "HGMMA became no matrix instruction"),
    ],
)
def test_what_got_worse_is_named(change, words):
    (complaint,) = regressions({KEY: GOOD}, {KEY: replace(GOOD, **change)})
    assert complaint.startswith("some kernel on sm_90: ")
    assert words in complaint


def test_what_got_better_or_costs_nothing_is_no_complaint():
    for change in ({"registers": 104}, {"registers": 40, "occupancy_warps": 48, "shared_bytes": 0}):
        assert regressions({KEY: GOOD}, {KEY: replace(GOOD, **change)}) == []
    old = replace(GOOD, matrix_instruction="HMMA")
    assert regressions({KEY: old}, {KEY: GOOD}) == []


def test_a_kernel_without_a_row_and_a_row_without_a_kernel_are_named():
    assert strangers({KEY: GOOD}, [KERNEL], ["sm_90"]) == []
    assert strangers({}, [KERNEL], ["sm_90"]) == ["some kernel on sm_90 has no row."]
    assert strangers({KEY: GOOD}, [], ["sm_90"]) == [
        "some kernel on sm_90 has a row but no kernel."
    ]


def test_a_doctored_table_is_contradicted():
    """The committed table against itself, one figure changed at a time."""
    rows = read_table(TABLE).rows
    assert regressions(rows, rows) == []
    for key, resources in rows.items():
        fewer = replace(resources, occupancy_warps=resources.occupancy_warps + 4)
        assert len(regressions({**rows, key: fewer}, rows)) == 1


@pytest.mark.parametrize(
    ("target", "registers", "shared_bytes", "warps"),
    [
        ("sm_90", 32, 0, 64),
        ("sm_90", 33, 0, 48),
        ("sm_90", 168, 0, 12),
        ("sm_90", 32, 100 * 1024, 8),
        ("sm_80", 32, 100 * 1024, 4),
        ("sm_80", 32, 200 * 1024, 0),
        ("gfx942", 128, 0, 16),
        ("gfx942", 32, 30 * 1024, 8),
    ],
)
def test_occupancy_by_hand(target, registers, shared_bytes, warps):
    assert occupancy(target, registers, shared_bytes, 4) == warps


def test_interpreted_kernels_are_not_compiled(monkeypatch):
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    for call in (shipped_kernels, lambda: compile_for(KERNEL, "sm_90")):
        with pytest.raises(
            BackendUnavailableError, match="TRITON_INTERPRET is set, so kernels are"
        ):
            call()


def test_a_missing_compiler_is_named(monkeypatch):
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    monkeypatch.setattr("vocokernels.static_gpu.util.find_spec", lambda _: None)
    assert what_is_missing().startswith("Triton is not installed; expected triton 3.7 or later.")
    with pytest.raises(BackendUnavailableError, match="Triton is not installed"):
        shipped_kernels()


def test_a_compiler_without_its_tools_is_named(monkeypatch, tmp_path):
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    monkeypatch.setattr("vocokernels.static_gpu._nvidia_tool", lambda name: tmp_path / name)
    monkeypatch.setattr("vocokernels.static_gpu.util.find_spec", lambda _: object())
    assert "lacks ptxas and cuobjdump in" in what_is_missing()
