"""The import table of docs/architecture.md, read from the source: no arrow points the wrong way."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
ROOMS = {
    "vocodata": ROOT / "vocodata",
    "vocokernels": ROOT / "kernels/vocokernels",
    "vocotrain": ROOT / "vocotrain",
    "vococli": ROOT / "cli/vococli",
}
OURS = frozenset(ROOMS)
# What a room may import of ours. vococli may only do so inside function bodies (tested below).
ARROWS = {
    "vocodata": set(),
    "vocokernels": set(),
    "vocotrain": {"vocodata", "vocokernels"},
    "vococli": {"vocodata", "vocotrain"},
}
# Third-party packages that a room must never import.
FORBIDDEN = {
    # The store speaks Zarr's bytes itself; zarr-python is the oracle of its tests. c-blosc2 is
    # called through ctypes: importing the Python package would start threads in each worker.
    "vocodata": {"torch", "monai", "typer", "rich", "zarr", "blosc2"},
    "vocokernels": {"numpy", "nibabel", "pydicom", "SimpleITK", "zarr", "dask", "yaml", "pydantic"},
    "vocotrain": {
        "nibabel",
        "pydicom",
        "SimpleITK",
        "zarr",
        "dask",
        "distributed",
        "typer",
        "rich",
    },
    "vococli": {"zarr", "dask", "distributed", "nibabel", "pydicom", "SimpleITK", "monai"},
}
# Packages with one door each: the files (or folders) that alone may import them.
LONE_DOORS = {
    "numcodecs": {"vocodata/store/"},
    "dask": {"vocodata/workers.py"},
    "distributed": {"vocodata/workers.py"},
    "nibabel": {"vocodata/readers/", "vocodata/write_nifti.py"},
    "pydicom": {"vocodata/readers/"},
    "SimpleITK": {"vocodata/readers/"},
    "s3fs": {"vocodata/remote/s3.py"},
    "vocokernels": {"vocotrain/ops.py", "kernels/vocokernels/"},
}


def _sources(room: str) -> list[Path]:
    return sorted(ROOMS[room].rglob("*.py"))


def _imports(path: Path, *, top_level_only: bool = False) -> Iterator[str]:
    """Top-level package names that a file imports; typing-only imports count too."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    nodes = ast.iter_child_nodes(tree) if top_level_only else ast.walk(tree)
    for node in nodes:
        if isinstance(node, ast.Import):
            yield from (alias.name.split(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module.split(".")[0]


def _relative(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


@pytest.mark.parametrize("room", sorted(ROOMS))
def test_a_room_imports_only_what_the_table_allows(room: str) -> None:
    wrong = [
        f"{_relative(path)} imports {name}"
        for path in _sources(room)
        for name in _imports(path)
        if (name in OURS - {room} - ARROWS[room]) or name in FORBIDDEN[room]
    ]
    assert wrong == []


@pytest.mark.parametrize("package", sorted(LONE_DOORS))
def test_a_package_with_one_door_is_imported_there_only(package: str) -> None:
    doors = tuple(LONE_DOORS[package])
    users = [
        _relative(path)
        for room in ROOMS
        for path in _sources(room)
        if package in set(_imports(path))
    ]
    assert users, f"nobody imports {package}: take its row out of the table"
    assert [user for user in users if not user.startswith(doors)] == []


def test_triton_is_imported_by_kernel_files_only() -> None:
    users = {_relative(p) for p in _sources("vocokernels") if "triton" in set(_imports(p))}
    # the static check compiles for a GPU that is not there; it imports triton inside a function
    checker = "kernels/vocokernels/static_gpu.py"
    assert {user for user in users if not user.endswith("/kernel.py")} <= {checker}
    assert "triton" not in set(_imports(ROOT / checker, top_level_only=True))


def test_the_command_line_imports_our_rooms_inside_functions_only() -> None:
    heavy = (OURS - {"vococli"}) | {"numpy", "torch"}
    wrong = [
        f"{_relative(path)} imports {name} at its top"
        for path in _sources("vococli")
        for name in _imports(path, top_level_only=True)
        if name in heavy
    ]
    assert wrong == []


def test_libraries_do_not_print() -> None:
    wrong = [
        _relative(path)
        for room in ("vocodata", "vocokernels", "vocotrain")
        for path in _sources(room)
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Name)
        and node.func.id == "print"
    ]
    assert wrong == []


def test_importing_the_packages_is_light() -> None:
    code = (
        "import sys, vocodata, vocotrain, vococli;"
        "print(sorted({'torch', 'zarr', 'dask', 'monai', 'numba', 'pyarrow'} & set(sys.modules)))"
    )
    run = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    assert run.stdout.strip() == "[]"


def test_there_is_no_utils_file() -> None:
    assert [p for room in ROOMS for p in _sources(room) if "util" in p.name] == []
